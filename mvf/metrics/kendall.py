"""Kendall's tau: does nearest-neighbour matching between two videos keep the order of time?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvf.metrics.neighbours import nearest_in_videos
from mvf.metrics.videos import check_embeddings, check_stride

_BLOCK = 2**22  # pairs of frames compared at once


def kendall_tau(embeddings: Sequence[np.ndarray], stride: int = 1) -> float:
    """Agreement of matched frames with the order of time; no labels needed.

    For every ordered pair of different videos, each frame of the first is matched to its nearest neighbour in
    the second; tau-b between 0, 1, 2, ... and the neighbours' positions, averaged over pairs (those without a
    value, where all frames match a single one, are left out). A clock scores 1 without looking at a pixel: read it
    beside the controls, and beside `alignment_error`, which sees a wrong clock.

    Range: [-1, 1], no unit; higher is better, 0 is chance, 1 a monotone match of all pairs.

    Reference: MV-Former, section 4 ("Tasks and Metrics"); Dwibedi et al., CVPR 2019, section 4.

    Args:
        embeddings: Videos (T, E); drop unlabelled frames first (`labelled_frames`).
        stride: Every stride-th frame is taken (Penn Action 2, Pouring 5).

    Raises:
        ValueError: if there is a single video, or no pair has a value.

    Example:
        >>> video = np.arange(5.0)[:, None]
        >>> kendall_tau([video, video + 0.1, video[::-1]])
        -0.333...
    """
    pairs = kendall_tau_pairs(embeddings, stride)
    if np.isnan(pairs).all():
        raise ValueError("Kendall's tau has no value: in every pair all frames match a single frame")
    return float(np.nanmean(pairs))


def kendall_tau_pairs(embeddings: Sequence[np.ndarray], stride: int = 1) -> np.ndarray:
    """Tau-b of every ordered pair, (videos, videos): row = queries, column = neighbours, NaN where it has no value.

    The mean over a row, without NaN, is one video's tau.

    Example:
        >>> kendall_tau_pairs([np.arange(4.0)[:, None], np.arange(3.0)[:, None]]).round(3)
        array([[  nan, 0.913], [1.   ,   nan]])
    """
    check_stride(stride)
    videos = [video[::stride] for video in check_embeddings(embeddings)]
    if len(videos) < 2:
        raise ValueError("Kendall's tau compares videos: at least 2 are needed, got 1")
    pairs = np.stack([order_agreement(nearest) for nearest in nearest_in_videos(videos, videos)])
    pairs[:, [len(video) == 0 for video in videos]] = np.nan
    np.fill_diagonal(pairs, np.nan)
    return pairs


def order_agreement(positions: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between 0, 1, 2, ... and each column: positions (T, M) -> (M,).

    Equal to `scipy.stats.kendalltau` to 1e-15; NaN where all positions of a column are equal.

    Example:
        >>> order_agreement(np.array([[0, 5], [1, 5], [2, 3]])).round(3)
        array([ 1.   , -0.816])
    """
    length, columns = positions.shape
    first, later = np.triu_indices(length, 1)
    step = max(1, _BLOCK // max(1, len(first)))
    parts = [positions[:, start : start + step] for start in range(0, columns, step)]
    return np.concatenate([_tau_b(part[first], part[later], length) for part in parts])


def _tau_b(first: np.ndarray, later: np.ndarray, length: int) -> np.ndarray:
    """Tau-b from the positions (pairs, M) of the earlier and the later frame of every pair of `length` frames."""
    rising = (later > first).sum(0, dtype=np.int32).astype(np.int64)
    falling = (later < first).sum(0, dtype=np.int32)
    with np.errstate(invalid="ignore"):
        tau = (rising - falling) / np.sqrt(length * (length - 1) / 2) / np.sqrt(rising + falling)
    return np.clip(tau, -1, 1)  # rounding may pass 1 by an ulp
