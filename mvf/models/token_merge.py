"""Tokens merged along time: groups of like tokens of neighbouring frames, their means, and the way back to frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGroups:
    """Which tokens stand together for a run of frames of one entity.

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
        """(B, G) to add to attention scores: a group then weighs as its tokens would alone, and an empty one not."""
        return self.sizes.log()

    def merge(self, tokens: Tensor) -> Tensor:
        """Means: tokens (B, T · N, W) -> (B, G, W)."""
        batch, groups = self.sizes.shape
        weighted = tokens * self.share[..., None].to(tokens.dtype)
        means = weighted.new_zeros(batch * groups, tokens.shape[-1])
        return means.index_add(0, self._rows(), weighted.flatten(0, 1)).unflatten(0, (batch, groups))

    def restore(self, merged: Tensor) -> Tensor:
        """To every token what its group has: merged (B, G, W) -> (B, T · N, W)."""
        return merged.flatten(0, 1).index_select(0, self._rows()).unflatten(0, self.index.shape)

    def spread(self, weights: Tensor) -> Tensor:
        """Weights of groups in equal parts to their tokens: (B, R, G) -> (B, R, T · N)."""
        index = self.index[:, None].expand(-1, weights.shape[1], -1)
        return weights.gather(2, index) * self.share[:, None].to(weights.dtype)

    def _rows(self) -> Tensor:
        """Positions of the groups of all tokens among those of all videos."""
        batch, groups = self.sizes.shape
        return (self.index + groups * torch.arange(batch, device=self.index.device)[:, None]).flatten()


@torch.no_grad()
def group_tokens(tokens: Tensor, real: Tensor, share: float) -> TokenGroups:
    """Groups of like tokens, so that `share` of the tokens is merged away.

    Only tokens of one entity in neighbouring frames are ever linked, those with the smallest squared distance first,
    in one ranking of all entities of a video: what stands still is merged more than what moves. Linked tokens form
    runs, so entities stay apart and time keeps its order, without the bipartite matching that tokens of an image need
    (Bolya et al.). No run crosses a multiple of ceil(2 / (1 - share)) frames: slow drift cannot chain many frames that
    each resemble the next, and a group is at most about twice as long as the mean one. Among equals every other link
    comes first, so that a still picture is halved evenly.

    Each video merges its own share of its real tokens, whatever it is padded to and batched with. Padding is in no
    group's mean. The choice is piecewise constant and has no gradient; the means have.

    Reference: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, https://arxiv.org/abs/2210.09461.

    Args:
        tokens: (B, T, N, W) that are compared.
        real: (B, T) False for padding.
        share: Of a video's real tokens, 0 to 1; fewer where a short clip has not enough links.

    Example:
        >>> still = torch.tensor([0.0, 0.0, 5.0, 5.0])[None, :, None, None]
        >>> group_tokens(still, torch.ones(1, 4, dtype=torch.bool), 0.5).index
        tensor([[0, 0, 1, 1]])
    """
    linked = _choose_links(tokens, real, share)
    counted = real[..., None].expand_as(linked)
    number = (counted & ~linked).transpose(1, 2).flatten(1).cumsum(dim=1)  # entity after entity, frames in order
    index = (number - 1).clamp(min=0).unflatten(1, (tokens.shape[2], -1)).transpose(1, 2).flatten(1)
    counts = counted.flatten(1).to(torch.promote_types(tokens.dtype, torch.float32))
    sizes = counts.new_zeros(len(tokens), int(number[:, -1].max())).scatter_add(1, index, counts)
    return TokenGroups(index, counts / sizes.gather(1, index).clamp(min=1), sizes)


def _choose_links(tokens: Tensor, real: Tensor, share: float) -> Tensor:
    """(B, T, N) True where a token joins that of its entity in the frame before."""
    frames, entities = tokens.shape[1:3]
    later = torch.arange(1, frames, device=tokens.device)
    later = torch.cat([later[::2], later[1::2]])  # among equals every other link first
    later = later[later % math.ceil(2 / (1 - share)) != 0]
    wide = torch.promote_types(tokens.dtype, torch.float32)
    distance = tokens.to(wide).diff(dim=1).square().sum(-1)[:, later - 1]  # (B, links, N)
    allowed = (real[:, later] & real[:, later - 1])[..., None].expand_as(distance).flatten(1)
    wanted = (share * entities * real.sum(dim=1)).floor().minimum(allowed.sum(dim=1))
    order = distance.flatten(1).masked_fill(~allowed, torch.inf).argsort(dim=1, stable=True)
    chosen = order.argsort(dim=1) < wanted[:, None]
    linked = torch.zeros(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
    linked[:, later] = chosen.unflatten(1, (len(later), entities))
    return linked
