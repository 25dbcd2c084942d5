"""Learning by aligning videos: soft-DTW between two videos, kept from collapse by a contrast inside each."""

from __future__ import annotations

from torch import Tensor

from mvf.losses.dtw import soft_dtw, squared_distances
from mvf.losses.objective import PairObjective, Side, require_choice, require_positive

IDM_WEIGHTS = ("released", "paper")


class LearningByAligningVideosLoss(PairObjective):
    """Aligns two videos of one action by soft dynamic time warping.

    The value of a pair is [soft-DTW(X, Y) + alpha (I(X) + I(Y))] / T, averaged over pairs. Soft-DTW alone is solved
    trivially by equal embeddings; the contrastive inverse-difference regulariser I forbids that: it draws together
    frames of one video that are close in time, and pushes those further apart than `window` beyond a margin.

    Reference: Haresh et al., Learning by Aligning Videos in Time, CVPR 2021, https://arxiv.org/abs/2103.17260.

    Args:
        gamma: Smoothing of the soft minimum.
        alpha: Weight of the regulariser; 0 leaves it out.
        window: Frames of the source video within which two frames are close.
        margin: Squared distance beyond which frames that are far in time cost nothing.
        debiased: Take the soft-DTW divergence, 0 between equal videos, in place of soft-DTW.
        idm_weights: See `inverse_difference`.

    Shape:
        embeddings (B, V, T, E) of unit norm, clip.frame_index (B, V, T), clip.num_frames and clip.action (B,) -> scalar

    Raises:
        ValueError: if no two videos of the batch have the same action.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 20), action=torch.tensor([0, 0]))
        >>> loss = LearningByAligningVideosLoss()  # all frames equal: I = 266.25, soft-DTW below 0
        >>> round(loss(torch.ones(2, 1, 20, 4) / 2, clip).item(), 4)
        13.1552
    """

    reads, views, sampler, labels = "unit", 1, "action_segments", "video"

    def __init__(
        self,
        gamma: float = 0.1,
        alpha: float = 0.5,
        window: float = 10.0,
        margin: float = 2.0,
        debiased: bool = False,
        idm_weights: str = "released",
    ) -> None:
        super().__init__()
        require_positive(gamma=gamma, window=window, margin=margin)
        require_positive(or_zero=True, alpha=alpha)
        require_choice("debiased", debiased, (True, False))
        require_choice("idm_weights", idm_weights, IDM_WEIGHTS)
        self.gamma, self.alpha, self.debiased = gamma, alpha, debiased
        self.window, self.margin, self.idm_weights = window, margin, idm_weights

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        frames = (x.counts + y.counts) / 2
        contrast = sum(inverse_difference(side, self.window, self.margin, self.idm_weights) for side in (x, y))
        alignment = (alignment_cost(x, y, self.gamma, self.debiased) / frames).mean()
        regulariser = (self.alpha * contrast / frames).mean()
        self.parts = {"alignment": alignment.detach(), "regulariser": regulariser.detach()}
        return alignment + regulariser


def alignment_cost(x: Side, y: Side, gamma: float, debiased: bool = False) -> Tensor:
    """Soft-DTW (P,) of the squared distances between the valid frames of each pair.

    Args:
        x: One member of every pair.
        y: The other member.
        gamma: Smoothing of the soft minimum.
        debiased: Subtract half of each side's soft-DTW with itself: the divergence, 0 for x = y.

    Example:
        >>> import torch
        >>> z, one = torch.zeros(1, 3, 2), torch.ones(1, 3)
        >>> still = Side(z, valid=one > 0, frame_index=torch.arange(3)[None], num_frames=one[0, :1])
        >>> round(alignment_cost(still, still, gamma=0.1).item(), 4)  # 13 paths
        -0.2565
    """
    value = soft_dtw(squared_distances(x.z, y.z), gamma, x.counts, y.counts)
    if debiased:
        value = value - (alignment_cost(x, x, gamma) + alignment_cost(y, y, gamma)) / 2
    return value


def inverse_difference(side: Side, window: float = 10.0, margin: float = 2.0, weights: str = "released") -> Tensor:
    """Contrastive inverse-difference regulariser I (P,): the sum over all ordered pairs of frames of one video.

    With squared distance D and time difference d, frames more than `window` apart cost (1 + d^2) max(0, margin - D).
    Others cost D. Time is the share of the source video.

    Args:
        side: The videos.
        window: In frames of the source video.
        margin: A squared distance.
        weights: `released` as above; `paper` measures d in frames and divides the cost of close frames by 1 + d^2.

    Example:
        >>> import torch
        >>> z, valid, length = torch.zeros(1, 20, 2), torch.ones(1, 20) > 0, torch.tensor([20])
        >>> still = Side(z, valid, frame_index=torch.arange(20)[None], num_frames=length)
        >>> inverse_difference(still)
        tensor([266.2500])
    """
    distance = squared_distances(side.z, side.z)
    apart = side.frame_index[:, :, None] - side.frame_index[:, None, :]  # whole frames: exact at the window's edge
    elapsed = apart.to(distance.dtype)
    if weights == "released":
        elapsed = elapsed / side.num_frames[:, None, None]
    push = 1 + elapsed.square()
    pull = push.reciprocal() if weights == "paper" else 1
    cost = (push * (margin - distance).clamp(min=0)).where(apart.abs() > window, pull * distance)
    return cost.where(side.valid[:, :, None] & side.valid[:, None, :], 0).sum((1, 2))
