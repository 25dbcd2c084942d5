"""Learnable Spatial Token Pooling (paper, section 3.3): patches of a frame to a few entities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LearnableSpatialTokenPooling(nn.Module):
    """Cross-attention from N learned queries to the patches of each frame; one entity per query.

    Queries are shared by all frames, so that an entity means the same thing over time. Because neither a query nor
    the value map depends on the frame, both linear maps move out of the sums over patches:

        score = query · (W_key patch) / sqrt(D) = (query W_key / sqrt(D)) · patch
        entity = sum_p attention_p (W_value patch_p + b) = W_value (sum_p attention_p patch_p) + b

    which is exact and never makes keys or values of single patches. A key bias would add one number to all scores
    of a query, which the softmax ignores: there is none.

    Reference: Walmer et al., https://arxiv.org/abs/2311.10873, section 3.3.

    Args:
        channels: Channels C of a patch, all layers together.
        width: Channels D of an entity.
        entities: Number N of queries.

    Shape:
        patches (..., P, C) -> entities (..., N, D), attention (..., N, P) that sums to 1 over patches

    Raises:
        ValueError: if there is not at least one entity.

    Example:
        >>> pooling = LearnableSpatialTokenPooling(channels=8, width=4, entities=3)
        >>> entities, attention = pooling(torch.randn(2, 5, 16, 8))
        >>> entities.shape, attention.shape
        (torch.Size([2, 5, 3, 4]), torch.Size([2, 5, 3, 16]))
    """

    makes_entities = True

    def __init__(self, channels: int, width: int = 384, entities: int = 3) -> None:
        super().__init__()
        if entities < 1:
            raise ValueError(f"entities must be at least 1, got {entities}")
        self.entities, self.width = entities, width
        bound = (entities * width) ** -0.5
        self.query = nn.Parameter(torch.empty(entities, width).uniform_(-bound, bound))
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width)

    def forward(self, patches: Tensor, cls: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pools patches; the class token is not read."""
        # The sums over patches only wait for memory: in the patches' own precision nothing large is ever copied.
        with torch.autocast(patches.device.type, enabled=False):
            attention = self.attend(patches)
            pooled = attention.to(patches.dtype) @ patches  # (..., N, C)
        return self.value(pooled.to(self.value.weight.dtype)), attention

    def attend(self, patches: Tensor) -> Tensor:
        """Attention (..., N, P) over patches (..., P, C); the softmax is in float32 or wider."""
        folded = self.query @ self.key.weight * self.width**-0.5  # (N, C)
        scores = F.linear(patches, folded.to(patches.dtype))  # (..., P, N)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.softmax(dim=-2, dtype=wide).transpose(-1, -2)
