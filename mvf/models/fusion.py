"""Multi-entity Temporal Fusion (paper, section 3.4): a transformer over all entities of all frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 64  # frames whose attention is computed at once


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
    """Multi-head attention of all tokens to all tokens that are real.

    `keys` (B, L) is True where a token may be attended to, or a number that is added to the scores of each token: the
    logarithm of how many tokens it stands for.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the fusion width must be a multiple of its {heads} heads, got {width}")
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """tokens (B, L, W), keys (B, L) -> (B, L, W)."""
        query, key, value = (self._split(linear(tokens)) for linear in (self.query, self.key, self.value))
        mask = None if keys is None else keys[:, None, None, :]
        if mask is not None and mask.is_floating_point():
            mask = mask.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(-2))

    def weights(self, asking: Tensor, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """Attention (B, R, L) of queries `asking` (B, R, W) to tokens (B, L, W) as in `forward`, mean over heads."""
        query, key = self._split(self.query(asking)), self._split(self.key(tokens))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, heads, R, L)
        if keys is not None and keys.is_floating_point():
            scores = scores + keys[:, None, None, :]
        elif keys is not None:
            scores = scores.masked_fill(~keys[:, None, None, :], -torch.inf)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.softmax(dim=-1, dtype=wide).mean(dim=1)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, W / heads)


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
    """Lets every entity of every frame attend to every entity of every frame.

    The position table is over frames: entities of one frame share it, and are told apart by their id (paper,
    section 3.4). A sequence of another length than in training is stretched onto the table, so the first and the
    last frame always stand where they stood in training. Padding is never attended to.

    The cost grows with (frames · entities)^2. With `token_merge` similar tokens of neighbouring frames are merged
    (`group_tokens`) and the blocks work on the means, each of which counts in attention as many times as it
    has tokens: where merged tokens are equal nothing changes. At the end every frame has its own token again, plus
    what the blocks added to its group's mean. A plain copy of the group's output would give all its frames the same
    embedding; this way they keep their differences. Tokens are compared before positions are added, so that content
    decides what is merged, not time. The parameters are the same with and without merging.

    References: Walmer et al., https://arxiv.org/abs/2311.10873, section 3.4. Bolya et al., ICLR 2023,
    https://arxiv.org/abs/2210.09461 (merging, proportional attention); Bolya and Hoffman,
    https://arxiv.org/abs/2303.17604 (merged branches around a residual stream that stays whole).

    Args:
        width: Channels of a token.
        blocks: Number of transformer blocks.
        heads: Attention heads of a block.
        feedforward: Hidden width of a block's feed-forward part.
        dropout: On the positioned tokens and on every residual branch.
        positions: `sine`, or `none` for no position table (all zeros).
        num_frames: Frames T0 of a training clip.
        token_merge: Share of a video's tokens that is merged away before the first block; 0: off, the exact model.

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
        token_merge: float = 0.0,
    ) -> None:
        super().__init__()
        if positions not in ("sine", "none"):
            raise ValueError(f'unknown positions "{positions}"; known: sine, none')
        if not 0 <= token_merge < 1:
            raise ValueError(f"token_merge must be in [0, 1), got {token_merge}")
        self.width, self.positions, self.num_frames, self.token_merge = width, positions, num_frames, token_merge
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(FusionBlock(width, heads, feedforward, dropout) for _ in range(blocks))
        for weight in self.blocks.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def position_table(self, length: int, place: tuple[int, int] | None = None) -> Tensor:
        """(length, width) table as it is added to a clip of `length` frames; `place`: see `MVFormer.fuse_tokens`."""
        like = next(self.parameters())
        if self.positions == "none":
            return like.new_zeros(length, self.width)
        first, total = place or (0, length)
        if not 0 <= first <= total - length:
            raise ValueError(f"{length} frames from frame {first} on lie outside a video of {total}")
        times = torch.linspace(0, self.num_frames - 1, total, dtype=torch.float64)[first : first + length]
        return sine_table(times, self.width).to(like, non_blocking=True)

    def forward(self, tokens: Tensor, valid: Tensor | None = None, place: tuple[int, int] | None = None) -> Tensor:
        """Adds positions and runs the blocks."""
        own, keys, groups = self._enter(tokens, valid, place)
        mixed = entered = own if groups is None else groups.merge(own)
        for block in self.blocks:
            mixed = block(mixed, keys)
        if groups is not None:
            mixed = own + groups.restore(mixed - entered)
        return mixed.unflatten(1, tokens.shape[1:3])

    def attention_rows(
        self,
        tokens: Tensor,
        valid: Tensor | None = None,
        block: int = -1,
        frames: Tensor | None = None,
        asking: int = 1,
    ) -> Tensor:
        """How much frames attend to every entity of every frame in one block.

        Only the rows asked for are computed, `ROWS` frames at a time, so memory grows with T, not with T squared;
        blocks below run as in `forward`. Merged tokens act as one query, and the weight they get is divided among them.

        Args:
            tokens: (B, T, N, width), as for `forward`.
            valid: (B, T) True where a frame is real.
            block: 1-based, negative from the end.
            frames: (F,) query frames; all by default.
            asking: How many entities of a frame are queries, from the first; their weights are averaged.

        Returns:
            (B, F, T, N) weights, mean over heads; they sum to 1 over (T, N), and are 0 from and to padded frames.

        Raises:
            ValueError: for a block that is not there.
        """
        chosen = self.block_index(block)
        mixed, keys, groups = self._enter(tokens, valid)
        mixed = mixed if groups is None else groups.merge(mixed)
        for below in self.blocks[:chosen]:
            mixed = below(mixed, keys)
        asked = cast(FusionBlock, self.blocks[chosen])  # a ModuleList does not declare the type of its items
        mixed = asked.attention_norm(mixed)
        frames = torch.arange(tokens.shape[1], device=tokens.device) if frames is None else frames
        each = mixed if groups is None else groups.restore(mixed)
        looking = each.unflatten(1, tokens.shape[1:3])[:, frames, :asking]  # (B, F, asking, width)
        rows = [
            asked.attention.weights(part.flatten(1, 2), mixed, keys).unflatten(1, part.shape[1:3]).mean(2)
            for part in looking.split(ROWS, dim=1)
        ]
        weights = torch.cat(rows, dim=1) if groups is None else groups.spread(torch.cat(rows, dim=1))
        weights = weights.unflatten(-1, tokens.shape[1:3])
        return weights if valid is None else weights * valid.to(weights.device)[:, frames, None, None]

    def block_index(self, block: int) -> int:
        """Position in `blocks`, from 0, of a block numbered from 1, or from -1 at the end.

        Raises:
            ValueError: for a block that is not there.
        """
        count = len(self.blocks)
        if block == 0 or not -count <= block <= count:
            raise ValueError(f"block must be 1 to {count}, or -1 to -{count} from the end, got {block}")
        return block - 1 if block > 0 else count + block

    def _enter(
        self, tokens: Tensor, valid: Tensor | None, place: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor | None, TokenGroups | None]:
        """Positioned tokens (B, T · N, width), the `keys` of attention, and the merged groups; None without merging."""
        frames, entities = tokens.shape[1:3]
        positioned = self.dropout(tokens + self.position_table(frames, place)[:, None]).flatten(1, 2)
        real = None if valid is None else key_mask(valid)
        if not self.token_merge:
            if real is not None:
                real = real.to(tokens.device, non_blocking=True).repeat_interleave(entities, dim=1)
            return positioned, real, None
        real = torch.ones(tokens.shape[:2], dtype=torch.bool) if real is None else real
        groups = group_tokens(tokens, real, self.token_merge)
        return positioned, groups.log_sizes, groups


def key_mask(valid: Tensor) -> Tensor:
    """`valid` (B, T), but all True for a clip without any real frame: a softmax over nothing would be NaN.

    Example:
        >>> key_mask(torch.tensor([[True, False], [False, False]]))
        tensor([[ True, False],
                [ True,  True]])
    """
    return valid | ~valid.any(dim=1, keepdim=True)


# ----------------------------------------------------------------------------------------------------------------------
# Merging of similar tokens along time


@dataclass(frozen=True)
class TokenGroups:
    """Groups of tokens that each stand for a run of frames of one entity.

    Attributes:
        index: (B, T · N) number of each token's group among those of its video.
        share: (B, T · N) weight of each token in the mean of its group; 0 for padding.
        sizes: (B, G) tokens that each group stands for; 0 where a video has fewer than G groups.
    """

    index: Tensor
    share: Tensor
    sizes: Tensor

    @property
    def log_sizes(self) -> Tensor:
        """(B, G) to add to attention scores: a group then weighs as much as its tokens, and an empty one nothing."""
        return self.sizes.log()

    def merge(self, tokens: Tensor) -> Tensor:
        """Means: tokens (B, T · N, W) -> (B, G, W)."""
        batch, groups = self.sizes.shape
        weighted = tokens * self.share[..., None].to(tokens.dtype)
        means = weighted.new_zeros(batch * groups, tokens.shape[-1])
        return means.index_add(0, self._rows(), weighted.flatten(0, 1)).unflatten(0, (batch, groups))

    def restore(self, merged: Tensor) -> Tensor:
        """Gives every token the value of its group: merged (B, G, W) -> (B, T · N, W)."""
        return merged.flatten(0, 1).index_select(0, self._rows()).unflatten(0, self.index.shape)

    def spread(self, weights: Tensor) -> Tensor:
        """Divides the weights of groups equally among their tokens: (B, R, G) -> (B, R, T · N)."""
        index = self.index[:, None].expand(-1, weights.shape[1], -1)
        return weights.gather(2, index) * self.share[:, None].to(weights.dtype)

    def _rows(self) -> Tensor:
        """Positions of all tokens' groups among the groups of all videos."""
        batch, groups = self.sizes.shape
        return (self.index + groups * torch.arange(batch, device=self.index.device)[:, None]).flatten()


@torch.no_grad()
def group_tokens(tokens: Tensor, real: Tensor, share: float) -> TokenGroups:
    """Groups similar tokens, so that `share` of the tokens is merged away.

    Only tokens of one entity in neighbouring frames are ever linked, those with the smallest squared distance first,
    in one ranking of all entities of a video: still entities are merged more than moving ones. Linked tokens form
    runs, so entities stay apart and time keeps its order, without the bipartite matching that tokens of an image need
    (Bolya et al.). No run crosses a multiple of ceil(2 / (1 - share)) frames: slow drift cannot chain many frames that
    each resemble the next, and a group is at most about twice as long as the mean one. Among equal distances every
    other link comes first, so that a still video is halved evenly.

    Each video merges its own share of its real tokens, whatever it is padded to and batched with. Padding is in no
    group's mean. The choice is piecewise constant and has no gradient; the means have.

    Reference: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, https://arxiv.org/abs/2210.09461.

    Args:
        tokens: (B, T, N, W) tokens to compare.
        real: (B, T) False for padding. On the CPU it costs no wait for a GPU: the number of groups follows from it.
        share: Share of a video's real tokens, 0 to 1; less if a short clip does not have enough links.

    Example:
        >>> still = torch.tensor([0.0, 0.0, 5.0, 5.0])[None, :, None, None]
        >>> group_tokens(still, torch.ones(1, 4, dtype=torch.bool), 0.5).index
        tensor([[0, 0, 1, 1]])
    """
    linked, groups = _choose_links(tokens, real, share)
    counted = real.to(tokens.device, non_blocking=True)[..., None].expand_as(linked)
    number = (counted & ~linked).transpose(1, 2).flatten(1).cumsum(dim=1)  # entity after entity, frames in order
    index = (number - 1).clamp(min=0, max=groups - 1).unflatten(1, (tokens.shape[2], -1)).transpose(1, 2).flatten(1)
    counts = counted.flatten(1).to(torch.promote_types(tokens.dtype, torch.float32))
    sizes = counts.new_zeros(len(tokens), groups).scatter_add(1, index, counts)
    return TokenGroups(index, counts / sizes.gather(1, index).clamp(min=1), sizes)


def _choose_links(tokens: Tensor, real: Tensor, share: float) -> tuple[Tensor, int]:
    """(B, T, N) True where a token joins that of its entity in the frame before; the most groups of a video."""
    frames, entities = tokens.shape[1:3]
    later = torch.arange(1, frames, device=real.device)
    later = torch.cat([later[::2], later[1::2]])  # among equal distances every other link comes first
    later = later[later % math.ceil(2 / (1 - share)) != 0]
    allowed = (real[:, later] & real[:, later - 1]).repeat_interleave(entities, dim=1)
    wanted = (share * entities * real.sum(dim=1)).floor().minimum(allowed.sum(dim=1))
    groups = int((entities * real.sum(dim=1) - wanted).max())
    later, allowed, wanted = (part.to(tokens.device, non_blocking=True) for part in (later, allowed, wanted))
    wide = torch.promote_types(tokens.dtype, torch.float32)
    distance = tokens.to(wide).diff(dim=1).square().sum(-1)[:, later - 1]  # (B, links, N)
    order = distance.flatten(1).masked_fill(~allowed, torch.inf).argsort(dim=1, stable=True)
    chosen = order.argsort(dim=1) < wanted[:, None]
    linked = torch.zeros(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
    linked[:, later] = chosen.unflatten(1, (len(later), entities))
    return linked, groups
