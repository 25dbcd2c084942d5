"""Repetitions in one recording: how many there are, and where each begins, from its embeddings alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_FRAMES = 15  # of a repetition; the motion skip, which sees 12 frames to both sides, blurs shorter ones
GRID = 240  # most places at which a recording may be cut, evenly spaced; a longer recording is cut less finely
MOST_FRAMES = 9600  # that are compared, which takes 370 MB: every n-th frame of more
SAMPLES = 12  # moments at which two repetitions are compared
LONGEST_RATIO = 2.0  # of neighbouring repetitions
# chosen on drawn recordings of data_seed 21 and on training recordings of pull-ups (docs/design.md)
LEAST_LIKENESS = 0.15  # of neighbouring repetitions, from which on another one is better than none
LEAST_ROOM = 0.2  # of the likeness that repetitions could have
SHARE_OF_MEDIAN = 0.65  # of the recording's median likeness, which neighbours must reach too
LEFT_OUT = 0.1  # cost of time left out at an end, as long as a repetition or longer
LEFT_OUT_LIKE = 2.0  # times the likeness of that time to the nearest repetition


@dataclass(frozen=True)
class Repetitions:
    """The repetitions of one recording, one after the other; without a second one the whole recording is one.

    Attributes:
        cuts: (K + 1,) first frame of each of K repetitions, and the frame after the last; idle time lies outside.
        likeness: (K - 1,) mean cosine similarity of each repetition to the next at the same share of both, minus that
            half a repetition apart, as a share of what it could be, 1 minus the latter: about 0 for a stretch that
            stays as it is or drifts evenly, and 1 for equal repetitions.
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

    The recording is taken to begin and to end between two repetitions, or in idle time. Neighbouring repetitions are
    alike when frames at the same share of both are more similar than frames half a repetition apart. As these lie, on
    average, as far apart in time, a clock adds nothing, and a stretch that stays as it is is no repetition. Of all ways
    to cut the recording the one is taken in which the likeness of neighbours, 0.15 subtracted from each, adds up to
    most. Time left out at the ends costs a little, and more if it is like the repetition next to it. A second pass asks
    of all neighbours 65 % of the recording's median likeness, so that idle time is not counted. Dynamic programming
    over pairs of cuts finds both; neighbours differ at most twofold in length.

    Args:
        embeddings: (T, E) of unit norm.

    Returns:
        The repetitions, of at least 15 frames each; one if nothing repeats.

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
    step = -(-len(embeddings) // MOST_FRAMES)
    compared = embeddings[::step]
    likenesses = _Likenesses.of(compared @ compared.T)
    cuts, likeness = likenesses.best_cuts(LEAST_LIKENESS)
    if len(likeness):
        cuts, likeness = likenesses.best_cuts(max(LEAST_LIKENESS, SHARE_OF_MEDIAN * float(np.median(likeness))))
    return Repetitions(np.minimum(cuts * step, len(embeddings)), likeness)


def count_passes(embeddings: np.ndarray, phases: np.ndarray | None = None) -> int:
    """How often a video goes through its action: by its (T,) phases if it has labels, else by `find_repetitions`.

    Example:
        >>> count_passes(np.zeros((6, 2)), np.array([-1, 0, 1, 0, 1, -1]))
        2
    """
    known = np.array([]) if phases is None else phases[phases >= 0]
    return 1 + int((np.diff(known) < 0).sum()) if len(known) else find_repetitions(embeddings).count


@dataclass(frozen=True)
class _Likenesses:
    """How alike all pairs of neighbouring stretches are. Places are cuts on the grid.

    Attributes:
        places: (G + 1,) frames.
        shortest: Of a repetition, in steps of the grid.
        pairs: By the place between two stretches, (starts, ends) likeness; minus infinity where they may not be.
        before: (G + 1, G + 1) cost of leaving out the time before a first repetition, by its start and end.
        after: The same for the time after a last one.
    """

    places: np.ndarray
    shortest: int
    pairs: dict[int, np.ndarray]
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, similar: np.ndarray) -> _Likenesses:
        """Of the (T, T) similarity of frames."""
        length = len(similar)
        places = np.linspace(0, length, min(length, GRID) + 1).round().astype(int)
        number, shortest = np.arange(len(places)), int(np.ceil(FEWEST_FRAMES * min(1.0, GRID / length)))
        shares, lengths = (np.arange(SAMPLES) + 0.5) / SAMPLES, (places - places[:, None])[..., None]
        moments = (places[:, None, None] + shares * lengths).astype(int).clip(0, length - 1)
        halfway = np.roll(moments, SAMPLES // 2, axis=-1)
        pairs = {}
        for b in range(shortest, len(places) - shortest):
            starts, ends = number[: b - shortest + 1], number[b + shortest :]
            first = moments[starts, b][:, None]
            same, apart = (similar[first, at].mean(-1) for at in (moments[b, ends], halfway[b, ends]))
            likeness = (same - apart) / np.maximum(1 - apart, LEAST_ROOM)
            ratio = (ends - b) / (b - starts)[:, None]
            pairs[b] = np.where((ratio > LONGEST_RATIO) | (ratio < 1 / LONGEST_RATIO), -np.inf, likeness)
        steps = np.maximum(number - number[:, None], 1)
        left_out = (
            (number[:, None], places[:, None, None] + (shares - 1) * lengths),
            (
                number[-1] - number,
                places[:, None] + shares * lengths,
            ),
        )
        costs = []
        for left, times in left_out:
            there = (times >= 0) & (times < length)
            frames = np.floor(times).astype(int).clip(0, length - 1)
            likeness = ((similar[frames, moments] - similar[frames, halfway]) * there).mean(-1)
            cost = LEFT_OUT * np.minimum(1, left / steps) + LEFT_OUT_LIKE * np.maximum(likeness, 0)
            costs.append(np.where(left > 0, cost, 0))
        return cls(places, shortest, pairs, *costs)

    def best_cuts(self, least: float) -> tuple[np.ndarray, np.ndarray]:
        """The cuts (K + 1,) and the likeness of neighbours (K - 1,), minus `least` each adding up to most."""
        last = len(self.places) - 1
        number = np.arange(last + 1)
        # best[b, c]: the most that cuts up to `c` add whose last repetition is b to c; before[b, c]: the cut before b
        best = np.where(number - number[:, None] >= self.shortest, -self.before, -np.inf)
        before = np.full((last + 1, last + 1), -1)
        for b, likeness in self.pairs.items():
            total = best[: len(likeness), b][:, None] + likeness - least
            ends, better = slice(b + self.shortest, None), total.max(axis=0) > best[b, b + self.shortest :]
            best[b, ends] = np.where(better, total.max(axis=0), best[b, ends])
            before[b, ends] = np.where(better, total.argmax(axis=0), -1)
        final = np.where(before >= 0, best - self.after, -np.inf)
        b, c = (int(place) for place in np.unravel_index(final.argmax(), final.shape))
        if final[b, c] <= 0:
            return self.places[[0, last]], np.array([])
        cuts, found = [c], []
        while before[b, c] >= 0:
            cuts.append(b)
            found.append(self.pairs[b][before[b, c], c - b - self.shortest])
            b, c = int(before[b, c]), b
        return self.places[[b, *cuts[::-1]]], np.array(found[::-1])
