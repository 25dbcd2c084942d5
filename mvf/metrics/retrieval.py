"""Frame retrieval: do the nearest frames of other videos show the same phase?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvf.metrics.neighbours import check_stride, labelled_frames, nearest_in_others, split_videos


def retrieval_precision(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], k: int = 5, stride: int = 1
) -> float:
    """Share of a frame's k nearest frames in other videos that have its phase.

    The share is averaged over a video's frames, then over videos.

    Range: [0, 1], a fraction; higher is better, chance is about the sum of the squared phase frequencies.

    Reference: MV-Former, section 4 ("Fine-Grained Frame Retrieval"); Haresh et al., CVPR 2021, section 4.

    Args:
        embeddings: Videos (T, E).
        phases: Their phases (T,); frames below 0 are dropped first.
        k: Number of neighbours, by squared Euclidean distance, the first ones on ties.
        stride: Every stride-th frame is a query and a candidate (Penn Action 2, Pouring 5).

    Raises:
        ValueError: if fewer than two videos have labelled frames, or the others hold fewer than k frames.

    Example:
        >>> video, phase = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
        >>> retrieval_precision([video, video], [phase, phase], k=1)
        1.0
    """
    return retrieval_precisions(embeddings, phases, (k,), stride)[k]


def retrieval_precisions(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], ks: Sequence[int] = (5, 10, 15), stride: int = 1
) -> dict[int, float]:
    """`retrieval_precision` for several k from one search.

    Example:
        >>> video, phase = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
        >>> retrieval_precisions([video, video], [phase, phase], ks=(1, 4))
        {1: 1.0, 4: 0.5}
    """
    videos = retrieval_video_precisions(embeddings, phases, ks, stride)
    return {k: float(np.nanmean(precision)) for k, precision in videos.items()}


def retrieval_video_precisions(
    embeddings: Sequence[np.ndarray], phases: Sequence[np.ndarray], ks: Sequence[int] = (5, 10, 15), stride: int = 1
) -> dict[int, np.ndarray]:
    """Precision of every video at every k, (videos,); NaN for a video without labelled frames.

    Example:
        >>> video, phase = np.arange(2.0)[:, None], np.array([0, 1])
        >>> retrieval_video_precisions([video, video, video], [phase, phase - 1, 0 * phase - 1], ks=(1,))
        {1: array([0.5, 0. , nan])}
    """
    check_stride(stride)
    videos, labels = labelled_frames(embeddings, phases)
    videos, labels = [v[::stride] for v in videos], [p[::stride] for p in labels]
    _check_ks(ks, [len(video) for video in videos])
    same = split_videos(_same_phase(videos, np.concatenate(labels), max(ks)), videos)
    return {k: np.array([s[:, :k].mean() if len(s) else np.nan for s in same]) for k in ks}


def _same_phase(videos: list[np.ndarray], labels: np.ndarray, k: int) -> np.ndarray:
    """(frames, k) bool: has the n-th nearest frame of another video the phase of this frame?"""
    return np.concatenate([labels[nearest] == labels[asking, None] for asking, nearest in nearest_in_others(videos, k)])


def _check_ks(ks: Sequence[int], lengths: list[int]) -> None:
    if len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"k must be at least 1, got {list(ks)}")
    used = [length for length in lengths if length]
    if len(used) < 2:
        raise ValueError(f"retrieval needs at least 2 videos with labelled frames, got {len(used)}")
    candidates = sum(used) - max(used)
    if candidates < max(ks):
        raise ValueError(
            f"retrieval@{max(ks)} needs {max(ks)} candidate frames in the other videos, got {candidates}; "
            "lower k or stride, or add videos"
        )
