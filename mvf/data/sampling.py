"""Which frames the views of a video show, as pure functions of its length and a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHORTEST_WINDOW = 0.4  # of the video, for content views
SMALLEST_OVERLAP = 0.4  # of the shorter of two content windows


def sample_views(
    num_frames: int,
    length: int,
    generator: torch.Generator,
    *,
    views: int = 2,
    sampling: str = "published",
    block_rule: str = "length",
    region: float = 1.5,
    overlap: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Draws the frames of every view of one video.

    `published` (CARL, MV-Former): each view draws n = min(L, T) distinct frames from a block that starts at an
    offset and may reach past the end of the video; what lies past it becomes padding. With `block_rule="length"`
    the block is longer than the video, so the offset is always 0: position in the view gives away position in
    the video. `content` views are two windows of 40 to 100 % of the video with independent offsets, overlapping
    by at least 40 % of the shorter: position in the view says little.

    Reference: Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14957, section 3.1.

    Args:
        num_frames: L, frames of the video, at least 1.
        length: T, frames of a view, at least 1.
        generator: The only source of randomness.
        views: V, at least 1.
        sampling: `published` or `content`.
        block_rule: Block of a published view, for r drawn from [1, region): `length` ceil(r L),
            `sampled` ceil(r n), `window` ceil(r T).
        region: Largest r, at least 1.
        overlap: Later published views start within floor((1 - overlap) n) frames of the first one's first frame.

    Returns:
        frame_index (V, T) long, sorted, in [0, L-1]; valid (V, T) bool, False on padding, which repeats frame L-1.

    Example:
        >>> index, valid = sample_views(6, 4, torch.Generator().manual_seed(0), region=1.0)
        >>> index.shape, valid.all().item()
        (torch.Size([2, 4]), True)
    """
    check_lengths(num_frames=num_frames, length=length, views=views, region=region)
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap must be in [0, 1], got {overlap}")
    if sampling == "published":
        drawn = _published_views(num_frames, length, generator, views, block_rule, region, overlap)
    elif sampling == "content":
        drawn = [
            distinct(start, size, min(length, size), generator)
            for start, size in content_windows(num_frames, views, generator)
        ]
    else:
        raise ValueError(f'sampling must be "published" or "content", got "{sampling}"')
    return padded(drawn, length, num_frames)


def _published_views(
    num_frames: int,
    length: int,
    generator: torch.Generator,
    views: int,
    block_rule: str,
    region: float,
    overlap: float,
) -> list[Tensor]:
    count = min(num_frames, length)
    reach = math.floor((1 - overlap) * count + 1e-9)
    spans = {"length": num_frames, "sampled": count, "window": length}
    if block_rule not in spans:
        raise ValueError(f'block_rule must be one of {", ".join(spans)}, got "{block_rule}"')
    drawn: list[Tensor] = []
    for _ in range(views):
        block = math.ceil((1 + (region - 1) * _uniform(generator)) * spans[block_rule])
        last = num_frames - block
        if drawn:
            first = int(drawn[0][0])
            low, high = max(0, min(last, first - reach)), max(1, min(last + 1, first + reach + 1))
        else:
            low, high = 0, max(last, 1)
        drawn.append(_some_inside(whole(low, high, generator), block, count, num_frames, generator))
    return drawn


def _some_inside(offset: int, block: int, count: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Draws until a frame lies inside the video.

    A departure from the published code, which now and then returns a view of nothing but padding when views are
    very short (T below about 8) or `window` blocks much longer than the video: there is nothing to attend to.
    """
    while True:
        frames = distinct(offset, block, count, generator)
        if frames[0] < num_frames:
            return frames


def content_windows(num_frames: int, views: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Start and size of every view's window; drawn together until all overlap, so that no view is special."""
    while True:
        windows = []
        for _ in range(views):
            share = SHORTEST_WINDOW + (1 - SHORTEST_WINDOW) * _uniform(generator)
            size = math.ceil(share * num_frames)
            windows.append((whole(0, num_frames - size + 1, generator), size))
        if all(_overlapping(one, other) for one in windows for other in windows):
            return windows


def _overlapping(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shared = min(sum(one), sum(other)) - max(one[0], other[0])
    return shared >= SMALLEST_OVERLAP * min(one[1], other[1])


def distinct(start: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` distinct integers of [start, start + size), sorted."""
    return start + torch.randperm(size, generator=generator)[:count].sort().values


def padded(drawn: Sequence[Tensor], length: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Frames of each view, at most `length`, as frame_index and valid (V, `length`); padding repeats the last frame."""
    index = torch.stack([torch.cat([view, view.new_full((length - len(view),), num_frames)]) for view in drawn])
    return index.clamp(max=num_frames - 1), index < num_frames


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def whole(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number of [low, high)."""
    return int(torch.randint(low, high, (), generator=generator))


def check_lengths(**values: float) -> None:
    """Refuses values below 1, by name."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
