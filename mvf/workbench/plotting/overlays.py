"""Pictures of attention: a heat map over a frame, and the outlines of several entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import ArrayLike, NDArray


@lru_cache(maxsize=8)
def _lookup(colormap: str) -> NDArray[np.uint8]:
    """The colours of a colormap, (256, 3) uint8."""
    return (mpl.colormaps[colormap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def strongest_patches(attention: ArrayLike, mass: float) -> NDArray[np.bool_]:
    """Finds the fewest patches of an (h, w) map that together hold `mass` of its attention.

    Example:
        >>> strongest_patches(np.array([[0.5, 0.3], [0.15, 0.05]]), 0.6)
        array([[ True,  True],
               [False, False]])
    """
    attention = np.asarray(attention, dtype=float)
    order = np.argsort(-attention, axis=None, kind="stable")
    before = np.concatenate(([0.0], np.cumsum(attention.ravel()[order])[:-1]))
    kept = np.zeros(attention.size, dtype=bool)
    kept[order] = before < mass * attention.sum()
    return kept.reshape(attention.shape)


def overlay(
    frame: ArrayLike,
    attention: ArrayLike,
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
    maximum: float | None = None,
) -> NDArray[np.uint8]:
    """Overlays a frame with an attention map, enlarged to the frame's size.

    Colours run from 0, the dark end, to `maximum`. A uniform map is therefore bright everywhere; its noise is not
    stretched to look like structure.

    Args:
        frame: (H, W, 3) uint8.
        attention: (h, w), non-negative.
        opacity: 0 shows only the frame, 1 only the map.
        colormap: Name of a matplotlib colormap.
        contour_mass: Outlines the strongest patches that hold this share of the attention.
        maximum: Value of the brightest colour; by default the map's largest.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> overlay(np.zeros((8, 8, 3), np.uint8), np.eye(2)).shape
        (8, 8, 3)
    """
    frame, attention = _as_frame(frame), np.asarray(attention, dtype=np.float32)
    if attention.ndim != 2 or not attention.size or not attention.min() >= 0 or not np.isfinite(attention.max()):
        found = f" from {attention.min()} to {attention.max()}" if attention.size else ""
        raise ValueError(f"attention must be (h, w), finite and non-negative, got {attention.shape}{found}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    height, width = frame.shape[:2]
    scale = 255 / max(attention.max() if maximum is None else maximum, 1e-12)
    level = cv2.resize(attention * np.float32(scale), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = _lookup(colormap)[np.clip(np.rint(level), 0, 255).astype(np.uint8)]
    blended = np.asarray(cv2.addWeighted(colours, opacity, frame, 1 - opacity, 0), np.uint8)
    return blended if contour_mass is None else _outline(blended, strongest_patches(attention, contour_mass))


def _outline(image: NDArray[np.uint8], patches: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draws the border of the chosen patches in white with a dark edge, so that it is visible on any background."""
    height, width = image.shape[:2]
    mask = cv2.resize(patches.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    thin = max(1, round(min(height, width) / 200))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for shade, thickness in (((0, 0, 0), thin + 2), ((255, 255, 255), thin)):
        cv2.drawContours(image, contours, -1, shade, thickness)
    return image


def _as_frame(frame: ArrayLike) -> NDArray[np.uint8]:
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    return frame


def resized(frame: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Resizes an (H, W, 3) picture to a height and keeps the aspect ratio; shrinking averages pixels.

    Example:
        >>> resized(np.zeros((20, 30, 3), np.uint8), 10).shape
        (10, 15, 3)
    """
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    method = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), np.uint8)


def named_maps(
    num_frames: int,
    entities: ArrayLike | None,
    heads: ArrayLike | None = None,
    head_names: Sequence[str] = ("CLS head",),
    shown: Sequence[int] | None = None,
) -> Mapping[str, NDArray]:
    """Checks the maps of a video and returns heading -> (T, h, w) for every entity and head.

    Args:
        num_frames: Number of frames, T.
        entities: (T, N, h, w), or None for a pooling without attention.
        heads: (T, h, w), or (K, T, h, w) for K heads; or None.
        head_names: Headings of the K heads.
        shown: Numbers of the entities to return, from 1; by default all.

    Example:
        >>> list(named_maps(2, np.ones((2, 3, 4, 4)), shown=[1, 3]))
        ['entity 1', 'entity 3']
    """
    if entities is None and heads is None:
        raise ValueError("nothing to show: both entities and heads are None")
    maps = {}
    if entities is not None:
        entities = np.asarray(entities)
        if entities.ndim != 4 or len(entities) != num_frames:
            raise ValueError(f"entities must be ({num_frames}, N, h, w), one map per frame, got {entities.shape}")
        count = entities.shape[1]
        chosen = range(1, count + 1) if shown is None else shown
        if not set(chosen) <= set(range(1, count + 1)):
            raise ValueError(f"entities to show must be from 1 to {count}, got {list(chosen)}")
        maps = {f"entity {i}": entities[:, i - 1] for i in chosen}
    if heads is None:
        return maps
    heads = np.asarray(heads)
    heads = heads[None] if heads.ndim == 3 else heads
    if heads.ndim != 4 or heads.shape[1] != num_frames or len(heads) != len(set(head_names)):
        raise ValueError(
            f"heads must be ({num_frames}, h, w) or ({len(head_names)}, {num_frames}, h, w), "
            f"with distinct names, {list(head_names)}, got {heads.shape}"
        )
    return maps | dict(zip(head_names, heads, strict=True))


def map_limits(maps: NDArray, normalise: str) -> NDArray:
    """Returns the (T,) values of the brightest colour for maps (T, h, w): the maxima per "frame" or of the "video".

    Raises:
        ValueError: if `normalise` is neither.

    Example:
        >>> map_limits(np.array([[[1.0]], [[3.0]]]), "video")
        array([3., 3.])
    """
    if normalise not in ("frame", "video"):
        raise ValueError(f"normalise must be 'frame' or 'video', got {normalise!r}")
    largest = maps.max(axis=(1, 2))
    return largest if normalise == "frame" else np.full_like(largest, largest.max())
