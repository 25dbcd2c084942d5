"""Where a performance leaves reference performances: the distance along the alignment, and a band around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvf.alignment import Indices, Video, align

MOVEMENT = (
    4.0  # weight of the change over ±1 frame beside the embedding; this and the next two: pull-ups, training clips
)
INSIDE = 0.85  # share of the references' own frames that the band holds
EVERYWHERE = 0.3  # share of the mean over all moments in the usual distance at one moment
GAP = 3  # frames inside the band that do not end a moment
ONE_REFERENCE = (
    f"one reference: the band holds {INSIDE:.0%} of this video's own frames, so some are always outside; more "
    "references give a band of their own"
)
FURTHER = (
    "the whole video is {level:.1f} times as far from the references as they are from one another, and the band is "
    "raised by that: moments are where it is further still"
)


@dataclass(frozen=True)
class Moment:
    """A stretch of a video outside the band.

    Attributes:
        start: First frame.
        end: First frame after it.
        peak: Frame where the distance is furthest above the band.
        excess: Distance there over the band, above 1.
    """

    start: int
    end: int
    peak: int
    excess: float


@dataclass(frozen=True)
class Deviation:
    """How far a performance is from references, frame by frame.

    Attributes:
        matched: (R, T) frame of each reference for every frame of the video.
        distance: (T,) distance to the mean of the references at that moment.
        band: (T,) what such distances of the references themselves, each left out in turn, mostly stay below.
        moments: Stretches outside the band, the furthest first.
        closest: The reference that is nearest to the video over all its frames.
        note: What to know about the band, if anything.
    """

    matched: Indices
    distance: np.ndarray
    band: np.ndarray
    moments: tuple[Moment, ...]
    closest: int
    note: str = ""


def deviation(
    references: Sequence[Video], video: Video, compared: tuple[Sequence[np.ndarray], np.ndarray] | None = None
) -> Deviation:
    """Compares a performance with one or several good ones, moment by moment.

    Every reference is aligned to the video (`mvf.align`, open ends). A frame is its vector, followed by four times the
    change from the frame before to the frame after: what is there, and where it goes. The distance is that to the mean
    of the references' matched frames. The same distance of each reference to the others, averaged over references at
    the matched moment (and to 0.3 over all moments), is the usual one; the band is the multiple of it that holds 85 %
    of the references' own frames. So where references differ much a video may differ much, too. The band is raised for
    a video that is further from them all along, as another place or person can make it, so that moments stand out.

    Embeddings without the motion skip (`MVFormer.without_skip`) find a moment more exactly: the skip looks 21 frames
    ahead and back, and so moments are three times as long.

    Args:
        references: (T, E) arrays, or objects with one as `.embeddings`, of one action.
        video: The performance, of the same width; it is not among the references.
        compared: Other vectors whose distance is taken along the same alignment, such as frames of pixels: a (T, C)
            array for each reference, and one for the video.

    Returns:
        Distance, band and moments. With one reference the band holds 85 % of the video's own frames, which `note` says.

    Raises:
        ValueError: if there is no reference, one has fewer than two frames, they show several actions, or as `align`.

    Example:
        >>> steps = np.arange(12.0)[:, None]
        >>> other = steps.copy()
        >>> other[6] = 9
        >>> found = deviation([steps, steps + 0.1, steps - 0.1], other)
        >>> found.moments[0].start <= 6 < found.moments[0].end
        True
    """
    _check(references, video)
    vectors, own = compared or ([_rows(r) for r in references], _rows(video))
    frames, moving = [_moving(v) for v in vectors], _moving(own)
    matched = np.stack([align(video, reference) for reference in references])
    at = np.stack([f[m] for f, m in zip(frames, matched)])
    distance = np.linalg.norm(moving - at.mean(axis=0), axis=1)
    closest = int(np.linalg.norm(moving - at, axis=2).mean(axis=1).argmin())
    if len(references) == 1:
        band, note = np.full(len(distance), np.quantile(distance, INSIDE)), ONE_REFERENCE
    else:
        pairs = [[align(a, b) for b in references] for a in references]
        left_out = [_left_out(i, frames, pairs[i]) for i in range(len(frames))]
        ratios = np.concatenate([left_out[i] / _usual(left_out, pairs[i]) for i in range(len(frames))])
        usual = _usual(left_out, matched)
        level = float(np.median(distance / usual) / max(np.median(ratios), 1e-12))
        band = usual * np.quantile(ratios, INSIDE) * max(1.0, level)
        note = FURTHER.format(level=level) if level > 1.2 else ""
    return Deviation(matched, distance, band, _moments(distance / np.maximum(band, 1e-12)), closest, note)


def _check(references: Sequence[Video], video: Video) -> None:
    if not len(references):
        raise ValueError("deviation needs at least one reference, got none: name a good performance")
    for i, each in enumerate([*references, video]):
        name = getattr(each, "name", "the video" if i == len(references) else f"references[{i}]")
        if len(_rows(each)) < 2:
            raise ValueError(f"{name} has {len(_rows(each))} frame(s), and movement needs two: leave it out")
    actions = {each.action for each in [*references, video] if hasattr(each, "action")}
    if len(actions) > 1:
        raise ValueError(f"references and video must show one action, got {', '.join(sorted(actions))}")


def _rows(video: Any) -> np.ndarray:
    return np.asarray(getattr(video, "embeddings", video))


def _moving(vectors: np.ndarray) -> np.ndarray:
    """(T, E) -> (T, 2E): the vectors, and their weighted change over ±1 frame, ends clamped."""
    rows = np.asarray(vectors, np.float64).reshape(len(vectors), -1)
    padded = np.concatenate([rows[:1], rows, rows[-1:]])
    return np.concatenate([rows, MOVEMENT * (padded[2:] - padded[:-2])], axis=1)


def _left_out(i: int, frames: Sequence[np.ndarray], matched: Sequence[Indices]) -> np.ndarray:
    """(T,) distance of reference `i` to the mean of the others along their alignment."""
    others = [frames[j][m] for j, m in enumerate(matched) if j != i]
    return np.linalg.norm(frames[i] - np.mean(others, axis=0), axis=1)


def _usual(left_out: Sequence[np.ndarray], matched: Sequence[Indices] | Indices) -> np.ndarray:
    """(T,) distance that the references have at the moments matched to a video's frames."""
    here = np.mean([distance[m] for distance, m in zip(left_out, matched)], axis=0)
    return np.maximum((1 - EVERYWHERE) * here + EVERYWHERE * np.concatenate(left_out).mean(), 1e-12)


def _moments(ratio: np.ndarray) -> tuple[Moment, ...]:
    """The stretches where (T,) distance over band is above 1, the furthest first."""
    outside = np.flatnonzero(ratio > 1)
    if not len(outside):
        return ()
    runs = np.split(outside, np.flatnonzero(np.diff(outside) > GAP + 1) + 1)
    found = []
    for run in runs:
        start, end = int(run[0]), int(run[-1]) + 1
        peak = start + int(ratio[start:end].argmax())
        found.append(Moment(start, end, peak, float(ratio[peak])))
    return tuple(sorted(found, key=lambda moment: -moment.excess))
