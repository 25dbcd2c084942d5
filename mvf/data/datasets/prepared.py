"""The prepared form of several data sets: a pickled list of videos and a folder with their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mvf.data.formats import read_pickle
from mvf.data.index import IndexEntry
from mvf.data.labels import labelled_record
from mvf.data.records import FrameSource
from mvf.data.video import VideoError, open_source

# returns an entry's action and the names of all its phases (empty: any number of classes), or None if the data set
# excludes the entry; raises VideoError if it must be left out
Describe = Callable[[Mapping[str, Any]], tuple[str, tuple[str, ...]] | None]


def read_index(index: Path, describe: Describe) -> list[IndexEntry]:
    """Reads the videos that a prepared index lists, in its order.

    An entry is a dict with `name`, `video_file` and, optionally, `frame_label` (one integer per frame, -1 = unlabelled;
    an array, a tensor or a list). Stored paths are often from another machine, so a video is also searched by its file
    name in `videos/` and beside the index.

    Args:
        index: The pickle: a list of entries, or a tuple whose first item is that list. If it does not exist, the result
            is one entry that is left out for this reason.
        describe: Returns the action and the phase names of an entry.

    Raises:
        ValueError: if the file is damaged, would run code, or is not such a list; the message names it.
    """
    if not index.exists():
        return [IndexEntry.left_out(index.name, f"{index} does not exist")]
    contents = read_pickle(index)
    entries = contents[0] if isinstance(contents, tuple) and contents else contents
    if not isinstance(entries, list):
        raise ValueError(f"{index} must hold a list of videos, found {type(entries).__name__}")
    videos = [_entry(index, number, entry, describe) for number, entry in enumerate(entries)]
    return [video for video in videos if video is not None]


def _entry(index: Path, number: int, entry: Any, describe: Describe) -> IndexEntry | None:
    missing = [key for key in ("name", "video_file") if not isinstance(entry, Mapping) or key not in entry]
    if missing:
        return IndexEntry.left_out(f"entry {number}", f"entry {number} of {index} has no {' and no '.join(missing)}")
    name = str(entry["name"])
    try:
        described = describe(entry)
    except VideoError as error:
        return IndexEntry.left_out(name, str(error))
    if described is None:
        return None
    record = partial(labelled_record, name, *described, entry.get("frame_label"))
    return IndexEntry(name, partial(_open, index.parent, str(entry["video_file"])), record)


def _open(folder: Path, stored: str) -> FrameSource:
    stored = stored.replace("\\", "/")
    file_name = PurePosixPath(stored).name
    candidates = [folder / stored, folder.parent / stored, folder / "videos" / file_name, folder / file_name]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise VideoError(f"the video {file_name} is absent: it is neither {candidates[0]} nor in {folder / 'videos'}")
    return open_source(found)
