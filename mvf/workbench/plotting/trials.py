"""Figures of repeated trials: a dot per trial, mean and spread, beside the clock and the paper's number."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mvf.workbench.plotting.style import GRID, LINE, PAGE, caption_lines, paper_figure, set_caption
from mvf.workbench.plotting.table import NOT_RUN, minus

RUN, PAPER, CLOCK, QUIET = "#0072B2", "#D55E00", "#7F7F7F", "#8C8C8C"


@dataclass(frozen=True)
class TrialPanel:
    """A panel with one metric of all rows.

    Attributes:
        title: Name of the metric.
        unit: Unit of its axis.
        values: For each row one value per trial, or None if it was not run.
        paper: For each row the mean and ± printed in the paper, or None.
        clock: Score of the clock alone, or None.
    """

    title: str
    unit: str
    values: tuple[tuple[float, ...] | None, ...]
    paper: tuple[tuple[float, float | None] | None, ...]
    clock: float | None = None


def plot_trials(
    panels: Sequence[tuple[str, Sequence[TrialPanel]]], rows: Sequence[str], title: str = "", caption: str = ""
) -> Figure:
    """Draws the trials of several rows: one line of panels for each kind of video, one panel per metric.

    Args:
        panels: Name and panels of each line.
        rows: Names of the rows.
        title: Printed above the figure.
        caption: Printed below it.

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
    axes.grid(axis="y", color=GRID, linewidth=0.6)
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
    """Draws a line, or an arrow with the number if the line would be far outside the axis."""
    low, high = axes.get_xlim()
    if low - (high - low) < clock < high + (high - low):
        axes.axvline(clock, color=CLOCK, linestyle=(0, (1, 1.5)), linewidth=1.2, label="clock alone", zorder=1)
        return
    arrow = "\u2190 clock alone {}" if clock < low else "clock alone {} \u2192"
    number = minus(f"{clock:.0f}" if abs(clock) >= 100 else f"{clock:.3g}")
    axes.set_xlabel(f"{axes.get_xlabel()}\n{arrow.format(number)}")


def _draw_trials(axes: Axes, place: int, values: tuple[float, ...]) -> None:
    mean = np.mean(values)
    if len(values) > 1:
        ends = mean + 2 * np.std(values, ddof=1) * np.array([-1, 1])
        axes.plot(ends, [place] * 2, color=RUN, linewidth=3, alpha=0.25, solid_capstyle="butt", label="mean ± 2 sd")
    axes.plot([mean] * 2, [place - 0.24, place + 0.24], color=RUN, linewidth=1.4)
    axes.plot(values, [place] * len(values), "o", color=RUN, markersize=3, alpha=0.85, label="a trial", zorder=4)


MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73")
MARKERS = ("o", "s", "^")
# line styles of the marks that apply to all models, in order
MARK_STYLES = ((0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (4, 2)))
MARK = "#595959"
ROW = 0.235  # inches
APART = 0.38  # rows: distance between the models of a row


@dataclass(frozen=True)
class StudyPanel:
    """A panel with one score on one data set.

    Attributes:
        title: Title of the panel.
        unit: Unit of its axis.
        values: For each model and row one value per trial, or None if it was not run.
        marks: By name, a value that applies to all models, or None.
        untrained: For each model its score before training, or None.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[Sequence[float] | None]]
    marks: Mapping[str, float | None]
    untrained: Mapping[str, float | None]


def plot_study(panels: Sequence[StudyPanel], groups: Mapping[str, Sequence[str]], caption: str = "") -> Figure:
    """Draws panels side by side, with the rows listed under the names of their groups.

    Args:
        panels: The panels, one per score.
        groups: Names of the rows by group name, in the order of the values.
        caption: Printed below the figure.

    Raises:
        ValueError: when a model does not have a value for each row.

    Example:
        >>> panel = StudyPanel("drawn videos", "accuracy, %", {"ours": [[44.0, 46.0], None]}, {"clock": 30.0}, {})
        >>> figure = plot_study([panel], {"no labels": ["first"], "labels": ["second"]})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['not run']
    """
    rows = [row for members in groups.values() for row in members]
    for panel in panels:
        for model, values in panel.values.items():
            if len(values) != len(rows):
                raise ValueError(
                    f"{panel.title}, {model}: values must have one entry per row, {len(rows)} in all, got {len(values)}"
                )
    places, ticks, names = _layout(groups)
    lines = caption_lines(caption, PAGE) if caption else 0
    with paper_figure(PAGE, 1.35 + ROW * len(ticks) + LINE * lines) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
            _draw_study_panel(axes, panel, places)
        first = figure.axes[0]
        first.set_yticks(ticks, names)
        first.set_ylim(max(ticks) + 0.6, -0.6)
        for name, label in zip(names, first.get_yticklabels()):
            if name in groups:
                label.set(fontweight="bold", color=MARK)
        handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles, loc="outside upper center", ncols=3)
        set_caption(figure, caption)
    return figure


def _layout(groups: Mapping[str, Sequence[str]]) -> tuple[list[int], list[int], list[str]]:
    """Returns positions of the rows, and positions and labels of all lines: a group's name, then its rows."""
    names = [name for group, members in groups.items() if members for name in (group, *members)]
    places = [i for i, name in enumerate(names) if name not in groups]
    return places, list(range(len(names))), names


def _draw_study_panel(axes: Axes, panel: StudyPanel, places: Sequence[int]) -> None:
    axes.set(title=panel.title, xlabel=panel.unit, xlim=_limits(panel))
    axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    count = len(panel.values)
    for i, (model, values) in enumerate(panel.values.items()):
        offset = (i - (count - 1) / 2) * APART
        _draw_model(axes, model, values, [place + offset for place in places], i)
        if (untrained := panel.untrained.get(model)) is not None:
            # dashes start where those of the other models end, so that coinciding lines stay visible
            dashes = (4 * i, (4, 4 * (count - 1))) if count > 1 else "-"
            axes.axvline(
                untrained, color=MODEL_COLOURS[i], linestyle=dashes, linewidth=0.9,
                label=f"{model}: untrained", zorder=1,
            )  # fmt: skip
    for (name, value), style in zip(panel.marks.items(), MARK_STYLES):
        if value is not None:
            axes.axvline(value, color=MARK, linestyle=style, linewidth=1.1, label=name, zorder=1)


def _draw_model(
    axes: Axes, model: str, values: Sequence[Sequence[float] | None], places: Sequence[float], i: int
) -> None:
    """Draws one dot per trial and a bar at the mean, or writes that a row was not run."""
    for place, trials in zip(places, values):
        if trials is None:
            axes.text(
                0.5, place, NOT_RUN, transform=axes.get_yaxis_transform(), color=MODEL_COLOURS[i], fontsize=6,
                ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        elif trials:
            ends = [place - APART / 2, place + APART / 2]
            axes.plot([np.mean(trials)] * 2, ends, color=MODEL_COLOURS[i], linewidth=1.6, zorder=3)
            axes.plot(
                trials, [place] * len(trials), MARKERS[i], color=MODEL_COLOURS[i], markersize=3, alpha=0.75,
                markeredgewidth=0, label=f"{model}: one run; bar: mean", zorder=4,
            )  # fmt: skip


def _limits(panel: StudyPanel) -> tuple[float, float] | None:
    """Limits of the axis: the range of everything drawn, with a margin."""
    trials = [value for values in panel.values.values() for row in values for value in row or ()]
    marks = [value for value in (*panel.marks.values(), *panel.untrained.values()) if value is not None]
    if not trials and not marks:
        return None
    low, high = min(*trials, *marks, np.inf), max(*trials, *marks, -np.inf)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
