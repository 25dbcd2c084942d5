"""Kinetics-400: ten-second clips of 400 actions without frame labels, for training only."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mvf.data.augment import derive_seed
from mvf.data.index import IndexEntry, collect, dev_part, find_form
from mvf.data.labels import read_csv
from mvf.data.records import Coverage, VideoList, VideoRecord
from mvf.data.video import VIDEO_SUFFIXES, VideoFile
from mvf.files import data_folder

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
SPLITS = ("train", "dev")
FOLDERS = ("kinetics400", "Kinetics400", "kinetics-400", "kinetics_400")
SOURCE = "https://github.com/cvdfoundation/kinetics-dataset (clips and their csv files)"
LAYOUT = """accepted layouts (the folder kinetics400/ may also be given itself): {root}/kinetics400/ with
  train.csv or annotations/train.csv       columns label,youtube_id,time_start,time_end,split; any name with "train"
  train/ID_000010_000020.mp4, ...          its clips, anywhere below
or, without a csv,
  train/riding a bike/ANY_NAME.mp4, ...    a folder for each class"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipFile:
    """One training clip; `path` is empty if no file was found."""

    name: str
    action: str
    path: str


def find_videos(
    split: str = "val",
    root: str | Path | None = None,
    *,
    fps: float = 0.0,
    max_videos: int = 0,
    decode: bool = True,
) -> VideoList:
    """Finds the training clips of Kinetics-400, with their class as action and without phases.

    They serve only for training: `val` is always empty, with a coverage of 0 of 0.

    Args:
        split: `train`, `val` (empty), or `dev`: a fixed fifth of the clips found for `train`.
        root: Its folder, or the parent of its folder; empty for `$MVF_DATA`, else `~/mvf_data`.
        fps: Resamples to this rate; 0 keeps all frames.
        max_videos: Visits the clips in a fixed random order until this many are found; 0 takes all. The coverage then
            counts the visited clips.
        decode: Decodes every clip once beforehand (the result is kept in `$MVF_CACHE`). If False, a clip counts as
            found if its file exists and is not empty, and a damaged clip stops the training.

    Raises:
        ValueError: if neither form is found or a csv file is invalid.
    """
    if max_videos < 0:
        raise ValueError(f"max_videos must be 0 (all) or more, got {max_videos}")
    if split == "val":
        return VideoList([])
    root = data_folder(root)
    clips = _clips(root)
    if max_videos:
        clips.sort(key=lambda clip: derive_seed("kinetics400", clip.name))
    found, unreadable = _usable(clips, max_videos, root)
    if split == "dev":
        found, unreadable = dev_part(found), {}
    entries = [
        IndexEntry(clip.name, partial(VideoFile, clip.path, fps), partial(VideoRecord, clip.name, clip.action))
        for clip in found
    ]
    videos = collect(entries) if decode else VideoList(entry.record(entry.open()) for entry in entries)
    damaged = videos.coverage.unreadable
    return VideoList(videos, Coverage(len(videos), len(found) + len(unreadable), unreadable | damaged))


def _clips(root: Path) -> list[ClipFile]:
    homes = [*(root / name for name in FOLDERS), root]
    places = {
        "csv": [home / below / "*train*.csv" for home in homes for below in ("", "annotations")],
        "class folders": [home / "train" for home in homes],
    }
    form, folder = find_form("auto", places, root, LAYOUT, SOURCE)
    if form == "csv":
        tables = sorted(folder.glob("*train*.csv"))
        home = folder.parent if folder.name == "annotations" else folder
        paths = {path.stem: str(path) for path in _video_files(home)}
        clips = [ClipFile(name, label, paths.get(name, "")) for table in tables for name, label in _read_table(table)]
    else:
        files = [path for path in _video_files(folder / "train") if path.parent.parent == folder / "train"]
        clips = [
            ClipFile(f"{path.parent.name}/{path.stem}", path.parent.name.replace("_", " "), str(path)) for path in files
        ]
    if not clips:
        raise ValueError(f"the {form} in {folder} list no training clip\n{LAYOUT.format(root=root)}")
    return clips


def _video_files(folder: Path) -> Iterator[Path]:
    """Yields all video files below `folder` in a single walk."""
    for place, subfolders, files in os.walk(folder, followlinks=True):
        subfolders.sort()
        yield from (Path(place, name) for name in sorted(files) if Path(name).suffix.lower() in VIDEO_SUFFIXES)


def _read_table(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the name and class of every training clip in the table."""
    table = read_csv(path)
    columns = table.columns
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        first = ",".join(columns) or "nothing"
        raise ValueError(
            f"{path} has no column {', '.join(missing)}: its first line must be {','.join(COLUMNS)}, found {first}"
        )
    for line, row in table.rows():
        where = f"{path}, line {line}"
        if len(row) < len(columns):
            raise ValueError(f"{where}: fewer cells than columns")
        if row["split"] == "train":
            yield _clip_name(row, where), row["label"]


def _clip_name(row: dict[str, str], where: str) -> str:
    try:
        start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
    except (ValueError, OverflowError):
        raise ValueError(
            f'{where}: time_start and time_end must be seconds, got "{row["time_start"]}" and "{row["time_end"]}"'
        ) from None
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"


def _usable(clips: Sequence[ClipFile], wanted: int, root: Path) -> tuple[list[ClipFile], dict[str, str]]:
    """Returns the first `wanted` clips (0: all) whose files exist, and the reason for every clip skipped."""
    found: dict[str, ClipFile] = {}
    unreadable: dict[str, str] = {}
    for clip in clips:
        if wanted and len(found) == wanted:
            break
        if clip.name in found:
            unreadable[clip.name] = "listed more than once; the first is used"
        elif not clip.path:
            unreadable[clip.name] = f"no video file named {clip.name} is in {root}"
        elif not os.path.getsize(clip.path):
            unreadable[clip.name] = f"cannot read {clip.path}: the file is empty (0 bytes)"
        else:
            found[clip.name] = clip
    if unreadable:
        logger.warning("left out %d of %d Kinetics-400 clips", len(unreadable), len(found) + len(unreadable))
    return list(found.values()), unreadable
