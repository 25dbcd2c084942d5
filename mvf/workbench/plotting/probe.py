"""Figures of embeddings: progression, similarity, trajectories, phases over time, views, retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.plotting.style import (
    COLUMN,
    LETTER,
    LINE,
    PAGE,
    RIGHT,
    TALLEST,
    UNLABELLED,
    WRONG,
    as_images,
    draw_ribbon,
    fit_words,
    paper_figure,
    phase_colours,
    phase_names,
    set_caption,
    short_label,
    show_image,
)

ENDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "start": {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "black"},
        "end": {"marker": "s", "markersize": 4, "markerfacecolor": "black", "markeredgecolor": "white"},
    }
)


def plot_progression(
    predicted: ArrayLike, true: ArrayLike, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draws the progression of one video: predicted and true time since the end of each phase.

    Args:
        predicted: (T, K) in video lengths, one column per phase boundary.
        true: (T, K) targets, NaN where there is none.
        names: Names of the K boundaries.
        title: Name of the video.
    """
    predicted, true = np.asarray(predicted, dtype=float), np.asarray(true, dtype=float)
    if predicted.ndim != 2 or predicted.shape != true.shape:
        raise ValueError(f"predicted and true must both be (T, K), got {predicted.shape} and {true.shape}")
    names = list(names) if names is not None else [f"end of phase {i}" for i in range(true.shape[1])]
    if len(names) != true.shape[1]:
        raise ValueError(f"names must have {true.shape[1]} entries, one per boundary, got {len(names)}")
    colours = phase_colours(len(names))
    with paper_figure(PAGE, 2.3) as figure:
        axes = figure.subplots()
        for k, colour in enumerate(colours):
            axes.plot(true[:, k], color=colour, linestyle=(0, (3, 2)), linewidth=1)
            axes.plot(predicted[:, k], color=colour)
        axes.axhline(0, color="#BFBFBF", linewidth=0.6, zorder=0)
        axes.set(
            xlabel="frame",
            ylabel="time since the boundary\n(video lengths)",
            title=title,
            xlim=(0, max(len(true) - 1, 1)),
        )
        kinds = [
            Line2D([], [], color="black", label="predicted"),
            Line2D([], [], color="black", linestyle=(0, (3, 2)), linewidth=1, label="true"),
        ]
        lines = [Line2D([], [], color=c, label=n) for c, n in zip(colours, names)]
        figure.legend(handles=kinds + lines, loc="outside right center")
    return figure


def plot_similarity(
    similarity: ArrayLike,
    path: ArrayLike | None = None,
    phases_a: ArrayLike | None = None,
    phases_b: ArrayLike | None = None,
    names: Sequence[str] = ("video A", "video B"),
    phase_labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draws the cosine similarity of every frame of video A (rows, time upwards) to every frame of video B, and a path.

    Args:
        similarity: (Ta, Tb).
        path: (L, 2) pairs (frame of A, frame of B).
        phases_a: (Ta,) phases, -1 = unlabelled, drawn as a ribbon beside the matrix.
        phases_b: (Tb,) phases, drawn below it.
        names: Names of the two videos.
        phase_labels: Names of the phases.
        title: Printed above the figure.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2:
        raise ValueError(f"similarity must be (Ta, Tb), got {similarity.shape}")
    ratio = np.clip(similarity.shape[0] / similarity.shape[1], 0.8, 1.6)  # the name at the side needs its length
    labels = phase_names(phase_labels, phases_a, phases_b)
    outline = [effects.Stroke(linewidth=2.4, foreground="black"), effects.Normal()]
    line: dict[str, Any] = {"color": "white", "linewidth": 1.2, "path_effects": outline}
    with paper_figure(COLUMN, 2.1 * ratio + 0.9 + 0.09 * len(labels)) as figure:
        axes = figure.subplots()
        image = axes.imshow(similarity, aspect="auto", origin="lower", cmap="viridis")
        if path is not None:
            steps = np.asarray(path)
            axes.plot(steps[:, 1], steps[:, 0], **line)
        axes.set(title=title)
        figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
        colours = phase_colours(len(labels))
        _side(axes, phases_a, similarity.shape[0], colours, True).set_ylabel(f"{short_label(names[0])} (frame)")
        _side(axes, phases_b, similarity.shape[1], colours, False).set_xlabel(f"{short_label(names[1])} (frame)")
        marks = [] if path is None else [Line2D([], [], label="alignment", **line)]
        phase_legend(figure, labels, has_unlabelled(phases_a, phases_b), marks)
    return figure


def _side(axes: Axes, phases: ArrayLike | None, length: int, colours: Sequence[str], vertical: bool) -> Axes:
    """Numbers the frames along one side of the matrix, outside its phase ribbon if there is one."""
    if phases is not None and np.shape(phases) != (length,):
        raise ValueError(f"phases must be ({length},), one per frame of the similarity matrix, got {np.shape(phases)}")
    side = axes
    if phases is not None:
        axes.set(**{"yticks" if vertical else "xticks": []})
        side = axes.inset_axes((-0.055, 0, 0.04, 1) if vertical else (0, -0.055, 1, 0.04))
        draw_ribbon(side, phases, colours, vertical)
    number_frames(side.yaxis if vertical else side.xaxis)
    return side


def plot_embeddings(
    points: Sequence[ArrayLike],
    phases: Sequence[ArrayLike | None] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    lines: int = 3,
) -> Figure:
    """Draws frames as points in two dimensions, coloured by phase, and the trajectories of the first videos.

    Args:
        points: One (T, 2) array per video.
        phases: One (T,) array (-1 = unlabelled) or None per video.
        names: Names of the phases.
        title: Printed above the figure.
        caption: How the two dimensions were computed, such as "first two principal components".
        lines: Number of videos with a trajectory; more than a few hide one another.
    """
    given = [np.asarray(p) for p in points]
    phases = list(phases) if phases is not None else [None] * len(given)
    for i, (p, phase) in enumerate(zip(given, phases, strict=True)):
        if p.ndim != 2 or p.shape[1] != 2 or not p.size or (phase is not None and np.shape(phase) != p.shape[:1]):
            shape = None if phase is None else np.shape(phase)
            raise ValueError(
                f"video {i}: points must be (T, 2), T at least 1, and phases (T,), got {p.shape} and {shape}"
            )
    labels = phase_names(names, *phases)
    lines = min(lines, len(given))
    with paper_figure(COLUMN, 3.7) as figure:
        axes = figure.subplots()
        for i, (p, phase) in enumerate(zip(given, phases)):
            index = np.full(len(p), -1) if phase is None else np.asarray(phase)
            _draw_trajectory(axes, p, index, (*phase_colours(len(labels)), UNLABELLED), i < lines)
        axes.set(xlabel="dimension 1", ylabel="dimension 2", title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        drawn = "Lines: all videos." if lines == len(given) else f"Lines: {lines} of the {len(given)} videos."
        marks = [Line2D([], [], linestyle="none", label=label, **style) for label, style in ENDS.items()]
        unlabelled = has_unlabelled(*phases) or any(phase is None for phase in phases)
        phase_legend(figure, labels, unlabelled, marks if lines else (), f"{drawn} {caption}".strip())
    return figure


def _draw_trajectory(axes: Axes, points: NDArray, index: NDArray, colours: Sequence[str], line: bool) -> None:
    """Draws points coloured by phase, unlabelled ones smaller; `line` joins them from a ring to a square."""
    size, order = np.where(index < 0, 3, 8), np.argsort(index >= 0, kind="stable")  # labelled ones on top
    shades = [colours[i if i >= 0 else -1] for i in index[order]]
    x, y = points[order].T
    axes.scatter(x, y, s=size[order], c=shades, linewidths=0, zorder=2)
    if line:
        axes.plot(*points.T, color="#606060", linewidth=0.5, zorder=1)
        for end, style in zip((points[0], points[-1]), ENDS.values()):
            axes.plot(*end, **style, zorder=3)


# ----------------------------------------------------------------------------------------------------------------------
# The legend of all figures with phases.


def number_frames(axis: Axis) -> None:
    """Labels an axis with round, integer frame numbers."""
    axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def has_unlabelled(*phases: ArrayLike | None) -> bool:
    """Whether any frame has phase -1."""
    return any(p is not None and np.any(np.asarray(p) < 0) for p in phases)


def phase_legend(
    figure: Figure, names: Sequence[str], unlabelled: bool, marks: Sequence[Artist] = (), caption: str = ""
) -> None:
    """Adds a caption and a legend below, in as few rows as possible: phases, unlabelled frames, other marks."""
    handles: list[Artist] = [Patch(color=c, label=name) for name, c in zip(names, phase_colours(len(names)))]
    if unlabelled:
        handles.append(Patch(color=UNLABELLED, label="unlabelled"))
    handles.extend(marks)
    width = figure.get_size_inches()[0]
    if handles:
        columns = _legend_columns([str(handle.get_label()) for handle in handles], width)
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
    """Returns the most legend columns, filled downwards as matplotlib does, that fit `width` inches."""
    for count in range(len(labels), 1, -1):
        columns = np.array_split([len(label) for label in labels], count)
        if sum(max(column) * LETTER + 0.32 for column in columns) <= width:
            return count
    return 1


# ----------------------------------------------------------------------------------------------------------------------
# Figures with frames: views of a clip, retrieval.


def plot_views(
    views: Sequence[ArrayLike],
    indices: Sequence[ArrayLike],
    num_frames: int | None = None,
    shown: int = 8,
    title: str = "",
) -> Figure:
    """Draws augmented views of a clip as strips with frame numbers, and where in the video each was sampled.

    Args:
        views: One (T, H, W, 3) array per view, uint8 or float in [0, 1].
        indices: One array per view: (T,) positions of its frames in the video, 0-based.
        num_frames: Length of the video, in frames; by default up to the last sampled frame.
        shown: Number of frames per strip, evenly spaced over the view.
        title: Name of the video.
    """
    pairs = enumerate(zip(views, indices, strict=True))
    strips = [(as_images(frames, f"views[{n}]"), np.asarray(index)) for n, (frames, index) in pairs]
    for n, (frames, index) in enumerate(strips):
        if index.shape != frames.shape[:1]:
            raise ValueError(f"indices[{n}] must be ({len(frames)},), one per frame, got {index.shape}")
    shown = min(shown, *(len(index) for _, index in strips))
    height = PAGE / (shown + 0.5) * max(f.shape[1] / f.shape[2] for f, _ in strips)
    with paper_figure(PAGE, len(strips) * height + 1.2) as figure:
        figure.suptitle(title)
        grid = figure.add_gridspec(len(strips) + 1, shown, height_ratios=(*[height] * len(strips), 0.35))
        for row, (frames, index) in enumerate(strips):
            for column, t in enumerate(np.linspace(0, len(index) - 1, shown).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                show_image(axes, frames[t], f"{index[t]}")
                if column == 0:
                    axes.set_ylabel(f"view {row + 1}")
        _draw_positions(figure.add_subplot(grid[-1, :]), [index for _, index in strips], num_frames)
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
    """A query frame and the frames that were retrieved for it, nearest first.

    Attributes:
        query: (H, W, 3) uint8 query frame.
        query_caption: Its video and phase.
        frames: The retrieved frames.
        captions: Their videos and phases.
        right: Whether each has the query's phase; None if one of the two is unlabelled.
    """

    query: NDArray[np.uint8]
    query_caption: str
    frames: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]
    right: Sequence[bool | None]


# Colour and sign of a retrieved frame; the sign also serves colour-blind readers and black-and-white print.
MARKS = MappingProxyType({True: (RIGHT, " ✓"), False: (WRONG, " ✗"), None: (UNLABELLED, "")})
MEANINGS = MappingProxyType(
    {True: "✓ green: the query's phase", False: "✗ orange: another phase", None: "grey: unlabelled"}
)


def plot_retrieval(rows: Sequence[RetrievalRow], title: str = "") -> Figure:
    """Draws query frames and the nearest frames of other videos, marked green with a tick if right, orange if wrong.

    Raises:
        ValueError: if there is no query, or the rows do not fit on a page.
    """
    if not rows:
        raise ValueError("rows must have at least one query, got none")
    found = max(len(row.frames) for row in rows)
    # A picture is at most a quarter of the page wide; if rows are too tall, empty columns make it smaller.
    for columns in range(max(4, 1 + found), 20):
        words = [_captions(row, PAGE / columns - 0.02) for row in rows]
        heights = [_row_height(row, texts, PAGE / columns - 0.06) for row, texts in zip(rows, words)]
        height = sum(heights) + 0.25 + 0.25 * bool(title)
        if height <= TALLEST:
            break
    else:
        raise ValueError(f"{len(rows)} rows are {height:.1f} in tall, but a page has {TALLEST} in: draw fewer queries")
    with paper_figure(PAGE, height) as figure:
        figure.suptitle(title)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, row, texts in zip(grid, rows, words):
            for ax in axes[len(texts) :]:
                ax.set_axis_off()
            marks = [("black", ""), *(MARKS[right] for right in row.right)]
            for ax, frame, text, (colour, _) in zip(axes, (row.query, *row.frames), texts, marks, strict=False):
                show_image(ax, frame)
                ax.set_title(text, fontsize=7, pad=3)
                ax.spines[:].set(visible=ax is not axes[0], color=colour, linewidth=1.8)
        kinds = {right for row in rows for right in row.right}
        legend = "; ".join(text for right, text in MEANINGS.items() if right in kinds)
        set_caption(figure, f"Nearest first. {legend}.")
    return figure


def _row_height(row: RetrievalRow, texts: Sequence[str], cell: float) -> float:
    """Height in inches of a row whose pictures are `cell` inches wide."""
    ratio = max(picture.shape[0] / picture.shape[1] for picture in (row.query, *row.frames))
    return cell * ratio + LINE * (1 + texts[0].count("\n")) + 0.1


def _captions(row: RetrievalRow, width: float) -> list[str]:
    """Wraps the captions of a row to `width` inches, with equally many lines so that ranks align."""
    firsts = ["query", *(f"{rank}{MARKS[right][1]}" for rank, right in enumerate(row.right, start=1))]
    texts = [
        "\n".join((first, *(fit_words(line, width) for line in caption.split("\n"))))
        for first, caption in zip(firsts, (row.query_caption, *row.captions), strict=True)
    ]
    most = max(text.count("\n") for text in texts)
    return [text + "\n" * (most - text.count("\n")) for text in texts]
