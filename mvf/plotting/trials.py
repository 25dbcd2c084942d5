"""Trials of several rows: every one a dot, with mean and spread, beside the clock and the printed number."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mvf.plotting.style import PAGE, paper_figure, set_caption
from mvf.plotting.tables import NOT_RUN

RUN, PAPER, CLOCK, QUIET = "#0072B2", "#D55E00", "#7F7F7F", "#8C8C8C"


@dataclass(frozen=True)
class TrialPanel:
    """One metric of all rows.

    Attributes:
        title: Name of the metric.
        unit: Of its axis.
        values: By row, a value a trial; None for a row that was not run.
        paper: By row, printed mean and ±, or None.
        clock: What the clock alone reaches, or None.
    """

    title: str
    unit: str
    values: tuple[tuple[float, ...] | None, ...]
    paper: tuple[tuple[float, float | None] | None, ...]
    clock: float | None = None


def plot_trials(
    panels: Sequence[tuple[str, Sequence[TrialPanel]]], rows: Sequence[str], title: str = "", caption: str = ""
) -> Figure:
    """Small multiples: one line of panels for each kind of videos, one panel a metric, rows from top to bottom.

    Args:
        panels: Name of each line, and its panels.
        rows: Names of the rows.
        title: Above the figure.
        caption: Below it.

    Example:
        >>> panel = TrialPanel("Class.", "%", ((44.0, 46.0, 45.0), None), ((94.2, 0.04), None), clock=30.0)
        >>> figure = plot_trials([("whole videos", [panel])], ["ours", "theirs"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['not run']
    """
    width = max(len(line) for _, line in panels)
    inches = min(PAGE, 1.5 + 1.5 * width)
    height = 0.75 + len(panels) * (0.6 + 0.17 * max(len(rows), 5)) + 0.007 * len(caption) / inches
    title = textwrap.fill(title, int(16 * inches))
    height += 0.12 * title.count("\n")
    with paper_figure(inches, height) as figure:
        grid = figure.subplots(len(panels), width, sharey=True, squeeze=False)
        for (name, line), axes in zip(panels, grid):
            for axis, panel in zip(axes, line):
                _draw_panel(axis, panel)
            for axis in axes[len(line) :]:
                axis.set_visible(False)
            axes[0].set_ylabel(name, fontweight="bold")
        grid[0, 0].set_yticks(range(len(rows)), rows)
        grid[0, 0].set_ylim(len(rows) - 0.4, -0.6)
        handles = {label: handle for axis in grid.flat for handle, label in zip(*axis.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), title=title)
        set_caption(figure, caption)
    return figure


def _draw_panel(axes: Axes, panel: TrialPanel) -> None:
    axes.set(title=panel.title, xlabel=panel.unit)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.margins(x=0.12)
    for place, (values, paper) in enumerate(zip(panel.values, panel.paper)):
        if values is None:
            axes.text(
                0.5, place, NOT_RUN, transform=axes.get_yaxis_transform(), color=QUIET, fontsize=6, ha="center",
                va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        elif values:
            _draw_trials(axes, place, values)
        if paper:
            axes.errorbar(
                paper[0], place - 0.28, xerr=paper[1], color=PAPER, marker="D", markersize=3, markerfacecolor="white",
                linewidth=0.8, label="paper, mean ± 2 sd", zorder=3,
            )  # fmt: skip
    if panel.clock is not None:
        _draw_clock(axes, panel.clock)


def _draw_clock(axes: Axes, clock: float) -> None:
    """A line, or where that would squeeze the rows to nothing, an arrow with the number."""
    low, high = axes.get_xlim()
    if low - (high - low) < clock < high + (high - low):
        axes.axvline(clock, color=CLOCK, linestyle=(0, (1, 1.5)), linewidth=1.2, label="clock alone", zorder=1)
        return
    arrow = "\u2190 clock alone {}" if clock < low else "clock alone {} \u2192"
    number = f"{clock:.0f}" if abs(clock) >= 100 else f"{clock:.3g}"
    axes.set_xlabel(f"{axes.get_xlabel()}\n{arrow.format(number)}")


def _draw_trials(axes: Axes, place: int, values: tuple[float, ...]) -> None:
    mean = np.mean(values)
    if len(values) > 1:
        ends = mean + 2 * np.std(values, ddof=1) * np.array([-1, 1])
        axes.plot(ends, [place] * 2, color=RUN, linewidth=3, alpha=0.25, solid_capstyle="butt", label="mean ± 2 sd")
    axes.plot([mean] * 2, [place - 0.24, place + 0.24], color=RUN, linewidth=1.4)
    axes.plot(values, [place] * len(values), "o", color=RUN, markersize=3, alpha=0.85, label="a trial", zorder=4)
