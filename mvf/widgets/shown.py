"""The arrays of one video that the attention browser shows, checked and thinned to what a notebook can store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvf.widgets.strip import check_frames, check_named


@dataclass(frozen=True)
class ShownVideo:
    """Frames with their maps.

    Attributes:
        frames: (T, H, W, 3) uint8.
        entities: (1, T, N, h, w), as one layer; or None.
        heads: (layers, T, K, h, w), or None.
        numbers: (T,) positions of the frames in the source video.
        total: Frames that were given; T are kept.
    """

    frames: NDArray[np.uint8]
    entities: NDArray | None
    heads: NDArray | None
    numbers: NDArray[np.int64]
    total: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of entities, layers and heads."""
        entities = 0 if self.entities is None else self.entities.shape[2]
        return (entities, 0, 0) if self.heads is None else (entities, self.heads.shape[0], self.heads.shape[2])

    def size(self, height: int) -> tuple[int, int]:
        """Width and height, in pixels, of a frame shown `height` high."""
        return max(1, round(self.frames.shape[2] * height / self.frames.shape[1])), height


def shown_videos(
    videos: Mapping[str, Sequence[ArrayLike | None]], numbers: Mapping[str, ArrayLike] | None, max_frames: int
) -> dict[str, ShownVideo]:
    """Every video's (frames, entities, heads), checked and thinned by `shown_video`.

    Raises:
        ValueError: if a video is not three arrays, `numbers` has a name that is no video, and as `shown_video`.
    """
    numbers = {} if numbers is None else numbers
    check_named("videos", videos)
    check_named("numbers", numbers, videos)
    for name, arrays in videos.items():
        if not isinstance(arrays, (tuple, list)) or len(arrays) != 3:
            found = f"{len(arrays)} of them" if isinstance(arrays, (tuple, list)) else type(arrays).__name__
            raise ValueError(f"{name}: give (frames, entities, heads), None for what there is not; got {found}")
    return {name: shown_video(name, *arrays, numbers.get(name), max_frames) for name, arrays in videos.items()}


def shown_video(
    name: str,
    frames: ArrayLike,
    entities: ArrayLike | None,
    heads: ArrayLike | None,
    numbers: ArrayLike | None = None,
    max_frames: int = 120,
) -> ShownVideo:
    """Checks the arrays of a video; of one longer than `max_frames` every second (third, ...) frame is kept.

    Raises:
        ValueError: if shapes do not fit, or there is nothing to show; the text names the video.

    Example:
        >>> video = shown_video("squat", np.zeros((300, 8, 8, 3), np.uint8), np.ones((300, 2, 4, 4)), None)
        >>> len(video.frames), video.numbers[:3], video.counts
        (100, array([0, 3, 6]), (2, 0, 0))
    """
    frames = np.asarray(frames)
    check_frames(name, frames)
    if entities is None and heads is None:
        raise ValueError(f"{name}: nothing to show, both entities and heads are None")
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    numbers = np.arange(len(frames)) if numbers is None else np.asarray(numbers, dtype=np.int64)
    if numbers.shape != (len(frames),):
        raise ValueError(f"{name}: numbers must be ({len(frames)},), one a frame, got {numbers.shape}")
    kept = slice(None, None, -(-len(frames) // max_frames))
    layered = (_layered(name, kind, maps, len(frames)) for kind, maps in (("entities", entities), ("heads", heads)))
    entities, heads = (None if maps is None else maps[:, kept] for maps in layered)
    return ShownVideo(frames[kept], entities, heads, numbers[kept], len(frames))


def _layered(name: str, kind: str, maps: ArrayLike | None, num_frames: int) -> NDArray | None:
    """Maps as (layers, T, number, h, w)."""
    if maps is None:
        return None
    maps = np.asarray(maps)
    layered = maps[None] if maps.ndim == 4 else maps
    several = kind == "heads" or maps.ndim == 4
    if layered.ndim != 5 or layered.shape[1] != num_frames or not maps.size or not several:
        wanted = f"({num_frames}, number, h, w)" + " or (layers, ...) of these" * (kind == "heads")
        raise ValueError(f"{name}: {kind} must be {wanted}, one map a frame, got {maps.shape}")
    return layered


def common_counts(videos: Mapping[str, ShownVideo]) -> tuple[int, int, int]:
    """Numbers of entities, layers and heads, which all videos share.

    Raises:
        ValueError: if they differ.
    """
    counts = {name: video.counts for name, video in videos.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"all videos must have as many entities, layers and heads, got {counts}")
    return next(iter(counts.values()))
