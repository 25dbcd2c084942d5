"""Segment metrics: are the right phases there in the right order, do they overlap, and where do they begin?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Segments = list[tuple[int, int, int]]  # phase, first frame, end


def edit_score(predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray]) -> float:
    """Agreement of the order of segments, whatever their lengths: over-segmentation and missing phases cost.

    One minus the Levenshtein distance between the predicted and the true sequence of phases, divided by the longer of
    the two, averaged over videos. Frames whose true phase is below 0 are dropped first.

    Range: [0, 1], no unit; higher is better. The literature prints it in percent.

    Reference: Lea et al., "Learning convolutional action primitives for fine-grained action recognition", ICRA 2016.

    Args:
        predicted: (T,) integer phases of every video.
        phases: (T,) true phases, -1 where unlabelled.

    Raises:
        ValueError: if the arrays do not fit, or no video has a labelled frame.

    Example:
        >>> edit_score([np.array([0, 1, 0, 1])], [np.array([0, 0, 1, 1])])
        0.5
    """
    scores = []
    for guess, truth in _labelled(predicted, phases):
        a, b = ([phase for phase, _, _ in phase_runs(values)] for values in (guess, truth))
        scores.append(1 - _levenshtein(a, b) / max(len(a), len(b)))
    return float(np.mean(scores))


def segment_f1(predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray], overlap: float) -> float:
    """F1 of predicted segments, which are right if they overlap a true segment of their phase enough.

    A predicted segment is compared with the true segment of its phase that it overlaps most (intersection over union).
    It is right from `overlap` on, unless an earlier one was right about that segment already. Hits and misses of all
    videos are counted together. Frames whose true phase is below 0 are dropped first.

    Range: [0, 1], no unit; higher is better. The literature prints it in percent, at overlaps of 0.1, 0.25 and 0.5.

    Reference: Lea et al., "Temporal convolutional networks for action segmentation and detection", CVPR 2017.

    Args:
        predicted: (T,) integer phases of every video.
        phases: (T,) true phases, -1 where unlabelled.
        overlap: Least intersection over union, above 0 and at most 1.

    Raises:
        ValueError: if the arrays do not fit, no video has a labelled frame, or the overlap is out of range.

    Example:
        >>> segment_f1([np.array([0, 0, 0, 1])], [np.array([0, 0, 1, 1])], overlap=0.5)
        1.0
        >>> segment_f1([np.array([0, 1, 0, 1])], [np.array([0, 0, 1, 1])], overlap=0.5)
        0.666...
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap must be above 0 and at most 1, got {overlap}")
    right = total = 0
    for guess, truth in _labelled(predicted, phases):
        guesses, wanted = phase_runs(guess), phase_runs(truth)
        found: set[int] = set()
        for phase, first, end in guesses:
            shares = [_overlap((first, end), one[1:]) if one[0] == phase else 0.0 for one in wanted]
            best = int(np.argmax(shares))
            if shares[best] >= overlap:
                found.add(best)
        right += len(found)
        total += len(guesses) + len(wanted)
    return 2 * right / total


def boundary_errors(
    predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, int]:
    """Distances from every true beginning of a phase to the nearest predicted beginning of the same phase.

    The beginning of a video's first labelled segment is given and does not count. A beginning whose phase is predicted
    nowhere later than at the first frame has no distance; it is counted.

    Args:
        predicted: (T,) integer phases of every video.
        phases: (T,) true phases, -1 where unlabelled; such frames are dropped.
        times: (T,) seconds of every video's frames; distances are then in seconds instead of frames.

    Returns:
        (n,) distances of all videos, and the number of beginnings without one.

    Raises:
        ValueError: if the arrays do not fit, or no video has a labelled frame.

    Example:
        >>> boundary_errors([np.array([0, 0, 0, 1, 1])], [np.array([0, 1, 1, 1, 2])])
        (array([2.]), 1)
    """
    clocks = [np.arange(len(truth)) for truth in phases] if times is None else list(times)
    found, missed = [], 0
    for (guess, truth), clock in zip(_labelled(predicted, phases), _of_labelled(clocks, phases)):
        begun = [(phase, clock[first]) for phase, first, _ in phase_runs(guess)[1:]]
        for phase, first, _ in phase_runs(truth)[1:]:
            away = [abs(float(time - clock[first])) for other, time in begun if other == phase]
            found += [min(away)] if away else []
            missed += not away
    return np.array(found, float), missed


def phase_runs(phases: np.ndarray) -> Segments:
    """The runs of equal phases: (phase, first frame, end).

    Example:
        >>> phase_runs(np.array([2, 2, 0]))
        [(2, 0, 2), (0, 2, 3)]
    """
    starts = np.flatnonzero(np.diff(phases, prepend=phases[:1] - 1))
    return [(int(phases[a]), int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(phases)])]


def _labelled(predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(predicted) != len(phases):
        raise ValueError(f"predicted and phases must be of the same videos, got {len(predicted)} and {len(phases)}")
    pairs = [(np.asarray(guess), np.asarray(truth)) for guess, truth in zip(predicted, phases)]
    for i, (guess, truth) in enumerate(pairs):
        if guess.shape != truth.shape or guess.ndim != 1:
            raise ValueError(
                f"video {i}: predicted and true phases must both be (T,), got {guess.shape}, {truth.shape}"
            )
    kept = [(guess[truth >= 0], truth[truth >= 0]) for guess, truth in pairs if (truth >= 0).any()]
    if not kept:
        raise ValueError("no frame of any video is labelled: label a video to score segments")
    return kept


def _of_labelled(clocks: Sequence[np.ndarray], phases: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(clock)[truth >= 0] for clock, truth in zip(clocks, phases) if (truth >= 0).any()]


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Intersection over union of two intervals."""
    common = min(a[1], b[1]) - max(a[0], b[0])
    return max(common, 0) / (max(a[1], b[1]) - min(a[0], b[0]))


def _levenshtein(a: Sequence[int], b: Sequence[int]) -> int:
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]
