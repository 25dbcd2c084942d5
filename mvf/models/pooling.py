"""The poolings that LSTP is compared with (paper, section 5.5), behind one signature."""

from __future__ import annotations

import torch
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
    """One token a frame: the maximum or mean of its patches, or its class token. Nothing is learned.

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
        if self.kind == "max":
            return _wide(patches.amax(-2, keepdim=True)), None
        return patches.mean(-2, keepdim=True, dtype=_wide(patches[:0]).dtype), None


def make_pooling(
    name: str, channels: int, cls_channels: int | None, width: int, entities: int, competition: bool = False
) -> nn.Module:
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
    if name in ("fixed_width", "cls") and cls_channels is None:
        raise ValueError(
            f'pooling "{name}" reads the class token, which this backbone does not have: use lstp, max or mean'
        )
    if name == "lstp":
        return LearnableSpatialTokenPooling(channels, width, entities, competition)
    if name == "fixed_width":
        return FixedWidthPooling(cls_channels, width, entities)
    if name in POOLINGS:
        return FramePooling(name, cls_channels if name == "cls" else channels)
    raise ValueError(f'unknown pooling "{name}"; known: {", ".join(POOLINGS)}')


def _wide(x: Tensor) -> Tensor:
    """Stored features are bfloat16; what is learned after the pooling is at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _needed(cls: Tensor | None, pooling: str) -> Tensor:
    if cls is None:
        raise ValueError(f'pooling "{pooling}" reads the class token: pass cls (..., C0)')
    return cls
