"""Phases over time: ribbons of predicted against true phases, and the legend that every figure of phases has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.style import (
    LETTER,
    LINE,
    PAGE,
    TALLEST,
    UNLABELLED,
    draw_ribbon,
    fit_words,
    paper_figure,
    phase_colours,
    phase_names,
)

# Inches: a ribbon, a pair with its name and the gap below, the frame numbers and the legend of two rows at the foot.
RIBBON, PAIR, BELOW = 0.14, 0.5, 0.78
MOST = int((TALLEST - BELOW - 1.5 * LINE) / PAIR)


def plot_phase_ribbons(
    predicted: ArrayLike | Sequence[ArrayLike],
    true: ArrayLike | Sequence[ArrayLike],
    names: Sequence[str] | None = None,
    title: str = "",
    videos: Sequence[str] | None = None,
) -> Figure:
    """Predicted and true phase of every frame, one ribbon above the other, on one clock for all videos.

    Args:
        predicted: (T,) phases of a video, or one such array a video.
        true: The same of the labels, -1 = unlabelled.
        names: Names of the phases.
        title: Name of the video, or of the figure; every video's accuracy over its labelled frames is added.
        videos: Names of several videos.

    Raises:
        ValueError: for lengths that do not fit; no video; more than fit a page.
    """
    if len(predicted) and np.ndim(predicted[0]) == 0:
        predicted, true, videos, title = [predicted], [true], [title], ""
    pairs = [(np.asarray(p), np.asarray(t)) for p, t in zip(predicted, true, strict=True)]
    for p, t in pairs:
        if p.ndim != 1 or p.shape != t.shape or not p.size:
            raise ValueError(f"predicted and true must both be (T,), T at least 1, got {p.shape} and {t.shape}")
    if not 1 <= len(pairs) <= MOST:
        raise ValueError(f"predicted must be of 1 to {MOST} videos, which fit a page, got {len(pairs)}")
    videos = [f"video {i + 1}" for i in range(len(pairs))] if videos is None else videos
    names = phase_names(names, *(phases for pair in pairs for phases in pair))
    height = BELOW + PAIR * len(pairs) + LINE * 1.5 * bool(title)
    with paper_figure(PAGE, height, layout="none") as figure:
        figure.suptitle(title, y=1 - 0.03 / height, va="top")
        for i, (video, pair) in enumerate(zip(videos, pairs, strict=True)):
            bottom = BELOW + PAIR * (len(pairs) - 1 - i)
            axes = [
                figure.add_axes((0.7 / PAGE, (bottom + up) / height, (PAGE - 0.78) / PAGE, RIBBON / height))
                for up in (RIBBON + 0.02, 0)
            ]
            _draw_pair(axes, *pair, phase_colours(len(names)), video)
            for ax in axes:
                ax.set_xlim(-0.5, max(len(t) for _, t in pairs) - 0.5)
        number_frames(axes[1].xaxis)
        axes[1].set_xlabel("frame")
        phase_legend(figure, names, has_unlabelled(*(phases for pair in pairs for phases in pair)))
    return figure


def _draw_pair(axes: Sequence[Axes], predicted: NDArray, true: NDArray, colours: Sequence[str], video: str) -> None:
    labelled = true >= 0
    accuracy = f"accuracy {np.mean(predicted[labelled] == true[labelled]):.3f}" if labelled.any() else "unlabelled"
    for ax, phases, text in zip(axes, (true, predicted), ("true", "predicted")):
        draw_ribbon(ax, phases, colours)
        ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=7)
    axes[0].set_title(f"{video}: {accuracy}" if video else accuracy, fontsize=7, loc="left", pad=2)


def number_frames(axis: Axis) -> None:
    """Whole, round frame numbers along an axis."""
    axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def has_unlabelled(*phases: ArrayLike | None) -> bool:
    """Whether a frame of any of the videos has phase -1."""
    return any(p is not None and np.any(np.asarray(p) < 0) for p in phases)


def phase_legend(
    figure: Figure, names: Sequence[str], unlabelled: bool, marks: Sequence[Artist] = (), caption: str = ""
) -> None:
    """One legend below: a caption, phases, grey for unlabelled frames, other marks, in as few rows as fit."""
    handles = [Patch(color=colour, label=name) for name, colour in zip(names, phase_colours(len(names)))]
    if unlabelled:
        handles.append(Patch(color=UNLABELLED, label="unlabelled"))
    handles.extend(marks)
    width = figure.get_size_inches()[0]
    if handles:
        columns = _legend_columns([h.get_label() for h in handles], width)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            handlelength=1,
            columnspacing=1,
            title=fit_words(caption, width),
            title_fontsize=7,
        )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """The most columns, filled downwards as matplotlib does, whose labels fit `width` inches."""
    for count in range(len(labels), 1, -1):
        columns = np.array_split([len(label) for label in labels], count)
        if sum(max(column) * LETTER + 0.32 for column in columns) <= width:
            return count
    return 1
