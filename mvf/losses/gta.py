"""Global temporal alignment: contrastive dynamic time warping and a cycle through the tables of both directions."""

from __future__ import annotations

import math
import operator
from functools import reduce

import torch
from torch import Tensor

from mvf.losses.dtw import Combine, accumulate, hardest, read_corner, softest, weighted
from mvf.losses.objective import (
    VARIANTS,
    PairObjective,
    Side,
    masked_mean,
    require_choice,
    require_positive,
    require_share,
)

CONTRASTS = ("dtw_prob", "dtw_minGamma", "dtw")
DIRECTIONS = ("both", "one")
ALIGNMENT_WEIGHT = 0.1  # weight of each direction, unless a single one is the whole loss
EPSILON = 1e-8  # inside the corrected logarithm


class GlobalTemporalAlignmentLoss(PairObjective):
    """Aligns the first video of an action with each other one, and asks that aligning there and back is consistent.

    Every frame of Y is classified among all frames of X, and the scores of warping X to Y and Y to X are minimised.
    Going from X to Y and back by the tables' softmax should return to the same frame. Equal embeddings do not solve
    it, as the contrast then costs log N per frame; a one-to-one code of time does.

    `variant="reference"` hands the cycle's probabilities to a cross-entropy that takes them for logits, so the term
    hardly varies (2.1732 to 2.9957 for 20 frames) and its gradient is weak; `"corrected"` takes their logarithm.

    Reference: Hadji et al., Representation Learning via Global Temporal Alignment and Cycle-Consistency, CVPR 2021,
    https://arxiv.org/abs/2105.05217.

    Args:
        gamma_table: Sharpness of the table's minimum; unused by `contrast="dtw"`.
        gamma_softmin: Temperature of the contrastive cost.
        contrast: How the table combines neighbours; see `accumulated_cost`.
        directions: `both`, or `one` for the warping of X to Y only.
        label_smoothing: Share of the cycle's target that is spread over all frames.
        consistency_weight: Weight of the cycle; 0 switches it off, and then a single direction has weight 1, not 0.1.
        variant: `reference` or `corrected`; only the cycle differs.

    Shape:
        embeddings (B, V, T, E) of unit norm, clip.action (B,) -> scalar

    Raises:
        ValueError: if no two videos of the batch have the same action.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 2), action=torch.tensor([0, 0]))
        >>> loss = GlobalTemporalAlignmentLoss(consistency_weight=0, directions="one")
        >>> round(loss(torch.zeros(2, 1, 2, 4), clip).item(), 4)
        1.3876
    """

    reads, views, sampler, labels = "unit", 1, "action_frames", "video"
    pairs = "first"

    def __init__(
        self,
        gamma_table: float = 0.1,
        gamma_softmin: float = 0.1,
        contrast: str = "dtw_prob",
        directions: str = "both",
        label_smoothing: float = 0.1,
        consistency_weight: float = 1.0,
        variant: str = "reference",
    ) -> None:
        super().__init__()
        require_positive(gamma_table=gamma_table, gamma_softmin=gamma_softmin)
        require_positive(or_zero=True, consistency_weight=consistency_weight)
        require_share(label_smoothing=label_smoothing)
        require_choice("contrast", contrast, CONTRASTS)
        require_choice("directions", directions, DIRECTIONS)
        require_choice("variant", variant, VARIANTS)
        self.gamma_table, self.gamma_softmin, self.contrast = gamma_table, gamma_softmin, contrast
        self.directions, self.variant = directions, variant
        self.label_smoothing, self.consistency_weight = label_smoothing, consistency_weight

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        there = self.table(x, y)
        score = read_corner(there, x.counts, y.counts).mean()
        if self.directions == "one" and not self.consistency_weight:
            return self.total(alignment=score)
        back = self.table(y, x)
        if self.directions == "both":
            score = score + read_corner(back, y.counts, x.counts).mean()
        if not self.consistency_weight:
            return self.total(alignment=ALIGNMENT_WEIGHT * score)
        cycle = cycle_probabilities(there, back, x.valid, y.valid)
        consistency = cycle_entropy(cycle, self.label_smoothing, self.variant, x.valid).mean()
        return self.total(
            alignment=ALIGNMENT_WEIGHT * score,
            consistency=self.consistency_weight * consistency,
        )

    def table(self, x: Side, y: Side) -> Tensor:
        """Accumulated costs (P, N, M) of warping the frames of `x` to those of `y`."""
        cost = contrastive_cost(x.z, y.z, self.gamma_softmin, x.valid)
        return accumulated_cost(cost, self.gamma_table, self.contrast)

    def total(self, **terms: Tensor) -> Tensor:
        """Sum of the terms, which become `parts`."""
        self.parts = {name: term.detach() for name, term in terms.items()}
        return reduce(operator.add, terms.values())


def contrastive_cost(x: Tensor, y: Tensor, gamma: float, valid: Tensor | None = None) -> Tensor:
    """Costs C_ij = -log softmax_i(<x_i, y_j> / gamma): how poorly frame j of Y is classified as frame i of X.

    Args:
        x: (P, N, E).
        y: (P, M, E).
        gamma: Temperature.
        valid: (P, N) frames of X that are real; the others leave the softmax and cost 0. By default all.

    Shape:
        -> (P, N, M); every column of exp(-C) sums to 1

    Example:
        >>> contrastive_cost(torch.eye(2)[None], torch.eye(2)[None], gamma=1.0)
        tensor([[[0.3133, 1.3133],
                 [1.3133, 0.3133]]])
    """
    similarity = x @ y.transpose(-1, -2) / gamma
    if valid is None:
        return -similarity.log_softmax(dim=1)
    out = ~valid[:, :, None]
    return -similarity.masked_fill(out, -math.inf).log_softmax(dim=1).masked_fill(out, 0)


def accumulated_cost(cost: Tensor, gamma: float, contrast: str = "dtw_prob") -> Tensor:
    """Table (P, N, M) of accumulated costs; the score of a pair is its last real cell, `mvf.losses.dtw.read_corner`.

    Args:
        cost: (P, N, M).
        gamma: Sharpness of the minimum.
        contrast: `dtw_prob` adds to a cost the mean of its neighbours weighted by softmax(-neighbours / gamma),
            `dtw_minGamma` their soft minimum (soft-DTW), `dtw` their minimum.

    Example:
        >>> accumulated_cost(torch.ones(1, 2, 2), gamma=1.0, contrast="dtw")
        tensor([[[1., 2.],
                 [2., 2.]]])
    """
    combine: dict[str, Combine] = {"dtw_prob": weighted(gamma), "dtw_minGamma": softest(gamma), "dtw": hardest}
    return accumulate(cost, combine[contrast])


def column_probabilities(table: Tensor, valid: Tensor) -> Tensor:
    """Softmax (P, N, M) of -table over its real rows (P, N): where in X each frame of Y belongs.

    Example:
        >>> column_probabilities(torch.zeros(1, 3, 1), torch.tensor([[True, True, False]]))[0, :, 0]
        tensor([0.5000, 0.5000, 0.0000])
    """
    return (-table).masked_fill(~valid[:, :, None], -math.inf).softmax(dim=1)


def cycle_probabilities(there: Tensor, back: Tensor, valid_x: Tensor, valid_y: Tensor) -> Tensor:
    """Where in X (last axis) each frame of X arrives by way of Y: (P, N, N), rows sum to 1.

    Args:
        there: (P, N, M) table of warping X to Y.
        back: (P, M, N) table of warping Y to X.
        valid_x: (P, N) real frames of X.
        valid_y: (P, M) real frames of Y.

    Example:
        >>> cycle_probabilities(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2), torch.ones(1, 2) > 0, torch.ones(1, 3) > 0)
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    return (column_probabilities(there, valid_x) @ column_probabilities(back, valid_y)).transpose(1, 2)


def cycle_entropy(cycle: Tensor, smoothing: float, variant: str, valid: Tensor) -> Tensor:
    """Cross-entropy (P,) of the cycle with the smoothed identity, mean over real frames.

    Args:
        cycle: (P, N, N) probabilities, rows sum to 1.
        smoothing: Share of the target that is spread over all real frames.
        variant: `reference` takes the softmax of the probabilities once more, `corrected` does not.
        valid: (P, N) real frames.

    Example:
        >>> round(cycle_entropy(torch.eye(20)[None], 0.1, "reference", torch.ones(1, 20) > 0).item(), 4)
        2.1732
    """
    columns, frames = valid[:, None, :], valid.sum(-1).to(cycle)[:, None, None]
    target = (1 - smoothing) * torch.eye(cycle.shape[-1], dtype=cycle.dtype, device=cycle.device) + smoothing / frames
    if variant == "reference":
        log_probability = cycle.masked_fill(~columns, -math.inf).log_softmax(dim=-1)
    else:
        log_probability = (cycle + EPSILON).log()
    return masked_mean(-(target * log_probability).where(columns, 0).sum(-1), valid)
