"""Kendall's tau: does nearest-neighbour matching between two videos keep the order of time?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvf.metrics.neighbours import check_embeddings, check_stride, nearest_by_video
from mvf.progress import tqdm

_BLOCK = 2**18  # positions compared at once: they stay in cache


def kendall_tau(embeddings: Sequence[np.ndarray], stride: int = 1) -> float:
    """Agreement of matched frames with the order of time; no labels needed.

    For every ordered pair of different videos, each frame of the first is matched to its nearest neighbour in
    the second; tau-b between 0, 1, 2, ... and the neighbours' positions is averaged over pairs (those without a
    value, where all frames match a single one, are left out). A clock scores 1 without looking at a pixel: compare
    with the controls, and with `alignment_error`, which detects a wrong clock.

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
    found = tqdm(nearest_by_video(videos, videos), "Kendall's tau", len(videos), unit="video", delay=5, leave=False)
    pairs = np.stack([order_agreement(nearest) for nearest in found])
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
    step = max(1, _BLOCK // max(1, length))
    return np.concatenate([_tau_b(positions[:, start : start + step]) for start in range(0, columns, step)])


def _tau_b(positions: np.ndarray) -> np.ndarray:
    """Tau-b of positions (T, M): pairs that rise are counted, ties follow from how often a position occurs."""
    length, columns = positions.shape
    positions = positions.astype(np.int16 if positions.max(initial=0) < 2**15 else np.int64)
    rising = np.zeros(columns, np.int64)
    for lag in range(1, length):
        rising += np.count_nonzero(positions[lag:] > positions[:-lag], axis=0)
    ordered = np.sort(positions, axis=0)
    # a run of n equal positions holds n (n - 1) / 2 ties: every frame ties with those before it in its run
    starts = np.where(np.diff(ordered, axis=0, prepend=-2) != 0, np.arange(length)[:, None], 0)
    ties = (np.arange(length)[:, None] - np.maximum.accumulate(starts, axis=0)).sum(0)
    untied = length * (length - 1) // 2 - ties
    with np.errstate(invalid="ignore"):
        tau = (2 * rising - untied) / np.sqrt(length * (length - 1) / 2) / np.sqrt(untied)
    return np.clip(tau, -1, 1)  # rounding may pass 1 by an ulp
