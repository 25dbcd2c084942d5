"""What all objectives share: their contract (docs/design.md, section 4), checks, and pairs of videos of one action."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mvf.clip import Clip

VARIANTS = ("reference", "corrected")


class Objective(nn.Module):
    """A training objective: `loss(embeddings (B, V, T, E), clip, generator)` -> scalar, in float32 or wider.

    A subclass says what it needs in class attributes and computes its value in `compute`, which gets checked
    embeddings with zeros in place of padding.

    Attributes:
        reads: Which output of the model it compares: `raw`, `unit` or `projection`.
        views: Views of every video, 1 or 2.
        sampler: Name in `mvf.data.sampling.SAMPLERS` of how clips and batches are drawn.
        labels: Labels that training uses: `none`, `video` (the action), `phase` (boundaries) or `frame`.
        fewest: Valid frames that every view must have.
        any_views: True for objectives that also take other numbers of views than `views`.
        parts: Terms of the last value, without gradient, for logging.
    """

    reads: str = "unit"
    views: int = 1
    sampler: str = "frames"
    labels: str = "none"
    fewest: int = 1
    any_views: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Tensor] = {}

    def forward(self, embeddings: Tensor, clip: Clip, generator: torch.Generator | None = None, **given: Any) -> Tensor:
        """The value of a batch.

        Args:
            embeddings: (B, V, T, E).
            clip: The clip of these frames; padding changes nothing, except for leaks that `reference` variants keep.
            generator: Source of whatever the objective draws; by default torch's own.
            **given: Values that an objective accepts instead of drawing them, like `bridges`.

        Raises:
            ValueError: for shapes, labels or numbers of frames that the objective cannot use.
        """
        self.check(embeddings, clip)
        with torch.autocast(embeddings.device.type, enabled=False):
            z = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            return self.compute(self.masked(z, clip.valid), clip, generator, **given)

    def compute(self, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        """The value of checked embeddings (B, V, T, E)."""
        raise NotImplementedError

    def masked(self, z: Tensor, valid: Tensor) -> Tensor:
        """Embeddings with zeros in place of padding, so that nothing there can matter, not even infinity."""
        return torch.where(valid[..., None], z, 0)

    def advance(self) -> None:
        """Called after every step of training; for objectives that change with time."""

    def check(self, embeddings: Tensor, clip: Clip) -> None:
        """Raises ValueError for input that the objective cannot use."""
        views = "V" if self.any_views else self.views
        several = "two views of every video" if self.views == 2 else "one view of every video"
        if embeddings.ndim != 4 or not (self.any_views or embeddings.shape[1] == self.views):
            raise ValueError(f"embeddings must be (B, {views}, T, E), {several}; got {tuple(embeddings.shape)}")
        if not embeddings.numel():
            raise ValueError(f"embeddings (B, {views}, T, E) = {tuple(embeddings.shape)} are empty: give it a video")
        if clip.frame_index.shape != embeddings.shape[:3]:
            wanted, found = tuple(embeddings.shape[:3]), tuple(clip.frame_index.shape)
            raise ValueError(f"clip.frame_index must be (B, {views}, T) = {wanted}, got {found}")
        counts = clip.host.valid.sum(-1)
        if (counts < self.fewest).any():
            video, view = (counts < self.fewest).nonzero()[0].tolist()
            raise ValueError(
                f"video {video}, view {view} has {int(counts[video, view])} valid frames, at least {self.fewest} are "
                "needed: use longer videos, more num_frames, or another objective"
            )
        for name, needed in (
            ("action", self.labels in ("video", "frame")),
            ("phase", self.labels in ("phase", "frame")),
        ):
            if needed:
                labels_of(clip, name)


def labels_of(clip: Clip, name: str) -> Tensor:
    """The labels `action` (B,) or `phase` (B, V, T) of a clip.

    Raises:
        ValueError: if it has none.
    """
    labels = getattr(clip, name)
    if labels is None:
        raise ValueError(
            f"clip.{name} is None, and this objective needs {name} labels: add them, or use one without labels"
        )
    return labels


@dataclass(frozen=True)
class Side:
    """One member of every pair: P videos, their valid frames first.

    Attributes:
        z: (P, T, E) embeddings, zero in padding.
        valid: (P, T), True in the first `counts` frames.
        frame_index: (P, T) positions in the source video.
        num_frames: (P,) lengths of the source videos.
    """

    z: Tensor
    valid: Tensor
    frame_index: Tensor
    num_frames: Tensor

    @property
    def counts(self) -> Tensor:
        """(P,) numbers of valid frames."""
        return self.valid.sum(-1)


class PairObjective(Objective):
    """An objective over pairs of different videos of one action; two views of one video are never a pair.

    Attributes:
        pairs: Which pairs: `all` ordered ones, each `once`, or the `first` video of an action with each other one.
    """

    labels = "video"
    sampler = "action_frames"
    any_views = True
    pairs: ClassVar[str] = "once"

    def compute(self, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        """The value of the pairs of a batch."""
        first, second = video_pairs(clip.host, self.pairs)
        counts = clip.host.valid.flatten(0, 1).sum(-1)
        self.check_counts(counts[first], counts[second])
        first, second = (items.to(z.device, non_blocking=True) for items in (first, second))
        return self.compute_pairs(take(z, clip, first), take(z, clip, second))

    def check_counts(self, first: Tensor, second: Tensor) -> None:
        """Raises ValueError for numbers (P,), (P,) of valid frames that the objective cannot use."""

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        """The value of P pairs."""
        raise NotImplementedError


def video_pairs(clip: Clip, pairs: str = "once") -> tuple[Tensor, Tensor]:
    """Positions (P,), (P,) among the B * V clips of the two members of every pair; see `PairObjective`.

    Raises:
        ValueError: when there is no pair.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> video_pairs(replace(example_clip(3, 1, 4), action=torch.tensor([0, 1, 0])))
        (tensor([0]), tensor([2]))
    """
    views = clip.valid.shape[1]
    video = torch.arange(len(clip.valid), device=clip.valid.device).repeat_interleave(views)
    actions = labels_of(clip, "action")
    action = actions.repeat_interleave(views)
    fits = (action[:, None] == action) & (video[:, None] != video)
    if pairs != "all":
        fits &= video[:, None] < video
    if pairs == "first":
        earliest = (action[:, None] == action).int().argmax(dim=1)  # of the first clip of the same action
        fits &= torch.arange(len(video), device=video.device)[:, None] == earliest[:, None]
    first, second = fits.nonzero(as_tuple=True)
    if not len(first):
        raise ValueError(
            f"pairs of videos of one action are needed, the batch has actions {actions.tolist()} and no pair: "
            "use a batch_size of 2 or more, and actions with several videos"
        )
    return first, second


def take(z: Tensor, clip: Clip, items: Tensor) -> Side:
    """Selects clips `items` (P,) of all B * V, with their valid frames moved to the front."""
    valid, views = clip.valid.flatten(0, 1)[items], clip.valid.shape[1]
    order = valid_first(valid)
    return Side(
        z=z.flatten(0, 1)[items].gather(1, order[..., None].expand(-1, -1, z.shape[-1])),
        valid=valid.gather(1, order),
        frame_index=clip.frame_index.flatten(0, 1)[items].gather(1, order),
        num_frames=clip.num_frames.repeat_interleave(views)[items],
    )


def pick(values: Tensor, valid: Tensor, video: Tensor, positions: Tensor) -> Tensor:
    """Values (N, K, ...) of (B, 1, T, ...) at `positions` (N, K) among the valid frames of videos (N,).

    Videos and positions may be on the CPU whatever the values are on.

    Example:
        >>> valid = torch.tensor([[[True, False, True, True]]])
        >>> pick(torch.arange(4)[None, None], valid, torch.tensor([0]), torch.tensor([[0, 1, 2]]))
        tensor([[0, 2, 3]])
    """
    video, positions = (part.to(values.device, non_blocking=True) for part in (video, positions))
    return values[video[:, None], 0, valid_first(valid[:, 0])[video[:, None], positions]]


def places(mask: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Indices on `device` of where a mask on the CPU is True; indexing by a mask on a GPU waits for its work.

    Example:
        >>> torch.arange(4)[places(torch.tensor([True, False, True, False]), torch.device("cpu"))]
        tensor([0, 2])
    """
    return tuple(index.to(device, non_blocking=True) for index in mask.nonzero(as_tuple=True))


def valid_first(valid: Tensor) -> Tensor:
    """Order (..., T) of frames that puts the valid ones first and otherwise keeps their order."""
    return (~valid).int().argsort(dim=-1, stable=True)


def masked_mean(values: Tensor, valid: Tensor, dim: int = -1) -> Tensor:
    """Mean of the valid values along `dim`; 0 where none is valid."""
    return torch.where(valid, values, 0).sum(dim) / valid.sum(dim).clamp(min=1)


def require_positive(or_zero: bool = False, **values: float) -> None:
    """Raises ValueError for an argument that is not a number above 0, or of at least 0 with `or_zero`."""
    wanted = "of at least 0" if or_zero else "above 0"
    for name, value in values.items():
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and not or_zero):
            raise ValueError(f"{name} must be a number {wanted}, got {value!r}")


def require_whole(**values: int) -> None:
    """Raises ValueError for an argument that is not a whole number of at least 1."""
    for name, value in values.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def require_share(or_one: bool = False, **values: float) -> None:
    """Raises ValueError for an argument that is not a number from 0 to 1; 1 itself is allowed only with `or_one`."""
    wanted = "between 0 and 1" if or_one else "at least 0 and below 1"
    for name, value in values.items():
        if not (isinstance(value, int | float) and 0 <= value <= 1) or (value == 1 and not or_one):
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def require_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises ValueError for a value that is not in `allowed`."""
    if value not in allowed:
        raise ValueError(f'unknown {name} "{value}"; known: {", ".join(map(str, allowed))}')


# ----------------------------------------------------------------------------------------------------------------------
# Sums of objectives

SUPERVISION = ("none", "video", "phase", "frame")  # from least to most
READABLE = ("raw", "unit", "projection")  # what an objective can read of the model
LAYOUTS = ("views", "segments", "frames")  # samplers, each of which also serves the objectives of those after it
ONE_ACTION = "action_"  # prefix of samplers whose batches show one action


class CombinedObjective(nn.Module):
    """A weighted sum of objectives that can share a clip.

    If a member needs two views, objectives of single views are averaged over both. Frames are drawn as the most
    demanding member needs them, and batches show one action if any member needs that.

    Args:
        members: Objectives by name.
        weights: Their weights, in the same order.

    Attributes:
        reads: The distinct kinds of embeddings that the members read, joined by "+".

    Shape:
        embeddings (B, V, T, E), or a mapping from each kind of `reads` to such a tensor -> scalar

    Raises:
        ValueError: if no sampler serves all objectives.

    Example:
        >>> from mvf.losses import build_loss
        >>> loss = build_loss("scl+0.1*lav")
        >>> loss.reads, loss.views, loss.sampler, loss.labels
        ('projection+unit', 2, 'action_views', 'video')
    """

    def __init__(self, members: Mapping[str, Objective], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.members, self.weights = nn.ModuleDict(members), dict(weights)
        self._by_name = dict(members)
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
        for name, member in self._by_name.items():
            z = embeddings if isinstance(embeddings, Tensor) else embeddings[member.reads]
            terms[name] = self._value(member, z, clip, generator)
        self.parts = {name: term.detach() for name, term in terms.items()}
        return reduce(operator.add, (self.weights[name] * term for name, term in terms.items()))

    def advance(self) -> None:
        """Called after every step of training."""
        for member in self._by_name.values():
            member.advance()

    def _value(self, member: Objective, z: Tensor, clip: Clip, generator: torch.Generator | None) -> Tensor:
        if member.any_views or member.views == self.views:
            return member(z, clip, generator=generator)
        views = [member(z[:, view : view + 1], clip.one_view(view), generator=generator) for view in range(z.shape[1])]
        return torch.stack(views).mean()


def parse_objective(text: str) -> dict[str, float]:
    """Parses a sum of objectives into weights by name.

    Raises:
        ValueError: for a term that is neither `name` nor `weight*name`, a weight not above 0, or a repeated name.

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
        samplers: Sampler of each objective, by name.

    Raises:
        ValueError: if there is none.

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
                f'"{name}" needs frames drawn by "{samplers[name]}", {others}: they cannot be combined; train them '
                "separately, or combine objectives with the same sampler"
            )
    layout = next(layout for layout in LAYOUTS if layout in layouts.values())
    return ONE_ACTION * any(sampler.startswith(ONE_ACTION) for sampler in samplers.values()) + layout


def joint_labels(labels: list[str]) -> str:
    """All labels that training uses; frame labels include the others.

    Example:
        >>> joint_labels(["none", "phase", "video"]), joint_labels(["frame", "video"])
        ('video, phase', 'frame')
    """
    if "frame" in labels:
        return "frame"
    return ", ".join(kind for kind in SUPERVISION[1:] if kind in labels) or "none"
