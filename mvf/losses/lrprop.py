"""Propagation of positions along an alignment: our reading of LRProp."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mvf.losses.dtw import OUTSIDE, dtw_path, squared_distances
from mvf.losses.lav import alignment_cost, inverse_difference
from mvf.losses.objective import PairObjective, Side, masked_mean, require_choice, require_positive

MODES = ("mean", "mixture")
REGULARISERS = ("idm", "divergence", "none")
GAMMA, ALPHA = 0.1, 0.5  # settings of the alignment term, as in LAV


class PositionPropagationLoss(PairObjective):
    """Makes each frame of a video resemble the frames near its counterpart in another video: OUR READING of LRProp.

    Made from the abstract, without code: report results as "our reading of LRProp". Dynamic time warping finds a path,
    without gradient, that maps each frame to a position in the other video. The softmax of similarities to that
    video's frames is pulled towards a Gaussian around this position, by Kullback-Leibler divergence, in both
    directions. A soft-DTW loss is added, which equal embeddings alone would solve. A model that only knows the time of
    a frame solves the propagation.

    Reference: after the abstract of Bar-Shalom et al., 2023, https://arxiv.org/abs/2302.04064.

    Args:
        variance: Spread of the Gaussian target, in squared frames.
        temperature: Divides the similarities; smaller is sharper.
        alignment_weight: Weight of the soft-DTW loss; 0 leaves it out.
        regulariser: What keeps soft-DTW from collapse. `idm`: LAV's contrast inside each video; `divergence`: its
            debiased form; `none`.
        mode: Target of a frame with several counterparts. `mean`: one Gaussian at their mean position; `mixture`: the
            sum of Gaussians at all of them.

    Shape:
        embeddings (B, V, T, E), clip.frame_index (B, V, T), clip.action (B,) -> scalar

    Raises:
        ValueError: if no two videos of the batch have the same action.

    Example:
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 4), action=torch.zeros(2))
        >>> loss = PositionPropagationLoss(alignment_weight=0)
        >>> loss(torch.eye(4).expand(2, 1, 4, 4), clip)
        tensor(5.8113)
    """

    reads, sampler, pairs = "unit", "action_frames", "once"

    def __init__(
        self,
        variance: float = 10.0,
        temperature: float = 0.1,
        alignment_weight: float = 0.1,
        regulariser: str = "idm",
        mode: str = "mean",
    ) -> None:
        super().__init__()
        require_positive(variance=variance, temperature=temperature)
        require_positive(or_zero=True, alignment_weight=alignment_weight)
        require_choice("regulariser", regulariser, REGULARISERS)
        require_choice("mode", mode, MODES)
        self.variance, self.temperature, self.mode = variance, temperature, mode
        self.alignment_weight, self.regulariser = alignment_weight, regulariser

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        """Propagation both ways and weighted alignment, mean over pairs."""
        x, y = (replace(side, z=normalize(side.z, dim=-1)) for side in (x, y))
        path = dtw_path(squared_distances(x.z, y.z), x.counts, y.counts)
        there, back = self._propagation(x, y, path), self._propagation(y, x, path.mT)
        terms = {"propagation": ((there + back) / 2).mean(), "alignment": self._alignment(x, y).mean()}
        self.parts = {name: term.detach() for name, term in terms.items()}
        return terms["propagation"] + self.alignment_weight * terms["alignment"]

    def _propagation(self, x: Side, y: Side, path: Tensor) -> Tensor:
        """(P,) mean over the frames of x of their divergence."""
        prior = propagated_prior(path, y.frame_index.to(y.z), y.valid, self.variance, self.mode)
        logits = (x.z @ y.z.mT / self.temperature).masked_fill(~y.valid[:, None], -OUTSIDE)
        divergence = (torch.xlogy(prior, prior) - prior * logits.log_softmax(-1)).sum(-1)
        return masked_mean(divergence, x.valid)

    def _alignment(self, x: Side, y: Side) -> Tensor:
        """(P,) LAV's loss, with the regulariser asked for."""
        cost = alignment_cost(x, y, GAMMA, debiased=self.regulariser == "divergence")
        if self.regulariser == "idm":
            cost = cost + ALPHA * (inverse_difference(x) + inverse_difference(y))
        return cost / ((x.counts + y.counts) / 2)


def propagated_position(path: Tensor, frame_index: Tensor) -> Tensor:
    """(P, N) mean frame number of the frames of y that the path matches with each frame of x; 0 without any.

    Args:
        path: (P, N, M) cells of a monotone path.
        frame_index: (P, M) frame numbers of y.

    Example:
        >>> propagated_position(torch.tensor([[[True, True, False], [False, False, True]]]), torch.tensor([[0, 3, 9]]))
        tensor([[1.5000, 9.0000]])
    """
    return masked_mean(frame_index[:, None].expand(path.shape), path)


def propagated_prior(path: Tensor, frame_index: Tensor, valid: Tensor, variance: float, mode: str = "mean") -> Tensor:
    """Distribution (P, N, M) over the frames of y for each frame of x, without gradient.

    Args:
        path: (P, N, M) cells of a monotone path.
        frame_index: (P, M) frame numbers of y.
        valid: (P, M) False in padding of y.
        variance: Variance of the Gaussians, in squared frames.
        mode: One of `MODES`.

    Example:
        >>> propagated_prior(torch.eye(2)[None] > 0, torch.tensor([[0, 2]]), torch.ones(1, 2) > 0, variance=2.0)
        tensor([[[0.7311, 0.2689],
                 [0.2689, 0.7311]]])
    """
    if mode == "mean":
        logits = -((frame_index[:, None] - propagated_position(path, frame_index)[..., None]) ** 2) / (2 * variance)
        return logits.masked_fill(~valid[:, None], -OUTSIDE).softmax(-1)
    apart = frame_index[:, :, None] - frame_index[:, None]
    gaussians = torch.where(valid[:, None], (-(apart**2) / (2 * variance)).exp(), 0)
    weights = path.to(gaussians) @ gaussians
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)  # a single match weighs 1, only padding less
