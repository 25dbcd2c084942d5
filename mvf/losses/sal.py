"""Shuffle and learn: are three frames in order?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvf.clip import Clip
from mvf.losses.objective import Objective, pick, require_share, require_whole

DRAWN = 5  # positions drawn for a triplet: three in order, and one on either side that may replace the middle
ORDERED, SHUFFLED = 0, 1
Triplets = tuple[Tensor, Tensor, Tensor]  # video (N,), positions (N, 3) among its valid frames, label (N,)


class ShuffleAndLearnLoss(Objective):
    """Tells three frames of a video in order, forwards or backwards, from three whose middle lies outside the others.

    A small classifier reads the three embeddings one after the other; the loss is its cross-entropy. It is trained
    with the model and thrown away, so its parameters are the loss's own. Embeddings that hold a frame's time solve it;
    a constant prediction costs 0.5623 with the share of 3/4, which is where training may stay. The original decays
    the weights and biases of the classifier by 1e-5.

    Triplets are drawn from `generator`, see `draw_triplets`; `loss(..., triplets=)` takes them instead.

    Reference: Misra et al., ECCV 2016, https://arxiv.org/abs/1603.08561, in the per-frame form of Dwibedi et al.,
    CVPR 2019, https://arxiv.org/abs/1904.07846, without choice of windows by motion.

    Args:
        embedding_size: Channels E of an embedding.
        triplets: Number of triplets of every video.
        shuffled_share: Share of the batch's triplets that are shuffled, rounded down to a whole number of them.
        hidden: Widths of the classifier's hidden layers.

    Shape:
        embeddings (B, 1, T, E) -> scalar

    Raises:
        ValueError: without embedding_size, for two views, or for fewer than 5 valid frames.

    Example:
        >>> from mvf.clip import example_clip
        >>> ShuffleAndLearnLoss(embedding_size=16)(torch.randn(2, 1, 8, 16), example_clip(2, 1, 8)).shape
        torch.Size([])
    """

    reads, views, sampler, labels, fewest = "raw", 1, "frames", "none", DRAWN

    def __init__(
        self,
        embedding_size: int | None = None,
        triplets: int = 8,
        shuffled_share: float = 0.75,
        hidden: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        if embedding_size is None:
            raise ValueError("embedding_size is None: pass the channels of an embedding, as config.embedding_size")
        if not isinstance(hidden, Sequence):
            raise ValueError(f"hidden must be the widths of the hidden layers, like (128, 64), got {hidden!r}")
        widths = {f"hidden[{i}]": width for i, width in enumerate(hidden)}
        require_whole(embedding_size=embedding_size, triplets=triplets, **widths)
        require_share(or_one=True, shuffled_share=shuffled_share)
        self.embedding_size, self.triplets, self.shuffled_share = embedding_size, triplets, shuffled_share
        layers = [(nn.Linear(*sizes), nn.ReLU()) for sizes in pairwise((3 * embedding_size, *hidden, 2))]
        self.classifier = nn.Sequential(*sum(layers, ())[:-1])

    def compute(
        self, z: Tensor, clip: Clip, generator: torch.Generator | None, triplets: Triplets | None = None
    ) -> Tensor:
        """The value for triplets drawn or given."""
        if z.shape[-1] != self.embedding_size:
            raise ValueError(f"embeddings must have embedding_size = {self.embedding_size} channels, got {z.shape[-1]}")
        counts = clip.host.valid[:, 0].sum(-1)
        if triplets is None:
            triplets = draw_triplets(counts, self.triplets, self.shuffled_share, generator)
        video, positions, label = (part.to(counts.device) for part in triplets)
        outside = (positions < 0) | (positions >= counts[video][:, None])
        if outside.any():
            raise ValueError(
                f"position {int(positions[outside][0])} of a triplet is not among its video's valid frames"
            )
        label = label.to(z.device, non_blocking=True)
        return F.cross_entropy(self.classify(pick(z, clip.valid, video, positions)), label)

    def classify(self, frames: Tensor) -> Tensor:
        """Logits (N, 2), ordered and shuffled, of embeddings (N, 3, E), in the wider type of both."""
        dtype = torch.promote_types(frames.dtype, next(self.classifier.parameters()).dtype)
        parameters = {name: value.to(dtype) for name, value in self.classifier.named_parameters()}
        return torch.func.functional_call(self.classifier, parameters, (frames.flatten(1).to(dtype),))


def draw_triplets(
    counts: Tensor, triplets: int = 8, shuffled_share: float = 0.75, generator: torch.Generator | None = None
) -> Triplets:
    """Triplets of the valid frames of B videos: each one's video, its three positions, and 1 where it is shuffled.

    Each is made from five distinct positions p0 < ... < p4, reversed with probability 1/2. In order it is (p1, p2, p3);
    shuffled (p1, p0, p3) or (p1, p4, p3). Exactly floor(shuffled_share * B * triplets) random ones are shuffled.

    Args:
        counts: (B,) valid frames of the videos, at least 5.
        triplets: Number of triplets of every video.
        shuffled_share: Share of the triplets that are shuffled.
        generator: Generator on the CPU; by default torch's own.

    Returns:
        video (B * triplets,), positions (B * triplets, 3), label (B * triplets,), on the CPU.

    Raises:
        ValueError: for a video of fewer than 5 valid frames.

    Example:
        >>> video, positions, label = draw_triplets(torch.tensor([5, 9]), triplets=2, shuffled_share=0.5)
        >>> video.tolist(), positions.shape, label.sum()
        ([0, 0, 1, 1], torch.Size([4, 3]), tensor(2))
    """
    counts = counts.cpu()
    if (counts < DRAWN).any():
        raise ValueError(f"a triplet is drawn from {DRAWN} valid frames, got videos of {counts.tolist()}")
    video = torch.arange(len(counts)).repeat_interleave(triplets)
    keys = torch.rand(len(video), int(counts.max()), generator=generator)
    keys = keys.masked_fill(torch.arange(keys.shape[1]) >= counts[video][:, None], math.inf)
    five = keys.argsort(dim=1)[:, :DRAWN].sort(dim=1).values
    backwards, upper = torch.rand(2, len(video), 1, generator=generator) < 0.5
    five = torch.where(backwards, five.flip(1), five)
    first, beside, middle, last, beyond = (five[:, i : i + 1] for i in (1, 0, 2, 3, 4))
    label = torch.randperm(len(video), generator=generator) < math.floor(shuffled_share * len(video))
    middle = torch.where(label[:, None], torch.where(upper, beyond, beside), middle)
    return video, torch.cat([first, middle, last], dim=1), torch.where(label, SHUFFLED, ORDERED)
