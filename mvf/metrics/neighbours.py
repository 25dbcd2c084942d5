"""Exact nearest neighbours by squared Euclidean distance, the first one on ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mvf.metrics.threads import one_thread

_BLOCK = 2**18  # keys held at once: 2 MiB, so that the passes over them stay in cache


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
        origin = references[0].astype(np.float64)  # a common offset would cost digits
        queries, references = queries - origin, references - origin
        squares = np.square(references).sum(1)
        largest = max(squares.max(), np.square(queries).sum(1).max(initial=0)) or 1.0
        self.base = 2.0 ** np.ceil(np.log2(len(references)))
        digits = min(40, 51 - int(np.log2(self.base)))
        grid = 2.0 ** (np.ceil(np.log2(largest)) - digits)  # powers of two: scaling by them loses nothing
        self._queries = np.column_stack([queries, np.ones(len(queries))])
        self._references = np.column_stack([-2 * references, squares]).T / grid
        self._positions = np.arange(len(references), dtype=np.float64)

    def distances(self, rows: slice) -> np.ndarray:
        """Distances of the queries in `rows` on the grid, but for a constant a row, (rows, R)."""
        with one_thread():
            distances = self._queries[rows] @ self._references
        return np.rint(distances, out=distances)

    def keys(self, rows: slice) -> np.ndarray:
        """Distances and positions in one number, (rows, R): all different, so that partial sorts are exact."""
        keys = self.distances(rows)
        keys *= self.base
        keys += self._positions
        return keys

    def position(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the references that the keys belong to."""
        return np.mod(keys, self.base).astype(np.intp)

    def blocks(self) -> Iterator[slice]:
        """Slices of rows that cover the queries, each with few enough keys to stay in cache."""
        step = max(1, _BLOCK // len(self._positions))
        return (slice(start, start + step) for start in range(0, len(self._queries), step))


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
    bounds = np.cumsum([0, *map(len, references)])
    nearest = np.full((sum(map(len, queries)), len(references)), -1)
    if nearest.size and bounds[-1]:
        search = DistanceKeys(np.concatenate(queries), np.concatenate(references))
        for rows in search.blocks():
            distances = search.distances(rows)
            for index, (start, stop) in enumerate(zip(bounds, bounds[1:])):
                if stop > start:
                    nearest[rows, index] = distances[:, start:stop].argmin(1)
    return split_videos(nearest, queries)


def split_videos(frames: np.ndarray, videos: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cuts the joined frames of all videos at the videos' lengths.

    Example:
        >>> split_videos(np.arange(3), [np.zeros((1, 2)), np.zeros((2, 2))])
        [array([0]), array([1, 2])]
    """
    return np.split(frames, np.cumsum([len(video) for video in videos])[:-1])
