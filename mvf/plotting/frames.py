"""Figures made of frames: two views of a clip, what a query retrieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.style import (
    LINE,
    PAGE,
    RIGHT,
    TALLEST,
    UNLABELLED,
    WRONG,
    as_images,
    fit_words,
    paper_figure,
    set_caption,
    show_image,
)


def plot_views(
    views: Sequence[ArrayLike],
    indices: Sequence[ArrayLike],
    num_frames: int | None = None,
    shown: int = 8,
    title: str = "",
) -> Figure:
    """Augmented views of a clip as strips with frame numbers, and where in the video each was sampled.

    Args:
        views: (T, H, W, 3) uint8 or float in [0, 1], one a view.
        indices: (T,) positions of the frames of each view in the video, 0-based.
        num_frames: Length of the video, in frames; by default up to the last sampled frame.
        shown: Pictures a strip, evenly spaced over the view.
        title: Name of the video.
    """
    views = [(as_images(f, f"views[{n}]"), np.asarray(i)) for n, (f, i) in enumerate(zip(views, indices, strict=True))]
    for n, (frames, index) in enumerate(views):
        if index.shape != frames.shape[:1]:
            raise ValueError(f"indices[{n}] must be ({len(frames)},), one a frame, got {index.shape}")
    shown = min(shown, *(len(index) for _, index in views))
    height = PAGE / (shown + 0.5) * max(f.shape[1] / f.shape[2] for f, _ in views)
    with paper_figure(PAGE, len(views) * height + 1.2) as figure:
        figure.suptitle(title)
        grid = figure.add_gridspec(len(views) + 1, shown, height_ratios=(*[height] * len(views), 0.35))
        for row, (frames, index) in enumerate(views):
            for column, t in enumerate(np.linspace(0, len(index) - 1, shown).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                show_image(axes, frames[t], f"{index[t]}")
                if column == 0:
                    axes.set_ylabel(f"view {row + 1}")
        _draw_positions(figure.add_subplot(grid[-1, :]), [index for _, index in views], num_frames)
    return figure


def _draw_positions(axes: Axes, indices: Sequence[NDArray], num_frames: int | None) -> None:
    for row, index in enumerate(indices):
        axes.plot(index, np.full(len(index), row), "|", markersize=7, color=f"C{row}")
    length = num_frames or int(max(index.max() for index in indices)) + 1
    axes.set(
        xlim=(-0.5, length - 0.5),
        ylim=(len(indices) - 0.4, -0.6),
        yticks=range(len(indices)),
        yticklabels=[f"view {row + 1}" for row in range(len(indices))],
        xlabel="frame of the video",
    )


@dataclass(frozen=True)
class RetrievalRow:
    """A query frame and what was found for it, nearest first.

    Attributes:
        query: (H, W, 3) uint8 picture; `query_caption` its video and phase.
        frames: The pictures found.
        captions: Their videos and phases.
        right: Whether each has the query's phase; None where one of the two is unlabelled.
    """

    query: NDArray[np.uint8]
    query_caption: str
    frames: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]
    right: Sequence[bool | None]


# Colour and sign of a frame found: one of the two shows for every kind of colour vision, and in print.
MARKS = MappingProxyType({True: (RIGHT, " ✓"), False: (WRONG, " ✗"), None: (UNLABELLED, "")})


def plot_retrieval(rows: Sequence[RetrievalRow], title: str = "") -> Figure:
    """Query frames and their nearest frames of other videos; a tick and green is right, a cross and red is wrong.

    Raises:
        ValueError: without a query, or for more rows than fit a page.
    """
    if not rows:
        raise ValueError("rows must have at least one query, got none")
    found = max(len(row.frames) for row in rows)
    # A picture of more than a quarter of the page says no more; of portraits more columns, left empty, make small ones.
    for columns in range(max(4, 1 + found), 20):
        words = [_captions(row, PAGE / columns - 0.02) for row in rows]
        heights = [_row_height(row, texts, PAGE / columns - 0.06) for row, texts in zip(rows, words)]
        height = sum(heights) + 0.25 + 0.25 * bool(title)
        if height <= TALLEST:
            break
    else:
        raise ValueError(f"{len(rows)} rows are {height:.1f} in tall, a page has {TALLEST}: draw fewer queries")
    with paper_figure(PAGE, height) as figure:
        figure.suptitle(title)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, row, texts in zip(grid, rows, words):
            for ax in axes[len(texts) :]:
                ax.set_axis_off()
            marks = [("black", ""), *(MARKS[right] for right in row.right)]
            for ax, frame, text, (colour, _) in zip(axes, (row.query, *row.frames), texts, marks, strict=False):
                show_image(ax, frame)
                ax.set_title(text, fontsize=7, pad=3)
                ax.spines[:].set(visible=ax is not axes[0], color=colour, linewidth=1.8)
        set_caption(figure, "Nearest first. ✓ green: the query's phase; ✗ red: another; grey: unlabelled.")
    return figure


def _row_height(row: RetrievalRow, texts: Sequence[str], cell: float) -> float:
    """Inches of a row whose pictures are `cell` wide."""
    ratio = max(picture.shape[0] / picture.shape[1] for picture in (row.query, *row.frames))
    return cell * ratio + LINE * (1 + texts[0].count("\n")) + 0.1


def _captions(row: RetrievalRow, width: float) -> list[str]:
    """Words above the pictures of a row, wrapped to `width` inches, of equally many lines so that ranks align."""
    firsts = ["query", *(f"{rank}{MARKS[right][1]}" for rank, right in enumerate(row.right, start=1))]
    texts = [
        "\n".join((first, *(fit_words(line, width) for line in caption.split("\n"))))
        for first, caption in zip(firsts, (row.query_caption, *row.captions), strict=True)
    ]
    most = max(text.count("\n") for text in texts)
    return [text + "\n" * (most - text.count("\n")) for text in texts]
