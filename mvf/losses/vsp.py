"""Process contrast of VSP: frames of a video as a Brownian bridge between two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvf.clip import SHORTEST_RUN, Clip, phase_runs
from mvf.losses.dtw import squared_distances
from mvf.losses.objective import (
    VARIANTS,
    Objective,
    labels_of,
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
    Any embedding that moves along a line at even speed, on a line of its own in every video, nearly solves it. A
    single bridge has nothing to be contrasted with, and costs 0.

    `variant="reference"` divides by the squared variance of the bridge, as the published code does, which flattens the
    contrast where bridges are long; `"corrected"` by the variance.

    Bridges are drawn from `generator` among the valid frames, see `segment_bridges`: a video too short for `segments`
    of them gets fewer, at least one. `loss(..., bridges=)` takes (B, K, 3) positions instead, counted among the valid
    frames of each video. The mean is taken over the bridges of a video, then over videos.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023; the bridge follows Wang et al.,
    ICLR 2022, https://arxiv.org/abs/2203.11370.

    Args:
        variance_power: Power of the variance that divides squared distances; None for the variant's, 2 or 1.
        segments: Number of bridges in every video.
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
        host = clip.host
        chosen = self.draw(host, generator) if bridges is None else given_bridges(bridges, host.valid[:, 0].sum(-1))
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
        power: Power of the variance.

    Example:
        >>> bridges = Bridges(torch.tensor([0, 0]), torch.tensor([[0, 2, 5], [6, 8, 11]]))
        >>> line = bridges.positions[..., None].expand(-1, -1, 2).double()
        >>> round(process_contrast(line, bridges).item(), 8)
        0.00027728
    """
    count = len(ends)
    logits = log_density(ends.flatten(0, 1), ends, bridges.positions, power).unflatten(1, (count, 3))  # (N, N, 3)
    own = torch.eye(count, dtype=torch.bool, device=ends.device)
    own_ends = own[:, :, None] & (torch.arange(3, device=ends.device) != 1)  # not the point
    everything = logits.masked_fill(own_ends, -math.inf).flatten(1).logsumexp(dim=1)
    cost = everything - logits[:, :, 1].diagonal()
    share = 1 / torch.bincount(bridges.video)[bridges.video].to(cost, non_blocking=True)
    return (share * cost).sum() / share.sum()


def log_density(z: Tensor, ends: Tensor, positions: Tensor, power: float = 1.0) -> Tensor:
    """Log-densities (N, M), up to a constant, of embeddings (M, E) in the place of the point of each of N bridges.

    Between head h and tail e the point at t has mean (1 - a) z_h + a z_e with a = (t - h) / (e - h), and variance
    a (e - t) in every channel.

    Args:
        z: (M, E) embeddings that are put there.
        ends: (N, 3, E) embeddings of heads, points and tails.
        positions: (N, 3) their positions, which are the times.
        power: Power of the variance that divides the squared distance; 1 is the density, 2 the published code.

    Example:
        >>> ends, positions = torch.tensor([[[0.0], [9.0], [4.0]]]), torch.tensor([[0, 2, 4]])
        >>> log_density(torch.tensor([[2.0], [3.0]]), ends, positions)
        tensor([[-0.0000, -0.5000]])
    """
    head, time, tail = positions.to(ends, non_blocking=True).unbind(-1)
    way = (time - head) / (tail - head)
    mean = (1 - way)[:, None] * ends[:, 0] + way[:, None] * ends[:, 2]
    variance = way * (tail - time)
    return -squared_distances(mean, z) / (2 * variance[:, None] ** power)


# ----------------------------------------------------------------------------------------------------------------------
# VSP-P


class PhaseProcessContrastiveLoss(ProcessContrastiveLoss):
    """Puts a frame on the way from the beginning to the end of its phase (VSP-P).

    The contrast is that of `ProcessContrastiveLoss`; here a bridge spans a run of at least 3 valid frames of one
    phase, and the point lies anywhere inside it. With one segment clips show one phase each; with more they show
    whole videos, and `segments` consecutive runs are drawn, or all where a video has fewer. Videos without such a run
    have no bridge and do not count. The loss uses where phases end, not which they are.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023.

    Args:
        variance_power: As in `ProcessContrastiveLoss`.
        segments: Phases of every video that get a bridge; 1 chooses the sampler `phase`, more choose `frames`.
        overlap: Not used: phases do not overlap.
        temperature: Not used here, see `vsp_f`.
        variant: `reference` or `corrected`, as in `ProcessContrastiveLoss`.

    Shape:
        embeddings (B, 1, T, E) of unit norm, clip.phase (B, 1, T) -> scalar

    Raises:
        ValueError: without phase labels, and where no video of the batch has a run of 3 frames of one phase.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 6), phase=torch.tensor([[[0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 1, 1]]]))
        >>> round(PhaseProcessContrastiveLoss(segments=2)(torch.ones(2, 1, 6, 4), clip).item(), 4)  # ln(3 * 3 - 2)
        1.9459
    """

    sampler, labels = "phase", "phase"

    def __init__(
        self,
        variance_power: float | None = None,
        segments: int = 1,
        overlap: float = 0.2,
        temperature: float = 0.1,
        variant: str = "corrected",
    ) -> None:
        super().__init__(variance_power, segments, overlap, temperature, variant)
        self.sampler = "phase" if segments == 1 else "frames"

    def draw(self, clip: Clip, generator: torch.Generator | None) -> Bridges:
        """Bridges over phases."""
        drawn = [phase_bridges(phases, self.segments, generator) for phases in valid_phases(clip)]
        if not any(drawn):
            raise ValueError(
                f"none of the {len(drawn)} videos has 3 valid frames of one phase in a row: use more num_frames, "
                'segments=1 with the sampler "phase", or the objective "vsp", which needs no phases'
            )
        return join_bridges(drawn, clip.valid.device)


# ----------------------------------------------------------------------------------------------------------------------
# VSP-F


class FrameProcessContrastiveLoss(PhaseProcessContrastiveLoss):
    """Adds to VSP-P a contrast that pulls points of one phase of one action together across videos (VSP-F).

    The process contrast is that of `PhaseProcessContrastiveLoss`; the supervised contrast of the bridges' points is
    solved by an embedding that only knows the action and the phase. It is 0 where no two points share both.

    `variant="reference"` keeps the supervised term as released, see `released_contrast` and `released_diagonal`:
    the former lacks a -log, so that minimising it drives points of one class apart. It is meant for comparison, not for
    training.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023.

    Args:
        variance_power: As in `ProcessContrastiveLoss`.
        segments: As in `PhaseProcessContrastiveLoss`.
        overlap: Not used: phases do not overlap.
        temperature: Divides the similarities of the supervised term; smaller is sharper.
        variant: `reference` or `corrected`.

    Shape:
        embeddings (B, 1, T, E) of unit norm, clip.phase (B, 1, T), clip.action (B,) -> scalar

    Raises:
        ValueError: without action or phase labels, for given bridges whose point has no phase, and for
            `reference` where videos have different numbers of bridges.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(3, 1, 4), phase=torch.zeros(3, 1, 4).long(), action=torch.tensor([0, 0, 1]))
        >>> loss = FrameProcessContrastiveLoss()
        >>> value = loss(torch.ones(3, 1, 4, 2), clip)
        >>> {name: round(part.item(), 4) for name, part in loss.parts.items()}  # ln 7, and ln 2 of two anchors
        {'process': 1.9459, 'supervised': 0.6931}
    """

    labels = "frame"

    def compute_bridges(self, ends: Tensor, bridges: Bridges, clip: Clip) -> Tensor:
        """Process contrast plus supervised contrast."""
        process = super().compute_bridges(ends, bridges, clip)
        supervised = self.supervised(ends[:, 1], bridges, point_classes(bridges, clip.host))
        self.parts = {"process": process.detach(), "supervised": supervised.detach()}
        return process + supervised

    def supervised(self, points: Tensor, bridges: Bridges, classes: Tensor) -> Tensor:
        """The supervised term of points (N, E) for the variant."""
        if self.variant == "corrected":
            return supervised_contrast(points, classes, self.temperature)
        counts = bridges.video.unique_consecutive(return_counts=True)[1]
        if (counts != counts[0]).any():
            raise ValueError(
                f"the released supervised term needs equally many bridges in every video, got {counts.tolist()}: "
                'use variant="corrected", segments=1, or longer videos'
            )
        if counts[0] == 1:
            return released_contrast(points, classes, self.temperature)
        return released_diagonal(points.unflatten(0, (len(counts), -1)))


def point_classes(bridges: Bridges, clip: Clip) -> Tensor:
    """Classes (N, 2) of the points of bridges: action and phase."""
    phase = pick(labels_of(clip, "phase"), clip.valid, bridges.video, bridges.positions)[:, 1]
    if (phase < 0).any():
        video = int(bridges.video[(phase < 0).nonzero()[0, 0]])
        raise ValueError(f"a point of video {video} has no phase (-1): give bridges whose points are labelled")
    return torch.stack([labels_of(clip, "action")[bridges.video], phase], dim=-1)


def same_class(classes: Tensor) -> Tensor:
    """(N, N) True where classes (N, L) agree in all L labels."""
    return (classes[:, None] == classes).all(dim=-1)


def supervised_contrast(points: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean -log share of a point's class among all other points, over points with another of their class; else 0.

    Args:
        points: (N, E).
        classes: (N, L) labels, here action and phase; a class is a combination of them.
        temperature: Divides the similarities.

    Example:
        >>> supervised_contrast(torch.eye(3), torch.tensor([[0, 0], [0, 0], [0, 1]]))
        tensor(0.6931)
    """
    others = ~torch.eye(len(points), dtype=torch.bool, device=classes.device)
    positive = same_class(classes) & others
    anchors = positive.any(dim=1).nonzero()[:, 0]
    positive, others, anchors = (
        part.to(points.device, non_blocking=True) for part in (positive[anchors], others[anchors], anchors)
    )
    logits = points[anchors] @ points.T / temperature
    cost = _logsumexp_where(others, logits) - _logsumexp_where(positive, logits)
    return cost.sum() / max(len(cost), 1)


def _logsumexp_where(chosen: Tensor, logits: Tensor) -> Tensor:
    return logits.masked_fill(~chosen, -math.inf).logsumexp(dim=1)


def released_contrast(points: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """The published supervised term of one bridge per video: mean share of the class among this and later points.

    It is a probability without -log, counts the point itself, and compares with later points only.

    Example:
        >>> released_contrast(torch.zeros(2, 4), torch.tensor([[0, 0], [0, 1]]))
        tensor(0.7500)
    """
    earlier = torch.ones(len(points), len(points), dtype=torch.bool, device=points.device).tril(-1)
    share = (points @ points.T / temperature).masked_fill(earlier, -math.inf).softmax(dim=1)
    return (share * same_class(classes).to(share.device, non_blocking=True)).sum(dim=1).mean()


def released_diagonal(points: Tensor) -> Tensor:
    """The published supervised term of K > 1 bridges per video: the k-th points of two videos belong together.

    Cross-entropy of the dot products of the points of every pair of videos, each with itself too, with the diagonal as
    target: a mean over the K points of the earlier video, a sum over pairs, divided by B. Labels are not used.

    Args:
        points: (B, K, E).

    Example:
        >>> released_diagonal(torch.zeros(3, 2, 4)) / 2  # 6 pairs of 3 videos, ln 2 each
        tensor(0.6931)
    """
    dots = torch.einsum("ike,jle->ijkl", points, points)
    entropy = dots.logsumexp(dim=-1) - dots.diagonal(dim1=2, dim2=3)  # (B, B, K)
    return entropy.mean(dim=-1).triu().sum() / len(points)


# ----------------------------------------------------------------------------------------------------------------------
# Drawing of bridges

Positions = tuple[int, int, int]


@dataclass(frozen=True)
class Bridges:
    """N bridges of a batch, those of one video next to each other; drawn and kept on the CPU.

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
    if frames < SHORTEST_RUN:
        raise ValueError(f"a bridge needs {SHORTEST_RUN} frames, got {frames}")
    segments = min(segments, (frames - 1) // 2)
    part = frames // segments
    reach = math.floor(part * overlap / (2 - overlap) + 1e-9)  # rounding must not lose one from a whole quotient
    bridges = []
    for k in range(segments):
        before, after = uniform(0, reach, generator), uniform(0, reach, generator)
        head = before if k == 0 else k * part - before
        tail = frames - 1 - after if k == segments - 1 else (k + 1) * part + after
        head = min(head, frames - SHORTEST_RUN)  # wide overlaps may leave no frame between the ends
        bridges.append(with_point(head, min(max(tail, head + 2), frames - 1), generator))
    return bridges


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
    return [with_point(head, stop - 1, generator) for head, stop in runs[first : first + segments]]


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
    phases, valid = labels_of(clip.host, "phase")[:, 0], clip.host.valid[:, 0]
    return [phase[real].tolist() for phase, real in zip(phases, valid, strict=True)]
