"""Segments: which phase a video shows from which frame and second to which; a table, and files of other programs."""

from __future__ import annotations

import csv
import json
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mvf.config import nearest
from mvf.data.datasets.folder import TABLE
from mvf.data.labels import SEGMENT_COLUMNS, read_segment_rows
from mvf.data.records import VideoRecord
from mvf.files import atomic, check_output, short_name
from mvf.metrics.segmentation import phase_runs

NO_TIMES = "the video has no time stamps"  # stands in the table in place of seconds
TIER = "phases"
BORIS = (
    "Observation id", "Time", "Media file path", "Total length", "FPS", "Subject", "Behavior", "Behavioral category",
    "Comment", "Status",
)  # fmt: skip

Records = Mapping[str, VideoRecord]


@dataclass(frozen=True)
class Segment:
    """One phase of a video, from a first frame to the frame after its last.

    Attributes:
        video: Name of the video.
        start_frame: Its first frame, as the file counts: 0, 1, ...
        end_frame: The first frame after it.
        start: Seconds at which the file shows the first frame; None if it has no time stamps.
        end: Seconds at which the segment ends: the time of `end_frame`, or the end of the video.
        phase: Number of the phase.
        name: Its name; empty if it has none.
        confidence: Mean confidence over its frames, 0 to 1; None if unknown.
        by: `human` or `model`.
        model: The run or checkpoint; empty for a human's label.
    """

    video: str
    start_frame: int
    end_frame: int
    start: float | None
    end: float | None
    phase: int
    name: str = ""
    confidence: float | None = None
    by: str = "human"
    model: str = ""


def video_segments(
    record: VideoRecord,
    phases: np.ndarray,
    names: Sequence[str] = (),
    confidences: np.ndarray | None = None,
    by: str = "human",
    model: str = "",
) -> list[Segment]:
    """Makes the segments of one video from the phases of its frames; unlabelled frames are in none.

    Args:
        record: The video.
        phases: (num_frames,) integer phases, -1 where unlabelled.
        names: Names of the phases.
        confidences: (num_frames,) confidence of each frame's phase, 0 to 1.
        by: `human` or `model`.
        model: The run or checkpoint.

    Raises:
        ValueError: if the phases are not one for each frame, or a phase has no name although others have.
    """
    phases = np.asarray(phases)
    if phases.shape != (record.num_frames,):
        raise ValueError(
            f"{record.name}: phases must be ({record.num_frames},), one for each frame, got {phases.shape}"
        )
    if names and phases.max() >= len(names):
        raise ValueError(f"{record.name}: phase {phases.max()} has no name; names are {', '.join(names)}")
    numbers, times = record.frame_numbers, record.file_times
    ends = None if times is None else np.append(times, end_of(times))
    found = []
    for phase, first, stop in phase_runs(phases):
        if phase < 0:
            continue
        start_frame = int(numbers[first])
        end_frame = int(numbers[stop]) if stop < len(phases) else record.num_source_frames
        start, end = (None, None) if ends is None else (float(ends[start_frame]), float(ends[end_frame]))
        sure = None if confidences is None else float(np.mean(confidences[first:stop]))
        name = names[phase] if names else ""
        found.append(Segment(record.name, start_frame, end_frame, start, end, phase, name, sure, by, model))
    return found


def end_of(times: np.ndarray) -> float:
    """The second at which a video ends: its last frame is shown as long as frames are on average.

    Example:
        >>> end_of(np.array([0.0, 0.5, 1.0]))
        1.5
    """
    return float(times[-1] + (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[-1])


def read_segments(path: str | Path, names: Sequence[str] = ()) -> list[Segment]:
    """Reads a table of segments; see `mvf.data.labels.read_segment_rows`.

    Args:
        path: The .csv.
        names: Names of the phases, for rows that have a name and no number.

    Raises:
        ValueError: if the table or a row is invalid; the message names the line.
    """
    return [
        Segment(
            row.video, row.start_frame, row.end_frame,
            _seconds(path, row.line, row.cells.get("start", "")), _seconds(path, row.line, row.cells.get("end", "")),
            row.phase, row.cells.get("name", ""), _seconds(path, row.line, row.cells.get("confidence", "")),
            row.cells.get("by", "") or "human", row.cells.get("model", ""),
        )
        for row in read_segment_rows(Path(path), names)
    ]  # fmt: skip


def _seconds(path: str | Path, line: int, text: str) -> float | None:
    if text in ("", NO_TIMES):
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{path}, line {line}: "{text}" is not a number') from None


def check_segments_file(path: str | Path, format: str = "csv") -> None:
    """Raises ValueError for an unknown format or a table of labels, which it would replace, OSError as `check_output`.

    See `write_segments` for the arguments.
    """
    if format not in FORMATS:
        raise ValueError(f'unknown format "{format}"; {nearest(format, FORMATS)}')
    if Path(path).name == TABLE:
        raise ValueError(f"{path} is the name of a table of labels, which is not replaced; write to segments.csv")
    if format != "elan":
        check_output(path)


def write_segments(
    segments: Sequence[Segment], path: str | Path, records: Sequence[VideoRecord], format: str = "csv"
) -> list[Path]:
    """Writes segments; a file is replaced only when the new one is complete.

    Args:
        segments: The segments, those of a video one after the other.
        path: The file to write; for ELAN the folder, which gets one file for each video.
        records: The videos.
        format: `csv`, the table that `read_segments` reads; `elan`, an .eaf with one tier, in milliseconds; `boris`,
            tabular events, a line at which each phase starts and one at which it stops; `label-studio`, tasks with
            predictions for `TimelineLabels`, whose frames count from 1 and whose ends are included.

    Returns:
        The files.

    Raises:
        ValueError: for an unknown format, and for ELAN and BORIS if a video has no time stamps.
    """
    check_segments_file(path, format)
    known, path = {record.name: record for record in records}, Path(path)
    if format in ("elan", "boris"):
        without = [segment.video for segment in segments if segment.start is None]
        if without:
            raise ValueError(f"{without[0]}: {NO_TIMES}, and {format} needs seconds; write csv or label-studio")
    if format != "elan":
        with atomic(path) as temporary:
            FORMATS[format](segments, temporary, known)
        return [path]
    files = []
    for video, members in groupby(segments, key=lambda segment: segment.video):
        inside = [part for part in Path(video).parts if part not in ("..", Path(video).anchor)]  # not beside the video
        file = path.joinpath(*inside).with_name(f"{short_name(inside[-1])}.eaf")
        with atomic(file) as temporary:
            _write_elan(list(members), temporary, known)
        files.append(file)
    return files


def _write_csv(segments: Sequence[Segment], path: Path, records: Records) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SEGMENT_COLUMNS)
        for segment in segments:
            cells = [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in astuple(segment)]
            times = [NO_TIMES if cell is None else cell for cell in cells[3:5]]
            writer.writerow([*cells[:3], *times, *cells[5:]])


def _write_elan(segments: Sequence[Segment], path: Path, records: Records) -> None:
    from pympi import Eaf

    file = Eaf(author=segments[0].model or segments[0].by)
    media = _media(records[segments[0].video])
    kind = mimetypes.guess_type(media)[0] or "video/mp4"
    file.add_linked_file(media, relpath=media, mimetype=kind)
    file.remove_tier("default")
    file.add_tier(TIER)
    for segment in segments:
        assert segment.start is not None and segment.end is not None  # checked by `write_segments`
        file.add_annotation(TIER, round(1000 * segment.start), round(1000 * segment.end), _word(segment))
    file.to_file(str(path))


def _write_boris(segments: Sequence[Segment], path: Path, records: Records) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(BORIS)
        for segment in segments:
            times = records[segment.video].file_times
            assert times is not None  # checked by `write_segments`
            length = end_of(times) - times[0]
            sure = "" if segment.confidence is None else f", confidence {segment.confidence:.3f}"
            media = _media(records[segment.video]), f"{length:.3f}", f"{len(times) / length:.3f}"
            told = "No focal subject", _word(segment), "", f"by {segment.by}{sure}"
            for time, status in ((segment.start, "START"), (segment.end, "STOP")):
                writer.writerow([segment.video, f"{time:.3f}", *media, *told, status])


def _write_label_studio(segments: Sequence[Segment], path: Path, records: Records) -> None:
    tasks = []
    for video, members in groupby(segments, key=lambda segment: segment.video):
        rows = list(members)
        known = [row.confidence for row in rows if row.confidence is not None]
        results = [
            {
                "id": f"{row.start_frame}-{row.end_frame}",
                "type": "timelinelabels",
                "from_name": "timelineLabels",
                "to_name": "video",
                "value": {
                    "ranges": [{"start": row.start_frame + 1, "end": row.end_frame}],
                    "timelinelabels": [_word(row)],
                },
                **({} if row.confidence is None else {"score": round(row.confidence, 3)}),
            }
            for row in rows
        ]
        prediction: dict[str, Any] = {"model_version": rows[0].model or rows[0].by, "result": results}
        if known:
            prediction["score"] = round(float(np.mean(known)), 3)
        tasks.append({"data": {"video": _media(records[video])}, "predictions": [prediction]})
    path.write_text(json.dumps(tasks, indent=1, ensure_ascii=False), encoding="utf-8")


FORMATS: Mapping[str, Callable[[Sequence[Segment], Path, Records], None]] = MappingProxyType(
    {"csv": _write_csv, "elan": _write_elan, "boris": _write_boris, "label-studio": _write_label_studio}
)


def _media(record: VideoRecord) -> str:
    """Path of the video's file; its name where it is drawn."""
    return str(getattr(record.file_source, "path", record.name))


def _word(segment: Segment) -> str:
    return segment.name or f"phase {segment.phase}"
