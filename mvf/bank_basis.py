"""Fewer channels for a bank: the directions in which patches are large, fitted on a sample of the training frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mvf.data.augment import derive_seed
from mvf.data.records import VideoRecord

FRAMES = 256  # of the sample; each gives all of its patches


def fit_basis(features: Iterable[Tensor], channels: int) -> Tensor:
    """(channels, C) orthonormal rows that lose least of (n, P, C) patches, in squares: PCA about zero.

    About zero and not about the mean, so that the way there and back is linear: what is linear in patches (LSTP, mean
    pooling) can then be moved to the projected channels, without a constant to carry.

    Example:
        >>> fit_basis([torch.tensor([[[3.0, 0.0], [-2.0, 0.1]]])], 1).abs().round(decimals=1)
        tensor([[1., 0.]])
    """
    moment = sum((x := part.flatten(0, -2).double().cpu()).T @ x for part in features)
    directions = torch.linalg.eigh(moment).eigenvectors  # ascending
    return directions.flip(1)[:, :channels].T.float().contiguous()


def sample_frames(records: Sequence[VideoRecord], count: int = FRAMES) -> list[tuple[VideoRecord, Tensor]]:
    """Videos and sorted positions of `count` frames drawn from all of them alike; a function of the videos alone."""
    generator = torch.Generator().manual_seed(derive_seed("bank basis", *(record.name for record in records)))
    ends = torch.tensor([record.num_frames for record in records]).cumsum(0)
    drawn = torch.randperm(int(ends[-1]), generator=generator)[:count].sort().values
    video = torch.searchsorted(ends, drawn, right=True)
    starts = ends - torch.tensor([record.num_frames for record in records])
    return [(records[i], drawn[video == i] - starts[i]) for i in video.unique().tolist()]
