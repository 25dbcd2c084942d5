"""Exact nearest neighbours by squared Euclidean distance, the first one on ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from mvf.progress import tqdm

_BLOCK = 2**18  # keys held at once: 2 MiB, so that the passes over them stay in cache
_REFERENCES = 2**12  # frames per group of references; smaller matrix products would be slow


class DistanceKeys:
    """Numbers that order references by distance to a query, and by position where distances tie.

    |q - r|^2 orders like |r|^2 - 2 q.r, a single matrix product. In floating point the product breaks ties at
    random, so it is rounded to a grid far above its rounding error and far below any real difference (2^-40 of the
    largest squared norm); the position then goes into the digits below the grid. Keys are integers below 2^53: exact.

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

    def distances(self, rows: slice | np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Distances of the queries in `rows` on the grid, up to a constant per row, (rows, columns)."""
        queries = self.centred(self._queries[rows])
        queries = np.column_stack([queries, np.ones(len(queries))])
        with one_thread():
            distances = queries @ factors
        return np.rint(distances, out=distances)

    def keys(self, rows: slice | np.ndarray, columns: slice = slice(None)) -> np.ndarray:
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
        """Distances that the keys were made from, up to a constant per query."""
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
    """Yields `nearest_in_videos` in groups of query videos, since the result for many videos may not fit in memory."""
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
    """Writes the position of each query's nearest frame in each video; `bounds` cuts the references into videos.

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


def _groups(lengths: Sequence[int] | np.ndarray, size: int) -> Iterator[slice]:
    """Runs of consecutive videos that together hold at most `size` frames, or a single longer one.

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


# ----------------------------------------------------------------------------------------------------------------------
# Nearest frames of other videos

_QUERIES = 512  # queries per block; with `_REFERENCES` they have 8 MiB of distances
_SMALL = 2**16  # references: products with fewer are not worth a second thread
_DENSE = 1 / 64  # share of a block from which on all of it is computed in float64
_ROUNDING = 2.0**-24  # relative rounding error of float32


def nearest_in_others(
    videos: Sequence[np.ndarray], k: int, queries: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The k nearest frames of other videos by squared Euclidean distance, the first on ties.

    Every distance is computed in float32, and only those that rounding leaves undecided again in float64, so that the
    result equals that of `DistanceKeys` for any size of blocks. Two copies of the videos are held in memory.

    Args:
        videos: (T, E); frames are numbered through all of them.
        k: Number of neighbours; the other videos must hold at least so many frames.
        queries: (Q,) query frames; all by default.

    Yields:
        Query frames (n,), and the frames nearest to them (n, k), nearest first.

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
    """Frames (N, E) of videos cut at `edges`, prepared in float32 for |q - r|^2 = |q|^2 + |r|^2 - 2 q.r."""

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
        """The k smallest keys, in order, among those in `best` (n, k) and those of the frames in `columns`."""
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
        """Float32 distance up to which a frame may be nearer than the key `worst`; inf where there is no key.

        A sum of n products is off by n roundings of 2 |q - origin| |r - origin| + |r - origin|^2 at most, which is 3 in
        scaled frames; its factors and this limit add a few more, and the key is off by half a step of its grid.
        """
        slack = 3 * (terms + 8) * _ROUNDING + 2 * self.keys.grid / self.keys.scale**2
        return (self.keys.distance(worst) / self.keys.scale**2 + slack).astype(np.float32)


def _hide(values: np.ndarray, columns: slice, own: tuple[np.ndarray, np.ndarray]) -> None:
    """Sets the values of a query's own video in a block (n, columns) to infinity."""
    first, last = (np.clip(edge - columns.start, 0, values.shape[1]) for edge in own)
    for row in np.flatnonzero(last > first):
        values[row, first[row] : last[row]] = np.inf


# ----------------------------------------------------------------------------------------------------------------------
# Single-threaded linear algebra


def one_thread() -> AbstractContextManager:
    """Limits BLAS and OpenMP to one thread inside a `with` block.

    With two threads and another job on the machine, small fits and products are up to a hundred times slower.

    Example:
        >>> import numpy as np
        >>> with one_thread():
        ...     np.ones((2, 2)) @ np.ones(2)
        array([2., 2.])
    """
    return _controller().limit(limits=1)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # cached, because reading the list of loaded libraries takes 10 ms


# ----------------------------------------------------------------------------------------------------------------------
# Checks of lists of videos


def check_embeddings(embeddings: Sequence[np.ndarray], name: str = "embeddings") -> list[np.ndarray]:
    """The videos as floating (T, E) arrays of one width E.

    Raises:
        ValueError: if there is no video, or one is not (T, E), has another width, or holds NaN or infinity;
            the message names the video's index.

    Example:
        >>> check_embeddings([[[1, 2]], [[3, 4]]])[1]
        array([[3., 4.]])
    """
    if len(embeddings) == 0:
        raise ValueError(f"{name} must hold at least one video, got none")
    videos = [_floating(video) for video in embeddings]
    for index, video in enumerate(videos):
        if video.ndim != 2 or video.shape[1] != videos[0].shape[-1]:
            wanted = f"(T, {videos[0].shape[-1]})" if videos[0].ndim == 2 else "(T, E)"
            raise ValueError(f"{name}[{index}] must be {wanted}, got {video.shape}")
        if not np.isfinite(video).all():
            raise ValueError(f"{name}[{index}] holds NaN or infinity; embed that video again or leave it out")
    return videos


def check_labels(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], name: str = "embeddings"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Checked embeddings with one integer (T,) array of phases for each of them."""
    videos = check_embeddings(embeddings, name)
    if len(phases) != len(videos):
        raise ValueError(
            f"{name} has {len(videos)} videos, its phases {len(phases)}; give one array of phases for each"
        )
    labels = [np.asarray(label) for label in phases]
    for index, (video, label) in enumerate(zip(videos, labels)):
        if label.shape != video.shape[:1]:
            raise ValueError(f"phases of {name}[{index}] must be {video.shape[:1]}, one per frame, got {label.shape}")
        if label.dtype.kind not in "iu":
            raise ValueError(f"phases of {name}[{index}] must be integers, got {label.dtype}")
    return videos, labels


def labelled_frames(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], name: str = "embeddings"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every video without its unlabelled frames (phase < 0); such a video may become empty.

    `kendall_tau` takes no labels, so a caller that has labels drops frames with this function first.

    Raises:
        ValueError: if no video has a labelled frame.

    Example:
        >>> labelled_frames([[[1.0], [2.0], [3.0]]], [[-1, 0, 1]])
        ([array([[2.], [3.]])], [array([0, 1])])
    """
    videos, labels = check_labels(embeddings, phases, name)
    if not any((label >= 0).any() for label in labels):
        raise ValueError(f"no frame of {name} is labelled (every phase is below 0)")
    return [v[p >= 0] for v, p in zip(videos, labels)], [p[p >= 0] for p in labels]


def count_videos(fraction: float, videos: int) -> int:
    """How many videos a label fraction keeps: the first max(1, int(fraction * videos)).

    Example:
        >>> [count_videos(fraction, 15) for fraction in (0.01, 0.1, 0.5, 1.0)]
        [1, 1, 7, 15]
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    return max(1, int(fraction * videos))


def check_stride(stride: int) -> None:
    """Refuses a frame stride below 1."""
    if stride < 1:
        raise ValueError(f"stride must be at least 1 frame, got {stride}")


def check_same_width(first: np.ndarray, second: np.ndarray, names: str) -> None:
    """Refuses two sets of embeddings of different width E."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{names} must have one width, got {first.shape[1]} and {second.shape[1]} channels")


def _floating(video: np.ndarray) -> np.ndarray:
    video = np.asarray(video)
    return video if video.dtype in (np.float32, np.float64) else video.astype(np.float64)
