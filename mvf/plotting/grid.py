"""Pages of pictures: blocks of rows and columns, placed to the point so that no gap is left to a layout engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from numpy.typing import NDArray

from mvf.plotting.style import (
    COLUMN,
    LETTER,
    LINE,
    PAGE,
    TALLEST,
    PaperFigure,
    caption_lines,
    fit_words,
    paper_figure,
    set_caption,
    show_image,
)

# Inches: between pictures, between blocks, the words left of a row, the bar or legend below.
GAP, BLOCK_GAP, SIDE, FOOT = 0.03, 0.1, 0.16, 0.24
LARGEST, SMALLEST = 1.6, 0.8  # inches: width of a picture at most; what it needs before a column is narrow enough
TINIEST = 0.2  # inches: a smaller picture shows nothing
BOLD = 0.82  # of a line's letters fit in it when they are bold


@dataclass(frozen=True)
class PictureBlock:
    """Pictures of one size in rows and columns.

    Attributes:
        pictures: Rows of (H, W, 3) uint8 pictures.
        rows: A word left of every row.
        columns: A heading above every column.
        name: Above the block.
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
        """Inches of a row that its pictures do not take."""
        return SIDE * any(self.rows) + GAP * (self.shape[1] - 1)

    def transposed(self) -> PictureBlock:
        return replace(self, pictures=list(zip(*self.pictures)), rows=self.columns, columns=self.rows)


@dataclass(frozen=True)
class _Placed:
    """A block with the size of its pictures, in inches, and its words wrapped to fit above them."""

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
        """Lines of the name and of the headings."""
        return _lines(self.name), max(map(_lines, self.columns))


def picture_grid(
    blocks: Sequence[PictureBlock],
    width: float | None = None,
    down: bool = False,
    caption: str = "",
    bar: tuple[str, str] | None = None,
    handles: Sequence[Artist] = (),
) -> PaperFigure:
    """Blocks of pictures side by side or one below the other, as large as a paper's page lets them be.

    Words that repeat the block before are left out: headings of stacked blocks, words left of blocks side by side.

    Args:
        blocks: The pictures; blocks side by side share a height, stacked ones a width.
        width: `COLUMN` or `PAGE`; by default a column where the pictures are large enough in it.
        down: One block below the other.
        caption: Printed below.
        bar: Colour map and unit of a colour bar below the pictures.
        handles: Of the legend below the pictures.
    """
    if not blocks:
        raise ValueError("there must be at least one video to draw, got none")
    blocks = _without_repeats(blocks, down)
    if width is None:
        width = COLUMN if min(w for w, _ in _cells(blocks, COLUMN, down)) >= SMALLEST else PAGE
    cells = _cells(blocks, width, down)
    if min(map(min, cells)) < TINIEST:
        raise ValueError(f"the pictures do not fit a page of {width} x {TALLEST} in: draw fewer videos, frames or maps")
    placed = [_place(block, cell) for block, cell in zip(blocks, cells)]
    # Pictures side by side start at one height, however many lines of words are above each.
    lines = [p.lines if down else tuple(np.max([q.lines for q in placed], axis=0)) for p in placed]
    tall = [sum(above) * LINE + p.rows_tall for p, above in zip(placed, lines)]
    content = sum(tall) + BLOCK_GAP * (len(tall) - 1) if down else max(tall)
    foot = FOOT * bool(bar or handles)
    below = LINE * (caption_lines(caption, width) + 0.4) * bool(caption)
    with paper_figure(width, content + foot + below + 2 * GAP, layout="none") as figure:
        total = max(p.wide for p in placed) if down else sum(p.wide + BLOCK_GAP for p in placed) - BLOCK_GAP
        x, y = (width - total) / 2, foot + below + GAP + content
        for p, above, height in zip(placed, lines, tall):
            _draw(figure, p, above, x, y)
            x, y = (x, y - height - BLOCK_GAP) if down else (x + p.wide + BLOCK_GAP, y)
        _draw_foot(figure, below + foot * 0.4, bar, handles)
        set_caption(figure, caption)
    return figure


def _without_repeats(blocks: Sequence[PictureBlock], down: bool) -> list[PictureBlock]:
    kept = [blocks[0]]
    for before, block in zip(blocks, blocks[1:]):
        word = "columns" if down else "rows"
        repeats = getattr(before, word) == getattr(block, word)
        kept.append(replace(block, **{word: [""] * len(getattr(block, word))}) if repeats else block)
    return kept


def _cells(blocks: Sequence[PictureBlock], width: float, down: bool) -> list[tuple[float, float]]:
    """Width and height of every block's pictures, as large as the page and `LARGEST` allow."""
    words = FOOT + LINE * (8 + 3 * (len(blocks) if down else 1))
    units = [(1.0, 1 / b.aspect) if down else (b.aspect, 1.0) for b in blocks]
    across = [(b.shape[1] * w, b.beside) for b, (w, _) in zip(blocks, units)]
    along = [(b.shape[0] * h, b.shape[0] * GAP) for b, (_, h) in zip(blocks, units)]
    if down:
        room_across = min((width - fixed) / unit for unit, fixed in across)
        room_along = (TALLEST - words - sum(fixed for _, fixed in along)) / sum(unit for unit, _ in along)
    else:
        room_across = (width - sum(fixed + BLOCK_GAP for _, fixed in across) + BLOCK_GAP) / sum(u for u, _ in across)
        room_along = min((TALLEST - words - fixed) / unit for unit, fixed in along)
    scale = min(room_across, room_along, LARGEST / max(map(max, units)))
    return [(scale * w, scale * h) for w, h in units]


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
    left = x + SIDE * any(block.rows)
    middle = left + (x + placed.wide - left) / 2
    figure.text(middle / width, y / height, placed.name, ha="center", va="top", fontsize=7, fontweight="bold")
    for r, (pictures, word) in enumerate(zip(block.pictures, block.rows, strict=True)):
        bottom = y - sum(above) * LINE - r * (cell_height + GAP) - cell_height
        for c, (picture, heading) in enumerate(zip(pictures, placed.columns, strict=True)):
            corner = (left + c * (cell_width + GAP)) / width, bottom / height
            axes = figure.add_axes((*corner, cell_width / width, cell_height / height))
            show_image(axes, picture, heading if r == 0 else "")
            if c == 0:
                room = cell_height / LETTER / max(len(word), 1)
                axes.set_ylabel(word, fontsize=7 * min(max(room, 0.86), 1), labelpad=2)


def _draw_foot(figure: PaperFigure, y: float, bar: tuple[str, str] | None, handles: Sequence[Artist]) -> None:
    """A colour bar, its unit beside it, or a legend, at a height of y inches."""
    width, height = figure.get_size_inches()
    if handles:
        where = {"loc": "center", "bbox_to_anchor": (0.5, y / height), "borderpad": 0}
        figure.legend(handles=handles, ncols=len(handles), **where)
    if bar:
        colormap, unit = bar
        length = 0.7
        start = (width - length - 0.2 - len(unit) * LETTER) / 2
        axes = figure.add_axes((start / width, (y - 0.04) / height, length / width, 0.08 / height))
        mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colormap)
        figure.colorbar(mappable, cax=axes, orientation="horizontal", ticks=()).outline.set_linewidth(0.4)
        for place, text, side in ((-0.04, "0", "right"), (1.04, "1", "left")):
            axes.text(place, 0.4, text, transform=axes.transAxes, ha=side, va="center", fontsize=7)
        axes.set_xlabel(unit, fontsize=7, ha="left", va="center")
        axes.xaxis.set_label_coords(1.04 + 0.12 / length, 0.4)
