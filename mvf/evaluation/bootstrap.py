"""Paired bootstrap over videos, and the verdict on whether a score exceeds that of a clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 2000
FEWEST = 5  # videos per action; with fewer, the bootstrap too often finds a difference where there is none
VideoSums = Mapping[str, np.ndarray]  # by action: (V, ...) sums of each validation video, see `combine`


def combine(sums: np.ndarray) -> np.ndarray:
    """Computes a score from sums over videos.

    Every score is a function of such sums, so a resample of the videos only changes the weight of each video.

    Args:
        sums: (..., 2) numerator and denominator of a mean; or (..., K, 4) squared error, count, sum and sum of
            squares of the targets of K regressions, whose mean R^2 is the score.

    Returns:
        (...) scores; not finite where a denominator is zero.

    Example:
        >>> float(combine(np.array([3.0, 4.0])))
        0.75
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if sums.shape[-1] == 2:
            return sums[..., 0] / sums[..., 1]
        error, count, total, squares = np.moveaxis(sums, -1, 0)
        return (1 - error / (squares - total**2 / count)).mean(axis=-1)


def paired_interval(first: VideoSums, second: VideoSums, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of score(first) - score(second), averaged over actions, over resamples of the videos.

    Both sides see the same `RESAMPLES` draws, within each action. Draws that leave a score undefined are left out.

    Args:
        first: Sums of one embedding, by action.
        second: Sums of the other, on the same videos in the same order.
        seed: Seed of the draws.

    Returns:
        The two ends, or None if no action has two videos.

    Example:
        >>> sums = {"squat": np.array([[9.0, 10.0], [8.0, 10.0]])}
        >>> paired_interval(sums, {"squat": sums["squat"] - [[2.0, 0.0]]})
        (0.2, 0.2)
    """
    if all(len(sums) < 2 for sums in first.values()):
        return None
    generator = np.random.default_rng(seed)
    differences = []
    for action in sorted(first):
        videos = len(first[action])
        draws = generator.multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
        differences.append(_draw(draws, first[action]) - _draw(draws, second[action]))
    means = np.mean(differences, axis=0)
    means = means[np.isfinite(means)]
    if not len(means):
        return None
    low, high = np.percentile(means, (2.5, 97.5)).round(12)
    return float(low), float(high)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean of one number per video; None with fewer than two."""
    sums = np.stack([values, np.ones(len(values))], axis=1)
    return paired_interval({"": sums}, {"": sums * [[0, 1]]}, seed)


def verdict(
    score: float, clock: float, interval: tuple[float, float] | None, strongest: str = "", r_squared: bool = False
) -> str:
    """One sentence: the score, what the clock alone gets, what the pixels add.

    An R² below zero (`r_squared`) is worse than guessing the mean: it counts as no gain, however low a control is.

    Example:
        >>> verdict(0.96, 0.92, (0.03, 0.05))
        '0.960: the clock alone 0.920, the pixels add 0.040 [0.030, 0.050]'
        >>> verdict(0.96, 0.92, (-0.01, 0.05))
        '0.960: the clock alone 0.920, the pixels add 0.040 [-0.010, 0.050] (not distinguishable from the clock)'
        >>> verdict(0.1, -9.0, (1.0, 20.0), r_squared=True)
        '0.100: the clock alone below the mean'
    """
    if r_squared and score < 0:
        return "below the mean: an R² below zero is no gain over any control"
    low = r_squared and clock < 0
    text = f"{score:.3f}: the clock alone " + ("below the mean" if low else f"{clock:.3f}")
    text += "" if low else f", the pixels add {score - clock:.3f}"
    if interval is None:
        text += " (too few videos for an interval)"
    else:
        text += "" if low else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
        text += " (not distinguishable from the clock)" if interval[0] <= 0 <= interval[1] else ""
    return text + (f"; strongest control: {strongest}" if strongest else "")


def _draw(draws: np.ndarray, sums: np.ndarray) -> np.ndarray:
    return combine(np.tensordot(draws.astype(float), sums.astype(float), axes=1))
