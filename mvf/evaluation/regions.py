"""Where the actor is, as shares of patches: from masks or from boxes."""

from __future__ import annotations

import cv2
import numpy as np


def mask_region(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(n, H, W) bool -> (n, h, w): share of each patch that is True.

    Example:
        >>> mask_region(np.eye(2, dtype=bool)[None].repeat(2, axis=1), (2, 1))[0, :, 0].tolist()
        [0.5, 0.5]
    """
    height, width = grid
    shares = [cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) for m in mask]
    return np.stack(shares).clip(0, 1)


def box_region(boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """(n, 4) boxes x0 y0 x1 y1 in pixels of images of `size` (H, W) -> (n, h, w): share of each patch covered.

    A box with a missing (NaN) corner covers nothing.

    Example:
        >>> box_region(np.array([[0, 0, 3, 4]]), (4, 4), (2, 2))[0].tolist()
        [[1.0, 0.5], [1.0, 0.5]]
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    boxes = np.where(np.isnan(boxes).any(axis=1, keepdims=True), 0.0, boxes)

    def covered(first: np.ndarray, last: np.ndarray, cells: int, length: int) -> np.ndarray:
        edges = np.linspace(0, length, cells + 1)
        overlap = np.minimum(last[:, None], edges[1:]) - np.maximum(first[:, None], edges[:-1])
        return overlap.clip(min=0) * cells / length

    rows = covered(boxes[:, 1], boxes[:, 3], grid[0], size[0])
    return (rows[:, :, None] * covered(boxes[:, 0], boxes[:, 2], grid[1], size[1])[:, None, :]).clip(0, 1)
