"""Videos that are cut and resampled in a known way, so that their alignment is known exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvf.data.records import VideoRecord


@dataclass(frozen=True, eq=False)
class WarpedSource:
    """A source with the frames of another video in a given order.

    While the order is ascending, the video is read once, with one frame in memory; each step back starts reading it
    again.

    Attributes:
        record: The video.
        index: (T,) indices of its frames, in the order in which they are shown.
    """

    record: VideoRecord
    index: NDArray[np.int64]

    @property
    def identity(self) -> str:
        return f"{self.record.source.identity}|frames {_digest(self.index)}"

    def count(self) -> int:
        return len(self.index)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return self._read(self.index[start:stop:step])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames at these positions."""
        return self._read(self.index[list(positions)])

    def _read(self, wanted: NDArray[np.int64]) -> Iterator[np.ndarray]:
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) < 0) + 1):
            if len(run):
                yield from self._forward(run)

    def _forward(self, run: NDArray[np.int64]) -> Iterator[np.ndarray]:
        """Yields frames in non-descending order."""
        distinct, times = np.unique(run, return_counts=True)
        for frame, count in zip(self.record.frames_at(distinct.tolist()), times):
            yield from repeat(frame, count)


def warped(record: VideoRecord, index: ArrayLike) -> VideoRecord:
    """Returns a video of the frames `index` of `record`, with their labels.

    Args:
        record: Any video.
        index: (T,) indices of its frames, at least one, in any order.

    Raises:
        ValueError: if `index` is not a list of frames of the video.

    Example:
        >>> from mvf.data import find_videos
        >>> video = find_videos("synthetic", "val", val_videos=1)[0]
        >>> warped(video, [5, 5, 6]).load().shape[0], warped(video, [5, 5, 6]).phases.shape
        (3, (3,))
    """
    index = np.asarray(index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu":
        raise ValueError(f"index must be (T,) integers with at least one frame, got {index.shape} {index.dtype}")
    if index.min() < 0 or index.max() >= record.num_frames:
        raise ValueError(
            f"index must hold frames 0 to {record.num_frames - 1} of {record.name}, got {index.min()} to {index.max()}"
        )
    index = index.astype(np.int64)
    taken = {name: partial(_take, annotation, index) for name, annotation in record.annotations.items()}
    name = f"{record.name}, warped {_digest(index)}"
    return replace(record, name=name, source=WarpedSource(record, index), annotations=taken)


def random_warp(
    num_frames: int,
    generator: np.random.Generator,
    share: tuple[float, float] = (0.5, 0.8),
    tempo: tuple[float, float] = (0.6, 1.6),
    pieces: int = 4,
) -> NDArray[np.int64]:
    """Draws a random window of a video, with a random tempo for each of its equal segments.

    Frames are selected, not interpolated: a slow segment repeats frames and a fast one skips some.

    Args:
        num_frames: Number of frames of the video.
        generator: Draws the window's size and position and the tempos, which are log-uniform, so that slow and fast
            are equally likely.
        share: Minimum and maximum share of the video.
        tempo: Minimum and maximum number of source frames per frame.
        pieces: Number of segments of the window.

    Returns:
        (T,) source frames in non-descending order, the true alignment.

    Raises:
        ValueError: for an empty video or an invalid range.

    Example:
        >>> index = random_warp(100, np.random.default_rng(0))
        >>> index[[0, -1]], len(index)
        (array([16, 83]), 80)
    """
    if num_frames < 1 or pieces < 1:
        raise ValueError(f"a warp needs at least one frame and one piece, got {num_frames} and {pieces}")
    if not 0 < share[0] <= share[1] <= 1 or not 0 < tempo[0] <= tempo[1]:
        raise ValueError(f"share must be a range in (0, 1] and tempo one above 0, got {share} and {tempo}")
    length = max(1, round(generator.uniform(*share) * num_frames))
    start = int(generator.integers(num_frames - length + 1))
    tempos = np.exp(generator.uniform(*np.log(tempo), pieces))
    edges = np.linspace(start, start + length - 1, pieces + 1)
    times = np.concatenate([[0], np.cumsum(np.diff(edges) / tempos)])
    return np.rint(np.interp(np.arange(int(times[-1] + 1)), times, edges)).astype(np.int64)


def _take(annotation, index: NDArray[np.int64]) -> np.ndarray:
    return np.asarray(annotation())[index]


def _digest(index: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(index, dtype="<i8").tobytes()).hexdigest()[:8]
