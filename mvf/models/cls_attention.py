"""What the class token of a vision transformer attends to, read while the network runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class ClassTokenAttention(TorchFunctionMode):
    """Notes the class token's attention while a network runs.

    Every vision transformer of timm hands its final queries and keys, with biases, norms and rotary
    positions applied, to one function. Reading them there is exact for all of them, and costs one row.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.rows: dict[int, Tensor] = dict.fromkeys(layers)
        self.calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is scaled_dot_product_attention:
            self.calls += 1
            if self.calls in self.rows:
                query, key = args[0][:, :, :1].float(), args[1].float()  # (M, heads, 1, d), (M, heads, L, d)
                scores = query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5
                bias = (kwargs or {}).get("attn_mask")  # BEiT's relative positions
                scores = scores if bias is None else scores + bias[..., :1, :]
                self.rows[self.calls] = scores.softmax(dim=-1).squeeze(2)
        return function(*args, **(kwargs or {}))
