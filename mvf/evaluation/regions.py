"""Regions as shares of patches: the actor from masks or boxes, limbs and torso from joints, the task object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mvf.data.records import VideoRecord

OBJECT_SHARE = 0.1  # share of a patch; bars and clubs never cover half of one
LIMB_WIDTH = 0.25  # as a share of the trunk's length
# 13 joints in Penn Action's order: head, then left and right shoulder, elbow, wrist, hip, knee, ankle
BONES = ((1, 3), (3, 5), (2, 4), (4, 6), (7, 9), (9, 11), (8, 10), (10, 12))
TORSO = (1, 2, 8, 7)


@dataclass(frozen=True)
class Regions:
    """Shares (n, h, w) of every patch that belong to the actor, its parts and the task object.

    Attributes:
        actor: The actor, from a mask or else from boxes.
        masked: Whether the actor comes from a mask.
        limbs: Arms and legs within the actor, or None without joints; `torso` likewise.
        torso: The area between shoulders and hips.
        object: 1 where the task object covers `OBJECT_SHARE` of a patch or more; None without object.
    """

    actor: np.ndarray
    masked: bool
    limbs: np.ndarray | None = None
    torso: np.ndarray | None = None
    object: np.ndarray | None = None


def is_annotated(record: VideoRecord) -> bool:
    """Whether a video has a mask or boxes of its actor."""
    return not {"actor_mask", "actor_box"}.isdisjoint(record.annotations)


def read_regions(
    record: VideoRecord, index: np.ndarray, size: tuple[int, int], grid: tuple[int, int], parts: bool = True
) -> Regions:
    """Reads the regions of the frames `index` of an annotated video.

    Args:
        record: The video.
        index: (n,) positions of frames.
        size: (H, W) of its frames.
        grid: (h, w) patches.
        parts: Also limbs, torso and object, where the video has them.

    Raises:
        ValueError: if masks or boxes have another size or number than the frames, or are empty in all n.
    """
    mask = _checked(record, "actor_mask", index, size)
    visible: np.ndarray | None
    if mask is not None:
        actor, visible = mask_region(mask, grid), mask
    else:
        boxes = _checked(record, "actor_box", index, (4,))
        if boxes is None:
            raise ValueError(f"{record.name} has neither a mask nor boxes of the actor")
        actor, visible = box_region(boxes, size, grid), box_region(boxes, size, size) >= 0.5 if parts else None
    if not actor.any():
        kind = "boxes are" if mask is None else "mask is"
        raise ValueError(f"{record.name}: its {kind} empty in all {len(index)} sampled frames: check the annotation")
    found = {}
    joints = _checked(record, "joints", index, (13, 2)) if parts else None
    if joints is not None and visible is not None:
        found = {n: mask_region(part & visible, grid) for n, part in zip(("limbs", "torso"), body_parts(joints, size))}
    thing = _checked(record, "object_mask", index, size) if parts else None
    if thing is not None and thing.any():
        found["object"] = (mask_region(thing, grid) >= OBJECT_SHARE).astype(float)
    return Regions(actor, mask is not None, **found)


def _checked(record: VideoRecord, kind: str, index: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """The annotation `kind` of the frames `index`, or None."""
    values = getattr(record, kind)()
    if values is None:
        return None
    if len(values) != record.num_frames or values.shape[1:] != tuple(shape):
        wanted = (record.num_frames, *shape)
        raise ValueError(f"{record.name}: its {kind} has shape {values.shape}, its frames need {wanted}")
    return values[index]


def body_parts(joints: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws limbs and torso: (n, 13, 2) joints in pixels -> two (n, H, W) bool, which share no pixel.

    Limbs are lines as wide as `LIMB_WIDTH` of the usual distance from shoulders to hips; the torso is the polygon of
    shoulders and hips. A bone with a missing (NaN) end is left out, a torso with a missing corner is empty.

    Example:
        >>> joints = np.full((1, 13, 2), np.nan)
        >>> joints[0, [1, 2, 8, 7, 3]] = [[8, 4], [12, 4], [12, 12], [8, 12], [2, 4]]
        >>> limbs, torso = body_parts(joints, (16, 16))
        >>> bool(limbs[0, 4, 3]), bool(torso[0, 8, 10]), bool((limbs & torso).any())
        (True, True, False)
    """
    parts = np.zeros((2, len(joints), *size), dtype=np.uint8)
    trunk = np.linalg.norm(joints[:, [1, 2]].mean(axis=1) - joints[:, [7, 8]].mean(axis=1), axis=-1)
    trunk = trunk[np.isfinite(trunk)]
    width = max(1, round(LIMB_WIDTH * float(np.median(trunk)))) if len(trunk) else 1
    for limbs, torso, points in zip(*parts, joints):
        if np.isfinite(points[list(TORSO)]).all():
            cv2.fillConvexPoly(torso, cv2.convexHull(_pixels(points[list(TORSO)])), 1)
        for bone in BONES:
            if np.isfinite(points[list(bone)]).all():
                start, end = _pixels(points[list(bone)]).tolist()
                cv2.line(limbs, start, end, color=1, thickness=width)
    limbs, torso = parts.astype(bool)
    return limbs & ~torso, torso


def _pixels(points: np.ndarray) -> np.ndarray:
    return points.round().clip(-(2**14), 2**14).astype(np.int32)  # OpenCV's lines end in 16 bits


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
