"""VSP-F: the process contrast over phases, and a supervised contrast of the points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvf.clip import Clip
from mvf.losses.bridges import Bridges
from mvf.losses.objective import pick
from mvf.losses.vsp_p import PhaseProcessContrastiveLoss


class FrameProcessContrastiveLoss(PhaseProcessContrastiveLoss):
    """Adds to VSP-P that points of one phase of one action lie together, in whatever video they are (VSP-F).

    The process contrast is that of `PhaseProcessContrastiveLoss`; the supervised contrast of the bridges' points is
    solved by an embedding that only knows the action and the phase. It is 0 where no two points share both.

    `variant="reference"` keeps the supervised term as released, see `released_contrast` and `released_diagonal`:
    the former lacks a -log, so that minimising it drives points of one class apart. It is there to be compared, not to
    be trained with.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023.

    Args:
        variance_power: As of `ProcessContrastiveLoss`.
        segments: As of `PhaseProcessContrastiveLoss`.
        overlap: Not used: phases do not overlap.
        temperature: Divides the similarities of the supervised term; smaller is sharper.
        variant: `reference` or `corrected`.

    Shape:
        embeddings (B, 1, T, E) of unit norm, clip.phase (B, 1, T), clip.action (B,) -> scalar

    Raises:
        ValueError: without action or phase labels, for given bridges whose point has no phase, and for
            `reference` where videos have different numbers of bridges.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(3, 1, 4), phase=torch.zeros(3, 1, 4).long(), action=torch.tensor([0, 0, 1]))
        >>> loss = FrameProcessContrastiveLoss()
        >>> value = loss(torch.ones(3, 1, 4, 2), clip)
        >>> {name: round(part.item(), 4) for name, part in loss.parts.items()}  # ln 7, and ln 2 of two anchors
        {'process': 1.9459, 'supervised': 0.6931}
    """

    labels = "frame"

    def compute_bridges(self, ends: Tensor, bridges: Bridges, clip: Clip) -> Tensor:
        """Process contrast plus supervised contrast."""
        process = super().compute_bridges(ends, bridges, clip)
        supervised = self.supervised(ends[:, 1], bridges, point_classes(bridges, clip))
        self.parts = {"process": process.detach(), "supervised": supervised.detach()}
        return process + supervised

    def supervised(self, points: Tensor, bridges: Bridges, classes: Tensor) -> Tensor:
        """The supervised term of points (N, E), as the variant has it."""
        if self.variant == "corrected":
            return supervised_contrast(points, classes, self.temperature)
        counts = bridges.video.unique_consecutive(return_counts=True)[1]
        if (counts != counts[0]).any():
            raise ValueError(
                f"the released supervised term needs as many bridges in every video, got {counts.tolist()}: "
                'use variant="corrected", segments=1, or longer videos'
            )
        if counts[0] == 1:
            return released_contrast(points, classes, self.temperature)
        return released_diagonal(points.unflatten(0, (len(counts), -1)))


def point_classes(bridges: Bridges, clip: Clip) -> Tensor:
    """Classes (N, 2) of the points of bridges: action and phase."""
    phase = pick(clip.phase, clip.valid, bridges.video, bridges.positions)[:, 1]
    if (phase < 0).any():
        video = int(bridges.video[(phase < 0).nonzero()[0, 0]])
        raise ValueError(f"a point of video {video} has no phase (-1): give bridges whose points are labelled")
    return torch.stack([clip.action[bridges.video], phase], dim=-1)


def same_class(classes: Tensor) -> Tensor:
    """(N, N) True where classes (N, L) agree in all L labels."""
    return (classes[:, None] == classes).all(dim=-1)


def supervised_contrast(points: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean over points with another of their class of -log of the share of their class among all others; else 0.

    Args:
        points: (N, E).
        classes: (N, L) labels, here action and phase; a class is a combination of them.
        temperature: Divides the similarities.

    Example:
        >>> supervised_contrast(torch.eye(3), torch.tensor([[0, 0], [0, 0], [0, 1]]))
        tensor(0.6931)
    """
    others = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    positive = same_class(classes) & others
    anchors = positive.any(dim=1)
    positive, others = positive[anchors], others[anchors]
    logits = points[anchors] @ points.T / temperature
    cost = _logsumexp_where(others, logits) - _logsumexp_where(positive, logits)
    return cost.sum() / max(len(cost), 1)


def _logsumexp_where(chosen: Tensor, logits: Tensor) -> Tensor:
    return logits.masked_fill(~chosen, -math.inf).logsumexp(dim=1)


def released_contrast(points: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """The published supervised term of one bridge a video: mean share of the class among this and later points.

    It is a probability without -log, counts the point itself, and looks at later points only.

    Example:
        >>> released_contrast(torch.zeros(2, 4), torch.tensor([[0, 0], [0, 1]]))
        tensor(0.7500)
    """
    earlier = torch.ones(len(points), len(points), dtype=torch.bool, device=points.device).tril(-1)
    share = (points @ points.T / temperature).masked_fill(earlier, -math.inf).softmax(dim=1)
    return (share * same_class(classes)).sum(dim=1).mean()


def released_diagonal(points: Tensor) -> Tensor:
    """The published supervised term of K > 1 bridges a video: the k-th points of two videos belong together.

    Cross-entropy of the dot products of the points of every pair of videos, each with itself too, with the diagonal as
    target: a mean over the K points of the earlier video, a sum over pairs, divided by B. No label is looked at.

    Args:
        points: (B, K, E).

    Example:
        >>> released_diagonal(torch.zeros(3, 2, 4)) / 2  # 6 pairs of 3 videos, ln 2 each
        tensor(0.6931)
    """
    dots = torch.einsum("ike,jle->ijkl", points, points)
    entropy = dots.logsumexp(dim=-1) - dots.diagonal(dim1=2, dim2=3)  # (B, B, K)
    return entropy.mean(dim=-1).triu().sum() / len(points)
