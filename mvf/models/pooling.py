"""The poolings that LSTP is compared with (paper, section 5.5), behind one signature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvf.models.lstp import LearnableSpatialTokenPooling

POOLINGS = ("lstp", "fixed_width", "max", "mean", "cls")


class FixedWidthPooling(nn.Module):
    """The class token mapped to N tokens: the transformer is as wide as with LSTP, without any spatial attention.

    Args:
        cls_channels: Channels C0 of the class token.
        width: Channels D of a token.
        entities: Number N of tokens.

    Shape:
        patches (any), cls (..., C0) -> entities (..., N, D), None

    Example:
        >>> import torch
        >>> FixedWidthPooling(cls_channels=8, width=4, entities=3)(None, torch.randn(2, 5, 8))[0].shape
        torch.Size([2, 5, 3, 4])
    """

    makes_entities = True

    def __init__(self, cls_channels: int, width: int = 384, entities: int = 3) -> None:
        super().__init__()
        if entities < 1:
            raise ValueError(f"entities must be at least 1, got {entities}")
        self.entities, self.width = entities, width
        self.expand = nn.Linear(cls_channels, width * entities)

    def forward(self, patches: Tensor | None, cls: Tensor | None = None) -> tuple[Tensor, None]:
        """Expands the class token; the patches are not read."""
        numbers = self.expand(_wide(_needed(cls, "fixed_width")))
        # channel-major, as published: the entity is the fast index
        return numbers.unflatten(-1, (self.width, self.entities)).transpose(-1, -2), None


class FramePooling(nn.Module):
    """One token per frame: the maximum or mean of its patches, or its class token. Nothing is learned.

    Args:
        kind: `max`, `mean` or `cls`.
        width: Channels of the token, those of a patch or of the class token.

    Shape:
        patches (..., P, C), cls (..., C0) -> token (..., 1, C) or (..., 1, C0), None

    Example:
        >>> import torch
        >>> FramePooling("mean", width=8)(torch.randn(2, 5, 16, 8))[0].shape
        torch.Size([2, 5, 1, 8])
    """

    makes_entities = False
    entities = 1

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind, self.width = kind, width

    def forward(self, patches: Tensor | None, cls: Tensor | None = None) -> tuple[Tensor, None]:
        """Pools one frame at a time."""
        if self.kind == "cls":
            return _wide(_needed(cls, "cls")).unsqueeze(-2), None
        if patches is None:
            raise ValueError(f'pooling "{self.kind}" reads patches: pass patches (..., P, C)')
        if self.kind == "max":
            return _wide(patches.amax(-2, keepdim=True)), None
        return patches.mean(-2, keepdim=True, dtype=_wide(patches[:0]).dtype), None


Pooling = LearnableSpatialTokenPooling | FixedWidthPooling | FramePooling


def make_pooling(
    name: str, channels: int, cls_channels: int | None, width: int, entities: int, competition: bool = False
) -> Pooling:
    """The pooling called `name`: a module `(patches, cls) -> (tokens (..., N, D), attention (..., N, P) or None)`.

    Args:
        name: One of `POOLINGS`.
        channels: Channels C of a patch.
        cls_channels: Channels C0 of the class token; None for a backbone without one.
        width: Channels D of an entity, where the pooling learns entities.
        entities: Number N of entities, where the pooling learns entities.
        competition: Entities compete for patches, see `LearnableSpatialTokenPooling`.

    Raises:
        ValueError: for an unknown name, a pooling of a class token that the backbone does not have, or a competition
            for patches in a pooling without attention.
    """
    if competition and name in POOLINGS and name != "lstp":
        raise ValueError(f'pooling "{name}" has no attention that entities could compete for: use lstp')
    if name == "lstp":
        return LearnableSpatialTokenPooling(channels, width, entities, competition)
    if name in ("max", "mean"):
        return FramePooling(name, channels)
    if name in ("fixed_width", "cls"):
        if cls_channels is None:
            raise ValueError(
                f'pooling "{name}" reads the class token, which this backbone does not have: use lstp, max or mean'
            )
        return FramePooling(name, cls_channels) if name == "cls" else FixedWidthPooling(cls_channels, width, entities)
    raise ValueError(f'unknown pooling "{name}"; known: {", ".join(POOLINGS)}')


def _wide(x: Tensor) -> Tensor:
    """Casts to at least float32, as learned layers need it; stored features are bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _needed(cls: Tensor | None, pooling: str) -> Tensor:
    if cls is None:
        raise ValueError(f'pooling "{pooling}" reads the class token: pass cls (..., C0)')
    return cls


def entity_overlap(attention: Tensor) -> Tensor:
    """Mean cosine similarity of the pairs of entity maps of each frame, differentiable.

        overlap = 2 / (N (N - 1)) · sum_{i<j} (a_i · a_j) / (|a_i| |a_j|)

    Weights are not negative, so it is in [0, 1]: 0 where no two entities attend to the same patch, 1 where all maps are
    equal, which is a maximum, where it has no gradient.

    Args:
        attention: (..., N, P) weights over patches, at least two entities.

    Returns:
        (...) one number per frame, float32 or wider.

    Raises:
        ValueError: for fewer than two entities.

    Example:
        >>> maps = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
        >>> entity_overlap(maps).round(decimals=4)
        tensor([0., 1.])
    """
    entities = attention.shape[-2]
    if entities < 2:
        raise ValueError(f"overlap compares entities: it needs at least 2 of them, got {entities}")
    wide = attention.to(torch.promote_types(attention.dtype, torch.float32))
    unit = F.normalize(wide, dim=-1)
    with torch.autocast(attention.device.type, enabled=False):
        cosine = unit @ unit.transpose(-1, -2)  # (..., N, N)
    first, second = torch.triu_indices(entities, entities, offset=1, device=attention.device)
    return cosine[..., first, second].mean(dim=-1).clamp(max=1)  # a cosine of equal maps may round to above 1
