"""Where the bridges of VSP lie: heads, points and tails among the valid frames of videos, drawn from a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvf.clip import SHORTEST_RUN as SHORTEST
from mvf.clip import Clip
from mvf.clip import phase_runs as runs_of_phases

Positions = tuple[int, int, int]


@dataclass(frozen=True)
class Bridges:
    """N bridges of a batch, those of one video next to each other.

    Attributes:
        video: (N,) which video each lies in.
        positions: (N, 3) head < point < tail, counted among the valid frames of the video.
    """

    video: Tensor
    positions: Tensor


def uniform(low: int, high: int, generator: torch.Generator | None) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def segment_bridges(
    frames: int, segments: int = 1, overlap: float = 0.2, generator: torch.Generator | None = None
) -> list[Positions]:
    """One bridge in each of `segments` equal parts of a video, their ends moved at random into the neighbours.

    Parts of a frames each reach up to o = floor(a * overlap / (2 - overlap)) frames into the next ones; the ends of
    the video move inwards instead. A part needs 3 frames and may share its ends with its neighbours, so a video of
    n frames gets at most (n - 1) // 2 bridges however many are asked for.

    The released sampler cannot run with one segment (its tail lies beyond the video), nor with 12 frames in 5
    segments (its range is empty): here the last tail is frames - 1 - U{0..o}, and the point is uniform in between.

    Raises:
        ValueError: for fewer than 3 frames.

    Example:
        >>> segment_bridges(7, segments=3, generator=torch.Generator().manual_seed(0))
        [(0, 1, 2), (2, 3, 4), (4, 5, 6)]
    """
    if frames < SHORTEST:
        raise ValueError(f"a bridge needs {SHORTEST} frames, got {frames}")
    segments = min(segments, (frames - 1) // 2)
    part = frames // segments
    reach = math.floor(part * overlap / (2 - overlap) + 1e-9)  # the rounding of a whole quotient must not lose one
    bridges = []
    for k in range(segments):
        before, after = uniform(0, reach, generator), uniform(0, reach, generator)
        head = before if k == 0 else k * part - before
        tail = frames - 1 - after if k == segments - 1 else (k + 1) * part + after
        head = min(head, frames - SHORTEST)  # wide overlaps may leave no frame between the ends
        bridges.append(with_point(head, min(max(tail, head + 2), frames - 1), generator))
    return bridges


def phase_runs(phases: Sequence[int]) -> list[tuple[int, int]]:
    """First and last positions of the runs of one phase, without those below 3 frames and the unlabelled (-1).

    Example:
        >>> phase_runs([0, 0, 0, 1, 1, -1, -1, -1, 1, 1, 1, 1])
        [(0, 2), (8, 11)]
    """
    return [(first, stop - 1) for first, stop in runs_of_phases(phases)]


def phase_bridges(
    phases: Sequence[int], segments: int = 1, generator: torch.Generator | None = None
) -> list[Positions]:
    """A bridge over each of `segments` consecutive runs of one phase, drawn at random; all runs where there are fewer.

    Example:
        >>> phase_bridges([2, 2, 2, 0, 0, 0], segments=2)
        [(0, 1, 2), (3, 4, 5)]
    """
    runs = phase_runs(phases)
    first = uniform(0, max(len(runs) - segments, 0), generator)
    return [with_point(head, tail, generator) for head, tail in runs[first : first + segments]]


def with_point(head: int, tail: int, generator: torch.Generator | None) -> Positions:
    """The bridge between two ends, its point uniform among the frames in between."""
    return head, uniform(head + 1, tail - 1, generator), tail


def join_bridges(bridges_of_videos: Sequence[Sequence[Positions]], device: torch.device | str = "cpu") -> Bridges:
    """The bridges of all videos of a batch in one list; a video may have none.

    Example:
        >>> join_bridges([[(0, 1, 2), (2, 3, 5)], [], [(1, 2, 3)]]).video
        tensor([0, 0, 2])
    """
    video = [i for i, bridges in enumerate(bridges_of_videos) for _ in bridges]
    positions = [bridge for bridges in bridges_of_videos for bridge in bridges]
    return Bridges(torch.tensor(video, device=device), torch.tensor(positions, device=device))


def given_bridges(bridges: Tensor, counts: Tensor) -> Bridges:
    """Bridges (B, K, 3), whole numbers of any type, of videos of `counts` (B,) valid frames.

    Raises:
        ValueError: for another shape, and for a bridge that is not head < point < tail among the valid frames.
    """
    bridges = torch.as_tensor(bridges, device=counts.device)
    if bridges.ndim != 3 or bridges.shape[::2] != (len(counts), 3) or not bridges.numel():
        raise ValueError(f"bridges must be ({len(counts)}, K, 3): head, point, tail; got {tuple(bridges.shape)}")
    positions = bridges.long()
    head, point, tail = positions.unbind(-1)
    fits = (head >= 0) & (head < point) & (point < tail) & (tail < counts[:, None])
    fits &= (positions == bridges).all(-1)
    if not fits.all():
        video, k = (~fits).nonzero()[0].tolist()
        raise ValueError(
            f"bridge {bridges[video, k].tolist()} of video {video} must be whole positions head < point < tail among "
            f"its {int(counts[video])} valid frames, counted from 0"
        )
    video = torch.arange(len(counts), device=counts.device).repeat_interleave(bridges.shape[1])
    return Bridges(video, positions.flatten(0, 1))


def valid_phases(clip: Clip) -> list[list[int]]:
    """Phases of the valid frames of every video of a clip of one view."""
    return [phase[valid].tolist() for phase, valid in zip(clip.phase[:, 0].cpu(), clip.valid[:, 0].cpu(), strict=True)]
