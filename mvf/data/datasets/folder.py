"""Your own videos: a folder with video files or folders of numbered images, and optional labels."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mvf.config import nearest
from mvf.data.index import IndexEntry, collect, dev_part, readable, reason_lines
from mvf.data.labels import (
    Tables,
    existing,
    mask_files,
    parse_phase_names,
    read_boxes,
    read_csv,
    read_masks,
    read_phases,
)
from mvf.data.records import VideoList, VideoRecord
from mvf.data.video import VIDEO_SUFFIXES, ImageFolder, VideoFile, content_mark, image_files, open_source
from mvf.files import data_folder

TABLE = "videos.csv"
COLUMNS = ("path", "split", "action", "phases", "phase_names", "boxes", "masks")
PART_COLUMNS = ("start", "end")  # seconds; a new table has them only when a row is a part of a file
ASSUMED_ACTION = "video"
DAMAGED = ("leave out", "use")
NOT_DATA = frozenset(
    "@eadir @recycle #recycle @tmp #snapshot __macosx $recycle.bin recycler lost+found thumbs thumbnails".split()
) | {"system volume information"}
OTHER_SUFFIXES = frozenset(
    ".ts .gif .vob .asf .rm .rmvb .mxf .m2v .m1v .divx .f4v .dv .mjpeg .mjpg .h264 .hevc .3g2 .mpe .qt .ogm".split()
)
COPIED_TABLE = re.compile(r"(copy of )?videos( ?\(\d+\)| copy| - copy|[-_ ]\d+)?\.csv(\.csv|\.txt)?", re.IGNORECASE)
LAYOUT = """expected layout:
  {root}/
    squat1.mp4, more/squat2.mov, ...   video files, also in subfolders
    squat3/0001.jpg, 0002.jpg, ...     or one folder of numbered images for each video
    videos.csv                         optional, with columns path,split,action,phases,phase_names,boxes,masks,
                                       and start,end (seconds) for rows that are parts of files"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableRow:
    """One row of `videos.csv`; a missing cell or column is empty text."""

    path: str
    split: str = ""
    action: str = ""
    phases: str = ""
    phase_names: str = ""
    boxes: str = ""
    masks: str = ""
    start: str = ""
    end: str = ""
    name: str = ""

    @property
    def span(self) -> tuple[float, float] | None:
        """Start and end in seconds of the part of the file; None for a whole file."""
        return (float(self.start), float(self.end)) if self.start else None


def find_videos(
    split: str = "val",
    root: str | Path | None = None,
    *,
    fps: float = 0.0,
    pattern: str = "",
    damaged: str = "leave out",
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
        damaged: What is done with videos that are damaged or cut off: `leave out`, or `use` as far as they decode.
        sides: The split of videos by name, `train` or `val`, where `videos.csv` names none; a run keeps it so.

    Returns:
        Records named by path without extension. `.action_assumed` is True if no action is given, so that all videos
        are assumed to show the same one.

    Raises:
        ValueError: if the folder or its videos are missing or unreadable, or `videos.csv` or a label is invalid.
    """
    if damaged not in DAMAGED:
        raise ValueError(f'unknown value "{damaged}" of damaged; {nearest(damaged, DAMAGED)}')
    folder = data_folder(root)
    listed, ignored = _rows(folder)
    opener = partial(open_source, fps=fps, pattern=pattern, use_damaged=damaged == "use")
    entry = partial(_entry, folder, opener, {})
    rows = _with_splits(_with_phase_names(_with_names(listed)), entry, sides)
    wanted = [row for row in rows if row.split == ("train" if split == "dev" else split)]
    if split == "dev":
        wanted = dev_part(wanted)
    found = collect([entry(row) for row in wanted])
    if not wanted:
        logger.warning("%s has no %s videos: all %d belong to the other split", folder, split, len(rows))
    found.coverage.ignored.update(ignored)
    for line in reason_lines(ignored) if split == "train" else ():  # once a command
        logger.warning("not used: %s", line)
    found.action_assumed = not any(row.action for row in rows)
    return found


def _rows(folder: Path) -> tuple[list[TableRow], dict[str, str]]:
    """Returns the videos and, by relative path, why other files and folders were left out."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"data_root {folder} {problem}; {LAYOUT.format(root=folder)}")
    ignored = _other_tables(folder)
    if (folder / TABLE).exists():
        rows = _read_table(folder / TABLE)
        ignored |= _unlisted(folder, rows)
    else:
        paths, left_out = discover(folder)
        rows, ignored = [TableRow(path) for path in paths], ignored | left_out
    if not rows:
        reasons = "".join(f"\n  not used: {line}" for line in reason_lines(ignored))
        raise ValueError(f"no videos in {folder}; {LAYOUT.format(root=folder)}{reasons}")
    return rows, ignored


def _unlisted(folder: Path, rows: Sequence[TableRow]) -> dict[str, str]:
    """Why the videos are not used that a table does not list; empty if it lists all."""
    listed = {_file_number(folder / path) for row in rows for path in (row.path, row.masks) if path}
    paths = [path for path in discover(folder)[0] if _file_number(folder / path) not in listed]
    if not paths:
        return {}
    many = f"{len(paths)} video{'s' * (len(paths) > 1)}"
    return {many: f"not listed in {TABLE}, such as {paths[0]}; add a row for each that is to be used"}


def _read_table(path: Path) -> list[TableRow]:
    table = read_csv(path)
    table.check_columns((*COLUMNS, *PART_COLUMNS))
    if "path" not in table.columns:
        raise ValueError(f"{path} has no column path; its columns are {', '.join(table.columns) or 'missing'}")
    rows = [_read_row(f"{path}, line {line}", cells, path.parent) for line, cells in table.rows()]
    for video in dict.fromkeys(row.path for row in rows):
        same = sorted((row for row in rows if row.path == video), key=lambda row: row.span or (0, 0))
        if len(same) > 1 and None in [row.span for row in same]:
            raise ValueError(
                f"{path} lists {video} {len(same)} times; list each video once, or give parts start and end"
            )
        for row, later in zip(same, same[1:]):
            if row.span and later.span and later.span[0] < row.span[1]:
                raise ValueError(f"{path}: the parts {_seconds(row)} and {_seconds(later)} of {video} overlap")
    return rows


def _seconds(row: TableRow) -> str:
    return f"{row.start} to {row.end} s"


def _read_row(where: str, cells: dict[str, str], folder: Path) -> TableRow:
    row = TableRow(**{"path": "", **cells})
    row = replace(row, start=row.start.replace(",", "."), end=row.end.replace(",", "."))
    if not row.path:
        raise ValueError(f"{where}: the path is empty")
    if row.split not in ("", "train", "val"):
        raise ValueError(f'{where}: split must be train or val, got "{row.split}"')
    check_part(where, row.start, row.end)
    return replace(row, path=existing(folder, row.path))


def check_part(where: str, start: str, end: str) -> None:
    """Raises ValueError unless start and end are both empty, or seconds of which the end is later."""
    if not start and not end:
        return
    for column, text in (("start", start), ("end", end)):
        if not re.fullmatch(r"\d{1,7}(\.\d{1,9})?", text):
            raise ValueError(f'{where}: {column} must be seconds like 3.48, got "{text}"; give both or neither')
    if float(end) <= float(start):
        raise ValueError(f"{where}: the part ends at {end} s, which is not after its start at {start} s")


def discover(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Lists the video files and folders of numbered images below `folder`, which is not a video itself.

    Links are followed, but every file is listed once, under a path without links if it has one. Hidden files, the
    folders that file servers make, and run folders are not data.

    Returns:
        The paths relative to `folder`, sorted, and the reason for everything that was left out, by relative path.
    """
    found: list[str] = []
    ignored: dict[str, str] = {}
    suffixes: dict[str, list[str]] = {}
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        ignored[_shown(os.path.relpath(error.filename, folder))] = f"cannot open {error.filename}: {error.strerror}"

    waiting = [folder]
    while waiting:  # linked folders come after all others
        for path, subfolders, files in os.walk(waiting.pop(0), onerror=refuse):
            here = Path(path)
            if reason := _not_data(here, folder, seen):
                subfolders.clear()
                ignored[_shown(here.relative_to(folder).as_posix())] = reason
                continue
            seen.add(os.path.realpath(here))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            waiting += [here / name for name in subfolders if (here / name).is_symlink()]
            found += _videos_in(here, folder, files, suffixes)
    for suffix, names in suffixes.items():
        reason = f"{len(names)} files of a kind that is not searched for, such as {names[0]}"
        ignored[f"*{suffix}"] = f"{reason}; list videos of this kind in {TABLE}"
    return _each_once(folder, found, ignored), ignored


def _videos_in(here: Path, folder: Path, files: Sequence[str], suffixes: dict[str, list[str]]) -> list[str]:
    """Lists the videos in one folder, and adds files of other video formats to `suffixes`."""
    visible = [here / name for name in sorted(files) if not name.startswith(".")]
    videos = [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]
    for path in visible:
        if path.suffix.lower() in OTHER_SUFFIXES:
            suffixes.setdefault(path.suffix.lower(), []).append(_shown(path.relative_to(folder).as_posix()))
    if not videos and here != folder and image_files(here):
        videos = [here]
    return [path.relative_to(folder).as_posix() for path in videos]


def _each_once(folder: Path, paths: Sequence[str], ignored: dict[str, str]) -> list[str]:
    """Drops paths that are not UTF-8 or lead to a file that another path leads to, and gives the reasons."""
    first: dict[object, str] = {}
    for path in sorted(paths, key=lambda path: (os.path.realpath(folder / path) != str(folder.resolve() / path), path)):
        real = _file_number(folder / path)
        if _shown(path) != path:
            ignored[_shown(path)] = "its name is not UTF-8; rename it"
        elif first.setdefault(real, path) != path:
            ignored[path] = f"the same file as {first[real]}"
    return sorted(first.values())


def _file_number(path: Path) -> object:
    """What hard and symbolic links to one file share; the path where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _not_data(here: Path, folder: Path, seen: set[str]) -> str:
    """Returns why the videos in a folder are not data, or empty text."""
    real = os.path.realpath(here)
    if here == folder:
        return ""
    if here.name.lower() in NOT_DATA:
        return "made by a file server or an operating system, not data"
    if all(os.path.exists(here / name) for name in ("config.json", "model.safetensors")):  # False where not allowed
        return "a folder of a training run, not data"
    if real in seen or folder.resolve().is_relative_to(real):
        return f"a link to {real}, which is searched already"
    return ""


def _shown(path: str) -> str:
    """Returns a path as text that can be printed, with `\\xef` for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _other_tables(folder: Path) -> dict[str, str]:
    """Finds tables that are probably meant as `videos.csv`: of other case, or with the suffix or number of a copy."""
    names = sorted(name for name in os.listdir(folder) if name != TABLE and COPIED_TABLE.fullmatch(name))
    return {_shown(name): f"not read; the table must be named {TABLE}" for name in names}


def _with_names(rows: Sequence[TableRow]) -> list[TableRow]:
    """Names videos by path without extension; the extension is kept if two videos would have equal names."""
    names = [row.path.removesuffix(_video_suffix(row.path)) for row in rows]
    paths = {name: {row.path for row, other in zip(rows, names) if other == name} for name in names}
    whole = [name if len(paths[name]) == 1 else row.path for row, name in zip(rows, names)]
    return [replace(row, name=name + part_mark(row.start, row.end)) for row, name in zip(rows, whole)]


def part_mark(start: str, end: str) -> str:
    """What the name of a part of a file adds to the file's, like `@3.48-5.02`; empty for a whole file."""
    return f"@{start}-{end}" if start else ""


def _with_phase_names(rows: Sequence[TableRow]) -> list[TableRow]:
    """Gives all videos of an action its phases' names, which a table may say in some of its rows only."""
    first: dict[str, TableRow] = {}
    for row in rows:
        names = parse_phase_names(row.path, row.phase_names)
        other = first.setdefault(row.action, row) if names else row
        if parse_phase_names(other.path, other.phase_names) != names:
            raise ValueError(
                f'{TABLE} names the phases of action "{row.action or ASSUMED_ACTION}" in two ways: "{row.phase_names}" '
                f'in {row.path}, "{other.phase_names}" in {other.path}; make them equal'
            )
    return [replace(row, phase_names=first.get(row.action, row).phase_names) for row in rows]


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


def _entry(folder: Path, opener: Callable[..., VideoFile | ImageFolder], tables: Tables, row: TableRow) -> IndexEntry:
    return IndexEntry(
        row.name, partial(opener, folder / row.path, span=row.span), partial(_record, folder, tables, row)
    )


def _record(folder: Path, tables: Tables, row: TableRow, source: VideoFile | ImageFolder) -> VideoRecord:
    annotations: dict[str, Callable[[], np.ndarray]] = {}
    files: list[Path] = []
    names = parse_phase_names(row.name, row.phase_names)
    if row.phases:
        phases = read_phases(row.name, row.phases, folder, source, names, tables)
        if names and phases.max() >= len(names):
            raise ValueError(f"{row.name}: phase {phases.max()} has no name; phase_names has only {', '.join(names)}")
        annotations["phases"] = partial(np.copy, phases)
    if row.boxes:
        annotations["actor_box"] = partial(np.copy, read_boxes(row.name, folder / existing(folder, row.boxes), source))
    if row.masks:
        files, size = mask_files(row.name, folder / existing(folder, row.masks), source)
        annotations["actor_mask"] = partial(read_masks, row.name, files, size)
    marks = partial(_marks, source, annotations, files)
    return VideoRecord(row.name, row.action or ASSUMED_ACTION, source, annotations, names, marks=marks)


def _marks(
    source: VideoFile | ImageFolder, annotations: Mapping[str, Callable[[], np.ndarray]], masks: Sequence[Path]
) -> dict[str, str]:
    """Marks of a clip's content, phases, boxes and masks; of large masks only the bytes at both ends are read."""
    marks = {"content": source.content}
    for kind, name in (("phases", "phases"), ("boxes", "actor_box")):
        if name in annotations:
            marks[kind] = hashlib.sha256(annotations[name]().tobytes()).hexdigest()[:16]
    return marks | ({"masks": content_mark(masks)} if masks else {})
