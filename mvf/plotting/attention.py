"""Attention over frames: the layouts of the paper's Figures 1 and 3 for any videos, all entities on one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.grid import PictureBlock, picture_grid
from mvf.plotting.overlays import entity_contours, map_limits, named_maps, overlay, resized
from mvf.plotting.style import as_images, entity_colours

SIDE_PIXELS = (300, 600)  # of the shortest side in print: smooth maps and thin lines, and a small file


@dataclass(frozen=True)
class AttentionBlock:
    """One video of an attention figure: the frames to draw and their maps.

    Attributes:
        frames: (T, H, W, 3) uint8 or float in [0, 1].
        entities: (T, N, h, w), non-negative; or None for a pooling without attention.
        heads: (T, h, w), or (K, T, h, w) for K heads; or None.
        head_names: K headings, such as "CLS head 4".
        numbers: T positions of the frames in the video; by default 0, 1, ...; empty for none.
        name: Of the video.
    """

    frames: ArrayLike
    entities: ArrayLike | None
    heads: ArrayLike | None = None
    head_names: Sequence[str] = ("CLS head",)
    numbers: Sequence[int] | None = None
    name: str = ""


def plot_attention(
    frames: ArrayLike,
    entities: ArrayLike | None,
    heads: ArrayLike | None = None,
    head_names: Sequence[str] = ("CLS head",),
    *,
    frame_numbers: Sequence[int] | None = None,
    title: str = "",
    **options,
) -> Figure:
    """One video: entity maps beside the backbone's head maps, a row a frame.

    Args:
        frames: As in `AttentionBlock`; so are `entities`, `heads`, `head_names`, `frame_numbers` and `title`.
        options: Of `plot_attention_grid`.

    Example:
        >>> figure = plot_attention(np.zeros((2, 8, 12, 3)), np.ones((2, 3, 4, 4)), shown=[1, 2])
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['input', 'entity 1', 'entity 2']
    """
    video = AttentionBlock(frames, entities, heads, head_names, frame_numbers, title)
    return plot_attention_grid([video], **options)


def plot_attention_grid(
    videos: Sequence[AttentionBlock],
    *,
    shown: Sequence[int] | None = None,
    stacked: bool = False,
    transposed: bool = False,
    normalise: str = "frame",
    layer: str = "",
    head_rule: str = "",
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
    width: float | None = None,
) -> Figure:
    """The layout of the paper's Figure 3: rows are frames; columns the input, entities and heads.

    Args:
        videos: Side by side, or `stacked` one below the other.
        shown: Numbers of the entities drawn, from 1; by default all.
        transposed: Frames in columns, maps in rows.
        normalise: "frame" divides each map by its own maximum, "video" by its maximum over the frames given.
        layer: Which layers the maps come from, for the caption, such as "entities: layers 4, 8, 12; head: layer 12".
        head_rule: How the heads were chosen, for the caption, such as "chosen by AUROC on training videos".
        opacity: Of the maps over the frames; 1 draws the maps alone.
        colormap: A name of matplotlib's.
        contour_mass: Outlines the strongest patches that hold this share of the attention.
        width: `COLUMN` or `PAGE`; by default a column where the pictures are large enough in it.

    Raises:
        ValueError: for no video; maps of other lengths than the frames; more pictures than a page holds.
    """
    style = {"opacity": opacity, "colormap": colormap, "contour_mass": contour_mass}
    blocks = [_block(video, shown, normalise, style) for video in videos]
    over = "frame" if normalise == "frame" else "frames shown"
    words = [
        f"Each map divided by its maximum over the {over}"
        + (f", drawn over the picture at {100 * opacity:.0f} % opacity." if opacity < 1 else "."),
        f"Line: strongest patches holding {100 * contour_mass:.0f} % of the attention." if contour_mass else "",
        _sentence(layer),
        _sentence(head_rule and f"Head: {head_rule}"),
    ]
    return picture_grid(
        [block.transposed() for block in blocks] if transposed else blocks,
        width,
        stacked,
        " ".join(filter(None, words)),
        bar=(colormap, f"attention / maximum over the {over}"),
    )


def plot_teaser(videos: Sequence[AttentionBlock], entity: int = 1, **options) -> Figure:
    """The layout of the paper's Figure 1: several videos side by side; input, one entity and the heads below.

    Args:
        videos: With one or a few frames each.
        entity: Number of the entity drawn, from 1.
        options: Of `plot_attention_grid`.
    """
    # A column of one frame needs no made-up number.
    bare = [replace(v, numbers=()) if v.numbers is None and len(v.frames) == 1 else v for v in videos]
    return plot_attention_grid(bare, shown=[entity], transposed=True, **options)


def plot_entities(
    videos: Sequence[AttentionBlock],
    *,
    shown: Sequence[int] | None = None,
    contour_mass: float = 0.6,
    tint: float = 0.3,
    layer: str = "",
    width: float | None = None,
) -> Figure:
    """All entities of a frame on one picture, each outlined in its own colour; a row a video.

    Args:
        videos: Their heads are not drawn.
        shown: Numbers of the entities drawn, from 1; by default all.
        contour_mass: Share of its attention that an entity's outlined patches hold.
        tint: Opacity of the colour inside the outlines.
        layer: Which layers the entities come from, for the caption.
        width: `COLUMN` or `PAGE`; by default a column where the pictures are large enough in it.
    """
    blocks, names = [], {}
    for video in videos:
        frames = as_images(video.frames)
        maps = named_maps(len(frames), video.entities, shown=shown)
        names |= dict.fromkeys(maps)
        stack = np.stack(list(maps.values()), axis=1)
        pictures = [entity_contours(_for_print(f), m, contour_mass, tint) for f, m in zip(frames, stack)]
        blocks.append(PictureBlock([pictures], [""], _numbers(video, len(frames)), video.name))
    handles = [Patch(color=colour, label=name) for name, colour in zip(names, entity_colours(len(names)))]
    caption = f"Outlined: each entity's strongest patches, holding {100 * contour_mass:.0f} % of its attention."
    return picture_grid(blocks, width, True, f"{caption} {_sentence(layer)}".strip(), handles=handles)


def _block(video: AttentionBlock, shown: Sequence[int] | None, normalise: str, style: Mapping) -> PictureBlock:
    frames = as_images(video.frames)
    columns = named_maps(len(frames), video.entities, video.heads, video.head_names, shown)
    printed = [_for_print(frame) for frame in frames]
    drawn = [
        [
            overlay(frame, one, maximum=limit, **style)
            for frame, one, limit in zip(printed, maps, map_limits(maps, normalise))
        ]
        for maps in columns.values()
    ]
    return PictureBlock(list(zip(printed, *drawn)), _numbers(video, len(frames)), ["input", *columns], video.name)


def _numbers(video: AttentionBlock, count: int) -> list[str]:
    numbers = range(count) if video.numbers is None else video.numbers
    if len(numbers) not in (0, count):
        raise ValueError(f"numbers must be {count}, one a frame, or none, got {len(numbers)}")
    return [f"frame {number}" for number in numbers] or [""] * count


def _for_print(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shortest = min(frame.shape[:2])
    scale = float(np.clip(shortest, *SIDE_PIXELS)) / shortest
    return frame if scale == 1 else resized(frame, round(frame.shape[0] * scale))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""
