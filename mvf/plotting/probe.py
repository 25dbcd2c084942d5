"""Figures of embeddings: progression, similarity with an alignment path, trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.phases import has_unlabelled, number_frames, phase_legend
from mvf.plotting.style import (
    COLUMN,
    PAGE,
    UNLABELLED,
    draw_ribbon,
    paper_figure,
    phase_colours,
    phase_names,
)

ENDS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "start": {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "black"},
        "end": {"marker": "s", "markersize": 4, "markerfacecolor": "black", "markeredgecolor": "white"},
    }
)


def plot_progression(
    predicted: ArrayLike, true: ArrayLike, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Progression of one video over time: time since the end of each phase, predicted against true.

    Args:
        predicted: (T, K) in video lengths, one column a phase boundary.
        true: (T, K), NaN where there is no target.
        names: K names of the boundaries.
        title: Name of the video.
    """
    predicted, true = np.asarray(predicted, dtype=float), np.asarray(true, dtype=float)
    if predicted.ndim != 2 or predicted.shape != true.shape:
        raise ValueError(f"predicted and true must both be (T, K), got {predicted.shape} and {true.shape}")
    names = list(names) if names is not None else [f"end of phase {i}" for i in range(true.shape[1])]
    if len(names) != true.shape[1]:
        raise ValueError(f"names must have {true.shape[1]} entries, one a boundary, got {len(names)}")
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
    """Cosine similarity of every frame of video A (rows) to every frame of video B, with an alignment path.

    Args:
        similarity: (Ta, Tb).
        path: (L, 2) pairs (frame of A, frame of B).
        phases_a: (Ta,) phases, -1 = unlabelled: drawn as a ribbon beside the matrix; `phases_b` below it.
        names: The two videos.
        phase_labels: Names of the phases.
        title: Printed above.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2:
        raise ValueError(f"similarity must be (Ta, Tb), got {similarity.shape}")
    ratio = np.clip(similarity.shape[0] / similarity.shape[1], 0.4, 1.6)
    labels = phase_names(phase_labels, phases_a, phases_b)
    outline = [effects.Stroke(linewidth=2.4, foreground="black"), effects.Normal()]
    line = {"color": "white", "linewidth": 1.2, "path_effects": outline}
    with paper_figure(COLUMN, 2.1 * ratio + 0.9 + 0.15 * bool(labels)) as figure:
        axes = figure.subplots()
        image = axes.imshow(similarity, aspect="auto", cmap="viridis")
        if path is not None:
            steps = np.asarray(path)
            axes.plot(steps[:, 1], steps[:, 0], **line)
        axes.set(title=title)
        figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
        colours = phase_colours(len(labels))
        _side(axes, phases_a, similarity.shape[0], colours, True).set_ylabel(f"{names[0]} (frame)")
        _side(axes, phases_b, similarity.shape[1], colours, False).set_xlabel(f"{names[1]} (frame)")
        marks = [] if path is None else [Line2D([], [], label="alignment", **line)]
        phase_legend(figure, labels, has_unlabelled(phases_a, phases_b), marks)
    return figure


def _side(axes: Axes, phases: ArrayLike | None, length: int, colours: Sequence[str], vertical: bool) -> Axes:
    """Numbers the frames along one side of the matrix, outside a ribbon of phases where there is one."""
    if phases is not None and np.shape(phases) != (length,):
        raise ValueError(f"phases must be ({length},), one a frame of the similarity matrix, got {np.shape(phases)}")
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
    """Frames in two dimensions, coloured by phase, the first videos joined by their trajectories.

    Args:
        points: One (T, 2) array a video.
        phases: One (T,) array (-1 = unlabelled) or None a video.
        names: Names of the phases.
        title: Printed above.
        caption: How the two dimensions were made, such as "first two principal components".
        lines: Trajectories drawn, of the first videos: more than a few hide one another.
    """
    points = [np.asarray(p) for p in points]
    phases = list(phases) if phases is not None else [None] * len(points)
    for i, (p, phase) in enumerate(zip(points, phases, strict=True)):
        if p.ndim != 2 or p.shape[1] != 2 or not p.size or (phase is not None and np.shape(phase) != p.shape[:1]):
            shape = None if phase is None else np.shape(phase)
            raise ValueError(
                f"video {i}: points must be (T, 2), T at least 1, and phases (T,), got {p.shape} and {shape}"
            )
    labels = phase_names(names, *phases)
    lines = min(lines, len(points))
    with paper_figure(COLUMN, 3.7) as figure:
        axes = figure.subplots()
        for i, (p, phase) in enumerate(zip(points, phases)):
            index = np.full(len(p), -1) if phase is None else np.asarray(phase)
            _draw_trajectory(axes, p, index, (*phase_colours(len(labels)), UNLABELLED), i < lines)
        axes.set(xlabel="dimension 1", ylabel="dimension 2", title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        drawn = f"Lines: {'all' if lines == len(points) else f'{lines} of the'} {len(points)} videos."
        marks = [Line2D([], [], linestyle="none", label=label, **style) for label, style in ENDS.items()]
        unlabelled = has_unlabelled(*phases) or any(phase is None for phase in phases)
        phase_legend(figure, labels, unlabelled, marks if lines else (), f"{drawn} {caption}".strip())
    return figure


def _draw_trajectory(axes: Axes, points: NDArray, index: NDArray, colours: Sequence[str], line: bool) -> None:
    """Points by phase, unlabelled ones smaller; where wanted joined by a line from a ring to a square."""
    size, order = np.where(index < 0, 3, 8), np.argsort(index >= 0, kind="stable")  # labelled ones on top
    shades = [colours[i if i >= 0 else -1] for i in index[order]]
    axes.scatter(*points[order].T, s=size[order], c=shades, linewidths=0, zorder=2)
    if line:
        axes.plot(*points.T, color="#606060", linewidth=0.5, zorder=1)
        for end, style in zip((points[0], points[-1]), ENDS.values()):
            axes.plot(*end, **style, zorder=3)
