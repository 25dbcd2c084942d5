"""Multi-entity Temporal Fusion (paper, section 3.4): a transformer over all entities of all frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sine_table(times: Tensor, width: int) -> Tensor:
    """Sine and cosine table of (T,) times: channel d holds sin (d even) or cos (d odd) of t / 10000^(d / width).

    Shape:
        times (T,) -> (T, width), float64

    Example:
        >>> sine_table(torch.tensor([0.0, 1.0]), 2)[:, 0]
        tensor([0.0000, 0.8415], dtype=torch.float64)
    """
    channel = torch.arange(width, device=times.device, dtype=torch.float64)
    angle = times.double()[:, None] / 10000 ** (channel / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


def token_mlp(inputs: int, width: int, outputs: int, dropout: float = 0.1) -> nn.Sequential:
    """Twice [Dropout, Linear, BatchNorm, ReLU], then Linear: rows (M, inputs) -> (M, outputs)."""
    return nn.Sequential(
        *[nn.Dropout(dropout), nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()],
        *[nn.Dropout(dropout), nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()],
        nn.Linear(width, outputs),
    )


class SelfAttention(nn.Module):
    """Multi-head attention of all tokens to all tokens that are real."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the fusion width must be a multiple of its {heads} heads, got {width}")
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """tokens (B, L, W), keys (B, L) True where a token may be attended to -> (B, L, W)."""
        query, key, value = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, W / heads)
            for linear in (self.query, self.key, self.value)
        )
        mask = None if keys is None else keys[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class FusionBlock(nn.Module):
    """A pre-norm transformer block with dropout on both residual branches."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), SelfAttention(width, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """tokens (B, L, W), keys (B, L) -> (B, L, W)."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens), keys))
        return tokens + self.dropout(self.feedforward(self.feedforward_norm(tokens)))


class MultiEntityTemporalFusion(nn.Module):
    """Lets every entity of every frame look at every entity of every frame.

    The position table is over frames: entities of one frame share it, and are told apart by their id (paper,
    section 3.4). A sequence of another length than in training is stretched onto the table, so the first and the
    last frame always stand where they stood in training. Padding is never attended to.

    Reference: Walmer et al., https://arxiv.org/abs/2311.10873, section 3.4.

    Args:
        width: Channels of a token.
        blocks: Number of transformer blocks.
        heads: Attention heads of a block.
        feedforward: Hidden width of a block's feed-forward part.
        dropout: On the positioned tokens and on every residual branch.
        positions: `sine`, or `none` for no position table (all zeros).
        num_frames: Frames T0 of a training clip.

    Shape:
        tokens (B, T, N, width), valid (B, T) True where a frame is real -> (B, T, N, width)

    Example:
        >>> fusion = MultiEntityTemporalFusion(width=16, heads=4, feedforward=32, num_frames=8)
        >>> fusion(torch.randn(2, 12, 3, 16)).shape
        torch.Size([2, 12, 3, 16])
    """

    def __init__(
        self,
        width: int = 256,
        blocks: int = 3,
        heads: int = 8,
        feedforward: int = 1024,
        dropout: float = 0.1,
        positions: str = "sine",
        num_frames: int = 80,
    ) -> None:
        super().__init__()
        if positions not in ("sine", "none"):
            raise ValueError(f'unknown positions "{positions}"; known: sine, none')
        self.width, self.positions, self.num_frames = width, positions, num_frames
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(FusionBlock(width, heads, feedforward, dropout) for _ in range(blocks))
        for weight in self.blocks.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def position_table(self, length: int) -> Tensor:
        """(length, width) table as it is added to a clip of `length` frames."""
        like = next(self.parameters())
        if self.positions == "none":
            return like.new_zeros(length, self.width)
        times = torch.linspace(0, self.num_frames - 1, length, dtype=torch.float64)
        return sine_table(times, self.width).to(like)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Adds positions and runs the blocks."""
        frames, entities = tokens.shape[1:3]
        positioned = tokens + self.position_table(frames)[:, None]
        mixed = self.dropout(positioned).flatten(1, 2)  # (B, T · N, width)
        keys = None if valid is None else key_mask(valid).repeat_interleave(entities, dim=1)
        for block in self.blocks:
            mixed = block(mixed, keys)
        return mixed.unflatten(1, (frames, entities))


def key_mask(valid: Tensor) -> Tensor:
    """`valid` (B, T), but all True for a clip without any real frame: a softmax over nothing would be NaN.

    Example:
        >>> key_mask(torch.tensor([[True, False], [False, False]]))
        tensor([[ True, False],
                [ True,  True]])
    """
    return valid | ~valid.any(dim=1, keepdim=True)
