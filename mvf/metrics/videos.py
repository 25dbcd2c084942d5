"""What all tasks share: lists of per-video arrays are checked, and unlabelled frames dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
        raise ValueError(f"{name} has {len(videos)} videos, its phases {len(phases)}; give one array of phases a video")
    labels = [np.asarray(label) for label in phases]
    for index, (video, label) in enumerate(zip(videos, labels)):
        if label.shape != video.shape[:1]:
            raise ValueError(f"phases of {name}[{index}] must be {video.shape[:1]}, one a frame, got {label.shape}")
        if label.dtype.kind not in "iu":
            raise ValueError(f"phases of {name}[{index}] must be integers, got {label.dtype}")
    return videos, labels


def labelled_frames(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], name: str = "embeddings"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every video without its unlabelled frames (phase < 0); such a video may become empty.

    `kendall_tau` takes no labels, so a caller that has some drops frames with this first.

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
