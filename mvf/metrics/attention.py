"""What attention maps say by themselves, without any mask: how they overlap, how steady and how wide they are.

Maps are (..., h, w), non-negative of any scale; every map is divided by its sum first.
"""

from __future__ import annotations

import numpy as np


def patch_shares(attention: np.ndarray) -> np.ndarray:
    """(T, ..., h, w) maps -> float64 (T, ..., h * w) that sum to 1.

    Raises:
        ValueError: for values that are negative or not finite, and for a map that is zero everywhere.

    Example:
        >>> patch_shares([[[3.0, 1.0]]]).tolist()
        [[0.75, 0.25]]
    """
    attention = np.asarray(attention, dtype=np.float64)
    if attention.ndim < 3 or not attention.size:
        raise ValueError(f"attention must be (T, ..., h, w) with at least one map, got {attention.shape}")
    if not (np.isfinite(attention).all() and (attention >= 0).all()):
        raise ValueError(f"attention must be finite and non-negative, got {attention.min()} to {attention.max()}")
    attention = attention.reshape(*attention.shape[:-2], -1)
    total = attention.sum(-1, keepdims=True)
    empty = np.argwhere(total[..., 0] == 0)
    if len(empty):
        raise ValueError(f"attention must be positive somewhere in every frame, frame {empty[0][0]} is all zero")
    return attention / total


def attention_overlap(attention: np.ndarray) -> np.ndarray:
    """Attention that each pair of maps shares: sum over patches of the smaller of the two, mean over frames.

    Range: [0, 1]; 0 for disjoint maps, 1 on the diagonal and for equal maps.

    Args:
        attention: (T, N, h, w).

    Returns:
        (N, N), symmetric.

    Example:
        >>> attention_overlap([[[[1.0, 0.0]], [[0.5, 0.5]]]]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    shares = patch_shares(attention)
    if shares.ndim != 3:
        raise ValueError(f"attention must be (T, N, h, w), got {np.shape(attention)}")
    rows = [np.minimum(shares[:, [i]], shares).sum(-1).mean(0) for i in range(shares.shape[1])]
    return np.stack(rows)


def attention_steadiness(earlier: np.ndarray, later: np.ndarray) -> float:
    """Attention that stays where it was: overlap of each map with that of the later frame, mean over frames.

    Range: [0, 1]; 1 where nothing moves. It is 1 less the total variation between the two maps, so an actor who
    moves lowers it as flicker does: compare maps of the same frames.

    Args:
        earlier: (T, h, w).
        later: (T, h, w), each map a small step after that of `earlier`.

    Example:
        >>> attention_steadiness([[[1.0, 0.0]]], [[[0.75, 0.25]]])
        0.75
    """
    earlier, later = patch_shares(earlier), patch_shares(later)
    if earlier.shape != later.shape:
        raise ValueError(f"earlier and later maps must be alike, got {earlier.shape} and {later.shape} (T, patches)")
    return float(np.minimum(earlier, later).sum(-1).mean())


def attention_entropy(attention: np.ndarray) -> float:
    """Entropy of each map over that of a uniform one, mean over frames.

    Range: [0, 1]; 0 for a single patch, 1 for a uniform map.

    Args:
        attention: (T, h, w), at least two patches.

    Example:
        >>> attention_entropy([[[1.0, 1.0, 0.0, 0.0]]])
        0.5
    """
    shares = patch_shares(attention)
    if shares.shape[-1] < 2:
        raise ValueError("entropy over one patch says nothing: a map needs at least 2 patches")
    return float(_entropies(shares).mean() / np.log(shares.shape[-1]))


def effective_share(attention: np.ndarray) -> float:
    """Share of the patches that a uniform map of the same entropy would cover, mean over frames.

    Range: (0, 1]; 1 / patches for a single patch, 1 for a uniform map.

    Example:
        >>> round(effective_share([[[1.0, 1.0, 0.0, 0.0]]]), 6)
        0.5
    """
    shares = patch_shares(attention)
    return float((np.exp(_entropies(shares)) / shares.shape[-1]).mean())


def density_share(attention: np.ndarray, region: np.ndarray, reference: np.ndarray) -> float:
    """Attention per area of a region over that of the region and another together, mean over frames.

    Frames that show only one of them, or where neither gets attention, are left out.

    Range: [0, 1]; 0.5 for uniform attention. With limbs and torso: above 0.5 the limbs draw more.

    Args:
        attention: (T, h, w).
        region: (T, h, w) share of each patch that the region covers; `reference` likewise.

    Raises:
        ValueError: when no frame is left.

    Example:
        >>> density_share([[[3.0, 1.0]]], [[[1.0, 0.0]]], [[[0.0, 1.0]]])
        0.75
    """
    shares = patch_shares(attention)
    regions = [np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (region, reference)]
    if any(part.shape != shares.shape for part in regions):
        found = ", ".join(str(np.shape(part)) for part in (attention, region, reference))
        raise ValueError(f"attention and both regions must be alike (T, h, w), got {found}")
    both = np.logical_and(*(part.any(axis=1) for part in regions))
    if not both.any():
        raise ValueError("no frame shows both regions")
    first, second = ((shares * part)[both].sum(1) / part[both].sum(1) for part in regions)
    seen = first + second > 0
    if not seen.any():
        raise ValueError("neither region gets attention in any frame that shows both")
    return float((first[seen] / (first + second)[seen]).mean())


def _entropies(shares: np.ndarray) -> np.ndarray:
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return -(shares * logs).sum(-1)
