"""The nearest frames of other videos, exactly, among millions of frames: bounded memory, float32 where it is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
from tqdm.auto import tqdm

from mvf.metrics.neighbours import DistanceKeys
from mvf.metrics.threads import one_thread

_QUERIES, _REFERENCES = 512, 4096  # of one block: 8 MiB of distances
_SMALL = 2**16  # references: products with fewer are not worth a second thread
_DENSE = 1 / 64  # share of a block from which on all of it is computed in float64
_ROUNDING = 2.0**-24  # of float32


def nearest_in_others(
    videos: Sequence[np.ndarray], k: int, queries: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The k nearest frames of other videos by squared Euclidean distance, the first on ties.

    Every distance is computed in float32 and only those that its rounding leaves open again in float64, so that the
    result is that of `DistanceKeys`, whatever the blocks. Beside the videos there are two copies of them in memory.

    Args:
        videos: (T, E); frames are numbered through all of them.
        k: Neighbours; the other videos hold at least so many frames.
        queries: (Q,) frames that ask; all by default.

    Yields:
        Frames (n,) that ask, and (n, k) the frames nearest to them, nearest first.

    Example:
        >>> blocks = nearest_in_others([np.array([[0.0], [1.0]]), np.array([[3.0], [0.9]])], k=2)
        >>> [nearest.tolist() for _, nearest in blocks]
        [[[3, 2], [3, 2], [1, 0], [1, 0]]]
    """
    frames = np.concatenate(videos)
    edges = np.cumsum([0, *map(len, videos)])
    queries = np.arange(len(frames)) if queries is None else np.asarray(queries)
    search = _Search(frames, edges)
    threads = one_thread() if len(frames) < _SMALL else nullcontext()
    with threads, tqdm(total=len(queries), unit="frame", desc="nearest frames", delay=5, leave=False) as bar:
        for start in range(0, len(queries), _QUERIES):
            rows = queries[start : start + _QUERIES]
            yield rows, search.nearest(rows, k)
            bar.update(len(rows))


class _Search:
    """Frames (N, E) of videos cut at `edges`, in float32 as |q - r|^2 = |q|^2 + |r|^2 - 2 q.r wants them."""

    def __init__(self, frames: np.ndarray, edges: np.ndarray) -> None:
        self.keys = DistanceKeys(frames, frames)
        self.edges = edges
        self.frames = frames
        self.scaled = np.ones((len(frames), frames.shape[1] + 1), np.float32)  # r and |r|^2, of norms up to about 1
        for start in range(0, len(frames), _REFERENCES):
            part = slice(start, start + _REFERENCES)
            centred = self.keys.centred(frames[part]) / self.keys.scale
            self.scaled[part, :-1], self.scaled[part, -1] = centred, np.square(centred).sum(1)

    def nearest(self, rows: np.ndarray, k: int) -> np.ndarray:
        """(n, k) frames of other videos nearest to frames `rows`."""
        video = np.searchsorted(self.edges, rows, side="right") - 1
        own = self.edges[video], self.edges[video + 1]
        asking = self.scaled[rows] * np.float32(-2)
        asking[:, -1] = 1
        best = np.full((len(rows), k), np.inf)
        for start in range(0, len(self.frames), _REFERENCES):
            best = self._merge(best, rows, slice(start, min(start + _REFERENCES, len(self.frames))), own, asking)
        return self.keys.position(best)

    def _merge(
        self, best: np.ndarray, rows: np.ndarray, columns: slice, own: tuple[np.ndarray, np.ndarray], asking: np.ndarray
    ) -> np.ndarray:
        """The k smallest keys of those in `best` (n, k), in order, and those of the frames in `columns`."""
        limit = self._limit(best[:, -1], asking.shape[1])
        if np.isinf(limit).any():
            hits = None
        else:
            near = asking @ self.scaled[columns].T
            _hide(near, columns, own)
            hits = np.flatnonzero(near <= limit[:, None])
            if not len(hits):
                return best
        if hits is None or len(hits) > _DENSE * near.size:
            keys = self.keys.keys(rows, columns)
            _hide(keys, columns, own)
        else:
            asker, column = np.divmod(hits, columns.stop - columns.start)
            slot = np.arange(len(hits)) - np.searchsorted(asker, asker)  # number of a hit among those of its query
            keys = np.full((len(rows), slot.max() + 1), np.inf)
            keys[asker, slot] = self.keys.pair_keys(rows[asker], column + columns.start)
        keys = np.concatenate([best, keys], axis=1)
        keys.partition(best.shape[1] - 1, axis=1)
        return np.sort(keys[:, : best.shape[1]], axis=1)

    def _limit(self, worst: np.ndarray, terms: int) -> np.ndarray:
        """Below this a float32 distance may belong to a frame nearer than the key `worst`; inf where there is none.

        A sum of n products is off by n roundings of 2 |q - origin| |r - origin| + |r - origin|^2 at most, which is 3 in
        scaled frames, its factors and this limit by a few more; the key is off by half a step of its grid.
        """
        slack = 3 * (terms + 8) * _ROUNDING + 2 * self.keys.grid / self.keys.scale**2
        return (self.keys.distance(worst) / self.keys.scale**2 + slack).astype(np.float32)


def _hide(values: np.ndarray, columns: slice, own: tuple[np.ndarray, np.ndarray]) -> None:
    """Sets to infinity what a query's own video has in a block (n, columns)."""
    first, last = (np.clip(edge - columns.start, 0, values.shape[1]) for edge in own)
    for row in np.flatnonzero(last > first):
        values[row, first[row] : last[row]] = np.inf
