"""Scores of attention maps: how they overlap, how steady and how wide they are, and how much lies on the actor.

Maps are (..., h, w), non-negative of any scale; every map is divided by its sum first. Scores of localization take
`attention` (T, h, w) and `region` (T, h, w) in [0, 1], the share of each patch that the actor covers. A patch is "on
the actor" where region >= 0.5; frames without such a patch are left out, except by `attention_mass`, which needs no
threshold.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


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

    Range: [0, 1]; 1 where nothing moves. It is 1 minus the total variation between the two maps, so a moving actor
    lowers it as flicker does: compare maps of the same frames.

    Args:
        earlier: (T, h, w).
        later: (T, h, w), each map a small step after that of `earlier`.

    Example:
        >>> attention_steadiness([[[1.0, 0.0]]], [[[0.75, 0.25]]])
        0.75
    """
    earlier, later = patch_shares(earlier), patch_shares(later)
    if earlier.shape != later.shape:
        raise ValueError(f"earlier and later must have one shape, got {earlier.shape} and {later.shape} (T, patches)")
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

    Range: [0, 1]; 0.5 for uniform attention. With limbs and torso, limbs get more if it is above 0.5.

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
        raise ValueError(f"attention and both regions must have one shape (T, h, w), got {found}")
    both = regions[0].any(axis=1) & regions[1].any(axis=1)
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


# ----------------------------------------------------------------------------------------------------------------------
# Localization: how much of an attention map lies on the actor?


def attention_mass(attention: np.ndarray, region: np.ndarray) -> float:
    """Share of the attention that lies on the region, mean over frames.

    Range: [0, 1], a fraction; higher is better, uniform attention gives the region's area.

    Reference: docs/design.md, section 7; the measured form of the paper's Figures 1 and 3.

    Example:
        >>> attention_mass([[[3.0, 1.0]]], [[[1.0, 0.0]]])
        0.75
    """
    attention, region = _flatten(attention, region)
    return float((attention * region).sum(1).mean())


def region_area(region: np.ndarray) -> float:
    """Share of the image that the region covers, mean over frames: what uniform attention scores as mass.

    Example:
        >>> region_area(np.array([[[1.0, 0.0, 0.0, 0.0]]]))
        0.25
    """
    return float(np.mean(region))


def attention_lift(attention: np.ndarray, region: np.ndarray) -> float:
    """Attention mass over the region's area.

    Range: [0, 1 / area], a ratio; higher is better, uniform attention gives 1. Reference: docs/design.md, section 7.

    Example:
        >>> attention_lift([[[3.0, 1.0]]], [[[1.0, 0.0]]])
        1.5
    """
    mass = attention_mass(attention, region)
    if not np.any(region):
        raise ValueError("lift is mass over area, and the region is empty in every frame")
    return mass / region_area(region)


def attention_auroc(attention: np.ndarray, region: np.ndarray) -> float:
    """Probability that a patch on the actor outranks one that is not, ties counting half; mean over frames.

    Frames that the actor fills are left out too: they have nothing to outrank.

    Range: [0, 1], a probability; higher is better, uniform attention gives 0.5. Reference: docs/design.md, section 7.

    Example:
        >>> attention_auroc([[[3.0, 1.0, 1.0]]], [[[1.0, 1.0, 0.0]]])
        0.75
    """
    attention, actor = _actor_frames(attention, region)
    mixed = ~actor.all(1)
    if not mixed.any():
        raise ValueError("the actor fills every frame that shows it: AUROC needs a patch with region below 0.5")
    attention, actor = attention[mixed], actor[mixed]
    inside = actor.sum(1)
    outranked = np.where(actor, rankdata(attention, axis=1), 0).sum(1) - inside * (inside + 1) / 2
    return float((outranked / (inside * (actor.shape[1] - inside))).mean())


def attention_average_precision(attention: np.ndarray, region: np.ndarray) -> float:
    """Area under precision over recall when patches are ranked by attention, mean over frames.

    Range: (0, 1]; higher is better, uniform attention gives the share of patches on the actor. Patches of equal
    attention are ranked together, as scikit-learn does. Reference: docs/design.md, section 7.

    Example:
        >>> attention_average_precision([[[3.0, 2.0, 1.0]]], [[[1.0, 0.0, 1.0]]])
        0.8333333333333333
    """
    attention, actor = _actor_frames(attention, region)
    reached = rankdata(-attention, method="max", axis=1).astype(np.intp)  # patches at least as strong as this one
    found = np.take_along_axis(actor, np.argsort(-attention, axis=1), 1).cumsum(1)
    precision = np.take_along_axis(found, reached - 1, 1) / reached
    return float((np.where(actor, precision, 0).sum(1) / actor.sum(1)).mean())


def attention_jaccard(attention: np.ndarray, region: np.ndarray, mass: float = 0.6) -> float:
    """Overlap of the actor with the strongest patches that together hold `mass` of the attention, mean over frames.

    Patches are added from the strongest down (the first on ties) until they hold `mass`; then Jaccard index
    (intersection over union) with the patches on the actor. On boxes it measures how diffuse a map is: use masks.

    Range: [0, 1]; higher is better. Reference: Caron et al., ICCV 2021, section 4.2.

    Example:
        >>> attention_jaccard([[[3.0, 2.0, 1.0]]], [[[1.0, 0.0, 0.0]]])
        0.5
    """
    attention, actor = _actor_frames(attention, region)
    order, kept = _strongest(attention, mass)
    actor = np.take_along_axis(actor, order, 1)
    return float(((kept & actor).sum(1) / (kept | actor).sum(1)).mean())


def attention_set_size(attention: np.ndarray, mass: float = 0.6) -> float:
    """Share of the patches that `attention_jaccard` compares with the actor, mean over all frames.

    Range: (0, 1]; uniform attention gives `mass`.

    Example:
        >>> attention_set_size([[[3.0, 1.0, 1.0, 0.0]]])
        0.25
    """
    return float(_strongest(patch_shares(attention), mass)[1].mean())


def pointing_game(attention: np.ndarray, region: np.ndarray) -> float:
    """Share of frames whose strongest patch is on the actor.

    Where several patches are strongest the frame counts by their share on the actor, so that a constant map scores
    as picking at random would.

    Range: [0, 1], a fraction of frames; higher is better. Reference: Zhang et al., IJCV 2018.

    Example:
        >>> pointing_game([[[3.0, 1.0]], [[1.0, 3.0]]], [[[1.0, 0.0]], [[0.9, 0.4]]])
        0.5
    """
    attention, actor = _actor_frames(attention, region)
    strongest = attention == attention.max(1, keepdims=True)
    return float(((strongest & actor).sum(1) / strongest.sum(1)).mean())


def _flatten(attention: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as checked float (T, h * w), the attention as shares."""
    attention, region = np.asarray(attention, dtype=np.float64), np.asarray(region, dtype=np.float64)
    if attention.ndim != 3 or attention.shape != region.shape or attention.size == 0:
        raise ValueError(f"attention and region must both be (T, h, w), got {attention.shape} and {region.shape}")
    attention, region = patch_shares(attention), region.reshape(len(region), -1)
    if not ((region >= 0) & (region <= 1)).all():
        raise ValueError(f"region must be in [0, 1], got {region.min()} to {region.max()}")
    return attention, region


def _actor_frames(attention: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attention and bool actor (frames, patches) of the frames that show the actor."""
    attention, region = _flatten(attention, region)
    actor = region >= 0.5
    shown = actor.any(1)
    if not shown.any():
        raise ValueError("no frame has a patch with region >= 0.5: nothing to localize")
    return attention[shown], actor[shown]


def _strongest(shares: np.ndarray, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Patches from the strongest down, and whether each of these is needed to hold `mass`; both (T, patches)."""
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be in (0, 1], got {mass}")
    order = np.argsort(-shares, axis=1, kind="stable")
    ranked = np.take_along_axis(shares, order, 1)
    # rounding must not add a patch when exactly `mass` is held already
    return order, ranked.cumsum(1) - ranked < mass * (1 - 1e-9)
