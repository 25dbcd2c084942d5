"""Process contrast of VSP: frames of a video as a Brownian bridge between two of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvf.clip import Clip
from mvf.losses.bridges import Bridges, given_bridges, join_bridges, segment_bridges
from mvf.losses.dtw import squared_distances
from mvf.losses.objective import (
    VARIANTS,
    Objective,
    pick,
    require_choice,
    require_positive,
    require_share,
    require_whole,
)


class ProcessContrastiveLoss(Objective):
    """Puts a frame on the way from an earlier to a later one, rather than any frame of another bridge (VSP).

    A bridge is a head, a point and a tail of one video. The point's density under the Brownian bridge between head
    and tail is contrasted with that of every head, point and tail of all other bridges of the batch, put in its place.
    Any embedding that moves along a line at even speed, on a line of its own in every video, nearly solves it. One
    bridge alone has nothing to be told apart from, and costs 0.

    `variant="reference"` divides by the squared variance of the bridge, as the published code does, which flattens the
    contrast where bridges are long; `"corrected"` by the variance.

    Bridges are drawn from `generator` among the valid frames, see `segment_bridges`: a video too short for `segments`
    of them gets fewer, one at least. `loss(..., bridges=)` takes (B, K, 3) positions instead, counted among the valid
    frames of each video. The mean goes over the bridges of a video, then over videos.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023; the bridge follows Wang et al.,
    ICLR 2022, https://arxiv.org/abs/2203.11370.

    Args:
        variance_power: Power of the variance that divides squared distances; None for the variant's, 2 or 1.
        segments: Bridges in every video.
        overlap: Share of a segment, from 0 to below 1, that it may have in common with the next; `vsp` alone uses it.
        temperature: Divides the similarities of the supervised term, which only `vsp_f` has; no other term uses one.
        variant: `reference` or `corrected`.

    Shape:
        embeddings (B, 1, T, E) of unit norm -> scalar

    Raises:
        ValueError: for two views, fewer than 3 valid frames, or bridges outside the valid frames.

    Example:
        >>> from mvf.clip import example_clip
        >>> same = torch.ones(3, 1, 12, 4)
        >>> round(ProcessContrastiveLoss()(same, example_clip(3, 1, 12)).item(), 4)  # ln(3 * 3 - 2)
        1.9459
    """

    reads, views, sampler, labels, fewest = "unit", 1, "frames", "none", 3

    def __init__(
        self,
        variance_power: float | None = None,
        segments: int = 1,
        overlap: float = 0.2,
        temperature: float = 0.1,
        variant: str = "corrected",
    ) -> None:
        super().__init__()
        require_choice("variant", variant, VARIANTS)
        if variance_power is None:
            variance_power = 2.0 if variant == "reference" else 1.0
        require_positive(variance_power=variance_power, temperature=temperature)
        require_whole(segments=segments)
        require_share(overlap=overlap)
        self.variance_power, self.segments, self.overlap = variance_power, segments, overlap
        self.temperature, self.variant = temperature, variant

    def compute(
        self, z: Tensor, clip: Clip, generator: torch.Generator | None, bridges: Tensor | None = None
    ) -> Tensor:
        """The value for bridges drawn or given."""
        chosen = self.draw(clip, generator) if bridges is None else given_bridges(bridges, clip.valid[:, 0].sum(-1))
        ends = pick(z, clip.valid, chosen.video, chosen.positions)  # (N, 3, E)
        return self.compute_bridges(ends, chosen, clip)

    def draw(self, clip: Clip, generator: torch.Generator | None) -> Bridges:
        """Bridges over the whole of every video."""
        counts = clip.valid[:, 0].sum(-1).tolist()
        drawn = [segment_bridges(frames, self.segments, self.overlap, generator) for frames in counts]
        return join_bridges(drawn, clip.valid.device)

    def compute_bridges(self, ends: Tensor, bridges: Bridges, clip: Clip) -> Tensor:
        """The value of N bridges with the embeddings (N, 3, E) of their heads, points and tails."""
        return process_contrast(ends, bridges, self.variance_power)


def process_contrast(ends: Tensor, bridges: Bridges, power: float = 1.0) -> Tensor:
    """Mean over bridges, then videos, of -log of the share of a bridge's own point among all put in its place.

    Args:
        ends: (N, 3, E) embeddings of heads, points and tails.
        bridges: Their videos and positions.
        power: Of the variance.

    Example:
        >>> bridges = Bridges(torch.tensor([0, 0]), torch.tensor([[0, 2, 5], [6, 8, 11]]))
        >>> line = bridges.positions[..., None].expand(-1, -1, 2).double()
        >>> round(process_contrast(line, bridges).item(), 8)
        0.00027728
    """
    count = len(ends)
    logits = log_density(ends.flatten(0, 1), ends, bridges.positions, power).unflatten(1, (count, 3))  # (N, N, 3)
    own = torch.eye(count, dtype=torch.bool, device=ends.device)
    own_ends = own[:, :, None] & torch.tensor([True, False, True], device=ends.device)
    everything = logits.masked_fill(own_ends, -math.inf).flatten(1).logsumexp(dim=1)
    cost = everything - logits[:, :, 1].diagonal()
    share = 1 / torch.bincount(bridges.video)[bridges.video].to(cost.dtype)
    return (share * cost).sum() / share.sum()


def log_density(z: Tensor, ends: Tensor, positions: Tensor, power: float = 1.0) -> Tensor:
    """Log-densities (N, M), up to a constant, of embeddings (M, E) in the place of the point of each of N bridges.

    Between head h and tail e the point at t has mean (1 - a) z_h + a z_e with a = (t - h) / (e - h), and variance
    a (e - t) in every channel.

    Args:
        z: (M, E) what is put there.
        ends: (N, 3, E) embeddings of heads, points and tails.
        positions: (N, 3) their positions, which are the times.
        power: Of the variance that divides the squared distance; 1 is the density, 2 the published code.

    Example:
        >>> ends, positions = torch.tensor([[[0.0], [9.0], [4.0]]]), torch.tensor([[0, 2, 4]])
        >>> log_density(torch.tensor([[2.0], [3.0]]), ends, positions)
        tensor([[-0.0000, -0.5000]])
    """
    head, time, tail = positions.to(ends.dtype).unbind(-1)
    way = (time - head) / (tail - head)
    mean = (1 - way)[:, None] * ends[:, 0] + way[:, None] * ends[:, 2]
    variance = way * (tail - time)
    return -squared_distances(mean, z) / (2 * variance[:, None] ** power)
