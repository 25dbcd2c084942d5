"""Exact nearest neighbours by squared Euclidean distance, the first one on ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mvf.metrics.threads import one_thread

_BLOCK = 2**18  # keys held at once: 2 MiB, so that the passes over them stay in cache
_REFERENCES = 2**12  # of them at least so many, if there are: fewer queries a product would make it slow


class DistanceKeys:
    """Numbers that order references by distance to a query, and by position where distances tie.

    |q - r|^2 orders like |r|^2 - 2 q.r, a single matrix product. In floating point the product breaks ties at
    random, so it is rounded to a grid far above its rounding error and far below any real difference (2^-40 of the
    largest squared norm); the position then goes into the digits below the grid. Keys are whole and under 2^53: exact.

    Args:
        queries: (Q, E).
        references: (R, E), at least one.

    Example:
        >>> DistanceKeys(np.array([[0.0]]), np.array([[2.0], [1.0], [-1.0]])).keys(slice(0, 1)).argsort(1)
        array([[1, 2, 0]])
    """

    def __init__(self, queries: np.ndarray, references: np.ndarray) -> None:
        self._origin = references[0].astype(np.float64)  # a common offset would cost digits
        self._queries, self._references = queries, references
        largest = max(self._largest(references), self._largest(queries)) or 1.0
        self.base = 2.0 ** np.ceil(np.log2(len(references)))
        digits = min(40, 51 - int(np.log2(self.base)))
        self.grid = 2.0 ** (np.ceil(np.log2(largest)) - digits)  # powers of two: scaling by them loses nothing
        self.scale = 2.0 ** np.ceil(np.log2(largest) / 2)  # at least every norm

    def centred(self, frames: np.ndarray) -> np.ndarray:
        """Frames (n, E) as float64, from the origin that distances are computed from."""
        return frames - self._origin

    def factors(self, columns: slice | np.ndarray = slice(None)) -> np.ndarray:
        """(E + 1, columns): -2 r and |r|^2 on the grid; their product with a query and 1 is a distance."""
        references = self.centred(self._references[columns])
        return np.column_stack([-2 * references, np.square(references).sum(1)]).T / self.grid

    def distances(self, rows: slice, factors: np.ndarray) -> np.ndarray:
        """Distances of the queries in `rows` on the grid, but for a constant a row, (rows, columns)."""
        queries = self.centred(self._queries[rows])
        queries = np.column_stack([queries, np.ones(len(queries))])
        with one_thread():
            distances = queries @ factors
        return np.rint(distances, out=distances)

    def keys(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Distances and positions in one number, (rows, columns): all different, so that partial sorts are exact."""
        keys = self.distances(rows, self.factors(columns))
        keys *= self.base
        keys += np.arange(len(self._references))[columns]
        return keys

    def pair_keys(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The keys of single pairs of a query and a reference, (n,)."""
        queries, factors = self.centred(self._queries[rows]), self.factors(columns)
        distances = np.einsum("ij,ji->i", queries, factors[:-1]) + factors[-1]
        return np.rint(distances) * self.base + columns

    def position(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the references that the keys belong to."""
        return np.mod(keys, self.base).astype(np.intp)

    def distance(self, keys: np.ndarray) -> np.ndarray:
        """Distances that keys were made from, but for a constant a query."""
        return np.floor(keys / self.base) * self.grid

    def _largest(self, frames: np.ndarray) -> float:
        """Largest squared norm, without a copy of all frames."""
        parts = (frames[start : start + _REFERENCES] for start in range(0, len(frames), _REFERENCES))
        return max((np.square(self.centred(part)).sum(1).max() for part in parts), default=0.0)


def nearest_in_videos(queries: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Position of each query frame's nearest neighbour in each reference video.

    Args:
        queries: Videos (T, E).
        references: Videos (T, E); one without frames gets position -1.

    Returns:
        For each query video (T, len(references)).

    Example:
        >>> nearest_in_videos([np.array([[0.0], [1.0]])], [np.array([[1.0], [0.0]]), np.array([[5.0]])])
        [array([[1, 0], [0, 0]])]
    """
    return list(nearest_by_video(queries, references))


def nearest_by_video(queries: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """`nearest_in_videos`, a group of query videos at a time: the whole of many videos would not fit in memory."""
    bounds = np.cumsum([0, *map(len, references)])
    if not bounds[-1]:
        yield from (np.full((len(video), len(references)), -1) for video in queries)
        return
    search = DistanceKeys(np.concatenate(queries), np.concatenate(references)) if sum(map(len, queries)) else None
    first = 0  # query frame
    for group in _groups([len(video) for video in queries], _REFERENCES):
        videos = queries[group]
        nearest = np.full((sum(map(len, videos)), len(references)), -1)
        if search is not None:
            _fill_nearest(nearest, search, first, bounds)
        first += len(nearest)
        yield from split_videos(nearest, videos)


def _fill_nearest(nearest: np.ndarray, search: DistanceKeys, first: int, bounds: np.ndarray) -> None:
    """Writes where in each video, cut from the references by `bounds`, the nearest frame of the queries lies.

    Args:
        nearest: (queries, videos), the queries being those of the search from `first` on.
    """
    for group in _groups(np.diff(bounds), _REFERENCES):
        start, stop = bounds[group.start], bounds[group.stop]
        factors = search.factors(slice(start, stop))
        step = max(1, _BLOCK // max(1, stop - start))
        for row in range(0, len(nearest), step):
            rows = slice(row, min(row + step, len(nearest)))
            distances = search.distances(slice(first + rows.start, first + rows.stop), factors)
            for index in range(group.start, group.stop):
                own = slice(bounds[index] - start, bounds[index + 1] - start)
                if own.stop > own.start:
                    nearest[rows, index] = distances[:, own].argmin(1)


def _groups(lengths: Sequence[int], size: int) -> Iterator[slice]:
    """Runs of neighbouring videos that hold `size` frames or fewer together, or a single longer one.

    Example:
        >>> list(_groups([3, 3, 9, 1], 6))
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    first, frames = 0, 0
    for index, length in enumerate(lengths):
        if index > first and frames + length > size:
            yield slice(first, index)
            first, frames = index, 0
        frames += length
    if len(lengths):
        yield slice(first, len(lengths))


def split_videos(frames: np.ndarray, videos: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cuts the joined frames of all videos at the videos' lengths.

    Example:
        >>> split_videos(np.arange(3), [np.zeros((1, 2)), np.zeros((2, 2))])
        [array([0]), array([1, 2])]
    """
    return np.split(frames, np.cumsum([len(video) for video in videos])[:-1])
