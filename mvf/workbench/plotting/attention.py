"""Figures of attention: the layouts of the paper's Figures 1 and 3, and temporal attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.plotting.overlays import map_limits, named_maps, overlay, resized
from mvf.workbench.plotting.style import (
    COLUMN,
    LETTER,
    LINE,
    OKABE_ITO,
    PAGE,
    TALLEST,
    PaperFigure,
    as_images,
    caption_lines,
    fit_words,
    paper_figure,
    set_caption,
    show_image,
)

SIDE_PIXELS = (300, 600)  # shortest side of a picture in print: smooth maps, thin lines and a small file


@dataclass(frozen=True)
class AttentionBlock:
    """One video of an attention figure: the frames to draw and their attention maps.

    Attributes:
        frames: (T, H, W, 3) uint8 or float in [0, 1].
        entities: (T, N, h, w), non-negative; or None for a pooling without attention.
        heads: (T, h, w), or (K, T, h, w) for K heads; or None.
        head_names: K headings, such as "CLS head 4".
        numbers: T positions of the frames in the video; by default 0, 1, ...; empty for none.
        name: Name of the video.
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
    **options: Any,
) -> Figure:
    """Draws the entity maps of one video beside the backbone's head maps, one row per frame.

    Args:
        frames: (T, H, W, 3), as in `AttentionBlock`; so are `entities`, `heads` and `head_names`.
        frame_numbers: The block's `numbers`.
        title: The block's `name`.
        options: Passed to `plot_attention_grid`.

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
    transposed: bool = False,
    normalise: str = "frame",
    layer: str = "",
    head_rule: str = "",
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
    width: float | None = None,
) -> Figure:
    """Draws videos in the layout of the paper's Figure 3: rows are frames; columns are the input, entities and heads.

    Args:
        videos: The videos, drawn side by side.
        shown: Numbers of the entities drawn, from 1; by default all.
        transposed: Draws frames in columns and maps in rows.
        normalise: "frame" divides each map by its own maximum, "video" by its maximum over the frames given.
        layer: The maps' layers, for the caption, such as "entities: layers 4, 8, 12; head: layer 12".
        head_rule: How the heads were chosen, for the caption, such as "chosen by AUROC on training videos".
        opacity: Opacity of the maps over the frames; 1 draws only the maps.
        colormap: Name of a matplotlib colormap.
        contour_mass: Outlines the strongest patches that hold this share of the attention.
        width: `COLUMN` or `PAGE`; by default a column where the pictures are large enough in it.

    Raises:
        ValueError: if there is no video, maps and frames differ in length, or the pictures do not fit on a page.
    """
    style = {"opacity": opacity, "colormap": colormap, "contour_mass": contour_mass}
    blocks = [_block(video, shown, normalise, style) for video in videos]
    over = "frame" if normalise == "frame" else "frames shown"
    words = [
        f"Each map divided by its maximum over the {over}"
        + (f", drawn over the picture at {100 * opacity:.0f} % opacity." if opacity < 1 else "."),
        f"Outline: strongest patches holding {100 * contour_mass:.0f} % of the attention." if contour_mass else "",
        _sentence(layer),
        _sentence(head_rule and f"Head: {head_rule}"),
    ]
    return picture_grid(
        [block.transposed() for block in blocks] if transposed else blocks,
        width,
        " ".join(filter(None, words)),
        bar=(colormap, f"attention / maximum over the {over}"),
    )


def plot_teaser(videos: Sequence[AttentionBlock], entity: int = 1, **options: Any) -> Figure:
    """Draws videos side by side as in the paper's Figure 1: the input, and below it an entity and the heads.

    Args:
        videos: The videos, with one or a few frames each.
        entity: Number of the entity drawn, from 1.
        options: Passed to `plot_attention_grid`.
    """
    # A single frame without a number gets no label "frame 0".
    bare = [replace(v, numbers=()) if v.numbers is None and len(as_images(v.frames)) == 1 else v for v in videos]
    return plot_attention_grid(bare, shown=[entity], transposed=True, **options)


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
        raise ValueError(f"numbers must be {count}, one per frame, or empty, got {len(numbers)}")
    return [f"frame {number}" for number in numbers] or [""] * count


def _for_print(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shortest = min(frame.shape[:2])
    scale = float(np.clip(shortest, *SIDE_PIXELS)) / shortest
    return frame if scale == 1 else resized(frame, round(frame.shape[0] * scale))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


# ----------------------------------------------------------------------------------------------------------------------
# Grids of pictures: matplotlib does not choose a figure's height, so it is computed from the pictures and the text.

# Inches: gap between pictures, gap between blocks, row label, colour bar.
GAP, BLOCK_GAP, SIDE, FOOT = 0.03, 0.1, 0.16, 0.24
LARGEST, SMALLEST = 1.6, 0.8  # inches: widest picture; pictures narrower than this in a column get the whole page
TINIEST = 0.2  # inches: smaller pictures are not legible
BOLD = 0.82  # bold text fits this share of the letters into a line


@dataclass(frozen=True)
class PictureBlock:
    """Pictures of equal size in rows and columns.

    Attributes:
        pictures: Rows of (H, W, 3) uint8 pictures.
        rows: Labels left of the rows.
        columns: Headings above the columns.
        name: Title above the block.
    """

    pictures: Sequence[Sequence[NDArray[np.uint8]]]
    rows: Sequence[str]
    columns: Sequence[str]
    name: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.pictures), len(self.pictures[0])

    @property
    def aspect(self) -> float:
        """Width of a picture over its height."""
        return self.pictures[0][0].shape[1] / self.pictures[0][0].shape[0]

    @property
    def beside(self) -> float:
        """Width in inches of the label and the gaps in a row, which are not pictures."""
        return SIDE * any(self.rows) + GAP * (self.shape[1] - 1)

    def transposed(self) -> PictureBlock:
        return replace(self, pictures=list(zip(*self.pictures)), rows=self.columns, columns=self.rows)


@dataclass(frozen=True)
class _Placed:
    """A block with the size of its pictures, in inches, and its text wrapped to fit above them."""

    block: PictureBlock
    cell: tuple[float, float]
    name: str
    columns: Sequence[str]

    @property
    def wide(self) -> float:
        return self.block.beside + self.block.shape[1] * self.cell[0]

    @property
    def rows_tall(self) -> float:
        return self.block.shape[0] * (self.cell[1] + GAP) - GAP

    @property
    def lines(self) -> tuple[int, int]:
        """Numbers of lines of the name and of the headings."""
        return _lines(self.name), max(map(_lines, self.columns))


def picture_grid(
    blocks: Sequence[PictureBlock],
    width: float | None,
    caption: str,
    bar: tuple[str, str],
) -> PaperFigure:
    """Draws blocks of pictures side by side, as large as a paper's page allows; equal row labels stand once.

    Args:
        blocks: The pictures; they share a height.
        width: `COLUMN` or `PAGE`; None for a column where the pictures are large enough in it.
        caption: Printed below the figure.
        bar: Colormap and unit of a colour bar below the pictures.
    """
    if not blocks:
        raise ValueError("there must be at least one video to draw, got none")
    blocks = [
        replace(block, rows=[""] * len(block.rows)) if before and before.rows == block.rows else block
        for before, block in zip([None, *blocks], blocks)
    ]
    if width is None:
        width = COLUMN if min(w for w, _ in _cells(blocks, COLUMN)) >= SMALLEST else PAGE
    cells = _cells(blocks, width)
    if min(map(min, cells)) < TINIEST:
        raise ValueError(f"the pictures do not fit a page of {width} x {TALLEST} in: draw fewer videos, frames or maps")
    placed = [_place(block, cell) for block, cell in zip(blocks, cells)]
    # Pictures start at the same height, however many lines of text are above each.
    above = tuple(np.max([p.lines for p in placed], axis=0))
    content = sum(above) * LINE + max(p.rows_tall for p in placed)
    below = LINE * (caption_lines(caption, width) + 0.4) * bool(caption)
    with paper_figure(width, content + FOOT + below + 2 * GAP, layout="none") as figure:
        x = (width - sum(p.wide + BLOCK_GAP for p in placed) + BLOCK_GAP) / 2
        for p in placed:
            _draw(figure, p, above, x, FOOT + below + GAP + content)
            x += p.wide + BLOCK_GAP
        _draw_bar(figure, below + FOOT * 0.4, *bar)
        set_caption(figure, caption)
    return figure


def _cells(blocks: Sequence[PictureBlock], width: float) -> list[tuple[float, float]]:
    """Width and height of every block's pictures, as large as the page and `LARGEST` allow."""
    fixed = sum(b.beside + BLOCK_GAP for b in blocks) - BLOCK_GAP
    across = (width - fixed) / sum(b.shape[1] * b.aspect for b in blocks)
    words = FOOT + LINE * 11
    along = min((TALLEST - words - b.shape[0] * GAP) / b.shape[0] for b in blocks)
    scale = min(across, along, LARGEST / max(1.0, *(b.aspect for b in blocks)))
    return [(scale * b.aspect, scale) for b in blocks]


def _place(block: PictureBlock, cell: tuple[float, float]) -> _Placed:
    wide = block.shape[1] * (cell[0] + GAP)
    return _Placed(
        block,
        cell,
        fit_words(block.name, (wide + BLOCK_GAP) * BOLD),
        [fit_words(word, cell[0]) for word in block.columns],
    )


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _draw(figure: PaperFigure, placed: _Placed, above: tuple[int, int], x: float, y: float) -> None:
    """Draws a block with its upper left corner at (x, y) inches."""
    width, height = figure.get_size_inches()
    (cell_width, cell_height), block = placed.cell, placed.block
    left, right = x + SIDE * any(block.rows), x + placed.wide
    top = y - sum(above) * LINE
    middle = (left + right) / 2
    figure.text(middle / width, y / height, placed.name, ha="center", va="top", fontsize=7, fontweight="bold")
    grid = figure.add_gridspec(
        *block.shape, left=left / width, right=right / width, bottom=(top - placed.rows_tall) / height,
        top=top / height, wspace=GAP / cell_width, hspace=GAP / cell_height,
    )  # fmt: skip
    for r, (pictures, word) in enumerate(zip(block.pictures, block.rows, strict=True)):
        for c, (picture, heading) in enumerate(zip(pictures, placed.columns, strict=True)):
            axes = figure.add_subplot(grid[r, c])
            show_image(axes, picture, heading if r == 0 else "")
            if c == 0:
                room = cell_height / LETTER / max(len(word), 1)
                axes.set_ylabel(word, fontsize=7 * min(max(room, 0.86), 1), labelpad=2)


def _draw_bar(figure: PaperFigure, y: float, colormap: str, unit: str) -> None:
    """Draws a colour bar with its unit at a height of y inches."""
    width, height = figure.get_size_inches()
    length = 0.7
    start = (width - length - 0.2 - len(unit) * LETTER) / 2
    axes = figure.add_axes((start / width, (y - 0.04) / height, length / width, 0.08 / height))
    mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colormap)
    figure.colorbar(mappable, cax=axes, orientation="horizontal", ticks=()).outline.set_linewidth(0.4)
    for x, text, side in ((-0.04, "0", "right"), (1.04, "1", "left")):
        axes.text(x, 0.4, text, transform=axes.transAxes, ha=side, va="center", fontsize=7)
    axes.set_xlabel(unit, fontsize=7, ha="left", va="center")
    axes.xaxis.set_label_coords(1.04 + 0.12 / length, 0.4)


# ----------------------------------------------------------------------------------------------------------------------
# Temporal attention: which frames and entities a frame attends to.

BRIGHTEST = 99.5  # percentile with the brightest colour, so that single frames do not darken the rest


def attention_by_distance(
    weights: ArrayLike, frames: ArrayLike | None = None, bounds: ArrayLike | None = None
) -> tuple[NDArray, NDArray]:
    """Averages the weight of each entity by its distance in time from the query frame.

    Args:
        weights: (F, T, N); all-zero rows, of padded frames, are ignored.
        frames: (F,) positions of the query frames; by default 0, 1, ...
        bounds: (F, 2) first frame, and the one after the last, that each can attend to; by default all. Pairs outside
            are ignored.

    Returns:
        (D,) distances in frames, negative in the past; (D, N) mean weights over all pairs at that distance.

    Example:
        >>> distance, mean = attention_by_distance(np.array([[[0.8], [0.2]], [[0.4], [0.6]]]))
        >>> distance.tolist(), mean[:, 0].round(1).tolist()
        ([-1, 0, 1], [0.4, 0.7, 0.2])
    """
    weights, queries, bounds = _checked(weights, frames, bounds)
    time = np.arange(weights.shape[1])
    distance = time - queries[:, None]  # (F, T)
    real = (weights.sum(axis=(1, 2)) > 0)[:, None] & (time >= bounds[:, :1]) & (time < bounds[:, 1:])
    found, place = np.unique(distance[real], return_inverse=True)
    sums = np.stack([np.bincount(place, entity[real], len(found)) for entity in np.moveaxis(weights, -1, 0)], axis=1)
    return found, sums / np.bincount(place)[:, None]


def plot_temporal_attention(
    weights: ArrayLike,
    names: Sequence[str] | None = None,
    frames: ArrayLike | None = None,
    title: str = "",
    caption: str = "",
    bounds: ArrayLike | None = None,
) -> Figure:
    """Draws how much each frame attends to every entity of every frame, per frame, in total and by distance in time.

    Args:
        weights: (F, T, N), each row summing to 1 over (T, N) (`mvf.attention.temporal_attention`).
        names: N names of the entities; by default "entity 1", ...
        frames: (F,) evenly spaced positions of the query frames; by default 0, 1, ...
        title: Name of the video.
        caption: The block that the weights are from, such as "Block 3 of 3, mean over 8 heads."
        bounds: (F, 2) first frame, and the one after the last, of the chunk that each frame can attend to; by default
            the whole video. Uniform attention means uniform over the chunk.

    Raises:
        ValueError: if weights have another shape or are negative, or names, frames or bounds do not fit them.
    """
    weights, queries, bounds = _checked(weights, frames, bounds)
    entities = weights.shape[2]
    names = [f"entity {i + 1}" for i in range(entities)] if names is None else list(names)
    if len(names) != entities:
        raise ValueError(f"names must have {entities} entries, one per entity, got {len(names)}: {names}")
    reach = np.diff(bounds) * entities
    relative = weights * reach[:, None]  # 1: uniform over everything that the frame can attend to
    panel = min((PAGE - 1.1) / entities, 2.2)
    with paper_figure(PAGE, panel + 2.7) as figure:
        figure.suptitle(title)
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(panel + 0.6, 2.0))[:, 0]
        _draw_maps(upper, relative, queries, names)
        shares, near = lower.subplots(1, 2)
        distance, mean = attention_by_distance(relative, queries, bounds)
        for i, (name, colour) in enumerate(zip(names, _colours(entities))):
            over = 2 + (entities - i) / entities  # the first, the readout, is never hidden by another
            shares.plot(queries, weights[..., i].sum(axis=1), color=colour, label=name, zorder=over)
            near.plot(distance, mean[:, i], color=colour, zorder=over)
        shares.set(xlabel="query frame", ylabel="share of its attention", ylim=(0, 1))
        near.set(xlabel="distance in time (frames)", ylabel="attention / uniform", ylim=(0, None))
        near.axvline(0, color="#BFBFBF", linewidth=0.6, zorder=0)
        for axes, level in ((shares, 1 / entities), (near, 1)):
            axes.axhline(level, color="#7F7F7F", linestyle=(0, (3, 2)), linewidth=0.8, label="uniform", zorder=1)
        lower.legend(*shares.get_legend_handles_labels(), loc="outside upper center", ncols=min(entities + 1, 7))
        chunked = (reach < weights.shape[1] * entities).any()
        seen = "the frame's chunk, the only one it can attend to" if chunked else "all frames"
        set_caption(figure, f"{caption} 1 is uniform attention to all entities of {seen}.".strip())
    return figure


def _draw_maps(figure: SubFigure, relative: NDArray, frames: NDArray, names: Sequence[str]) -> None:
    """Draws one map per entity, all on the same colour scale."""
    grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    top = max(float(np.percentile(relative, BRIGHTEST)), 1e-12)
    step = (frames[-1] - frames[0]) / (len(frames) - 1) if len(frames) > 1 else 1
    extent = (-0.5, relative.shape[1] - 0.5, frames[0] - step / 2, frames[-1] + step / 2)
    shown = {"vmin": 0, "vmax": top, "cmap": "magma", "origin": "lower", "extent": extent, "aspect": "auto"}
    for i, (axes, name) in enumerate(zip(grid, names)):
        image = axes.imshow(relative[..., i], **shown)
        axes.set_title(name)
        axes.set_xlabel("attended frame" if len(names) < 5 else "attended")
    grid[0].set_ylabel("query frame")
    clipped = "max" if relative.max() > top else "neither"
    figure.colorbar(image, ax=list(grid), label="attention / uniform", extend=clipped, pad=0.02, aspect=25)


def _colours(entities: int) -> list[str]:
    return [OKABE_ITO[i % len(OKABE_ITO)] for i in range(entities)]


def _checked(
    weights: ArrayLike, frames: ArrayLike | None, bounds: ArrayLike | None
) -> tuple[NDArray, NDArray, NDArray]:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 3 or not weights.size or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"weights must be (F, T, N), finite and non-negative, got {weights.shape}")
    frames = np.arange(len(weights)) if frames is None else np.asarray(frames)
    if frames.shape != weights.shape[:1] or (np.diff(frames) <= 0).any():
        raise ValueError(f"frames must be {len(weights)} increasing positions, one per row, got {frames.tolist()}")
    length = weights.shape[1]
    if bounds is None:
        return weights, frames, np.tile((0, length), (len(weights), 1))
    bounds = np.asarray(bounds)
    fits = bounds.shape == (len(weights), 2) and 0 <= bounds.min() <= bounds.max() <= length
    if not (fits and (bounds[:, 0] <= frames).all() and (frames < bounds[:, 1]).all()):
        raise ValueError(
            f"bounds must be ({len(weights)}, 2), a chunk of 0 to {length} around each frame, got {bounds.tolist()}"
        )
    return weights, frames, bounds
