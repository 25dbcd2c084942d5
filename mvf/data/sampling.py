"""Sampling of frames, clips and batches, as pure functions of lengths, labels and a generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mvf.clip import SHORTEST_RUN, phase_runs
from mvf.config import nearest

SHORTEST_WINDOW = 0.4  # share of the video, for content views
SMALLEST_OVERLAP = 0.4  # share of the shorter of two content windows


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
    offset and may reach past the end of the video; frames past the end become padding. With
    `block_rule="length"` the block is longer than the video, so the offset is always 0, and the position in the
    view reveals the position in the video. `content` views are windows of 40 to 100 % of the video with
    independent offsets that overlap by at least 40 % of the shorter, so the position in the view reveals little.

    Reference: Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14957, section 3.1.

    Args:
        num_frames: Number of frames of the video, L, at least 1.
        length: Number of frames of a view, T, at least 1.
        generator: The only source of randomness.
        views: Number of views, V, at least 1.
        sampling: `published` or `content`.
        block_rule: Length of a published view's block, for r drawn from [1, region): `length` ceil(r L),
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
    """Draws until at least one frame is inside the video.

    This departs from the published code, which occasionally returns a view of only padding if views are very short
    (T below about 8) or `window` blocks are much longer than the video; such a view has nothing to attend to.
    """
    while True:
        frames = distinct(offset, block, count, generator)
        if frames[0] < num_frames:
            return frames


def content_windows(num_frames: int, views: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Draws the start and size of every view's window together until all overlap, so that no view is special."""
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
    """Draws `count` distinct integers from [start, start + size), sorted."""
    return start + torch.randperm(size, generator=generator)[:count].sort().values


def padded(drawn: Sequence[Tensor], length: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Pads each view's frames to frame_index and valid (V, `length`); padding repeats the last frame."""
    index = torch.stack([torch.cat([view, view.new_full((length - len(view),), num_frames)]) for view in drawn])
    return index.clamp(max=num_frames - 1), index < num_frames


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def whole(low: int, high: int, generator: torch.Generator) -> int:
    """Draws an integer from [low, high)."""
    return int(torch.randint(low, high, (), generator=generator))


def check_lengths(**values: float) -> None:
    """Raises ValueError for a value below 1; the message names it."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


# ----------------------------------------------------------------------------------------------------------------------
# Samplers: drawing the clips and batches of an objective.

FARTHEST_POSITIVE = 5  # frames between a positive and its anchor at most

Drawn = tuple[Tensor, Tensor]  # frame_index (V, T) long, valid (V, T) bool


@dataclass(frozen=True)
class Settings:
    """The configuration fields that determine which frames are drawn; see `sample_views`."""

    views: int = 2
    sampling: str = "published"
    block_rule: str = "length"
    region: float = 1.5
    overlap: float = 0.2


@dataclass(frozen=True)
class Sampler:
    """How the clips and batches of an objective are drawn.

    Attributes:
        draw: Function of (num_frames, length, generator, settings, phases) -> frame_index and valid, both (V, T);
            phases (num_frames,) or None.
        one_action: True if all videos of a batch must show the same action.
    """

    draw: Callable[[int, int, torch.Generator, Settings, np.ndarray | None], Drawn]
    one_action: bool = False


PUBLISHED = Settings()


def draw_views(
    num_frames: int, length: int, generator: torch.Generator, settings: Settings, phases: np.ndarray | None = None
) -> Drawn:
    """Draws overlapping views of one video with `sample_views`."""
    return sample_views(num_frames, length, generator, **asdict(settings))


def draw_frames(
    num_frames: int,
    length: int,
    generator: torch.Generator,
    settings: Settings = PUBLISHED,
    phases: np.ndarray | None = None,
) -> Drawn:
    """Draws `length` distinct sorted frames of the whole video, or of a window if `sampling` is `content`.

    A video with fewer frames gives all of them and padding.

    Example:
        >>> draw_frames(4, 3, torch.Generator().manual_seed(0))[0]
        tensor([[0, 1, 3]])
    """
    start, size = _span(num_frames, length, settings.sampling, generator)
    return padded([distinct(start, size, min(length, size), generator)], length, num_frames)


def draw_segments(
    num_frames: int,
    length: int,
    generator: torch.Generator,
    settings: Settings = PUBLISHED,
    phases: np.ndarray | None = None,
) -> Drawn:
    """Draws one random frame from each of `length` equal segments of the video, or of a window of it (LAV).

    A segment shorter than a frame gives the frame that contains it, so short videos repeat frames in order. This
    departs from the published code, which starts short videos over.
    """
    start, size = _span(num_frames, length, settings.sampling, generator)
    edges = [start + size * part // length for part in range(length + 1)]
    frames = [whole(low, max(high, low + 1), generator) for low, high in zip(edges, edges[1:])]
    return padded([torch.tensor(frames)], length, num_frames)


def draw_anchors(
    num_frames: int,
    length: int,
    generator: torch.Generator,
    settings: Settings = PUBLISHED,
    phases: np.ndarray | None = None,
) -> Drawn:
    """Draws sorted anchors, each followed by its positive, a frame 1 to 5 earlier (TCN).

    Raises:
        ValueError: for an odd length.

    Example:
        >>> index, valid = draw_anchors(50, 6, torch.Generator().manual_seed(0))
        >>> (index[0, 0::2] - index[0, 1::2]).min().item() >= 0
        True
    """
    if length % 2:
        raise ValueError(f"num_frames must be even, half anchors and half positives, got {length}")
    start, size = _span(num_frames, length, settings.sampling, generator)
    anchors = distinct(start, size, min(length // 2, size), generator)
    back = torch.randint(1, FARTHEST_POSITIVE + 1, anchors.shape, generator=generator)
    return padded([torch.stack([anchors, (anchors - back).clamp(min=start)], dim=1).flatten()], length, num_frames)


def draw_phase(
    num_frames: int, length: int, generator: torch.Generator, settings: Settings, phases: np.ndarray | None
) -> Drawn:
    """Draws `length` sorted frames inside one random phase (VSP-P).

    A phase of at least `length` frames always gives its first and its last; from a shorter one, frames other than its
    two ends are drawn with replacement.

    Raises:
        ValueError: if no phase has at least 3 frames.
    """
    check_lengths(num_frames=num_frames, length=length)
    runs = [] if phases is None else phase_runs(phases.tolist())
    if not runs or length < SHORTEST_RUN:
        found = "no labels" if phases is None else f"{len(runs)} such phases"
        raise ValueError(
            f"a phase of at least {SHORTEST_RUN} frames and num_frames of at least {SHORTEST_RUN} are needed, "
            f"got {found} and num_frames {length}: label the phases, or choose another objective"
        )
    first, stop = runs[whole(0, len(runs), generator)]
    if stop - first >= length:
        inside = distinct(first + 1, stop - first - 2, length - 2, generator)
        frames = torch.cat([torch.tensor([first]), inside, torch.tensor([stop - 1])])
    else:
        frames = torch.randint(first + 1, stop - 1, (length,), generator=generator).sort().values
    return padded([frames], length, num_frames)


SAMPLERS = {
    "views": Sampler(draw_views),
    "action_views": Sampler(draw_views, one_action=True),
    "frames": Sampler(draw_frames),
    "action_frames": Sampler(draw_frames, one_action=True),
    "action_segments": Sampler(draw_segments, one_action=True),
    "anchors": Sampler(draw_anchors),
    "phase": Sampler(draw_phase),
}


def find_sampler(name: str) -> Sampler:
    """Returns the sampler called `name`.

    Raises:
        ValueError: for an unknown name; the message suggests the nearest.
    """
    if name not in SAMPLERS:
        raise ValueError(f'unknown sampler "{name}"; {nearest(name, SAMPLERS)}')
    return SAMPLERS[name]


def random_batches(videos: int, size: int, generator: torch.Generator, world: int = 1) -> list[list[int]]:
    """Batches every video once, `size` at a time; the last batch may be smaller, and is cut to a multiple of `world`.

    Raises:
        ValueError: if there are fewer videos than processes, or `size` cannot be divided among them.
    """
    _check_shares(size, world)
    order = torch.randperm(videos, generator=generator).tolist()
    batches = [order[start : start + size] for start in range(0, videos, size)]
    batches[-1] = batches[-1][: len(batches[-1]) // world * world]
    batches = [batch for batch in batches if batch]
    if not batches:
        raise ValueError(f"{videos} videos cannot feed {world} processes: use fewer processes or more videos")
    return batches


def action_batches(actions: Sequence[str], size: int, generator: torch.Generator, world: int = 1) -> list[list[int]]:
    """Batches every video once, `size` at a time of one action each, with actions in random order.

    The last batch of an action may be smaller. If it has a single video or is not a multiple of `world`, it is filled
    with other videos of its action, or cut if there are too few.

    Raises:
        ValueError: for a size below 2 or not divisible among processes, or an action with too few videos.
    """
    _check_shares(size, world)
    least = max(2, world)
    if size < least:
        raise ValueError(f"batch_size must be at least {least} for pairs of videos, got {size}")
    batches = []
    for action in sorted(set(actions)):
        members = [video for video, its in enumerate(actions) if its == action]
        if len(members) < least:
            raise ValueError(
                f'pairs of videos of one action are needed, and "{action}" has {len(members)} training video(s), '
                f"at least {least} are needed: add videos, train on other actions, or choose an objective without "
                'pairs such as "scl"'
            )
        order = [members[i] for i in torch.randperm(len(members), generator=generator)]
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        missing = max(least - len(parts[-1]), -len(parts[-1]) % world)
        if missing <= len(order) - len(parts[-1]):
            parts[-1] += order[:missing]
        else:  # too few others to fill it without repeating a video
            parts[-1] = parts[-1][: len(parts[-1]) // world * world]
        batches += parts
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def _check_shares(size: int, world: int) -> None:
    if size % world:
        raise ValueError(f"batch_size must be a multiple of the {world} processes, got {size}")


def _span(num_frames: int, length: int, sampling: str, generator: torch.Generator) -> tuple[int, int]:
    """Draws the start and size of the window from which frames are drawn."""
    check_lengths(num_frames=num_frames, length=length)
    if sampling == "content":
        return content_windows(num_frames, 1, generator)[0]
    if sampling == "published":
        return 0, num_frames
    raise ValueError(f'sampling must be "published" or "content", got "{sampling}"')
