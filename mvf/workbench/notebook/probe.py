"""Figures of `probe.ipynb`, drawn from embedded videos."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from mvf import metrics
from mvf.alignment import alignment_path
from mvf.config import nearest
from mvf.data.datasets.folder import ASSUMED_ACTION
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.workbench import plotting
from mvf.workbench.notebook.session import Splits
from mvf.workbench.plotting.style import short_label

AMONG_THEM = ", training videos among them"


def confusion_figure(probe: Probe | None) -> Figure:
    """Draws the phase confusion matrix of one action."""
    if probe is None:
        return plotting.plot_message("No confusion: no action has labels of two phases in both splits.")
    return plotting.plot_confusion(probe.confusion, probe.names, title=f"{probe.action}: frames of validation videos")


def progression_figure(probe: Probe | None) -> Figure:
    """Draws the progression of the first validation video of one action."""
    if probe is None:
        return plotting.plot_message("No progression, for the same reason.")
    predicted, true = (part[0] for part in probe.progression)
    names = [f"end of {name}" for name in probe.names[:-1]]
    return plotting.plot_progression(predicted, true, names, title=probe.videos[0].name)


def similarity_figure(splits: Splits, action: str = "") -> Figure:
    """Draws the similarity of two videos of one action, frame by frame."""
    shown = compared(splits, action)
    if len(shown.videos) < 2:
        return plotting.plot_message("no action has two videos")
    a, b = shown.videos[:2]
    return plotting.plot_similarity(
        a.embeddings @ b.embeddings.T, alignment_path(a, b), a.phases, b.phases, [a.name, b.name],
        phase_words(splits, a.action),
    )  # fmt: skip


def retrieval_figure(splits: Splits, action: str = "") -> Figure:
    """Draws frames of a video, each with the frames of up to five other videos nearest to it."""
    shown = compared(splits, action)
    videos = shown.videos
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two videos of one action")
    records = {record.name: record for record in shown.records}
    words = phase_words(splits, videos[0].action)
    rows = []
    for t in query_frames(videos[0]):
        found = [(videos[i], frame) for i, frame in nearest_frames(videos, 0, t)]
        rows.append(plotting.RetrievalRow(
            frame_at(records[videos[0].name], t), _caption(videos[0], t, words),
            [frame_at(records[video.name], frame) for video, frame in found],
            [_caption(video, frame, words) for video, frame in found],
            [_same(_phase(video, frame), _phase(videos[0], t)) for video, frame in found],
        ))  # fmt: skip
    others, kind = len(videos) - 1, "video" if shown.note else "validation video"
    many = f"{len(rows[0].frames)} of {others} other {kind}s" if others > 1 else f"the only other {kind}"
    many += AMONG_THEM if shown.note else ""
    return plotting.plot_retrieval(rows, title=_titled(videos[0].action, f": nearest frames, in {many}"))


def embedding_figure(splits: Splits, action: str = "", most: int = 8) -> Figure:
    """Draws the embeddings of videos of one action in two dimensions."""
    shown = compared(splits, action)
    videos = shown.videos[:most]
    if not videos:
        return plotting.plot_message("there are no videos")
    points = two_dimensions(videos)
    word = "videos" if shown.note else "validation videos" if len(videos) > 1 else "validation video"
    many = f"{len(videos)} {word}{AMONG_THEM if shown.note else ''}"
    return plotting.plot_embeddings(
        points, [v.phases for v in videos], phase_words(splits, videos[0].action),
        title=_titled(videos[0].action, f", {many}"), caption="First two principal components.",
    )  # fmt: skip


def _titled(action: str, words: str) -> str:
    """A title that begins with the action, unless the videos have none."""
    return words.lstrip(",: ").capitalize() if action == ASSUMED_ACTION else f"{action}{words}"


@dataclass(frozen=True)
class Compared:
    """Videos of one action that a figure or a browser compares.

    Attributes:
        records: Records, including those of the videos.
        videos: The videos, validation videos first, or those that were named.
        note: A sentence that says why training videos are among them; else empty.
    """

    records: Sequence[VideoRecord]
    videos: list[EmbeddedVideo]
    note: str = ""


def compared(splits: Splits, action: str = "", named: str = "") -> Compared:
    """Chooses the validation videos of an action, or all its videos where fewer than two are for validation.

    Args:
        splits: The videos.
        action: Name of the action; empty for the one with the most phases among those that have two videos.
        named: Names of the videos to compare instead; see `named_videos`.
    """
    records, videos = splits.everything
    if named:
        return Compared(records, named_videos(named, videos))
    if several := _of_several(splits.val, action):
        return Compared(splits.val_records, several)
    train, val = videos[: len(splits.train)], videos[len(splits.train) :]
    chosen = _of_several([*val, *train], action) or of_action([*val, *train], action)
    own = sum(video.action == chosen[0].action for video in val) if chosen else 0
    if own == len(chosen):
        return Compared(records, chosen)
    some = f"Only {own}" if own else "None"
    return Compared(
        records, chosen, f"{some} of these {len(chosen)} videos is for validation, so training videos are shown too."
    )


def _of_several(videos: Sequence[EmbeddedVideo], action: str) -> list[EmbeddedVideo]:
    """The videos of `action`, or of one with the most phases, among actions that have at least two videos."""
    counts = Counter(video.action for video in videos)
    several = [video for video in videos if counts[video.action] > 1]
    return of_action(several, action) if counts[action] > 1 or not action else []


N = TypeVar("N", EmbeddedVideo, VideoRecord)


def named_videos(names: str, videos: Sequence[N], parameter: str = "videos", least: int = 2) -> list[N]:
    """Finds videos by name, in the order of their names.

    Args:
        names: Names, separated by commas; a name with a comma stands in double quotes.
        videos: Videos or records with unique names.
        parameter: What messages call `names`.
        least: How many there must be.

    Raises:
        ValueError: if a name is unknown or given twice, or there are fewer than `least`.
    """
    known = {video.name: video for video in videos}
    (row,) = csv.reader([names.replace("\n", " ")], skipinitialspace=True)
    wanted = [name.strip() for name in row if name.strip()]
    for name, times in Counter(wanted).items():
        if name not in known:
            raise ValueError(f'{parameter}="{names}": there is no video "{name}"; {nearest(name, known)}')
        if times > 1:
            raise ValueError(f'{parameter}="{names}" names {name} {times} times: name every video once')
    if len(wanted) < least:
        many = "two videos, separated by commas," if least > 1 else "one video"
        raise ValueError(f'{parameter}="{names}" must name at least {many} or none')
    return [known[name] for name in wanted]


def of_action(videos: Sequence[EmbeddedVideo], action: str) -> list[EmbeddedVideo]:
    """Returns the videos of `action`, or of the one with the most phases (of equals the first by name)."""
    phases = {v.action: 0 for v in sorted(videos, key=lambda v: v.action)}
    for video in videos:
        if video.phases is not None:
            phases[video.action] = max(phases[video.action], int(video.phases.max(initial=-1)) + 1)
    if action and action not in phases:
        raise ValueError(f'no video of action "{action}"; there are {", ".join(phases)}')
    wanted = action or max(phases, key=lambda name: phases[name], default="")
    return [video for video in videos if video.action == wanted]


def phase_words(splits: Splits, action: str) -> tuple[str, ...] | None:
    """Returns the names of an action's phases, or None if they have no names."""
    records = [*splits.val_records, *splits.train_records]
    return next((r.phase_names for r in records if r.action == action and r.phase_names), None)


def _phase(video: EmbeddedVideo, frame: int) -> int:
    return -1 if video.phases is None else int(video.phases[frame])


def _same(phase: int, other: int) -> bool | None:
    return None if min(phase, other) < 0 else phase == other


def _caption(video: EmbeddedVideo, frame: int, words: Sequence[str] | None) -> str:
    phase = _phase(video, frame)
    word = "" if phase < 0 else f"\n{words[phase] if words else f'phase {phase}'}"
    return f"{short_label(video.name, 30)} #{video.number(frame)}{word}"


@dataclass(frozen=True)
class Probe:
    """Predictions for the validation videos of one action by probes fitted on its training videos.

    Attributes:
        action: Name of the action.
        videos: The labelled validation videos.
        num_phases: Number of phases.
        names: Names of the phases.
        confusion: (num_phases, num_phases) counts of frames, one row per true phase.
        progression: (T, num_phases - 1) predicted and true time since each boundary, per validation video.
    """

    action: str
    videos: list[EmbeddedVideo]
    num_phases: int
    names: tuple[str, ...]
    confusion: np.ndarray
    progression: tuple[list[np.ndarray], list[np.ndarray]]


def labelled(videos: Sequence[N], action: str = "") -> list[N]:
    """Returns the videos (of one action) that have a labelled frame."""
    chosen = [v for v in videos if v.phases is not None and (v.phases >= 0).any()]
    return [v for v in chosen if v.action == action] if action else chosen


def probe_actions(
    train: Sequence[EmbeddedVideo], val: Sequence[EmbeddedVideo], records: Sequence[VideoRecord]
) -> list[Probe]:
    """Fits a `Probe` for every action that has labels of at least two phases in both splits."""
    actions = sorted({v.action for v in labelled(train)} & {v.action for v in labelled(val)})
    names = {record.action: record.phase_names for record in records}
    probes = [_probe(labelled(train, action), labelled(val, action), names.get(action, ())) for action in actions]
    return [probe for probe in probes if probe is not None]


def _probe(train: list[EmbeddedVideo], val: list[EmbeddedVideo], names: tuple[str, ...]) -> Probe | None:
    embeddings = [[v.embeddings for v in part] for part in (train, val)]
    phases = [[v.phases for v in part if v.phases is not None] for part in (train, val)]
    count = 1 + max(int(p.max()) for part in phases for p in part)
    if count < 2 or len(np.unique(np.concatenate(phases[0]))) < 2:
        return None
    predicted = metrics.predict_phases(embeddings[0], phases[0], embeddings[1])
    confusion = metrics.phase_confusion(predicted, phases[1], count)
    progression = metrics.predict_progression(embeddings[0], phases[0], embeddings[1], phases[1], count)
    words = tuple(names[:count]) or tuple(f"phase {i}" for i in range(count))
    return Probe(val[0].action, val, count, words, confusion, progression)


def choose_probe(probes: Sequence[Probe], action: str = "") -> Probe | None:
    """Returns the probe of `action`, or of the action with the most phases (of equals the first by name)."""
    if action:
        return next((probe for probe in probes if probe.action == action), None)
    return max(probes, key=lambda probe: probe.num_phases, default=None)


def nearest_frames(videos: Sequence[EmbeddedVideo], query: int, frame: int, k: int = 5) -> list[tuple[int, int]]:
    """Finds the k frames of other videos nearest to one frame, as (video, frame), at most one per video."""
    others = [i for i in range(len(videos)) if i != query]
    best = []
    for i in others:
        distance = np.square(videos[i].embeddings - videos[query].embeddings[frame]).sum(axis=1)
        best.append((float(distance.min()), i, int(distance.argmin())))
    return [(i, t) for _, i, t in sorted(best)[:k]]


def query_frames(video: EmbeddedVideo, count: int = 4) -> list[int]:
    """Chooses query frames, evenly spaced over the labelled frames of a video, or over all if it has no labels."""
    frames = np.arange(len(video.embeddings))
    if video.phases is not None and (video.phases >= 0).any():
        frames = frames[video.phases >= 0]
    return frames[np.linspace(0, len(frames) - 1, count + 2).round().astype(int)[1:-1]].tolist()


def frame_at(record: VideoRecord, frame: int) -> np.ndarray:
    """Reads one frame, uint8 (H, W, 3)."""
    return next(iter(record.frames(frame, frame + 1)))


def two_dimensions(videos: Sequence[EmbeddedVideo]) -> list[np.ndarray]:
    """Projects each video to (T, 2): the first two principal components of all frames of all videos."""
    stacked = PCA(2, random_state=0).fit_transform(np.concatenate([v.embeddings for v in videos]))
    return np.split(stacked, np.cumsum([len(v.embeddings) for v in videos])[:-1])
