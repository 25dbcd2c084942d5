"""Sums of objectives on one model: `scl+0.1*lav`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mvf.clip import Clip
from mvf.losses.objective import Objective

SUPERVISION = ("none", "video", "phase", "frame")  # from least to most
LAYOUTS = ("views", "segments", "frames")  # of frames that serve each other's objectives, the most special first
ONE_ACTION = "action_"  # prefix of samplers whose batches are of one action


class CombinedObjective(nn.Module):
    """A weighted sum of objectives that can share a clip.

    An objective of single views takes the mean over the views where another one needs two. The frames drawn are those
    of the member that is most special about them, the batches of one action where any member needs that.

    Args:
        members: Objectives by name.
        weights: Of each, in the same order.

    Attributes:
        reads: The distinct kinds of embeddings that the members read, joined by "+".

    Shape:
        embeddings (B, V, T, E), or a mapping from each kind of `reads` to such a tensor -> scalar

    Raises:
        ValueError: for objectives whose frames cannot serve both.

    Example:
        >>> from mvf.losses import build_loss
        >>> loss = build_loss("scl+0.1*lav")
        >>> loss.reads, loss.views, loss.sampler, loss.labels
        ('projection+unit', 2, 'action_views', 'video')
    """

    def __init__(self, members: Mapping[str, Objective], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.members, self.weights = nn.ModuleDict(members), dict(weights)
        self.reads = "+".join(dict.fromkeys(member.reads for member in members.values()))
        self.views = max(member.views for member in members.values())
        self.fewest = max(member.fewest for member in members.values())
        self.sampler = shared_sampler({name: member.sampler for name, member in members.items()})
        self.labels = joint_labels([member.labels for member in members.values()])
        self.parts: dict[str, Tensor] = {}

    def forward(
        self, embeddings: Tensor | Mapping[str, Tensor], clip: Clip, generator: torch.Generator | None = None
    ) -> Tensor:
        """The weighted sum; `parts` holds every member's own value."""
        terms = {}
        for name, member in self.members.items():
            z = embeddings if isinstance(embeddings, Tensor) else embeddings[member.reads]
            terms[name] = self._value(member, z, clip, generator)
        self.parts = {name: term.detach() for name, term in terms.items()}
        return sum(self.weights[name] * term for name, term in terms.items())

    def advance(self) -> None:
        """Called after every step of training."""
        for member in self.members.values():
            member.advance()

    def _value(self, member: Objective, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        if member.any_views or member.views == self.views:
            return member(z, clip, generator=generator)
        views = [
            member(z[:, view : view + 1], _one_view(clip, view), generator=generator) for view in range(z.shape[1])
        ]
        return torch.stack(views).mean()


def parse_objective(text: str) -> dict[str, float]:
    """Weights by name of a sum of objectives.

    Raises:
        ValueError: for a term that is neither `name` nor `weight*name`, a weight that is not above 0, a name twice.

    Example:
        >>> parse_objective("scl + 0.1*lav")
        {'scl': 1.0, 'lav': 0.1}
    """
    weights: dict[str, float] = {}
    for term in text.split("+"):
        weight, times, name = term.rpartition("*")
        name = name.strip()
        try:
            value = float(weight) if times else 1.0
        except ValueError:
            value = math.nan
        if not name or not (math.isfinite(value) and value > 0):
            raise ValueError(f'objective "{text}": each term must be name or weight*name, weight above 0; got "{term}"')
        if name in weights:
            raise ValueError(f'objective "{text}" names "{name}" twice: give it one weight')
        weights[name] = value
    return weights


def shared_sampler(samplers: Mapping[str, str]) -> str:
    """The sampler that serves all objectives.

    Args:
        samplers: Of each objective, by its name.

    Raises:
        ValueError: when there is none.

    Example:
        >>> shared_sampler({"scl": "views", "lav": "action_segments"})
        'action_views'
    """
    if len(set(samplers.values())) == 1:
        return next(iter(samplers.values()))
    layouts = {name: sampler.removeprefix(ONE_ACTION) for name, sampler in samplers.items()}
    for name, layout in layouts.items():
        if layout not in LAYOUTS:
            others = ", ".join(f'"{other}" by "{sampler}"' for other, sampler in samplers.items() if other != name)
            raise ValueError(
                f'"{name}" draws its frames by "{samplers[name]}" and can use no others, {others}: they cannot be '
                "combined; train them apart, or combine objectives that draw alike"
            )
    layout = next(layout for layout in LAYOUTS if layout in layouts.values())
    return ONE_ACTION * any(sampler.startswith(ONE_ACTION) for sampler in samplers.values()) + layout


def joint_labels(labels: list[str]) -> str:
    """What training consumes in all; frame labels hold the others.

    Example:
        >>> joint_labels(["none", "phase", "video"]), joint_labels(["frame", "video"])
        ('video, phase', 'frame')
    """
    if "frame" in labels:
        return "frame"
    return ", ".join(kind for kind in SUPERVISION[1:] if kind in labels) or "none"


def _one_view(clip: Clip, view: int) -> Clip:
    phase = None if clip.phase is None else clip.phase[:, view : view + 1]
    one = slice(view, view + 1)
    return Clip(clip.frame_index[:, one], clip.num_frames, clip.valid[:, one], phase, clip.action)
