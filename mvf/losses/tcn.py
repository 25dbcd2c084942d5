"""Time-contrastive loss of a single video, n-pairs form: docs/objectives.md, section 4."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvf.clip import Clip
from mvf.losses.objective import VARIANTS, Objective, masked_mean, require_choice, require_positive


class TimeContrastiveLoss(Objective):
    """Pulls together frames of a video that are a few frames apart, and pushes them away from its other frames.

    Frames alternate: anchor, positive, anchor, positive. A softmax of plain products contrasts the positive of every
    anchor with those of the other anchors of its video, however near in time they are. A model that only knows the
    time of a frame solves it. A pair with a padded frame is left out.

    Both values of `variant` compute the same: the released code has no known error.

    Reference: Sermanet et al., ICRA 2018, https://arxiv.org/abs/1704.06888; the loss of n pairs is Sohn's,
    NeurIPS 2016.

    Args:
        regularization: Weight of the squared norms, which the products alone would let grow.
        variant: `reference` or `corrected`.

    Shape:
        embeddings (B, 1, T, E), T even -> scalar

    Raises:
        ValueError: if T is odd, or a video has no pair of two valid frames.

    Example:
        >>> from mvf.clip import example_clip
        >>> pairs = torch.eye(4).repeat_interleave(2, dim=0)  # anchor and positive alike
        >>> round(TimeContrastiveLoss()(pairs[None, None], example_clip(1, 1, 8)).item(), 6)
        0.744668
    """

    reads, views, sampler, labels, fewest = "raw", 1, "anchors", "none", 2

    def __init__(self, regularization: float = 0.002, variant: str = "reference") -> None:
        super().__init__()
        require_choice("variant", variant, VARIANTS)
        require_positive(or_zero=True, regularization=regularization)
        self.regularization, self.variant = regularization, variant

    def check(self, embeddings: Tensor, clip: Clip) -> None:
        """Also refuses frames that do not come in pairs."""
        super().check(embeddings, clip)
        frames = embeddings.shape[2]
        if frames % 2:
            raise ValueError(
                f"T must be even, as anchors and positives alternate, got T = {frames}: use even num_frames"
            )
        pairs = clip.host.valid.unflatten(2, (-1, 2)).all(-1).sum(-1)
        if (pairs == 0).any():
            raise ValueError(
                f"video {int(pairs[:, 0].argmin())} has 0 pairs of a valid anchor and a valid positive, at least 1 is "
                'needed: draw frames by the "anchors" sampler'
            )

    def compute(self, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        """Mean over videos."""
        anchor, positive = z[:, 0, 0::2], z[:, 0, 1::2]  # (B, n, E)
        kept = clip.valid[:, 0, 0::2] & clip.valid[:, 0, 1::2]
        contrast = pairs_contrast(anchor @ positive.transpose(-1, -2), kept).mean()
        norms = anchor.square().sum(-1) + positive.square().sum(-1)
        penalty = self.regularization / 4 * masked_mean(norms, kept).mean()
        self.parts = {"contrast": contrast.detach(), "regularization": penalty.detach()}
        return contrast + penalty


def pairs_contrast(similarity: Tensor, kept: Tensor) -> Tensor:
    """Cross-entropy (B,) of every anchor with its own positive, among all positives of the video.

    Args:
        similarity: (B, n, n) of anchors (rows) and positives (columns).
        kept: (B, n) pairs that count, at least one of every video.

    Example:
        >>> pairs_contrast(torch.zeros(1, 4, 4), torch.tensor([[True, True, False, False]]))  # log 2
        tensor([0.6931])
    """
    total = similarity.masked_fill(~kept[:, None], -math.inf).logsumexp(dim=-1)
    return masked_mean(total - similarity.diagonal(dim1=-2, dim2=-1), kept)
