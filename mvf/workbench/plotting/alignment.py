"""Figures of alignment: corresponding frames, and phases transferred from one video to others."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.plotting.probe import has_unlabelled, number_frames, phase_legend
from mvf.workbench.plotting.style import (
    PAGE,
    UNLABELLED,
    as_images,
    fit_words,
    paper_figure,
    phase_colours,
    phase_names,
    set_caption,
    short_label,
    show_image,
)

TRUTH = "#D55E00"
MATRIX = 2.1  # inches: height of the matrix in `plot_alignment`
ROW = 0.17  # inches per video in `plot_transfer`
ROWS = 26  # videos per column


def plot_alignment(
    frames_a: ArrayLike,
    frames_b: ArrayLike,
    alignment: ArrayLike,
    similarity: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    names: Sequence[str] = ("video A", "video B"),
    shown: int = 8,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draws the alignment path of videos A and B, and frames of A above the frames of B aligned with them.

    Time runs to the right everywhere, and every frame of A is drawn below its position on the time axis.

    Args:
        frames_a: (Ta, H, W, 3) uint8 or float in [0, 1].
        frames_b: (Tb, H, W, 3), likewise.
        alignment: (Ta,) frame of B for every frame of A, or (L, 2) pairs as `mvf.alignment.alignment_path` returns.
        similarity: (Ta, Tb), drawn behind the path.
        truth: (Ta,) correct frame of B, possibly between two frames, NaN where there is none. It is drawn dashed, and
            the error is written below each pair.
        names: Names of the two videos.
        shown: Number of pairs, evenly spaced over A.
        title: Printed above the figure.
        caption: Printed below it, such as the method and the model.
    """
    frames_a, frames_b = as_images(frames_a, "frames_a"), as_images(frames_b, "frames_b")
    path, partner = _path_and_partners(alignment, len(frames_a), len(frames_b))
    truth = _checked(truth, (len(frames_a),), "truth", "one per frame of A")
    similarity = _checked(similarity, (len(frames_a), len(frames_b)), "similarity", "(Ta, Tb)")
    edges = np.linspace(0, len(frames_a), min(shown, len(frames_a)) + 1)
    chosen = ((edges[:-1] + edges[1:] - 1) / 2).round().astype(int)
    heights = [PAGE * 0.88 / len(chosen) * f.shape[1] / f.shape[2] for f in (frames_a, frames_b)]
    with paper_figure(PAGE, MATRIX + sum(heights) + 0.55 + 0.2 * bool(title) + 0.25 * bool(caption)) as figure:
        figure.suptitle(title)
        grid = figure.add_gridspec(3, len(chosen), height_ratios=(MATRIX, *(h + 0.2 for h in heights)))
        _draw_path(figure.add_subplot(grid[0, :]), path, similarity, truth, names, chosen)
        for column, t in enumerate(chosen):
            pair = (frames_a[t], frames_b[partner[t]])
            for row, (picture, number) in enumerate(zip(pair, (t, partner[t]))):
                axes = figure.add_subplot(grid[row + 1, column])
                show_image(axes, picture, f"{number}")
                if column == 0:
                    axes.set_ylabel("AB"[row], rotation=0, ha="right", va="center")
            if truth is not None:
                error = abs(partner[t] - truth[t])
                axes.set_xlabel("no partner" if np.isnan(error) else f"off by {error:.0f}", labelpad=2)
        set_caption(figure, caption)
    return figure


def plot_transfer(
    transferred: Sequence[ArrayLike],
    true: Sequence[ArrayLike] | None = None,
    names: Sequence[str] | None = None,
    phase_labels: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draws phases transferred to many videos: the true ribbon of each above the transferred one, and the accuracy.

    Args:
        transferred: One (T,) array of phases per video, -1 = unlabelled.
        true: The true phases in the same form; None draws only the transferred ribbons.
        names: Short names of the videos.
        phase_labels: Names of the phases.
        title: Printed above the figure, with the accuracy over all labelled frames.
        caption: Printed below it, such as the labelled clip, the method and the model.
    """
    given = [np.asarray(phases) for phases in transferred]
    if not given:
        raise ValueError("transferred must contain the phases of at least one video, got none")
    truths = [None] * len(given) if true is None else [np.asarray(phases) for phases in true]
    names = [f"video {i + 1}" for i in range(len(given))] if names is None else list(names)
    if len(truths) != len(given) or len(names) != len(given):
        raise ValueError(f"{len(given)} videos are transferred, but true has {len(truths)}, names {len(names)}")
    for name, got, phases in zip(names, given, truths):
        if got.ndim != 1 or phases is not None and phases.shape != got.shape:
            shape = None if phases is None else phases.shape
            raise ValueError(f"{name}: phases must be (T,), got {got.shape} and true {shape}")
    labels = phase_names(phase_labels, *given, *truths)
    columns = -(-len(names) // ROWS)
    rows = -(-len(names) // columns)
    accuracy = transferred_accuracy(given, truths)
    above = "" if accuracy is None else f"accuracy {accuracy:.3f} over labelled frames"
    below = "" if true is None else "Upper half of each ribbon: true; lower half: transferred; right: accuracy."
    with paper_figure(PAGE, rows * ROW + 1.25) as figure:
        figure.suptitle(": ".join(filter(None, (title, above))))
        grid = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
        for k, axes in enumerate(grid):
            part = slice(k * rows, (k + 1) * rows)
            _draw_ribbons(axes, given[part], truths[part], names[part], labels, rows)
        words = " ".join(filter(None, (below, caption)))
        phase_legend(figure, labels, has_unlabelled(*given, *truths), caption=words)
    return figure


def _path_and_partners(alignment: ArrayLike, length_a: int, length_b: int) -> tuple[NDArray, NDArray]:
    """Returns the (L, 2) pairs to draw, and the middle partner of every frame of A."""
    alignment = np.asarray(alignment)
    is_path = alignment.ndim == 2 and alignment.shape[1:] == (2,)
    if not (is_path or alignment.shape == (length_a,)) or alignment.dtype.kind not in "iu":
        raise ValueError(
            f"alignment must be integers, ({length_a},) frames of B or (L, 2) pairs, "
            f"got {alignment.shape} {alignment.dtype}"
        )
    path = alignment if is_path else np.column_stack([np.arange(length_a), alignment])
    if path.min(initial=0) < 0 or (path >= (length_a, length_b)).any():
        raise ValueError(f"alignment must stay within {length_a} and {length_b} frames, got up to {path.max(axis=0)}")
    if len(missing := np.setdiff1d(np.arange(length_a), path[:, 0])):
        raise ValueError(f"alignment must have a partner for every frame of A, but frame {missing[0]} has none")
    partners = (np.sort(path[path[:, 0] == t, 1]) for t in range(length_a))
    return path, np.array([found[(len(found) - 1) // 2] for found in partners])


def _checked(array: ArrayLike | None, shape: tuple[int, ...], name: str, meaning: str) -> NDArray | None:
    if array is not None and np.shape(array) != shape:
        raise ValueError(f"{name} must be {shape}, {meaning}, got {np.shape(array)}")
    return None if array is None else np.asarray(array, dtype=float)


def _draw_path(
    axes: Axes,
    path: NDArray,
    similarity: NDArray | None,
    truth: NDArray | None,
    names: Sequence[str],
    chosen: NDArray,
) -> None:
    """Draws the path, with the time of A to the right and that of B upwards."""
    dark = similarity is not None
    if similarity is not None:
        image = axes.imshow(similarity.T, aspect="auto", origin="lower", cmap="viridis")
        axes.figure.colorbar(image, ax=axes, label="similarity", pad=0.01)
    outline = [effects.Stroke(linewidth=2.6, foreground="black"), effects.Normal()] if dark else []
    axes.plot(*path.T, color="white" if dark else "C0", linewidth=1.4, path_effects=outline, label="aligned")
    if truth is not None:
        axes.plot(truth, color=TRUTH, linestyle=(0, (3, 1.5)), linewidth=1.6, label="true")
        background = {"frameon": True, "facecolor": "#BFBFBF", "framealpha": 0.9} if dark else {}
        axes.legend(loc="upper left", **background)
    for t in chosen:
        axes.axvline(t, color="white" if dark else "#BFBFBF", linewidth=0.4, alpha=0.6, zorder=1)
    axes.set_xlabel(f"A: {short_label(names[0])} (frame)")
    axes.set_ylabel(fit_words(f"B: {short_label(names[1])} (frame)", MATRIX))
    axes.set(xlim=(-0.5, chosen[-1] + chosen[0] + 0.5))
    number_frames(axes.xaxis)
    number_frames(axes.yaxis)


def transferred_accuracy(transferred: Sequence[NDArray], true: Sequence[NDArray | None]) -> float | None:
    """Share of all labelled frames whose transferred phase is the true one; None without labelled frames."""
    pairs = [(got[phases >= 0], phases[phases >= 0]) for got, phases in zip(transferred, true) if phases is not None]
    right = [got == phases for got, phases in pairs if len(phases)]
    return float(np.concatenate(right).mean()) if right else None


def _draw_ribbons(
    axes: Axes,
    transferred: Sequence[NDArray],
    true: Sequence[NDArray | None],
    names: Sequence[str],
    labels: Sequence[str],
    rows: int,
) -> None:
    """Draws the ribbons of one column as one picture: per video two true rows, two transferred rows, one empty row."""
    colours = (*phase_colours(len(labels)), UNLABELLED)  # phase -1 indexes the last colour
    table = np.array([mpl.colors.to_rgb(colour) for colour in colours])
    cells = np.ones((5 * rows, max(map(len, transferred)), 3))
    for i, (got, phases) in enumerate(zip(transferred, true)):
        upper = got if phases is None else phases
        for line, ribbon in ((0, upper), (1, upper), (2, got), (3, got)):
            cells[5 * i + line, : len(got)] = table[np.maximum(ribbon, -1)]
        if (accuracy := transferred_accuracy([got], [phases])) is not None:
            axes.text(len(got), 5 * i + 1.5, f" {accuracy:.2f}", va="center", fontsize=6)
    axes.imshow(cells, aspect="auto")
    number_frames(axes.xaxis)
    axes.set(xlabel="frame", yticks=5 * np.arange(len(names)) + 1.5, yticklabels=[short_label(name) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=6)
    axes.spines[["left"]].set_visible(False)
