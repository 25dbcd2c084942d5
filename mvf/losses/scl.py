"""Sequence contrastive loss: the objective of CARL and MV-Former."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvf.clip import Clip
from mvf.losses.objective import VARIANTS, Objective, places, require_choice, require_positive

NEGATIVES = ("single", "single_noself", "batch", "batch_noself")
EPSILON = 1e-6  # in the reference variant: added inside the log, and the weight of padding in the denominator


class SequenceContrastiveLoss(Objective):
    """Pulls together frames of two views of a video that are close in time.

    For every frame the target is a Gaussian over the frames of the other view, centred on its own time; the
    prediction is a softmax of similarities over that view (and over the negatives chosen); the loss is the
    Kullback-Leibler divergence, averaged over all valid frames of both views. A model that only knows the
    time of a frame solves it.

    `variant="reference"` computes what the published code computes, which adds 1e-6 inside the logarithm, lets
    padded frames of the whole batch into the denominator with weight 1e-6, and counts frames without a counterpart
    in the divisor. `"corrected"` is the plain masked form.

    Reference: Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14957, section 3.3.

    Args:
        temperature: Divides the similarities; smaller is sharper.
        variance: Spread of the Gaussian target, in squared frames.
        negatives: Frames to contrast with. `single_noself`: the other view of its video; `single`: also its
            own view, itself included; `batch_noself` and `batch`: these and both views of all other videos.
        variant: `reference` or `corrected`.
        max_distance: Frames whose nearest counterpart in the other view is further away, in frames, are left out
            of sum and divisor; None keeps them all.

    Shape:
        embeddings (B, 2, T, E), clip.frame_index (B, 2, T) -> scalar

    Raises:
        ValueError: if there are not exactly two views, or the clip has another shape.

    Example:
        >>> from mvf.clip import example_clip
        >>> SequenceContrastiveLoss()(torch.randn(2, 2, 8, 16), example_clip(2, 2, 8)).shape
        torch.Size([])
    """

    reads, views, sampler, labels, fewest = "projection", 2, "views", "none", 0

    def __init__(
        self,
        temperature: float = 0.1,
        variance: float = 10.0,
        negatives: str = "single_noself",
        variant: str = "reference",
        max_distance: float | None = None,
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature, variance=variance)
        if max_distance is not None:
            require_positive(or_zero=True, max_distance=max_distance)
        require_choice("negatives", negatives, NEGATIVES)
        require_choice("variant", variant, VARIANTS)
        self.temperature, self.variance, self.max_distance = temperature, variance, max_distance
        self.negatives, self.variant = negatives, variant

    def masked(self, z: Tensor, valid: Tensor) -> Tensor:
        """Keeps padding in the reference variant, where it leaks into the denominator."""
        return z if self.variant == "reference" else super().masked(z, valid)

    def compute(self, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        """The loss of a batch; nothing in it is random."""
        target, counted = self._target(clip, z.dtype)
        if self.variant == "corrected":
            counted = counted & (target.sum(-1) > 0)
        divergence = self._divergence(z, clip, target)  # (B, 2, T)
        return divergence.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)

    def _target(self, clip: Clip, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gaussian over the other view (B, 2, T, T), zero where it has no near frame; frames that count (B, 2, T)."""
        time = clip.frame_index.to(dtype)
        distance = (time[..., None] - time.flip(1)[..., None, :]).abs()
        pair = clip.valid[..., None] & clip.valid.flip(1)[..., None, :]
        gaussian = torch.where(pair, (-distance.square() / (2 * self.variance)).exp(), 0)
        total = gaussian.sum(-1, keepdim=True)
        target = torch.where(total > 0, gaussian / total.where(total > 0, 1), 0)
        counted = clip.valid
        if self.max_distance is not None:
            counted = counted & (distance.masked_fill(~pair, math.inf).amin(-1) <= self.max_distance)
        return target, counted

    def _divergence(self, z: Tensor, clip: Clip, target: Tensor) -> Tensor:
        """KL divergence (B, 2, T) of the prediction of every frame from its target."""
        others, visible = z.flip(1), clip.valid.flip(1)
        logits = z @ others.transpose(-1, -2) / self.temperature  # (B, 2, T, T), to the other view
        columns = [logits.masked_fill(~visible[:, :, None], -math.inf)]
        columns += self._more_negatives(z, clip.valid)
        if self.variant == "reference":
            columns.append(self._similarity(z, z[places(~clip.host.valid, z.device)]) + math.log(EPSILON))
        else:  # a frame without any counterpart counts nowhere, but its softmax must stay finite
            columns[0] = torch.where(visible.any(-1)[:, :, None, None], columns[0], logits)
        log_q = logits - torch.cat(columns, dim=-1).logsumexp(dim=-1, keepdim=True)
        log_q = torch.where(target > 0, log_q, 0)  # elsewhere it may overflow, and is multiplied by zero
        if self.variant == "reference":
            log_q = (log_q.exp() + EPSILON).log()
        return (torch.xlogy(target, target) - target * log_q).sum(-1)

    def _more_negatives(self, z: Tensor, valid: Tensor) -> list[Tensor]:
        """Logits (B, 2, T, K) to the frames of the denominator that are not in the other view."""
        extra = []
        if not self.negatives.endswith("noself"):
            own = z @ z.transpose(-1, -2) / self.temperature
            extra.append(own.masked_fill(~valid[:, :, None], -math.inf))
        if self.negatives.startswith("batch"):
            same = torch.eye(len(z), dtype=torch.bool, device=z.device)
            shut = same[:, :, None, None] | ~valid  # (B, B, 2, T): own video, and padding of the others
            other_videos = self._similarity(z, z.flatten(0, 2))
            extra.append(other_videos.masked_fill(shut.flatten(1)[:, None, None], -math.inf))
        return extra

    def _similarity(self, z: Tensor, frames: Tensor) -> Tensor:
        """Logits (B, 2, T, K) of all frames to `frames` (K, E)."""
        return z @ frames.T / self.temperature
