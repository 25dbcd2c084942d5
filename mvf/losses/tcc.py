"""Temporal cycle-consistency loss: docs/objectives.md, section 3."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mvf.losses.dtw import squared_distances
from mvf.losses.objective import (
    VARIANTS,
    PairObjective,
    Side,
    masked_mean,
    require_choice,
    require_positive,
    require_share,
)

FORMS = ("regression_mse_var", "regression_mse", "regression_huber", "classification")
SIMILARITIES = ("l2", "cosine")
HUBER_DELTA = {"reference": 1.0, "corrected": 0.1}  # of the port, whatever its configuration says; of the original
SMALLEST_VARIANCE = 1e-8  # variance of the return time where matching is certain


class TemporalCycleConsistencyLoss(PairObjective):
    """Asks that a frame, matched softly to another video of its action and back, returns to its own time.

    For every ordered pair of videos of one action, each frame of the first is replaced by its soft nearest
    neighbour in the second, and that by a distribution over the frames of the first. The regression forms compare
    the mean time of this distribution with the frame's time, in units of its variance for `regression_mse_var`;
    `classification` asks for the frame itself. A model that only knows the time of a frame solves it.

    `variant="reference"` computes what CARL's port computes: `label_smoothing` also moves the target times of the
    regressions, to the mean of the other frames; Huber's delta is 1 rather than 0.1; and `classification` takes
    logits for log-probabilities, so that its value is not a divergence and may be negative. `"corrected"` is the
    original formula, where `label_smoothing` acts on `classification` only.

    Reference: Dwibedi et al., CVPR 2019, https://arxiv.org/abs/1904.07846, section 3.

    Args:
        form: `regression_mse_var`, `regression_mse`, `regression_huber` or `classification`.
        similarity: `l2`, the negative squared distance, or `cosine`, the plain product; both divided by E.
        temperature: Divides the similarities; smaller is sharper.
        variance_weight: Weight of the logarithm of the variance in `regression_mse_var`.
        label_smoothing: Share of the target that goes to other frames, at least 0 and below 1.
        normalize_indices: Whether times are shares of the video's length, or frame numbers.
        variant: `reference` or `corrected`.

    Shape:
        embeddings (B, V, T, E), clip.frame_index (B, V, T), clip.action (B,) -> scalar

    Raises:
        ValueError: without a pair of videos of one action, or if `regression_mse_var` finds no video with two
            valid frames.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 5), action=torch.tensor([3, 3]))
        >>> round(TemporalCycleConsistencyLoss()(torch.ones(2, 1, 5, 8), clip).item(), 4)  # all frames are equal
        0.9975
    """

    reads, views, sampler, labels, pairs = "raw", 1, "action_frames", "video", "all"

    def __init__(
        self,
        form: str = "regression_mse_var",
        similarity: str = "l2",
        temperature: float = 0.1,
        variance_weight: float = 0.001,
        label_smoothing: float = 0.1,
        normalize_indices: bool = True,
        variant: str = "corrected",
    ) -> None:
        super().__init__()
        require_choice("form", form, FORMS)
        require_choice("similarity", similarity, SIMILARITIES)
        require_choice("variant", variant, VARIANTS)
        require_positive(temperature=temperature)
        require_positive(or_zero=True, variance_weight=variance_weight)
        require_share(label_smoothing=label_smoothing)
        require_choice("normalize_indices", normalize_indices, (True, False))
        self.form, self.similarity, self.variant = form, similarity, variant
        self.temperature, self.variance_weight = temperature, variance_weight
        self.label_smoothing, self.normalize_indices = label_smoothing, normalize_indices

    def check_counts(self, first: Tensor, second: Tensor) -> None:
        """Also refuses pairs whose time of return has no variance."""
        if self.form == "regression_mse_var" and not (first > 1).any():
            raise ValueError(
                "regression_mse_var needs a video of at least 2 valid frames in a pair, the longest has 1: "
                'use more num_frames, or form="regression_mse"'
            )

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        """Mean over the valid frames of `x` in all pairs."""
        logits = cycle_back(x.z, y.z, y.valid, self.similarity, self.temperature)  # (P, T, T)
        if self.form != "classification":
            return self._regression(logits, x)
        classify = smoothed_cross_entropy if self.variant == "corrected" else released_classification
        return masked_mean(classify(logits, x.valid, self.label_smoothing).flatten(), x.valid.flatten())

    def _regression(self, logits: Tensor, x: Side) -> Tensor:
        time = x.frame_index.to(logits.dtype)
        if self.normalize_indices:
            time = time / x.num_frames[:, None]
        mean, variance = return_time(logits, time, x.valid)
        target = time
        if self.variant == "reference":
            target = (smoothed_labels(x.valid, self.label_smoothing).to(time) @ time[..., None]).squeeze(-1)
        if self.form == "regression_mse_var":
            return self._by_variance((target - mean).square(), variance, x)
        delta = HUBER_DELTA[self.variant]
        huber = self.form == "regression_huber"
        error = F.huber_loss(mean, target, reduction="none", delta=delta) if huber else (target - mean).square()
        return masked_mean(error.flatten(), x.valid.flatten())

    def _by_variance(self, error: Tensor, variance: Tensor, x: Side) -> Tensor:
        """Squared error in units of the variance, and the logarithm that keeps the variance from growing."""
        counted = x.valid & (x.counts > 1)[:, None]  # a single frame always returns to itself
        variance = variance.clamp(min=SMALLEST_VARIANCE)
        terms = torch.stack([error / variance + self.variance_weight * variance.log(), error, variance.log()])
        value, squared_error, log_variance = masked_mean(terms.flatten(1), counted.flatten())
        self.parts = {"squared_error": squared_error.detach(), "log_variance": log_variance.detach()}
        return value


def similarities(x: Tensor, y: Tensor, kind: str, temperature: float) -> Tensor:
    """Logits (P, N, M) of frames (P, N, E) against frames (P, M, E), divided by E times the temperature.

    Example:
        >>> similarities(torch.ones(1, 1, 4), torch.zeros(1, 2, 4), "l2", 0.5)
        tensor([[[-2., -2.]]])
    """
    product = -squared_distances(x, y) if kind == "l2" else x @ y.transpose(-1, -2)
    return product / (x.shape[-1] * temperature)


def cycle_back(x: Tensor, y: Tensor, y_valid: Tensor, kind: str = "l2", temperature: float = 0.1) -> Tensor:
    """Logits (P, N, N) of every frame of `x` returning to every frame of `x` by way of `y`.

    Args:
        x: (P, N, E) first videos.
        y: (P, M, E) second videos.
        y_valid: (P, M) their valid frames.
        kind: `l2` or `cosine`.
        temperature: Temperature of both matchings.

    Example:
        >>> frames = torch.eye(4)[None]
        >>> there_and_back = cycle_back(frames, frames, torch.ones(1, 4, dtype=torch.bool)).softmax(-1)
        >>> round(there_and_back[0, 0, 0].item(), 4)
        0.9775
    """
    there = similarities(x, y, kind, temperature).masked_fill(~y_valid[:, None], -math.inf)
    neighbour = there.softmax(dim=-1) @ y  # (P, N, E)
    return similarities(neighbour, x, kind, temperature)


def return_time(logits: Tensor, time: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (P, N), (P, N) of the times (P, N) at which the frames return.

    Example:
        >>> mean, variance = return_time(torch.zeros(1, 2, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([[True, True]]))
        >>> mean, variance
        (tensor([[0.5000, 0.5000]]), tensor([[0.2500, 0.2500]]))
    """
    share = logits.masked_fill(~valid[:, None], -math.inf).softmax(dim=-1)
    mean = (share * time[:, None]).sum(-1)
    return mean, (share * (time[:, None] - mean[..., None]).square()).sum(-1)


def smoothed_cross_entropy(logits: Tensor, valid: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross-entropy (P, N) of softmax(logits (P, N, N)) against (1 - e) identity + e / n over n valid frames.

    Example:
        >>> smoothed_cross_entropy(torch.zeros(1, 2, 2), torch.tensor([[True, False]]))[0, 0].abs()  # one candidate
        tensor(0.)
    """
    log_share = logits.masked_fill(~valid[:, None], -math.inf).log_softmax(dim=-1)
    log_share = torch.where(valid[:, None], log_share, 0)
    own = log_share.diagonal(dim1=-2, dim2=-1)
    return -(1 - label_smoothing) * own - label_smoothing * masked_mean(log_share, valid[:, None])


def smoothed_labels(valid: Tensor, label_smoothing: float) -> Tensor:
    """CARL's labels (P, N, N): 1 - e for the frame itself, e shared by the other valid frames.

    Example:
        >>> smoothed_labels(torch.ones(1, 3, dtype=torch.bool), 0.5)[0, 0]
        tensor([0.5000, 0.2500, 0.2500], dtype=torch.float64)
    """
    same = torch.eye(valid.shape[-1], dtype=torch.float64, device=valid.device)
    others = valid[:, None] * (1 - same)
    count = others.sum(-1, keepdim=True)
    moved = label_smoothing * count.clamp(max=1)  # a frame without others keeps its label
    return (1 - moved) * same + moved * others / count.clamp(min=1)


def released_classification(logits: Tensor, valid: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """What CARL's port computes for classification (P, N): mean over n valid frames of Y (log Y - logit).

    Example:
        >>> released_classification(torch.full((1, 2, 2), 3.0), torch.ones(1, 2, dtype=torch.bool), 0.0)
        tensor([[-1.5000, -1.5000]])
    """
    labels = smoothed_labels(valid, label_smoothing).to(logits)
    return masked_mean(torch.xlogy(labels, labels) - labels * logits, valid[:, None])
