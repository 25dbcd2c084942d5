"""How much the maps of a frame's entities lie on the same patches: what the overlap penalty adds to an objective."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def entity_overlap(attention: Tensor) -> Tensor:
    """Mean cosine similarity of the pairs of entity maps of each frame, differentiable.

        overlap = 2 / (N (N - 1)) · sum_{i<j} (a_i · a_j) / (|a_i| |a_j|)

    Weights are not negative, so it is in [0, 1]: 0 where no two entities look at one patch, 1 where all maps are
    equal, which is a maximum: from there it has no gradient.

    Args:
        attention: (..., N, P) weights over patches, at least two entities.

    Returns:
        (...) one number a frame, float32 or wider.

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
    first, second = torch.triu_indices(entities, entities, offset=1)
    return cosine[..., first, second].mean(dim=-1).clamp(max=1)  # a cosine of equal maps may round to above 1
