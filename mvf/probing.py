"""What the probe notebook looks at, as arrays: predictions, one video over time, pairs, neighbours, a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from mvf import metrics
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo


@dataclass(frozen=True)
class Probe:
    """Probes of one action, fitted on its training videos and read on its validation videos.

    Attributes:
        action: Which.
        videos: The labelled validation videos.
        num_phases: Number of phases.
        names: Words for the phases.
        predicted: (T,) predicted phases of every validation video.
        confusion: (num_phases, num_phases) frames, rows true.
        progression: (T, num_phases - 1) predicted and true time since each boundary, of every validation video.
    """

    action: str
    videos: list[EmbeddedVideo]
    num_phases: int
    names: tuple[str, ...]
    predicted: list[np.ndarray]
    confusion: np.ndarray
    progression: tuple[list[np.ndarray], list[np.ndarray]]


def labelled(videos: Sequence[EmbeddedVideo], action: str = "") -> list[EmbeddedVideo]:
    """The videos (of one action) that have a labelled frame."""
    chosen = [v for v in videos if v.phases is not None and (v.phases >= 0).any()]
    return [v for v in chosen if v.action == action] if action else chosen


def probe_actions(
    train: Sequence[EmbeddedVideo], val: Sequence[EmbeddedVideo], records: Sequence[VideoRecord]
) -> list[Probe]:
    """A `Probe` for every action that has labels of two phases or more in both splits."""
    actions = sorted({v.action for v in labelled(train)} & {v.action for v in labelled(val)})
    names = {record.action: record.phase_names for record in records}
    probes = [_probe(labelled(train, action), labelled(val, action), names.get(action, ())) for action in actions]
    return [probe for probe in probes if probe is not None]


def _probe(train: list[EmbeddedVideo], val: list[EmbeddedVideo], names: tuple[str, ...]) -> Probe | None:
    embeddings, phases = (
        [[v.embeddings for v in part] for part in (train, val)],
        [[v.phases for v in part] for part in (train, val)],
    )
    count = 1 + max(int(p.max()) for part in phases for p in part)
    if count < 2 or len(np.unique(np.concatenate(phases[0]))) < 2:
        return None
    predicted = metrics.predict_phases(embeddings[0], phases[0], embeddings[1])
    confusion = metrics.phase_confusion(predicted, phases[1], count)
    progression = metrics.predict_progression(embeddings[0], phases[0], embeddings[1], phases[1], count)
    words = tuple(names) or tuple(f"phase {i}" for i in range(count))
    return Probe(val[0].action, val, count, words, predicted, confusion, progression)


def choose(probes: Sequence[Probe], action: str = "") -> Probe | None:
    """The probe of `action`, or the one with the most phases (the first by name among equals): never the best score."""
    if action:
        return next((probe for probe in probes if probe.action == action), None)
    return max(probes, key=lambda probe: probe.num_phases, default=None)


def first_pair(videos: Sequence[EmbeddedVideo]) -> tuple[EmbeddedVideo, EmbeddedVideo] | None:
    """The first two videos of one action; None when no action has two."""
    for video in videos:
        same = [other for other in videos if other.action == video.action]
        if len(same) > 1:
            return same[0], same[1]
    return None


def nearest_frames(videos: Sequence[EmbeddedVideo], query: int, frame: int, k: int = 5) -> list[tuple[int, int]]:
    """The k frames of other videos nearest to one frame, as (video, frame), at most one a video."""
    others = [i for i in range(len(videos)) if i != query]
    best = []
    for i in others:
        distance = np.square(videos[i].embeddings - videos[query].embeddings[frame]).sum(axis=1)
        best.append((float(distance.min()), i, int(distance.argmin())))
    return [(i, t) for _, i, t in sorted(best)[:k]]


def query_frames(video: EmbeddedVideo, count: int = 4) -> list[int]:
    """Frames to ask for: evenly spaced over the labelled part of a video, or over all of it."""
    frames = np.arange(len(video.embeddings))
    if video.phases is not None and (video.phases >= 0).any():
        frames = frames[video.phases >= 0]
    return frames[np.linspace(0, len(frames) - 1, count + 2).round().astype(int)[1:-1]].tolist()


def frame_at(record: VideoRecord, frame: int) -> np.ndarray:
    """One uint8 (H, W, 3) frame."""
    return next(iter(record.frames(frame, frame + 1)))


def two_dimensions(videos: Sequence[EmbeddedVideo]) -> list[np.ndarray]:
    """(T, 2) first two principal components of all frames of all videos together."""
    stacked = PCA(2, random_state=0).fit_transform(np.concatenate([v.embeddings for v in videos]))
    return np.split(stacked, np.cumsum([len(v.embeddings) for v in videos])[:-1])
