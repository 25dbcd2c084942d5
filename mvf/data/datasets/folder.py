"""Your own videos: a folder with video files or folders of numbered images, and optional labels."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from types import MappingProxyType

import numpy as np

from mvf.config import nearest
from mvf.data.index import IndexEntry, collect, dev_part, readable
from mvf.data.labels import mask_files, read_boxes, read_csv, read_masks, read_phases
from mvf.data.records import VideoList, VideoRecord
from mvf.data.video import VIDEO_SUFFIXES, ImageFolder, VideoFile, content_mark, image_files, open_source
from mvf.files import data_folder

TABLE = "videos.csv"
COLUMNS = ("path", "split", "action", "phases", "boxes", "masks")
ASSUMED_ACTION = "video"
LAYOUT = """expected layout:
  {root}/
    squat1.mp4, more/squat2.mov, ...   video files, also in subfolders
    squat3/0001.jpg, 0002.jpg, ...     or one folder of numbered images for each video
    videos.csv                         optional, with columns path,split,action,phases,boxes,masks"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableRow:
    """One row of `videos.csv`; a missing cell or column is empty text."""

    path: str
    split: str = ""
    action: str = ""
    phases: str = ""
    boxes: str = ""
    masks: str = ""
    name: str = ""


def find_videos(
    split: str = "val",
    root: str | Path | None = None,
    *,
    fps: float = 0.0,
    pattern: str = "",
    sides: Mapping[str, str] = MappingProxyType({}),
) -> VideoList:
    """Finds the videos of a folder, with the labels of its `videos.csv`.

    Without a column `split` every fifth readable video by name is in val (of two to four videos the last); `dev` is a
    fixed fifth of the train videos, which `train` includes. Videos that cannot be read are left out and listed in
    `.coverage`; labels that do not fit their video are an error.

    Args:
        split: `train`, `dev` or `val`.
        root: The folder; empty for `$MVF_DATA`, else `~/mvf_data`.
        fps: Resamples videos and their labels to this rate; 0 keeps all frames.
        pattern: Selects the frames in folders of images by name, like `rgb_*.png`; empty for all.
        sides: The split of videos by name, `train` or `val`, where `videos.csv` names none; a run keeps it so.

    Returns:
        Records named by path without extension. `.action_assumed` is True if no action is given, so that all videos
        are assumed to show the same one.

    Raises:
        ValueError: if the folder or its videos are missing or unreadable, or `videos.csv` or a label is invalid.
    """
    folder = data_folder(root)
    rows = _with_splits(_with_names(_rows(folder)), partial(_entry, folder, fps, pattern), sides)
    wanted = [row for row in rows if row.split == ("train" if split == "dev" else split)]
    if split == "dev":
        wanted = dev_part(wanted)
    found = collect([_entry(folder, fps, pattern, row) for row in wanted])
    if not wanted:
        logger.warning("%s has no %s videos: all %d belong to the other split", folder, split, len(rows))
    found.action_assumed = not any(row.action for row in rows)
    return found


def _rows(folder: Path) -> list[TableRow]:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"data_root {folder} {problem}; {LAYOUT.format(root=folder)}")
    if (folder / TABLE).exists():
        rows = _read_table(folder / TABLE)
    else:
        rows = [TableRow(path) for path in _discover(folder)]
    if not rows:
        raise ValueError(f"no videos in {folder}; {LAYOUT.format(root=folder)}")
    return rows


def _read_table(path: Path) -> list[TableRow]:
    columns, lines = read_csv(path)
    for name in columns:
        if name not in COLUMNS:
            raise ValueError(f'{path} has an unknown column "{name}"; {nearest(name, COLUMNS)}')
    if "path" not in columns:
        raise ValueError(f"{path} has no column path; its columns are {', '.join(columns) or 'missing'}")
    rows = [_read_row(f"{path}, line {line}", cells) for line, cells in lines]
    for video, times in Counter(row.path for row in rows).items():
        if times > 1:
            raise ValueError(f"{path} lists {video} {times} times; list each video once")
    return rows


def _read_row(where: str, cells: dict[str, str]) -> TableRow:
    row = TableRow(**{"path": "", **cells})
    if not row.path:
        raise ValueError(f"{where}: the path is empty")
    if row.split not in ("", "train", "val"):
        raise ValueError(f'{where}: split must be train or val, got "{row.split}"')
    return replace(row, path=PurePath(row.path).as_posix())


def _discover(folder: Path) -> list[str]:
    """Lists all video files and folders of numbered images below `folder`, which is not a video itself."""
    found = []
    for path, subfolders, files in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(path)
        videos = [here / name for name in files if Path(name).suffix.lower() in VIDEO_SUFFIXES and name[0] != "."]
        found += videos
        if not videos and here != folder and image_files(here):
            found.append(here)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _with_names(rows: Sequence[TableRow]) -> list[TableRow]:
    """Names videos by path without extension; the extension is kept if two videos would have equal names."""
    names = [row.path.removesuffix(_video_suffix(row.path)) for row in rows]
    times = Counter(names)
    return [replace(row, name=name if times[name] == 1 else row.path) for row, name in zip(rows, names)]


def _video_suffix(path: str) -> str:
    suffix = Path(path).suffix  # names of image folders may contain dots
    return suffix if suffix.lower() in VIDEO_SUFFIXES else ""


def _with_splits(
    rows: Sequence[TableRow], entry: Callable[[TableRow], IndexEntry], sides: Mapping[str, str]
) -> list[TableRow]:
    """Assigns every fifth readable row without a split, by name, to val; of two to four rows the last."""
    names = sorted(readable([entry(row) for row in rows if not row.split]))
    given = dict.fromkeys(names[4::5] or names[1:][-1:], "val") | dict(sides)
    return [row if row.split else replace(row, split=given.get(row.name, "train")) for row in rows]


def _entry(folder: Path, fps: float, pattern: str, row: TableRow) -> IndexEntry:
    return IndexEntry(row.name, partial(open_source, folder / row.path, fps, pattern), partial(_record, folder, row))


def _record(folder: Path, row: TableRow, source: VideoFile | ImageFolder) -> VideoRecord:
    annotations: dict[str, Callable[[], np.ndarray]] = {}
    files: list[Path] = []
    if row.phases:
        phases = read_phases(row.name, row.phases, folder, source)
        annotations["phases"] = partial(np.copy, phases)
    if row.boxes:
        annotations["actor_box"] = partial(np.copy, read_boxes(row.name, folder / row.boxes, source))
    if row.masks:
        files, size = mask_files(row.name, folder / row.masks, source)
        annotations["actor_mask"] = partial(read_masks, row.name, files, size)
    marks = partial(_marks, source, annotations, files)
    return VideoRecord(row.name, row.action or ASSUMED_ACTION, source, annotations, marks=marks)


def _marks(
    source: VideoFile | ImageFolder, annotations: Mapping[str, Callable[[], np.ndarray]], masks: Sequence[Path]
) -> dict[str, str]:
    """Marks of a clip's content, phases, boxes and masks; of large masks only the bytes at both ends are read."""
    marks = {"content": source.content}
    for kind, name in (("phases", "phases"), ("boxes", "actor_box")):
        if name in annotations:
            marks[kind] = hashlib.sha256(annotations[name]().tobytes()).hexdigest()[:16]
    return marks | ({"masks": content_mark(masks)} if masks else {})
