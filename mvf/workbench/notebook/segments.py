"""Segments of videos: labels carried to all others (`mvf apply`), and repetitions cut (`mvf repetitions`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvf.config import Config
from mvf.data import find_config_videos
from mvf.data.datasets.folder import TABLE
from mvf.data.records import VideoRecord, some_of
from mvf.embedding import EmbeddedVideo, embed
from mvf.evaluation.controls import apply_clock
from mvf.evaluation.protocol import clocks_of
from mvf.evaluation.repetitions import Repetitions, count_passes, find_repetitions
from mvf.evaluation.segments import Proposal, propose, segment_scores
from mvf.models.mvformer import FrameEmbedder
from mvf.segments import NO_TIMES, Segment, end_of, video_segments, write_segments
from mvf.workbench.notebook.probe import labelled, of_action, phase_words
from mvf.workbench.notebook.session import Session, Splits, check_actions, file_record, open_model
from mvf.workbench.widgets import PhaseLabeler
from mvf.workbench.widgets.phase_table import PhaseTable

UNSURE = 0.6  # mean confidence of a video below which the summary names it


@dataclass(frozen=True)
class Applied:
    """Segments of videos, and how good the proposals are where the videos have labels.

    Attributes:
        segments: Those of labelled videos by a human, of others by the model.
        records: The videos.
        proposals: The proposals for videos that are not among the labelled ones.
        scores: `segment_scores` over proposals whose videos have labels, of the model and of its clock.
    """

    segments: list[Segment]
    records: list[VideoRecord]
    proposals: list[Proposal]
    scores: dict[str, dict[str, float]]

    def summary(self) -> str:
        """How many videos and segments there are, which are unsure, and the scores."""
        sure = {proposal.video.name: float(proposal.confidence.mean()) for proposal in self.proposals}
        lines = [f"{len(self.segments)} segments of {len({s.video for s in self.segments})} videos"]
        if not sure:
            lines[0] += ", all labelled in the table: there is no other video to label"
        else:
            lines[0] += (
                f", {len(sure)} of them labelled by the model with a mean confidence of {np.mean([*sure.values()]):.2f}"
            )
        if note := passes_note([proposal.video for proposal in self.proposals]):
            lines.append(note)
        if unsure := sorted((name for name in sure if sure[name] < UNSURE), key=lambda name: sure[name]):
            lines.append(f"look at these first, below {UNSURE}: {some_of(unsure)}")
        for name, scores in self.scores.items():
            lines.append(f"  {name:22s} " + "  ".join(f"{score} {value:.3f}" for score, value in scores.items()))
        return "\n".join(lines)


def apply_labels(
    source: str | Path, videos: str | Path, table: str | Path, method: str = "dtw", **data: Any
) -> Applied:
    """Labels videos with a model from labelled ones.

    Args:
        source: Run folder, or checkpoint.
        videos: Folder of videos, or one file.
        table: `videos.csv` of the labelled videos, in their folder, which may be the same.
        method: See `mvf.evaluation.segments.propose`.
        **data: Data keys that replace the run's own.

    Raises:
        ValueError: if there are no labelled videos or none to label, or the table is not a `videos.csv`.
    """
    table, given = Path(table), Path(videos)
    clips = find_clips(source, given, table, **data)
    model, config, known = clips.model, clips.config, clips.labelled
    others = [r for r in clips.given if r.source.identity not in {k.source.identity for k in known}]
    sources, rest = (embed(model, part, precision=config.precision) for part in (known, others))
    proposals = propose(sources, rest, method)
    names = {record.action: record.phase_names for record in known}
    here = known if given.resolve() == table.parent.resolve() else []
    segments = [s for record in here for s in video_segments(record, _labels(record), record.phase_names)]
    segments += proposed_segments(proposals, others, names, str(source))
    clock = clocks_of(config, model)["position_only"]
    scores = proposal_scores(proposals, others, sources, clock, method)
    return Applied(segments, [*here, *others], proposals, scores)


@dataclass(frozen=True)
class FoundClips:
    """Clips, the labelled ones that speak for them, and the model that embeds both.

    Attributes:
        model: The model.
        config: Its configuration, with the labelled videos as data.
        labelled: Videos with labels, of the table.
        given: The clips, which may be labelled too.
        left_out: Why other clips cannot be used, by name.
    """

    model: FrameEmbedder
    config: Config
    labelled: list[VideoRecord]
    given: list[VideoRecord]
    left_out: dict[str, str]


def find_clips(source: str | Path, videos: str | Path, table: str | Path | None, **data: Any) -> FoundClips:
    """Opens a model and finds clips, and the labelled videos of a table; clips without an action show theirs.

    Args:
        source: Run folder, or checkpoint.
        videos: Folder of clips, or one file.
        table: `videos.csv` of the labelled videos, in their folder, which may be the same; None for the one beside the
            clips, which then may be missing or label nothing.
        **data: Data keys that replace the run's own.

    Raises:
        ValueError: if the table is not a `videos.csv` or labels no video, or the one file cannot be read.
    """
    given = Path(videos)
    if table is not None:
        _check_labels(Path(table))
    given = given.parent.resolve() / given.name if given.is_file() else given.resolve()  # as the table's folder is, too
    root = Path(table).parent.resolve() if table is not None else given.parent if given.is_file() else given
    model, config = open_model(source, **{**data, "dataset": "folder", "data_root": root})
    if "action" not in data:
        config = replace(config, action="")
    listed = _found(config)[0] if (root / TABLE).is_file() else []
    known = labelled(listed)
    if table is not None and not known:
        raise ValueError(f"{table} labels no video: label a clip in align.ipynb, or fill the column phases")
    left_out: dict[str, str] = {}
    if given.is_file():
        found = [file_record(given, config)]
    else:
        found, left_out = _found(replace(config, data_root=str(given)))
    actions = {record.action for record in known}
    if len(actions) == 1:
        found = [replace(record, action=next(iter(actions))) for record in found]
    check_actions(source, model, [*known, *found])
    return FoundClips(model, config, known, found, left_out)


def _check_labels(table: Path) -> None:
    if table.is_dir():
        raise ValueError(f"--labels {table} is a folder; name its table, {table / TABLE}")
    if table.name != TABLE:
        raise ValueError(f"--labels must be the {TABLE} in the folder of the labelled videos, got {table}")
    if not table.exists():
        raise ValueError(
            f"{table} does not exist: label a clip in align.ipynb, or write a table with the columns "
            "path,phases,phase_names"
        )


def _found(config: Config) -> tuple[list[VideoRecord], dict[str, str]]:
    """All videos of a folder, and why others cannot be used."""
    splits = [find_config_videos(config, split, allow_empty=True) for split in ("train", "val")]
    left_out = {name: why for split in splits for name, why in split.coverage.unreadable.items()}
    return [record for split in splits for record in split], left_out


def write_split_segments(
    session: Session,
    splits: Splits,
    labeler: PhaseLabeler,
    action: str = "",
    method: str = "dtw",
    path: str | Path = "",
) -> str:
    """Writes the segments of all videos of an action: those with labels as they are, others proposed from all of them.

    Args:
        session: The session.
        splits: The videos.
        labeler: The labeler, whose labels come before those that the videos had.
        action: Name of the action; empty for the one with the most phases.
        method: See `mvf.evaluation.segments.propose`.
        path: The table to write; empty for `segments.csv` among the figures.

    Returns:
        A line that says how many segments are where; or why there are none.
    """
    records, embedded = splits.everything
    named = {record.name: record for record in records}
    own = labeler.labelled
    videos = [
        replace(v, phases=own[v.name][_shown_rows(named[v.name])]) if v.name in own else v
        for v in of_action(embedded, action)
    ]
    known = labelled(videos)
    if not known:
        return "no segments yet: label a clip, and write them again"
    rest = [video for video in videos if all(video is not clip for clip in known)]
    words = tuple(labeler.palette["names"]) if own else phase_words(splits, known[0].action) or ()
    segments = [segment for v in known for segment in video_segments(named[v.name], _labels(v), words)]
    proposals = propose(known, rest, method)
    segments += proposed_segments(
        proposals, [named[v.name] for v in rest], {known[0].action: words}, str(session.source)
    )
    (file,) = write_segments(segments, path or session.figures / "segments.csv", records)
    line = f"{len(segments)} segments of {len(known)} labelled videos and {len(rest)} others: {file}"
    return "\n".join(filter(None, [line, passes_note(videos)]))


def _shown_rows(record: VideoRecord) -> np.ndarray:
    """(num_frames,) place of each frame among the distinct frames, which the labeler shows."""
    return np.unique(record.frame_numbers, return_inverse=True)[1]


def passes_note(videos: Sequence[EmbeddedVideo]) -> str:
    """Says which videos seem to hold several repetitions, which an alignment takes for one pass; empty if none."""
    several = [video.name for video in videos if count_passes(video.embeddings, video.phases) > 1]
    if not several:
        return ""
    many = f"{len(several)} of {len(videos)} videos seem to hold several repetitions ({some_of(several)})"
    return f"{many}, and each is aligned as one pass through the action; python -m mvf repetitions cuts them"


def proposed_segments(
    proposals: Sequence[Proposal], records: Sequence[VideoRecord], names: dict[str, tuple[str, ...]], model: str
) -> list[Segment]:
    """The segments of proposals, with the names of each action's phases."""
    return [
        segment
        for proposal, record in zip(proposals, records, strict=True)
        for segment in video_segments(
            record, proposal.phases, names.get(proposal.video.action, ()), proposal.confidence, "model", model
        )
    ]


def proposal_scores(
    proposals: Sequence[Proposal],
    records: Sequence[VideoRecord],
    sources: Sequence[EmbeddedVideo],
    clock: Any,
    method: str,
) -> dict[str, dict[str, float]]:
    """Scores of the proposals over videos that have labels themselves, beside the clock's; empty without such."""
    judged = [i for i, p in enumerate(proposals) if p.video.phases is not None and (p.video.phases >= 0).any()]
    if not judged:
        return {}
    videos = [proposals[i].video for i in judged]
    true = [video.phases for video in videos if video.phases is not None]
    seconds = [clock_times for i in judged if (clock_times := records[i].frame_times) is not None]
    (timed_sources,), (timed,) = apply_clock([list(sources)], clock), apply_clock([videos], clock)
    guesses = {
        "model": [proposals[i].phases for i in judged],
        "position only (clock)": [proposal.phases for proposal in propose(timed_sources, timed, method)],
    }
    return {
        name: segment_scores(guess, true, seconds if len(seconds) == len(judged) else None)
        for name, guess in guesses.items()
    }


def cut_recording(source: str | Path, video: str | Path, **data: Any) -> tuple[VideoRecord, Repetitions]:
    """Embeds one recording and cuts it into repetitions.

    Args:
        source: Run folder, or checkpoint.
        video: The file, or a folder of numbered images.
        **data: Data keys that replace the run's own; `action` chooses the model of a run with one for each action.

    Raises:
        ValueError: if the video cannot be read.
    """
    path = Path(video)
    model, config = open_model(source, **{**data, "dataset": "folder", "data_root": path.parent})
    record = file_record(path, config)
    check_actions(source, model, [record])
    (embedded,) = embed(model, [record], precision=config.precision)
    return record, find_repetitions(embedded.embeddings)


def repetition_lines(record: VideoRecord, found: Repetitions) -> list[str]:
    """One line for all repetitions with their mean length and spread, and one for each: start, end, length.

    In seconds where the file has time stamps, else in frames.
    """
    ends, unit = repetition_ends(record, found)
    lengths, digits = np.diff(ends), 2 if unit == "s" else 0
    many = f"{found.count} repetition{'s' * (found.count != 1)}"
    spread = (
        f" ± {lengths.std(ddof=1):.{digits}f} {unit}, {lengths.std(ddof=1) / lengths.mean():.0%}"
        if found.count > 1
        else ""
    )
    lines = [f"{record.name}: {many} of {lengths.mean():.{digits}f} {unit}{spread}"]
    for i, (start, end) in enumerate(zip(ends, ends[1:])):
        against = f"  {(end - start) / lengths.mean() - 1:+.0%}" if found.count > 1 else ""
        lines.append(
            f"  {i + 1:3d}  {start:8.{digits}f} to {end:8.{digits}f} {unit}  {end - start:7.{digits}f} {unit}{against}"
        )
    return lines


def repetition_ends(record: VideoRecord, found: Repetitions) -> tuple[np.ndarray, str]:
    """The (K + 1,) seconds at which repetitions begin and the last one ends; frames where there are no times."""
    edges, unit = frame_edges(record)
    return edges[found.cuts], unit


def frame_edges(record: VideoRecord) -> tuple[np.ndarray, str]:
    """The (T + 1,) seconds at which frames begin and the last one ends, "s"; numbers in the file without times."""
    times = record.frame_times
    if times is None:
        return np.append(record.frame_numbers, record.num_source_frames), "frames"
    return np.append(times, end_of(times)), "s"


def write_repetitions(record: VideoRecord, found: Repetitions, table: str | Path) -> None:
    """Lists the repetitions of a recording as parts of its file in `videos.csv`; nothing is encoded again.

    Raises:
        ValueError: if the file has no time stamps, lies elsewhere than the table, or has labels there already.
    """
    ends, unit = repetition_ends(record, found)
    if unit != "s":
        raise ValueError(f"{record.name}: {NO_TIMES}, and parts are listed in seconds")
    ends[-1] += 1e-3  # the last frame belongs to the last part
    PhaseTable(table).write_parts(record.name, [(round(a, 3), round(b, 3)) for a, b in zip(ends, ends[1:])])


def _labels(video: VideoRecord | EmbeddedVideo) -> np.ndarray:
    assert video.phases is not None  # it is labelled
    return video.phases
