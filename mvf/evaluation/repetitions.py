"""Repetitions in one recording: how many there are, and where each begins, from its embeddings alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_FRAMES = 6  # of a repetition
GRID = 240  # most places at which a recording may be cut, evenly spaced; a longer recording is cut less finely
SAMPLES = 12  # moments at which two repetitions are compared
LEAST_GAIN = 0.15  # chosen on training recordings of pull-ups
LONGEST_RATIO = 2.0  # of neighbouring repetitions


@dataclass(frozen=True)
class Repetitions:
    """The repetitions of one recording, one after the other; without a second one the whole recording is one.

    Attributes:
        cuts: (K + 1,) first frame of each of K repetitions, and the number of frames.
        likeness: (K - 1,) similarity of each repetition to the next, minus that of their own moments to one another:
            about 0 for a stretch that stays as it is, and at most 2.
    """

    cuts: np.ndarray
    likeness: np.ndarray

    @property
    def count(self) -> int:
        return len(self.cuts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(K,) number of frames of each repetition."""
        return np.diff(self.cuts)


def find_repetitions(embeddings: np.ndarray) -> Repetitions:
    """Cuts a recording into repetitions of one movement.

    The recording is taken to begin and to end between two repetitions. Of all ways to cut it, the one is taken whose
    neighbouring repetitions are most alike: each adds the mean cosine similarity of its frames to those at the same
    share of the next, minus the mean similarity of frames half a repetition apart, minus 0.15. So a stretch that
    stays as it is does not count as repetition, a repetition is not cut in half, and more of them are better than
    fewer long ones. Dynamic programming over pairs of cuts finds it; neighbours differ at most twofold in length.

    Args:
        embeddings: (T, E) of unit norm.

    Returns:
        The repetitions; one if nothing repeats.

    Raises:
        ValueError: if the embeddings are not (T, E), are empty or hold NaN.

    Example:
        >>> turns = np.linspace(0, 6 * np.pi, 60, endpoint=False)  # three of them
        >>> find_repetitions(np.stack([np.cos(turns), np.sin(turns)], axis=1)).cuts
        array([ 0, 20, 40, 60])
    """
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or not embeddings.size or not np.isfinite(embeddings).all():
        raise ValueError(f"embeddings must be (T, E) without NaN, got {embeddings.shape}; embed the recording again")
    length = len(embeddings)
    places = np.linspace(0, length, min(length, GRID) + 1).round().astype(int)
    last, shortest = len(places) - 1, int(np.ceil(FEWEST_FRAMES * min(1.0, GRID / length)))
    similar = embeddings @ embeddings.T
    shares = (np.arange(SAMPLES) + 0.5) / SAMPLES
    moments = (places[:, None, None] + shares * (places - places[:, None])[..., None]).astype(int).clip(0, length - 1)
    still = similar[moments, np.roll(moments, SAMPLES // 2, axis=-1)].mean(axis=-1)
    # best[b, c]: the most that cuts up to `c` add whose last repetition is b to c; before[b, c]: the cut before b
    best, before = np.full((last + 1, last + 1), -np.inf), np.zeros((last + 1, last + 1), int)
    best[0, shortest:] = 0
    for b in range(shortest, last - shortest + 1):
        starts = np.arange(b - shortest + 1)
        starts = starts[np.isfinite(best[starts, b])]
        ends = np.arange(b + shortest, last + 1)
        if not len(starts):
            continue
        alike = similar[moments[starts, b][:, None], moments[b, ends][None]].mean(axis=-1)
        gain = alike - (still[starts, b][:, None] + still[b, ends]) / 2 - LEAST_GAIN
        ratio = (ends - b) / (b - starts)[:, None]
        gain[(ratio > LONGEST_RATIO) | (ratio < 1 / LONGEST_RATIO)] = -np.inf
        total = best[starts, b][:, None] + gain
        chosen = total.argmax(axis=0)
        best[b, ends], before[b, ends] = total.max(axis=0), starts[chosen]
    b, c = int(best[:, last].argmax()), last
    if best[b, last] <= 0:
        return Repetitions(np.array([0, length]), np.array([]))
    cuts, gains = [c], []
    while b > 0:
        a = before[b, c]
        gains.append(best[b, c] - best[a, b] + LEAST_GAIN)
        cuts.append(b)
        b, c = a, b
    return Repetitions(places[[0, *cuts[::-1]]], np.array(gains[::-1]))
