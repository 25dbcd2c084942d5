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
    of a query, which the softmax over patches ignores, so there is none.

    With `competition` the softmax is taken over the entities of each patch, so that they divide the patch among
    them, and what an entity gets is then divided by its sum over patches: its weights still sum to 1, and the
    entity is the mean of the patches it won. This is the order of slot attention, whose keys have no bias either.
    Maps cannot all lie on the same few patches, as they can without. A single entity wins every patch: its map is
    uniform, which is mean pooling, and query and key learn nothing.

    Reference: Walmer et al., https://arxiv.org/abs/2311.10873, section 3.3; Locatello et al., NeurIPS 2020,
    https://arxiv.org/abs/2006.15055, section 2.1.

    Args:
        channels: Channels C of a patch, all layers together.
        width: Channels D of an entity.
        entities: Number N of queries.
        competition: Softmax over entities, then normalised over patches; else over patches alone.

    Shape:
        patches (..., P, C), keep (..., P) True where a patch may be attended to
        -> entities (..., N, D), attention (..., N, P) that sums to 1 over patches

    Raises:
        ValueError: if there is not at least one entity.

    Example:
        >>> pooling = LearnableSpatialTokenPooling(channels=8, width=4, entities=3)
        >>> entities, attention = pooling(torch.randn(2, 5, 16, 8))
        >>> entities.shape, attention.shape
        (torch.Size([2, 5, 3, 4]), torch.Size([2, 5, 3, 16]))
    """

    makes_entities = True

    def __init__(self, channels: int, width: int = 384, entities: int = 3, competition: bool = False) -> None:
        super().__init__()
        if entities < 1:
            raise ValueError(f"entities must be at least 1, got {entities}")
        self.entities, self.width, self.competition = entities, width, competition
        bound = (entities * width) ** -0.5
        self.query = nn.Parameter(torch.empty(entities, width).uniform_(-bound, bound))
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width)

    def forward(self, patches: Tensor, cls: Tensor | None = None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pools patches; the class token is not read."""
        # The sums over patches are bound by memory; in the patches' own precision nothing large is copied.
        with torch.autocast(patches.device.type, enabled=False):
            attention = self.attend(patches, keep)
            pooled = attention.to(patches.dtype) @ patches  # (..., N, C)
        return self.value(pooled.to(self.value.weight.dtype)), attention

    def attend(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attention (..., N, P) over patches (..., P, C); the softmax is in float32 or wider.

        Patches where `keep` (..., P) is False get no weight; every frame has to keep at least one.
        """
        folded = self.query @ self.key.weight * self.width**-0.5  # (N, C)
        scores = F.linear(patches, folded.to(patches.dtype))  # (..., P, N)
        wide = torch.promote_types(scores.dtype, torch.float32)
        if self.competition:
            # the softmax of log shares normalises the shares, even where an entity loses every patch by far
            scores = scores.log_softmax(dim=-1, dtype=wide)
        if keep is not None:
            scores = scores.masked_fill(~keep.unsqueeze(-1), -torch.inf)
        return scores.softmax(dim=-2, dtype=wide).transpose(-1, -2)
