"""Reads the labels of videos and checks them against the frames.

Labels of your own videos are given for every frame of the file and are resampled with the video. A label that does
not fit is an error, because you can correct it; a damaged video is left out. If published labels and frames differ in
number, the longer of the two is resampled; a video whose published labels are damaged is left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from mvf.config import nearest
from mvf.data.records import FrameSource, VideoRecord, frame_slice, pick_frames
from mvf.data.video import JPEG_SUFFIXES, ImageFolder, VideoError, VideoFile, image_files, read_image
from mvf.files import read_npy

logger = logging.getLogger(__name__)

Source = VideoFile | ImageFolder
TABLES = (".csv", ".npy")
ELAN = re.compile(r"\.eaf(#.*)?$", re.IGNORECASE)
ROUNDING = 0.0005  # seconds: ELAN stores milliseconds
SEGMENT_COLUMNS = (
    "video", "start_frame", "end_frame", "start", "end", "phase", "name", "confidence", "by", "model"
)  # fmt: skip
JPEG_NOISE = 32  # of 255: compression leaves less than that where nothing is marked
LARGEST = 2**31  # phase and class numbers are smaller


def read_phases(
    name: str, text: str, folder: Path, source: Source, phase_names: Sequence[str] = (), tables: Tables | None = None
) -> np.ndarray:
    """Reads the (count,) phase of every frame, -1 where unlabelled; see `source_phases`."""
    return source_phases(name, text, folder, source, phase_names, tables)[source.source_index]


def source_phases(
    name: str, text: str, folder: Path, source: Source, phase_names: Sequence[str] = (), tables: Tables | None = None
) -> np.ndarray:
    """Reads the (num_source_frames,) phase of every frame of the file, -1 where unlabelled.

    Args:
        name: The video, for error messages and in a table of segments.
        text: First frame of every phase, like `0;34;58`, or the path of a .csv or .npy with one number per frame, of a
            table of segments (.csv), or of an ELAN file like `squat.eaf`, whose tier may follow: `squat.eaf#phases`.
        folder: Folder that the path is relative to.
        source: Source of the frames of the video.
        phase_names: Names of the phases 0, 1, ..., by which ELAN files and segments without numbers are read.
        tables: The tables of segments that were read for other videos, to which new ones are added.

    Raises:
        ValueError: if the phases are invalid; the message names the video.
    """
    length = source.num_source_frames
    file, _, tier = text.partition("#") if ELAN.search(text) else (text, "", "")
    path = folder / existing(folder, file)
    if ELAN.search(text):
        return _phases_of_elan(name, path, tier, source, phase_names)
    if not text.lower().endswith(TABLES):
        return phases_from_starts(name, parse_starts(name, text), length)
    phases = read_phase_file(name, path, phase_names, tables)
    if isinstance(phases, SegmentTable):
        return phases.phases_of(name, length)
    if len(phases) != length:
        raise ValueError(f"{name}: phases have shape {phases.shape}, but the video has {length} frames")
    return phases


def parse_starts(name: str, text: str) -> list[int]:
    """Parses the first frame of every phase, in increasing order, from text like `0;34;58`.

    Raises:
        ValueError: if the text is anything else; the message names the video.
    """
    try:
        starts = [int(part) for part in text.strip("; ").split(";")]
    except ValueError:
        raise ValueError(
            f'{name}: phases "{text}" are neither first frames like 0;34;58 nor the path of a .csv or .npy'
        ) from None
    if starts[-1] >= LARGEST:
        raise ValueError(f"{name}: a phase starts at frame {starts[-1]}; no video is that long")
    if starts[0] < 0:
        raise ValueError(f"{name}: a phase starts at frame {starts[0]}; first frames of phases must be 0 or more")
    if any(start <= before for before, start in zip(starts, starts[1:])):
        raise ValueError(f"{name}: phases start at {starts}; every start must be later than the one before")
    return starts


def phases_from_starts(name: str, starts: Sequence[int], num_frames: int) -> np.ndarray:
    """Returns (num_frames,) phases from the first frame of each phase; frames before the first are unlabelled.

    Example:
        >>> phases_from_starts("squat", [1, 3], 5).tolist()
        [-1, 0, 0, 1, 1]
    """
    for start in starts:
        if start >= num_frames:
            raise ValueError(f"{name}: a phase starts at frame {start}, but the video has only {num_frames} frames")
    return np.searchsorted(np.asarray(starts), np.arange(num_frames), side="right") - 1


def parse_phase_names(name: str, text: str) -> tuple[str, ...]:
    """Parses the names of phases 0, 1, ... from text like `down;up`; empty text gives none.

    Args:
        name: The video, for messages.
        text: Names separated by semicolons.

    Raises:
        ValueError: if a name is empty or occurs twice; the message names the video.

    Example:
        >>> parse_phase_names("squat", "down, slowly; up")
        ('down, slowly', 'up')
    """
    names = [part.strip() for part in text.split(";")] if text.strip() else []
    try:
        return check_phase_names(names)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_phase_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names of phases as a table can keep them, without spaces around.

    Raises:
        ValueError: if one is empty, occurs twice, or has a semicolon or a line break.
    """
    names = tuple(name.strip() for name in names)
    for i, name in enumerate(names):
        if not name:
            raise ValueError(f"phase {i} has no name; give every phase a name")
        if names.index(name) < i:
            raise ValueError(f'phases {names.index(name)} and {i} are both named "{name}"; give them different names')
        if wrong := set(name) & set(";\n\r\0"):
            raise ValueError(
                f"the name {name!r} has a {min(wrong)!r}, which separates names in the table; leave it out"
            )
    return names


def fit_length(values: np.ndarray, length: int) -> np.ndarray:
    """Resamples L1 values to (length, ...): new value j is old value floor(j * L1 / length).

    Example:
        >>> fit_length(np.array([0, 0, 1, 1, 2, 2]), 3).tolist(), fit_length(np.array([0, 1]), 5).tolist()
        ([0, 1, 2], [0, 0, 0, 1, 1])
    """
    return values[np.arange(length) * len(values) // length]


def check_phases(name: str, values: Any, num_phases: int = 0) -> np.ndarray:
    """Checks the phases of a data set and returns them as (n,) integers, n at least 2.

    Args:
        name: The video, for messages.
        values: One integer per frame, -1 where unlabelled: an array, a tensor or a list.
        num_phases: Number of phases of the action; 0 for any number.

    Raises:
        VideoError: if the values are not phases; the message names the video and the value.
    """
    try:
        values = np.asarray(values)
        if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf":
            found = f"{values.dtype} {values.shape}"
            raise ValueError(f"{name}: its labels are {found}, expected one integer per frame, at least 2")
        phases = _whole_phases(name, values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors of dtypes that numpy lacks
        reason = str(error) if str(error).startswith(f"{name}: ") else f"{name}: its labels are not numbers: {error}"
        raise VideoError(reason) from None
    if num_phases and phases.max() >= num_phases:
        raise VideoError(f"{name}: phase {phases.max()}, but its action has only the phases 0 to {num_phases - 1}")
    return phases


def read_boxes(name: str, path: Path, source: Source) -> np.ndarray:
    """Reads (count, 4) boxes x0 y0 x1 y1, in pixels of the upright frame, from a .csv or .npy with a row per frame."""
    boxes = read_table(name, path)
    wanted = (source.num_source_frames, 4)
    if boxes.shape != wanted:
        raise ValueError(f"{name}: boxes in {path} have shape {boxes.shape}, expected {wanted}: x0 y0 x1 y1 per frame")
    wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(wrong):
        raise ValueError(f"{name}: box {boxes[wrong[0]].tolist()} of frame {wrong[0]} in {path} is not x0 y0 x1 y1")
    return boxes[source.source_index]


def mask_files(name: str, folder: Path, source: Source) -> tuple[list[Path], tuple[int, int]]:
    """Finds the mask images, one per frame, and their (H, W); checks their number and the first image."""
    files = image_files(folder) if os.path.isdir(folder) else []  # also False for a name that the file system refuses
    if len(files) != source.num_source_frames:
        raise ValueError(
            f"{name}: {len(files)} numbered masks in {folder}, expected a folder of {source.num_source_frames} images"
        )
    height, width, _ = next(source.frames()).shape
    _read_masks(name, files[:1], (height, width))
    return [files[index] for index in source.source_index], (height, width)


def read_masks(name: str, files: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Reads (T, H, W) masks, True where an image is marked; every image must have the (H, W) `size`.

    Marked is what is not black in any channel or has a palette index above 0, and is not transparent. In a JPEG it is
    what has at least half of its largest value, because compression leaves noise around edges.
    """
    masks = _read_masks(name, files, size)
    empty = int((~masks.any(axis=(1, 2))).sum())
    if empty:
        logger.warning("%s: nothing is marked in %d of %d masks", name, empty, len(masks))
    return masks


def _read_masks(name: str, files: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    try:
        masks = [_marked(path) for path in files]
    except VideoError as error:
        raise ValueError(f"{name}: {error}") from None  # the label is at fault, not the video
    for path, mask in zip(files, masks):
        if mask.shape != size:
            raise ValueError(f"{name}: mask {path} has (height, width) {mask.shape}, its video {size}")
    return np.stack(masks)


def _marked(path: Path) -> np.ndarray:
    values = read_image(path, cv2.IMREAD_UNCHANGED)
    if path.suffix.lower() == ".png" and (indices := _palette_indices(path)) is not None:
        return indices > 0
    if values.ndim == 3 and values.shape[2] == 4:
        colours, alpha = values[..., :3].max(axis=2) > 0, values[..., 3] > 0
        seen = colours[alpha]
        return alpha if not alpha.all() and (seen.all() or not seen.any()) else colours & alpha
    values = values if values.ndim == 2 else values.max(axis=2)
    lossy = path.suffix.lower() in JPEG_SUFFIXES
    return values >= max(JPEG_NOISE, values.max() / 2) if lossy else values > 0


def _palette_indices(path: Path) -> np.ndarray | None:
    """The (H, W) indices of a PNG with a palette that starts with black, whose colours OpenCV reads; else None."""
    with Image.open(path) as image:
        palette = image.getpalette() if image.mode == "P" else None
        return np.asarray(image) if palette and not any(palette[:3]) else None


def read_table(name: str, path: Path, split: SplitText | None = None) -> np.ndarray:
    """Reads (rows,) or (rows, columns) numbers from a .npy, or a .csv whose first line may be a header.

    Args:
        name: The video, for messages.
        path: The file.
        split: What `split_csv` returned of a .csv that was read already.
    """
    try:
        if path.suffix.lower() == ".npy":
            return read_npy(path).astype(np.float64)
        return _numbers(split or split_csv(path))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: cannot read numbers from {path}: {error}") from None


def _numbers(split: SplitText) -> np.ndarray:
    """Reads (rows, columns) numbers, with decimal commas where columns are separated by semicolons or tabs."""
    lines, separator, _ = split
    lines = [(line, cells) for line, cells in lines if any(map(str.strip, cells))]
    rows: list[list[float | None]] = []
    for line, cells in lines:
        while not cells[-1].strip():
            cells = cells[:-1]
        values = [_number(cell if separator == "," else cell.replace(",", ".")) for cell in cells]
        if line == lines[0][0] and not any(value is not None for value in values):
            continue  # the header
        if None in values:
            raise ValueError(f'"{cells[values.index(None)]}" in line {line} is not a number')
        if rows and len(values) != len(rows[0]):
            raise ValueError(f"line {line} has {len(values)} numbers, the lines before it {len(rows[0])}")
        rows.append(values)
    return np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def read_phase_file(
    name: str, path: Path, phase_names: Sequence[str] = (), tables: Tables | None = None
) -> np.ndarray | SegmentTable:
    """Reads a .csv or .npy with one number per frame, or a .csv that is a table of segments.

    Args:
        name: The video, for messages.
        path: The file.
        phase_names: Names of the phases, for rows of segments without a number.
        tables: The tables of segments that were read for other videos, to which a new one is added.

    Returns:
        The (n,) phase of every frame, -1 where unlabelled; or the table.

    Raises:
        ValueError: if the file holds anything else; the message names the video, or the line of a table.
    """
    tables, key = {} if tables is None else tables, (path, tuple(phase_names))
    if key in tables:
        return tables[key]
    split = split_csv(path) if path.suffix.lower() == ".csv" and path.is_file() else None
    first = next((cells for _, cells in split[0] if any(map(str.strip, cells))), []) if split else []
    if split and set(SEGMENT_COLUMNS[:3]) <= {cell.strip().lower() for cell in first}:
        tables[key] = SegmentTable(path, _segment_rows(_titled(path, split), phase_names))
        return tables[key]
    values = read_table(name, path, split)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: phases in {path} have shape {values.shape}, expected one number per frame")
    return _whole_phases(name, values)


def _whole_phases(name: str, values: np.ndarray) -> np.ndarray:
    """Converts numbers to integers; raises ValueError if one is neither a phase nor -1."""
    wrong = np.flatnonzero((values != np.round(values)) | (values < -1) | (values >= LARGEST))
    if len(wrong):
        raise ValueError(
            f"{name}: phase {values[wrong[0]]:g} at frame {wrong[0]}; phases must be integers: 0, 1, ..., or -1"
        )
    return values.astype(np.int64)


# ----------------------------------------------------------------------------------------------------------------------
# Tables that people write, in the forms in which spreadsheets save them.

SEPARATORS = ",;\t"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Lines = list[tuple[int, list[str]]]  # number of each line and its cells
SplitText = tuple[Lines, str, str]  # the lines of a text table, its separator and its encoding


@dataclass(frozen=True)
class TextTable:
    """A CSV table with a header.

    Attributes:
        path: The file.
        titles: Names in the header as they are; `columns` has them in lower case without spaces around.
        lines: Number and cells of every line below the header as they are, blank lines included.
        separator: The comma, semicolon or tab between cells.
        encoding: Python's name of the file's encoding.
    """

    path: Path
    titles: list[str]
    lines: Lines
    separator: str
    encoding: str

    @property
    def columns(self) -> list[str]:
        return [title.strip().lower() for title in self.titles]

    def check_columns(self, known: Sequence[str]) -> None:
        """Raises ValueError if a column is not known."""
        for title, column in zip(self.titles, self.columns):
            if column and column not in known:
                raise ValueError(f'{self.path} has an unknown column "{title.strip()}"; {nearest(column, known)}')

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields line number and cells by column of every line that is not blank; a short line lacks the last cells.

        Raises:
            ValueError: if a line has a cell that belongs to no column.
        """
        columns = self.columns
        for line, cells in self.lines:
            cells = [cell.strip() for cell in cells]
            if any(cells[len(columns) :]):
                sign = {",": "commas", ";": "semicolons", "\t": "tabs"}[self.separator]
                raise ValueError(f"{self.path}, line {line}: more cells than columns; quote text that holds {sign}")
            for name, cell in zip(columns, cells):
                if cell and not name:
                    raise ValueError(f'{self.path}, line {line}: "{cell}" is in a column without a name')
            if any(cells):
                yield line, {name: cell for name, cell in zip(columns, cells) if name}


def read_csv(path: Path) -> TextTable:
    """Reads a table with a header, in UTF-8 or UTF-16, separated by commas, semicolons or tabs.

    Raises:
        ValueError: if it is in another encoding, a quotation mark is open, or a column occurs twice; the message names
            the file.
    """
    return _titled(path, split_csv(path))


def _titled(path: Path, split: SplitText) -> TextTable:
    """Takes the first line that is not blank as the titles."""
    lines, separator, encoding = split
    lines = lines[next((i for i, (_, cells) in enumerate(lines) if any(map(str.strip, cells))), len(lines)) :]
    table = TextTable(path, lines[0][1] if lines else [], lines[1:], separator, encoding)
    columns = table.columns
    for title, column in zip(table.titles, columns):
        if column and columns.count(column) > 1:
            raise ValueError(f"{path} has the column {title.strip()} {columns.count(column)} times; keep one")
    return table


def split_csv(path: Path) -> SplitText:
    """Splits a text table into lines and cells; the first line that is not blank tells the separator.

    Returns:
        The lines, the separator and the encoding.

    Raises:
        ValueError: for another encoding than UTF-8 or UTF-16, and for an open quotation mark.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith(UTF_16) else "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    try:
        text = data.decode(encoding)
        if "\0" in text:
            raise ValueError(f"{path} is not a UTF-8 table (it holds zero bytes): save it as CSV, UTF-8")
        first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
        separator = max(SEPARATORS, key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        return [(reader.line_num, cells) for cells in reader], separator, encoding
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start : error.start + 1].hex()} at {error.start}"
        raise ValueError(f"{path} is not a UTF-8 table ({found}): save it as CSV, UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a UTF-8 table ({error}): save it as CSV, UTF-8") from None


def existing(folder: Path, path: str) -> str:
    """Returns a relative path as the file system has it, if a table writes it in another way.

    Letters with accents may be one character or two, and Windows writes backslashes; the path itself is returned if
    nothing is found.
    """
    if os.path.exists(folder / path):
        return PurePath(path).as_posix()
    found = PurePath()
    for part in PurePath(path.replace("\\", "/")).parts:
        here = os.listdir(folder / found) if os.path.isdir(folder / found) else []
        same = [name for name in here if composed(name) == composed(part)]
        if part not in here and len(same) != 1:
            return PurePath(path).as_posix()
        found /= part if part in here else same[0]
    return found.as_posix()


def composed(name: str) -> str:
    """Returns a name with every accented letter as one character, to compare names."""
    return unicodedata.normalize("NFC", name)


# ----------------------------------------------------------------------------------------------------------------------
# Segments: a table with a row for each (`mvf.segments` writes it), and the annotations of ELAN.


@dataclass(frozen=True)
class SegmentRow:
    """A row of a table of segments; `cells` has those that are not named here too, by column."""

    line: int
    video: str
    start_frame: int
    end_frame: int
    phase: int
    cells: dict[str, str]


class SegmentTable:
    """A table of segments by video, whose names are compared with every accented letter as one character.

    Args:
        path: The file.
        rows: Its rows.
    """

    def __init__(self, path: Path, rows: Sequence[SegmentRow]) -> None:
        self.path = path
        self.by_video: dict[str, list[SegmentRow]] = {}
        for row in rows:
            self.by_video.setdefault(composed(row.video), []).append(row)

    def rows_of(self, name: str) -> list[SegmentRow]:
        """The rows of one video; empty if there are none."""
        return self.by_video.get(composed(name), [])

    def phases_of(self, name: str, length: int) -> np.ndarray:
        """Returns the (length,) phases of one video, -1 between its segments.

        Raises:
            ValueError: if it has no segment, or one that ends after its last frame.
        """
        phases = np.full(length, -1)
        for row in self.rows_of(name):
            if row.end_frame > length:
                raise ValueError(
                    f"{self.path}, line {row.line}: a segment ends at frame {row.end_frame}, {name} has only {length}"
                )
            phases[row.start_frame : row.end_frame] = row.phase
        if not (phases >= 0).any():
            listed = sorted(self.by_video)
            raise ValueError(
                f"{self.path} has no segment of {name}; {nearest(name, listed) if listed else 'it has no row'}"
            )
        return phases


Tables = dict[tuple[Path, tuple[str, ...]], SegmentTable]  # read so far, by file and names of phases


def read_segment_rows(path: Path, phase_names: Sequence[str] = ()) -> list[SegmentRow]:
    """Reads a table of segments, which must not overlap within a video.

    Args:
        path: A .csv with at least the columns video, start_frame, end_frame, and phase or name.
        phase_names: Names of the phases, for rows without a number.

    Raises:
        ValueError: if the table or a row is invalid; the message names the line.
    """
    return _segment_rows(read_csv(path), phase_names)


def _segment_rows(table: TextTable, phase_names: Sequence[str]) -> list[SegmentRow]:
    path = table.path
    table.check_columns(SEGMENT_COLUMNS)
    if missing := [column for column in SEGMENT_COLUMNS[:3] if column not in table.columns]:
        raise ValueError(f"{path} has no column {missing[0]}; its columns are {', '.join(table.columns) or 'missing'}")
    rows = [_segment_row(f"{path}, line {line}", line, cells, phase_names) for line, cells in table.rows()]
    last: dict[str, SegmentRow] = {}
    for row in sorted(rows, key=lambda row: (row.video, row.start_frame)):
        before = last.get(row.video)
        if before and row.start_frame < before.end_frame:
            raise ValueError(
                f"{path}, line {row.line}: frames {row.start_frame} to {row.end_frame} of {row.video} overlap those of "
                f"line {before.line}, {before.start_frame} to {before.end_frame}"
            )
        last[row.video] = row
    return rows


def _segment_row(where: str, line: int, cells: dict[str, str], phase_names: Sequence[str]) -> SegmentRow:
    if not cells.get("video"):
        raise ValueError(f"{where}: the video is empty")
    numbers = {}
    for column in ("start_frame", "end_frame"):
        if not re.fullmatch(r"\d{1,9}", cells.get(column, "")):
            raise ValueError(f'{where}: {column} must be the number of a frame, got "{cells.get(column, "")}"')
        numbers[column] = int(cells[column])
    if numbers["end_frame"] <= numbers["start_frame"]:
        raise ValueError(
            f"{where}: end_frame is the first frame after the segment, so it must exceed start_frame, "
            f"got {numbers['start_frame']} to {numbers['end_frame']}"
        )
    text = cells.get("phase", "")
    if text and not re.fullmatch(r"\d{1,9}", text):
        raise ValueError(f'{where}: phase must be 0, 1, 2, ..., got "{text}"')
    phase = int(text) if text else phase_of(where, cells.get("name", ""), phase_names)
    return SegmentRow(line, cells["video"], numbers["start_frame"], numbers["end_frame"], phase, cells)


def phase_of(where: str, name: str, phase_names: Sequence[str]) -> int:
    """Returns the number of a named phase; ValueError says how to name the phases, or the nearest name."""
    known = [composed(one) for one in phase_names]
    if not known:
        raise ValueError(
            f'{where}: which phase is "{name}"? Name the phases in order in the column phase_names of videos.csv'
        )
    if composed(name.strip()) not in known:
        raise ValueError(f'{where}: unknown phase "{name}"; {nearest(name, phase_names)}')
    return known.index(composed(name.strip()))


def read_elan(path: Path, tier: str = "") -> list[tuple[float, float, str]]:
    """Reads the annotations of one tier of an ELAN file: begin and end in seconds, and text.

    Args:
        path: The .eaf file.
        tier: Name of the tier; empty for the only one that has annotations.

    Raises:
        ValueError: if the file is not one of ELAN's, if several tiers have annotations and none is named, or if two
            annotations overlap; the message names the file, and the line of an error in its XML.
    """
    from pympi import Eaf

    try:
        ElementTree.parse(path)  # pympi does not say where an error is
        file = Eaf(str(path), suppress_version_warning=True)
        found = {name: list(file.get_annotation_data_for_tier(name)) for name in file.get_tier_names()}
    except ElementTree.ParseError as error:
        line, _ = error.position
        raise ValueError(f"{path}, line {line}: not an ELAN file (.eaf): {error}") from None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an ELAN file (.eaf): {type(error).__name__} {error}") from None
    filled = {name: [one for one in rows if len(one) == 3 and None not in one[:2]] for name, rows in found.items()}
    filled = {name: rows for name, rows in filled.items() if rows}
    if not filled:
        raise ValueError(f"{path} has no annotation with times; its tiers are {', '.join(found) or 'missing'}")
    if tier and tier not in filled:
        raise ValueError(f'{path} has no annotations in the tier "{tier}"; {nearest(tier, filled)}')
    if not tier and len(filled) > 1:
        raise ValueError(
            f"{path} has annotations in the tiers {', '.join(filled)}: name one, like {path.name}#{next(iter(filled))}"
        )
    spans = sorted((begin / 1000, end / 1000, text) for begin, end, text in filled[tier or next(iter(filled))])
    for (begin, end, text), (later, stop, other) in zip(spans, spans[1:]):
        if later < end:
            raise ValueError(
                f'{path}: "{text}" ({begin:.3f} to {end:.3f} s) and "{other}" ({later:.3f} to {stop:.3f} s) overlap'
            )
    return spans


def _phases_of_elan(name: str, path: Path, tier: str, source: Source, phase_names: Sequence[str]) -> np.ndarray:
    """(num_source_frames,) phases of the frames that ELAN's annotations cover, by the file's own times."""
    times = getattr(source, "times", None)
    if times is None or not np.isfinite(times).all():
        raise ValueError(f"{name}: {path.name} gives seconds, but the video has no time stamps; label it in frames")
    times = times + getattr(source, "start", 0.0)  # of a part of a file
    spans = read_elan(path, tier)
    if not phase_names:
        texts = ";".join(dict.fromkeys(text for _, _, text in spans))
        raise ValueError(f"{name}: {path.name} names phases; give their order in the column phase_names, like {texts}")
    phases = np.full(len(times), -1)
    for begin, end, text in spans:
        inside = (times >= begin - ROUNDING) & (times < end - ROUNDING)
        phases[inside] = phase_of(f"{name}: {path.name}", text, phase_names)
    if not (phases >= 0).any():
        raise ValueError(f"{name}: no annotation of {path.name} falls on a frame; the video ends at {times[-1]:.3f} s")
    return phases


# ----------------------------------------------------------------------------------------------------------------------
# Published labels, whose number may differ from the number of frames.


class ThinnedSource:
    """A video with some frames dropped: frame j is the source's frame floor(j * n / count).

    Args:
        source: The video with n frames.
        count: Number of frames to keep, at most n.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        self.source = source
        self.source_index = fit_length(np.arange(source.count()), count)

    @property
    def identity(self) -> str:
        return f"{self.source.identity}|{self.count()} frames of it"

    @property
    def num_source_frames(self) -> int:
        """Number of frames in the file."""
        return int(getattr(self.source, "num_source_frames", self.source.count()))

    def count(self) -> int:
        return len(self.source_index)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return pick_frames(self.source, self.source_index[frame_slice(start, stop, step)].tolist())

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames at ascending distinct positions."""
        return pick_frames(self.source, self.source_index[list(positions)].tolist())


def labelled_record(
    name: str, action: str, phase_names: tuple[str, ...], labels: Any, source: FrameSource, **others: np.ndarray
) -> VideoRecord:
    """Makes a record with a data set's labels for it, if any.

    If labels and frames differ in number, the longer of the two (L1) is resampled to the length of the shorter (L2):
    item j of the result is item floor(j * L1 / L2) of the longer one. The record's `note` then says so.

    Args:
        name: The video.
        action: Its action.
        phase_names: Names of all its phases; empty allows any number of phases.
        labels: One integer per frame, -1 where unlabelled: an array, a tensor or a list; None without labels.
        source: Source of the frames.
        **others: Other annotations with (n, ...) rows, resampled to the frames that are used.

    Raises:
        VideoError: if the labels are not phases.
    """
    annotations, note = {}, ""
    if labels is not None:
        phases, frames = check_phases(name, labels, len(phase_names)), source.count()
        if len(phases) != frames:
            note = f"{len(phases)} labels for {frames} frames"
        if len(phases) < frames:
            source = ThinnedSource(source, len(phases))
        annotations["phases"] = partial(np.copy, fit_length(phases, source.count()))
    annotations |= {key: partial(fit_length, values, source.count()) for key, values in others.items()}
    return VideoRecord(name, action, source, annotations, phase_names, note=note)
