"""Labels of your own videos, checked against the frames of their video.

Labels are given for every frame of the file. Where the video is resampled, so are they. What does not fit is the
user's input and an error, unlike a damaged video, which is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mvf.data.images import image_files, read_image
from mvf.data.video import ImageFolder, VideoFile

Source = VideoFile | ImageFolder
TABLES = (".csv", ".npy")


def read_phases(name: str, text: str, folder: Path, source: Source) -> np.ndarray:
    """(count,) phase of every frame, -1 where unlabelled.

    Args:
        name: The video, for error messages.
        text: First frame of every phase, like `0;34;58`, or the path of a .csv or .npy with a number a frame.
        folder: What the path is relative to.
        source: The frames of the video.

    Raises:
        ValueError: naming the video, the value found and the value wanted.
    """
    if text.lower().endswith(TABLES):
        phases = _frame_phases(name, _read_table(name, folder / text), source.num_source_frames)
    else:
        phases = phases_from_starts(name, _starts(name, text), source.num_source_frames)
    return phases[source.source_index]


def phases_from_starts(name: str, starts: Sequence[int], num_frames: int) -> np.ndarray:
    """(num_frames,) phases from the first frame of every phase; frames before the first are unlabelled.

    Example:
        >>> phases_from_starts("squat", [1, 3], 5).tolist()
        [-1, 0, 0, 1, 1]
    """
    for before, start in zip([-1, *starts], starts):
        if start < 0:
            raise ValueError(f"{name}: a phase starts at frame {start}; first frames of phases must be 0 or more")
        if start <= before:
            raise ValueError(f"{name}: phases start at {list(starts)}; every start must be later than the one before")
        if start >= num_frames:
            raise ValueError(f"{name}: a phase starts at frame {start}, but the video has only {num_frames} frames")
    return np.searchsorted(np.asarray(starts), np.arange(num_frames), side="right") - 1


def read_boxes(name: str, path: Path, source: Source) -> np.ndarray:
    """(count, 4) boxes x0 y0 x1 y1 in pixels of the upright frame, from a .csv or .npy of one row a frame."""
    boxes = _read_table(name, path)
    wanted = (source.num_source_frames, 4)
    if boxes.shape != wanted:
        raise ValueError(f"{name}: boxes in {path} have shape {boxes.shape}, wanted {wanted}: x0 y0 x1 y1 a frame")
    wrong = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(wrong):
        raise ValueError(f"{name}: box {boxes[wrong[0]].tolist()} of frame {wrong[0]} in {path} is not x0 y0 x1 y1")
    return boxes[source.source_index]


def mask_files(name: str, folder: Path, source: Source) -> tuple[list[Path], tuple[int, int]]:
    """The mask image of every frame, and the (H, W) they must have; their number and the first one are checked."""
    files = image_files(folder) if folder.is_dir() else []
    if len(files) != source.num_source_frames:
        raise ValueError(f"{name}: {len(files)} numbered masks in {folder}, wanted {source.num_source_frames}")
    height, width, _ = next(source.frames()).shape
    read_masks(name, files[:1], (height, width))
    return [files[index] for index in source.source_index], (height, width)


def read_masks(name: str, files: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """(T, H, W) True where a mask image is not black; `size` is the (H, W) that every image must have."""
    masks = [read_image(path, cv2.IMREAD_GRAYSCALE) > 0 for path in files]
    for path, mask in zip(files, masks):
        if mask.shape != size:
            raise ValueError(f"{name}: mask {path} has (height, width) {mask.shape}, its video {size}")
    return np.stack(masks)


def _starts(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.strip("; ").split(";")]
    except ValueError:
        raise ValueError(
            f'{name}: phases "{text}" are neither first frames like 0;34;58 nor the path of a .csv or .npy'
        ) from None


def _frame_phases(name: str, values: np.ndarray, num_frames: int) -> np.ndarray:
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (num_frames,):
        raise ValueError(f"{name}: phases have shape {values.shape}, but the video has {num_frames} frames")
    wrong = np.flatnonzero((values != np.round(values)) | (values < -1))
    if len(wrong):
        raise ValueError(
            f"{name}: phase {values[wrong[0]]:g} at frame {wrong[0]}; phases are 0, 1, ..., or -1 for unlabelled"
        )
    return values.astype(np.int64)


def _read_table(name: str, path: Path) -> np.ndarray:
    """(rows,) or (rows, columns) numbers from a .npy, or a .csv whose first line may be a header."""
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            values = np.loadtxt(lines[_is_header(lines) :], delimiter=",", ndmin=2)
        return values.astype(np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: cannot read numbers from {path}: {error}") from None


def _is_header(lines: list[str]) -> bool:
    try:
        [float(cell) for cell in lines[0].split(",")]
        return False
    except (ValueError, IndexError):
        return bool(lines)
