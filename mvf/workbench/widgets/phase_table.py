"""Reads and writes the phases in a folder's `videos.csv`; nothing else in the table changes.

A label is a list of segments (first frame, phase) in source frames. Each segment ends where the next begins; frames
before the first are unlabelled. Phases 0, 1, 2, ... in order are written as `0;34;58`; any other label (a repeated or
missing phase, unlabelled frames in the middle or at the end) is a file with one number per frame beside the video. The
names of phases are in the column `phase_names`, separated by semicolons.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvf.data.datasets.folder import COLUMNS, PART_COLUMNS, discover, part_mark
from mvf.data.labels import (
    ELAN,
    Tables,
    TextTable,
    check_phase_names,
    composed,
    existing,
    parse_phase_names,
    parse_starts,
    read_csv,
    read_phase_file,
    source_phases,
)
from mvf.data.video import VIDEO_SUFFIXES
from mvf.files import atomic, short_name

Segments = tuple[tuple[int, int], ...]
LABEL_FILES = (".csv", ".npy")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhaseLabel:
    """Phases of one video.

    Attributes:
        segments: (first frame, phase) of every segment, in source frames.
        length: Number of frames of the source, known only from a file with one number per frame; else None.
    """

    segments: Segments
    length: int | None = None


def segments_of(phases: ArrayLike, numbers: ArrayLike | None = None) -> Segments:
    """Converts (T,) phases to segments; `numbers` are the frames' source positions, by default 0 to T - 1.

    Example:
        >>> segments_of([-1, 0, 0, 1, -1])
        ((1, 0), (3, 1), (4, -1))
    """
    phases = np.asarray(phases)
    numbers = np.arange(len(phases)) if numbers is None else np.asarray(numbers)
    starts = np.flatnonzero(np.diff(phases, prepend=-1))
    return tuple((int(numbers[t]), int(phases[t])) for t in starts)


def phases_of(segments: Segments, numbers: ArrayLike) -> NDArray[np.int64]:
    """Returns the (T,) phases of the source frames `numbers`, -1 = unlabelled.

    Example:
        >>> phases_of(((1, 0), (3, 1)), [0, 2, 4]).tolist()
        [-1, 0, 1]
    """
    starts = np.array([start for start, _ in segments], np.int64)
    phases = np.array([-1, *(phase for _, phase in segments)], np.int64)
    return phases[np.searchsorted(starts, numbers, side="right")]


class PhaseTable:
    """The labels in one `videos.csv`; the file is read again before every write.

    Args:
        path: The table; it need not exist yet.
        sources: Name -> source of the frames, without which labels in ELAN files cannot be read.

    Raises:
        ValueError: if it is not a UTF-8 table with a column `path`.
    """

    def __init__(self, path: str | Path, sources: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.sources = dict(sources or {})
        if self.path.suffix.lower() != ".csv":
            raise ValueError(f'path must be a table like "videos.csv", got "{self.path}"')
        self._load()

    def read(self, name: str) -> PhaseLabel | None:
        """Returns the label of a video, or None if it has none.

        Raises:
            ValueError: if the label is invalid; the message names the video.
        """
        return self.read_all([name])[name]

    def read_all(self, names: Iterable[str]) -> dict[str, PhaseLabel | None]:
        """Returns the labels of several videos like `read`; each file of labels is read once."""
        names, tables = list(names), Tables()
        words = self._texts(names, "phase_names")
        texts = self._texts(names, "phases")
        return {name: self._label(name, text, words[name], tables) for name, text in texts.items()}

    def _label(self, name: str, text: str, words: str, tables: Tables) -> PhaseLabel | None:
        if not text:
            return None
        if not ELAN.search(text) and not text.lower().endswith(LABEL_FILES):
            return PhaseLabel(tuple((start, phase) for phase, start in enumerate(parse_starts(name, text))))
        folder, names = self.path.parent, parse_phase_names(name, words)
        found = None if ELAN.search(text) else read_phase_file(name, folder / existing(folder, text), names, tables)
        if not isinstance(found, np.ndarray):  # in seconds, or of several videos
            if name not in self.sources:
                raise ValueError(f"{name}: {text} can be read only with the video; open the folder as a data set")
            found = source_phases(name, text, folder, self.sources[name], names, tables)
        return PhaseLabel(segments_of(found), len(found))

    def read_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns the names of the phases that these videos share; empty if the table has none.

        Raises:
            ValueError: if names are invalid, or two of the videos have different ones; the message names both.
        """
        found = {name: parse_phase_names(name, text) for name, text in self._texts(names, "phase_names").items()}
        named = {name: phase_names for name, phase_names in found.items() if phase_names}
        first = next(iter(named), "")
        for name, phase_names in named.items():
            if phase_names != named[first]:
                here, there = ("; ".join(words) for words in (phase_names, named[first]))
                raise ValueError(f'{self.path} names the phases of {name} "{here}", those of {first} "{there}"')
        return named.get(first, ())

    def write(self, name: str, segments: Segments, length: int | None, names: Iterable[str] = ()) -> None:
        """Replaces the label of one video; every other cell stays as it is.

        Args:
            name: The video.
            segments: Its new label; without segments the video has no label any more.
            length: Number of frames of its source, or None; needed only to write one number per frame.
            names: Other videos to list in a new table, because videos that a table does not list are ignored.

        Raises:
            ValueError: if the length is needed and unknown.
        """
        before = self.read(name)
        if segments == (() if before is None else before.segments):
            return
        table = self._load()
        rows, column = self._rows(table, {name, *names}), _made_column(table.titles, table.columns, "phases")
        row = self._row(table, rows, self._paths(table.columns, rows), name)
        row[column] = self._cell(name, segments, length, row[column].strip()) if segments else ""
        self._save(table, rows)

    def write_parts(self, name: str, spans: Sequence[tuple[float, float]]) -> None:
        """Lists a whole file as parts, start and end in seconds, in place of its row; other rows stay as they are.

        Raises:
            ValueError: if the file is not there, is listed as parts already, or its row holds labels, which count from
                the file's beginning.
        """
        table = self._load()
        rows = self._rows(table, {name})
        for title in PART_COLUMNS:
            _made_column(table.titles, table.columns, title)
        if not (self.path.parent / _path_of(self.path.parent, name)).exists():
            raise ValueError(f"{name} is not in {self.path.parent}, the folder of {self.path.name}")
        paths = self._paths(table.columns, rows)
        if any(mark and composed(name) in (path, os.path.splitext(path)[0]) for path, mark in paths.values()):
            raise ValueError(f"{self.path} lists parts of {name} already; remove their rows first")
        row = self._row(table, rows, paths, name)
        cells = dict(zip(table.columns, row))
        if held := [title for title in ("phases", "boxes", "masks") if cells.get(title)]:
            raise ValueError(f"{self.path}: the row of {name} holds {held[0]} of the whole file; remove them first")
        parts = [[{"start": f"{a:.3f}", "end": f"{b:.3f}"}.get(c, cells[c]) for c in table.columns] for a, b in spans]
        place = rows.index(row)
        rows[place : place + 1] = parts
        self._save(table, rows)

    def write_names(self, names: Iterable[str], phase_names: Sequence[str]) -> None:
        """Names the phases of some videos, which must show one action; every other cell stays as it is.

        Raises:
            ValueError: if a name is empty, occurs twice, or has a semicolon.
        """
        text, names = ";".join(check_phase_names(phase_names)), list(names)
        table = self._load()
        rows, column = self._rows(table, set(names)), _made_column(table.titles, table.columns, "phase_names")
        paths = self._paths(table.columns, rows)
        for name in names:
            self._row(table, rows, paths, name)[column] = text
        self._save(table, rows)

    def _texts(self, names: Iterable[str], title: str) -> dict[str, str]:
        table = self._load()
        rows, column = _cells(table), _column(table.columns, title)
        paths = self._paths(table.columns, rows)
        found = {name: self._find(paths, name) for name in names}
        return {
            name: rows[row][column].strip() if row is not None and column is not None and rows[row][column:] else ""
            for name, row in found.items()
        }

    def _rows(self, table: TextTable, names: set[str]) -> list[list[str]]:
        """Returns the rows of a table; a new table gets titles, and all videos of its folder."""
        if table.titles:
            return _cells(table)
        table.titles[:] = COLUMNS
        return [_padded([path], COLUMNS) for path in _videos_below(self.path.parent, names)]

    def _row(
        self, table: TextTable, rows: list[list[str]], paths: Mapping[int, tuple[str, str]], name: str
    ) -> list[str]:
        """Returns the row of a video with a cell for each title; it is added if the table does not list the video."""
        found = self._find(paths, name)
        if found is None:
            logger.warning("%s did not list %s: a row is added, which may change the splits", self.path, name)
            line = _padded([], table.titles)
            line[table.columns.index("path")] = _path_of(self.path.parent, name).as_posix()
            rows.append(line)
            found = len(rows) - 1
        rows[found] = _padded(rows[found], table.titles)
        return rows[found]

    def _cell(self, name: str, segments: Segments, length: int | None, before: str) -> str:
        phases = [phase for _, phase in segments]
        if phases == list(range(len(phases))):
            return ";".join(str(start) for start, _ in segments)
        if length is None:
            raise ValueError(
                f"{name}: phases {phases} are not 0, 1, 2, ... in order, so one number per frame must be written; "
                "say how many frames the video has with lengths={name: frames}"
            )
        stem = PurePath(name).with_name(short_name(PurePath(name).name))
        relative = next(
            path
            for path in (f"{stem}.phases{suffix}.csv" for suffix in ("", *range(2, 10_000)))
            if path == before or not (self.path.parent / path).exists()  # do not overwrite another label's file
        )
        with atomic(self.path.parent / relative) as temporary:
            np.savetxt(temporary, phases_of(segments, np.arange(length)), fmt="%d")
        return relative

    def _load(self) -> TextTable:
        """Reads the table, which has no titles if the file does not exist."""
        if not self.path.exists():
            return TextTable(self.path, [], [], ",", "utf-8")
        table = read_csv(self.path)
        if "path" not in table.columns:
            raise ValueError(f"{self.path} has no column path; its columns are {', '.join(table.columns) or 'missing'}")
        return table

    def _save(self, table: TextTable, rows: Sequence[Sequence[str]]) -> None:
        end = "\r\n" if self.path.exists() and "\r\n" in self.path.read_bytes().decode(table.encoding) else "\n"
        with atomic(self.path) as temporary, temporary.open("w", newline="", encoding=table.encoding) as file:
            csv.writer(file, delimiter=table.separator, lineterminator=end).writerows([table.titles, *rows])

    def _paths(self, columns: Sequence[str], rows: list[list[str]]) -> dict[int, tuple[str, str]]:
        """Returns the path in every row that has one, as the file system has it, and the mark of a part of a file."""
        found = {}
        for i, row in enumerate(rows):
            cells = dict(zip(columns, map(str.strip, row)))
            if path := cells.get("path"):
                mark = part_mark(cells.get("start", "").replace(",", "."), cells.get("end", "").replace(",", "."))
                found[i] = composed(existing(self.path.parent, path)), mark
        return found

    def _find(self, paths: Mapping[int, tuple[str, str]], name: str) -> int | None:
        """Finds the row of a video whose path, with or without extension, is `name`, as in the folder data set."""
        name = composed(name)
        found = [i for i, (path, mark) in paths.items() if path + mark == name]
        found = found or [i for i, (path, mark) in paths.items() if os.path.splitext(path)[0] + mark == name]
        if len(found) > 1:
            raise ValueError(f'{self.path} lists "{name}" {len(found)} times: {[paths[i][0] for i in found]}; keep one')
        return found[0] if found else None


def _cells(table: TextTable) -> list[list[str]]:
    return [cells for _, cells in table.lines]


def _column(columns: Sequence[str], name: str) -> int | None:
    return columns.index(name) if name in columns else None


def _made_column(titles: list[str], columns: Sequence[str], name: str) -> int:
    """Returns the place of a column, which is added to the titles if it is missing."""
    if name not in columns:
        titles.append(name)
    return columns.index(name) if name in columns else len(titles) - 1


def _padded(row: Sequence[str], header: Sequence[str]) -> list[str]:
    return [*row, *[""] * (len(header) - len(row))]


def _path_of(folder: Path, name: str) -> PurePath:
    """Path in `folder` of a video named without its extension; the name itself if there is no such file."""
    if (folder / name).exists():
        return PurePath(name)
    files = [p for p in sorted(folder.glob(f"{escape(name)}.*")) if p.suffix.lower() not in LABEL_FILES]
    files.sort(key=lambda path: not _is_video(path))
    return files[0].relative_to(folder) if files else PurePath(name)


def _videos_below(folder: Path, names: Iterable[str]) -> list[str]:
    """Lists the videos `names` and all that the folder data set finds without a table."""
    given = {folder / _path_of(folder, name) for name in names}
    return sorted({path.relative_to(folder).as_posix() for path in given} | {*discover(folder)[0]})


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
