"""Figures of embeddings: progression, similarity with an alignment path, phases over time, trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.style import (
    COLUMN,
    PAGE,
    UNLABELLED,
    draw_ribbon,
    paper_figure,
    phase_colours,
    phase_names,
    set_caption,
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


def alignment_path(similarity: ArrayLike) -> NDArray[np.int64]:
    """The best monotone alignment of two videos: dynamic time warping with 1 - similarity as cost.

    Both ends are matched, and a step moves on by one frame in either video or in both.

    Args:
        similarity: (Ta, Tb).

    Returns:
        (L, 2) pairs (frame of A, frame of B), from (0, 0) to (Ta - 1, Tb - 1).

    Example:
        >>> alignment_path(np.eye(3)[:, [0, 0, 1, 2]]).tolist()
        [[0, 0], [0, 1], [1, 2], [2, 3]]
    """
    cost = 1 - np.asarray(similarity, dtype=float)
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, row in enumerate(cost, start=1):
        reach = np.minimum(total[i - 1, :-1], total[i - 1, 1:])  # from the row above
        for j, value in enumerate(row, start=1):
            total[i, j] = value + min(reach[j - 1], total[i, j - 1])
    i, j = cost.shape
    path = [(i, j)]
    while (i, j) != (1, 1):
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda step: total[step])
        path.append((i, j))
    return np.array(path[::-1]) - 1


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
    with paper_figure(COLUMN, 2.1 * ratio + 0.9 + 0.15 * bool(labels)) as figure:
        axes = figure.subplots()
        image = axes.imshow(similarity, aspect="auto", cmap="viridis")
        if path is not None:
            steps = np.asarray(path)
            outline = [effects.Stroke(linewidth=2.4, foreground="black"), effects.Normal()]
            axes.plot(steps[:, 1], steps[:, 0], color="white", linewidth=1.2, path_effects=outline)
        axes.set(title=title)
        figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
        colours = phase_colours(len(labels))
        _side(axes, phases_a, similarity.shape[0], colours, True).set_ylabel(f"{names[0]} (frame)")
        _side(axes, phases_b, similarity.shape[1], colours, False).set_xlabel(f"{names[1]} (frame)")
        _phase_legend(figure, labels, _has_unlabelled(phases_a, phases_b))
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
    ticks = np.linspace(0, length - 1, 4).round().astype(int)
    side.set(**{"yticks" if vertical else "xticks": ticks})
    return side


def _has_unlabelled(*phases: ArrayLike | None) -> bool:
    return any(p is not None and np.any(np.asarray(p) < 0) for p in phases)


def _phase_legend(figure: Figure, names: Sequence[str], unlabelled: bool, where: str = "lower") -> None:
    handles = [Patch(color=colour, label=name) for name, colour in zip(names, phase_colours(len(names)))]
    if unlabelled:
        handles.append(Patch(color=UNLABELLED, label="unlabelled"))
    if handles:
        columns = 3 if figure.get_size_inches()[0] <= COLUMN else 6
        figure.legend(handles=handles, loc=f"outside {where} center", ncols=columns, handlelength=1)


def plot_phase_ribbons(
    predicted: ArrayLike, true: ArrayLike, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Predicted and true phase of every frame of a video, one ribbon above the other.

    Args:
        predicted: (T,) phases.
        true: (T,) phases, -1 = unlabelled.
        names: Names of the phases.
        title: Name of the video; the accuracy over its labelled frames is added.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(f"predicted and true must both be (T,), got {predicted.shape} and {true.shape}")
    names = phase_names(names, predicted, true)
    labelled = true >= 0
    accuracy = f"accuracy {np.mean(predicted[labelled] == true[labelled]):.3f}" if labelled.any() else "unlabelled"
    with paper_figure(PAGE, 1.35) as figure:
        axes = figure.subplots(2, 1, sharex=True)
        for ax, phases, text in zip(axes, (true, predicted), ("true", "predicted")):
            draw_ribbon(ax, phases, phase_colours(len(names)))
            ax.set_ylabel(text, rotation=0, ha="right", va="center")
        axes[1].set_xticks(np.linspace(0, len(true) - 1, 6).round().astype(int))
        axes[1].set_xlabel("frame")
        axes[0].tick_params(bottom=False)
        axes[0].set_title(f"{title}: {accuracy}" if title else accuracy)
        _phase_legend(figure, names, _has_unlabelled(true, predicted))
    return figure


def plot_embeddings(
    points: Sequence[ArrayLike],
    phases: Sequence[ArrayLike | None] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Frames in two dimensions, coloured by phase, each video joined by its trajectory.

    Args:
        points: One (T, 2) array a video.
        phases: One (T,) array (-1 = unlabelled) or None a video.
        names: Names of the phases.
        title: Printed above.
        caption: How the two dimensions were made, such as "first two principal components".
    """
    points = [np.asarray(p) for p in points]
    phases = list(phases) if phases is not None else [None] * len(points)
    for i, (p, phase) in enumerate(zip(points, phases, strict=True)):
        if p.ndim != 2 or p.shape[1] != 2 or (phase is not None and np.shape(phase) != p.shape[:1]):
            shape = None if phase is None else np.shape(phase)
            raise ValueError(f"video {i}: points must be (T, 2) and phases (T,), got {p.shape} and {shape}")
    labels = phase_names(names, *phases)
    colours = (*phase_colours(len(labels)), UNLABELLED)
    with paper_figure(COLUMN, 3.2) as figure:
        axes = figure.subplots()
        for p, phase in zip(points, phases):
            index = np.full(len(p), -1) if phase is None else np.asarray(phase)
            axes.plot(*p.T, color="#9A9A9A", linewidth=0.5, zorder=1)
            axes.scatter(*p.T, s=7, c=[colours[i if i >= 0 else -1] for i in index], linewidths=0, zorder=2)
            axes.plot(
                *p[0], "o", markersize=6, markerfacecolor="none", markeredgecolor="black", markeredgewidth=0.8, zorder=3
            )
        axes.set(xlabel="dimension 1", ylabel="dimension 2", title=title, xticks=[], yticks=[])
        set_caption(figure, f"Lines: videos, from the ringed first frame.{' ' + caption if caption else ''}")
        _phase_legend(figure, labels, _has_unlabelled(*phases), where="upper")
    return figure
