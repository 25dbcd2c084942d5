"""Figures made of frames: two views of a clip, what a query retrieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.style import PAGE, RIGHT, WRONG, as_images, paper_figure, show_image


def plot_views(
    frames_a: ArrayLike,
    frames_b: ArrayLike,
    index_a: ArrayLike,
    index_b: ArrayLike,
    num_frames: int | None = None,
    shown: int = 8,
    title: str = "",
) -> Figure:
    """Two augmented views of a clip as strips with frame numbers, and where in the video each was sampled.

    Args:
        frames_a: (T, H, W, 3) uint8 or float in [0, 1]: the first view; `frames_b` the second.
        index_a: (T,) positions of its frames in the video, 0-based; `index_b` the second's.
        num_frames: Length of the video, in frames; by default up to the last sampled frame.
        shown: Pictures a strip, evenly spaced over the view.
        title: Name of the video.
    """
    views = [
        (as_images(f, n), np.asarray(i))
        for f, i, n in ((frames_a, index_a, "frames_a"), (frames_b, index_b, "frames_b"))
    ]
    for (frames, index), name in zip(views, "ab"):
        if index.shape != frames.shape[:1]:
            raise ValueError(f"index_{name} must be ({len(frames)},), one a frame, got {index.shape}")
    shown = min(shown, *(len(index) for _, index in views))
    height = PAGE / (shown + 0.5) * max(f.shape[1] / f.shape[2] for f, _ in views)
    with paper_figure(PAGE, 2 * height + 1.2) as figure:
        figure.suptitle(title)
        grid = figure.add_gridspec(3, shown, height_ratios=(height, height, 0.35))
        for row, (frames, index) in enumerate(views):
            for column, t in enumerate(np.linspace(0, len(index) - 1, shown).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                show_image(axes, frames[t], f"{index[t]}")
                if column == 0:
                    axes.set_ylabel(f"view {row + 1}")
        _draw_positions(figure.add_subplot(grid[2, :]), [index for _, index in views], num_frames)
    return figure


def _draw_positions(axes: Axes, indices: Sequence[NDArray], num_frames: int | None) -> None:
    for row, index in enumerate(indices):
        axes.plot(index, np.full(len(index), row), "|", markersize=7, color=f"C{row}")
    length = num_frames or int(max(index.max() for index in indices)) + 1
    axes.set(
        xlim=(-0.5, length - 0.5),
        ylim=(1.6, -0.6),
        yticks=(0, 1),
        yticklabels=("view 1", "view 2"),
        xlabel="frame of the video",
    )


@dataclass(frozen=True)
class RetrievalRow:
    """A query frame and what was found for it, nearest first.

    Attributes:
        query: (H, W, 3) uint8 picture; `query_caption` its video and phase.
        frames: The pictures found.
        captions: Their videos and phases.
        right: Whether each has the query's phase.
    """

    query: NDArray[np.uint8]
    query_caption: str
    frames: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]
    right: Sequence[bool]


def plot_retrieval(rows: Sequence[RetrievalRow], title: str = "") -> Figure:
    """Query frames and their nearest frames of other videos; a tick and green is right, a cross and red is wrong."""
    if not rows:
        raise ValueError("rows must have at least one query, got none")
    columns = 1 + max(len(row.frames) for row in rows)
    pictures = [picture for row in rows for picture in (row.query, *row.frames)]
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    with paper_figure(PAGE, len(rows) * (PAGE / columns * ratio + 0.38) + 0.25 * bool(title)) as figure:
        figure.suptitle(title)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows):
            for ax in axes[1 + len(row.frames) :]:
                ax.set_axis_off()
            show_image(axes[0], row.query, f"query\n{row.query_caption}")
            found = zip(axes[1:], row.frames, row.captions, row.right, strict=False)
            for rank, (ax, frame, text, is_right) in enumerate(found, start=1):
                _show_found(ax, frame, text, rank, is_right)
    return figure


def _show_found(axes: Axes, frame: NDArray[np.uint8], caption: str, rank: int, right: bool) -> None:
    colour = RIGHT if right else WRONG
    show_image(axes, frame)
    axes.set_title(f"{rank} {'✓' if right else '✗'}\n{caption}", fontsize=7, pad=3, color=colour)
    axes.spines[:].set(visible=True, color=colour, linewidth=2.2)
