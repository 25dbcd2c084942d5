"""Pooling of patches of which a bank kept only some directions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from mvf.models.lstp import LearnableSpatialTokenPooling
from mvf.models.mvformer import MVFormer


def pool_reduced(model: MVFormer, reduced: Tensor, basis: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What `model.pool` gives of `reduced @ basis`, to rounding; for LSTP without ever making it.

    LSTP is linear in patches, so the basis moves into its two maps: of `reduced` they are (W_key basis') and
    (W_value basis'), made once a call. Other poolings get the reconstruction.

    Shape:
        reduced (B, T, P, K), basis (K, C), cls (B, T, C0) -> tokens (B, T, N, D), attention (B, T, N, P) or None
    """
    basis = basis.to(reduced.device)
    pooling = model.pooling
    if not isinstance(pooling, LearnableSpatialTokenPooling):
        return model.pool(torch.matmul(reduced, basis.to(reduced.dtype)), cls)
    with torch.autocast(reduced.device.type, enabled=False):
        maps = {name: getattr(pooling, name).weight @ basis.T for name in ("key", "value")}
    return functional_call(pooling, {f"{name}.weight": weight for name, weight in maps.items()}, (reduced,))
