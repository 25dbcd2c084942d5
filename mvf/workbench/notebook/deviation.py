"""Deviation of a clip from reference clips in `align.ipynb`: player, figure, table and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from mvf.config import nearest
from mvf.data.records import VideoRecord, some_of
from mvf.embedding import EmbeddedVideo, embed, mean_patches, stored_bank
from mvf.evaluation.controls import apply_clock
from mvf.evaluation.deviation import Deviation, deviation
from mvf.evaluation.protocol import clocks_of
from mvf.files import atomic
from mvf.models.motion import MotionMap
from mvf.segments import NO_TIMES, Segment, video_segments
from mvf.workbench import plotting
from mvf.workbench.notebook.probe import N, frame_at, labelled, named_videos, of_action, phase_words
from mvf.workbench.notebook.segments import passes_note
from mvf.workbench.notebook.session import Session, Splits
from mvf.workbench.plotting.scores import control_name

MOST_REFERENCES = 10  # that are chosen where none are named
PAIRS = 3  # pairs of frames in the figure
PIXELS = 64  # side of the frames whose difference is a control
BAND = (
    "Grey, the band: what the references' own distances, each from the others, mostly stay below. Shaded: outside the "
    "band, numbered by excess."
)
COLUMNS = ("video", "start_frame", "end_frame", "start", "end", "excess", "reference")


@dataclass(frozen=True)
class ComparedClip:
    """A clip, its references, and how far it is from them.

    Attributes:
        record: The clip.
        video: The same, embedded.
        references: The references, embedded.
        reference_records: The references.
        found: The deviation of the clip's embeddings.
        controls: The deviation of other features of the same clips, by the controls' names.
        phase_names: Names of the action's phases, if they have any.
        choice: How the clip was chosen, if it was not named, and whether it seems to hold several repetitions.
    """

    record: VideoRecord
    video: EmbeddedVideo
    references: list[EmbeddedVideo]
    reference_records: list[VideoRecord]
    found: Deviation
    controls: dict[str, Deviation]
    phase_names: tuple[str, ...]
    choice: str

    @property
    def segments(self) -> list[Segment]:
        """The moments with their frames and seconds in the file, the largest excess first."""
        ranks = np.full(len(self.video.embeddings), -1)
        for rank, moment in enumerate(self.found.moments):
            ranks[moment.start : moment.end] = rank
        return sorted(video_segments(self.record, ranks, by="model"), key=lambda segment: segment.phase)

    def phase_at(self, frame: int) -> str:
        """Name of the clip's phase at a frame, or if it has none of its reference's there; empty without either."""
        reference = self.references[self.found.closest]
        partner = self.found.matched[self.found.closest][frame]
        for phases, at in ((self.video.phases, frame), (reference.phases, partner)):
            if phases is not None and phases[at] >= 0:
                return self.phase_names[phases[at]] if self.phase_names else f"phase {phases[at]}"
        return ""


def check_references(references: str, compare: str, videos: Sequence[N]) -> tuple[list[N], N | None]:
    """Finds the named references and the clip to compare among videos or records of unique names.

    Raises:
        ValueError: if a name is unknown or named twice, or references are of several actions, of another one than the
            clip, or include it.
    """
    found = named_videos(references, videos, "references", 1) if references.strip() else []
    actions = list(dict.fromkeys(video.action for video in found))
    if len(actions) > 1:
        raise ValueError(f'references="{references}" are of several actions, {", ".join(actions)}: name those of one')
    known, name = {video.name: video for video in videos}, compare.strip().strip('"')
    if not name:
        return found, None
    if name not in known:
        raise ValueError(f'compare="{name}": there is no video "{name}"; {nearest(name, known)}')
    clip = known[name]
    if any(video.name == clip.name for video in found):
        raise ValueError(f'compare="{name}" is among the references: compare another clip, or leave it out of them')
    if actions and clip.action != actions[0]:
        raise ValueError(f'compare="{name}" shows {clip.action}, the references {actions[0]}: name those of one')
    return found, clip


def compare_clip(
    session: Session, splits: Splits, action: str = "", references: str = "", compare: str = ""
) -> ComparedClip | str:
    """Measures how far a clip is from references, beside the controls.

    Args:
        session: The session.
        splits: The videos.
        action: Name of the action, if no clip is named; empty for the one with the most phases.
        references: Names of the references; empty for the labelled training clips of the action, at most ten, or
            the first clips where none is labelled.
        compare: Name of the clip; empty for the validation clip with the largest moment outside the band, or the first
            clip that is no reference where none is for validation.

    Returns:
        The clip and what was found; or a sentence that says why there is nothing to compare.

    Raises:
        ValueError: as `check_references` and `mvf.evaluation.deviation.deviation`.
    """
    records, videos = splits.everything
    named, clip = check_references(references, compare, videos)
    own = of_action(videos, clip.action if clip else named[0].action if named else action)
    chosen = named or _usual_references(own, {video.name for video in splits.train}, clip)
    rest = [video for video in own if len(video.embeddings) > 1 and all(video is not one for one in chosen)]
    if not chosen or not rest:
        return "deviation needs a clip and a reference of the same action"
    val = {video.name for video in videos[len(splits.train) :]}
    candidates = [clip] if clip else [video for video in rest if video.name in val] or rest[:1]
    choice = ""
    if len(candidates) > 1:
        choice = f"Of {len(candidates)} clips, this is the one with the largest moment outside the band."
    by_name = {record.name: record for record in records}
    stored = dict(zip(by_name, [*splits.train_records, *splits.val_records]))  # under the names that the bank knows
    seen = _without_skip(session, splits, [*chosen, *candidates], stored)
    chosen, candidates = seen[: len(chosen)], seen[len(chosen) :]
    found, clip = max(((deviation(chosen, video), video) for video in candidates), key=lambda pair: _largest(pair[0]))
    shown = [stored[video.name] for video in (*chosen, clip)]
    return ComparedClip(
        by_name[clip.name],
        clip,
        chosen,
        [by_name[video.name] for video in chosen],
        found,
        _controls(session, splits, shown, [*chosen, clip]),
        phase_words(splits, clip.action) or (),
        " ".join(filter(None, [choice if found.moments else "", passes_note([clip])])),
    )


def _usual_references(own: list[EmbeddedVideo], train: set[str], clip: EmbeddedVideo | None) -> list[EmbeddedVideo]:
    """The first labelled training clips, or the first clips; one stays to be compared."""
    others = [video for video in own if video is not clip and len(video.embeddings) > 1]
    known = [video for video in labelled(others) if video.name in train] or others
    return known[: min(MOST_REFERENCES, len(own) - 1)]


def _largest(found: Deviation) -> float:
    return max((moment.excess for moment in found.moments), default=0.0)


def _without_skip(
    session: Session, splits: Splits, videos: list[EmbeddedVideo], records: Mapping[str, VideoRecord]
) -> list[EmbeddedVideo]:
    """The videos embedded without the motion skip, which smears moments; see `deviation`."""
    own = session.model.of(videos[0].action)
    trained, config = own.without_skip(), session.config
    if trained is own:
        return videos
    wanted = [records[video.name] for video in videos]
    embedded = embed(trained, wanted, chunk=config.chunk, cache=splits.cache, precision=config.precision)
    return [replace(video, embeddings=new.embeddings) for video, new in zip(videos, embedded)]


def _controls(
    session: Session, splits: Splits, records: Sequence[VideoRecord], videos: list[EmbeddedVideo]
) -> dict[str, Deviation]:
    """The deviation of the last video from the others by the clock, by features without training, and by pixels."""
    own, precision = session.model.of(videos[-1].action), session.config.precision

    def mean(record: VideoRecord) -> np.ndarray:
        return mean_patches(own, record, splits.cache or stored_bank(own, record, precision), precision)

    train = [record for record in splits.train_records if record.action == videos[-1].action]
    motion = own.motion or MotionMap.fit([mean(record) for record in train or records])
    ((*timed, clock),) = apply_clock([videos], clocks_of(session.config, session.model)["position_only"])
    *moved, last = (replace(video, embeddings=motion(mean(record))) for video, record in zip(videos, records))
    *grey, pixels = (_grey(record) for record in records)
    weighted = own.motion is not None and session.config.motion_weighting != "spread"
    return {
        "position_only": deviation(timed, clock),
        "motion_skip" if weighted else "motion_pca": deviation(moved, last),
        "frame_difference": deviation(videos[:-1], videos[-1], (grey, pixels)),
    }


def _grey(record: VideoRecord) -> np.ndarray:
    """(T, C) grey levels of small frames, scaled so that a distance is a root mean square difference from 0 to 1."""
    frames = (cv2.resize(frame, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA) for frame in record.frames())
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    return grey.reshape(len(grey), -1) / np.float32(255 * PIXELS)


def deviation_figure(compared: ComparedClip | str) -> Figure:
    """Draws the curve of a compared clip over its band, pairs of frames at the first moments, and the controls."""
    if isinstance(compared, str):
        return plotting.plot_message(compared)
    clip, found = compared.record, compared.found
    reference = compared.reference_records[found.closest]
    pairs = []
    for words, frame in _shown_frames(found):
        partner = int(found.matched[found.closest][frame])
        pairs.append(
            plotting.FramePair(
                frame_at(clip, frame),
                frame_at(reference, partner),
                f"{words}: {_place(clip, frame)}",
                f"reference: {_place(reference, partner)}",
            )
        )
    names = some_of([record.name for record in compared.reference_records])
    note = found.note and f"{found.note[0].upper()}{found.note[1:]}."
    band = f"{BAND} {note}".strip() if len(compared.references) > 1 else note
    caption = (
        f"Distance of {clip.name} from {names}, matched by alignment. "
        f"{band} Pairs: {clip.name} above {reference.name}. "
        f"Below: the same for controls, each with its own band. {compared.choice}"
    )
    controls = {control_name(name): control for name, control in compared.controls.items()}
    return plotting.plot_deviation(
        found, pairs, controls, clip.frame_times, clip.frame_numbers, title=clip.name, caption=caption.strip()
    )


def _shown_frames(found: Deviation) -> list[tuple[str, int]]:
    """The peaks of the first moments with their rank, and frames inside the band where there are fewer than `PAIRS`."""
    shown = [(str(rank), moment.peak) for rank, moment in enumerate(found.moments[:PAIRS], start=1)]
    inside = np.arange(len(found.distance))
    for moment in found.moments:
        inside = inside[(inside < moment.start) | (inside >= moment.end)]
    spread = np.linspace(0, len(inside) - 1, PAIRS - len(shown) + 2).round().astype(int)[1:-1]
    return shown + [("inside the band", int(frame)) for frame in inside[spread]] if len(inside) else shown


def _place(record: VideoRecord, frame: int) -> str:
    times = record.frame_times
    seconds = "" if times is None else f"{times[frame]:.2f} s, "
    return f"{seconds}frame {record.frame_numbers[frame]}"


def deviation_table(compared: ComparedClip | str, figures: str | Path = "") -> plotting.Table:
    """Tabulates the moments of a compared clip outside the band, and writes them to `deviation.csv` in `figures`."""
    if isinstance(compared, str):
        return plotting.Table((), ("moment",), notes=(compared,))
    clip, found, segments = compared.record, compared.found, compared.segments
    if figures:
        _write_moments(compared, Path(figures) / "deviation.csv")
    times, numbers = clip.frame_times, clip.frame_numbers
    rows: list[tuple[str, ...]] = []
    for rank, (moment, segment) in enumerate(zip(found.moments, segments), start=1):
        cells = [str(rank), f"{segment.start_frame} to {segment.end_frame - 1}", str(numbers[moment.peak])]
        if times is not None:
            cells[1:1] = [f"{segment.start:.2f} to {segment.end:.2f}", f"{times[moment.peak]:.2f}"]
        rows.append((*cells, f"{moment.excess:.2f} ×", compared.phase_at(moment.peak)))
    seconds: tuple[str, ...] = () if times is None else ("seconds", "peak, s")
    columns = ("moment", *seconds, "frames", "peak, frame", "distance over band", "phase")
    notes: tuple[str, ...] = () if times is not None else (f"Frames only: {NO_TIMES}.",)
    if not rows:
        return plotting.Table((), columns, notes=(f"{clip.name} is nowhere outside the band.", *notes))
    return plotting.Table(tuple(rows), columns, f"{clip.name} outside the band, largest excess first", notes)


def _write_moments(compared: ComparedClip, path: Path) -> None:
    names = "; ".join(record.name for record in compared.reference_records)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for moment, segment in zip(compared.found.moments, compared.segments):
            seconds = (NO_TIMES if cell is None else f"{cell:.3f}" for cell in (segment.start, segment.end))
            frames = segment.start_frame, segment.end_frame
            writer.writerow([segment.video, *frames, *seconds, f"{moment.excess:.3f}", names])
