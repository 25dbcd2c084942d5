"""A study: rows in groups, tried on several models, every trial a dot, beside what the controls score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mvf.plotting.style import LINE, PAGE, caption_lines, paper_figure, set_caption
from mvf.plotting.tables import NOT_RUN

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73")
MARKERS = ("o", "s", "^")
# of marks that hold for all models, in their order: dots, dashes and dots, dashes
MARK_STYLES = ((0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (4, 2)))
MARK = "#595959"
ROW = 0.235  # inches
APART = 0.38  # of the models of a row, in rows


@dataclass(frozen=True)
class StudyPanel:
    """One score on one data set.

    Attributes:
        title: Of the panel.
        unit: Of its axis.
        values: By model, then by row, a value a trial; None for a row that was not run.
        marks: By name, a value that holds for all models; None where there is none.
        untrained: By model, what it scores before training, or None.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[Sequence[float] | None]]
    marks: Mapping[str, float | None]
    untrained: Mapping[str, float | None]


def plot_study(panels: Sequence[StudyPanel], groups: Mapping[str, Sequence[str]], caption: str = "") -> Figure:
    """Panels side by side, rows from top to bottom under the name of their group.

    Args:
        panels: One a score.
        groups: Names of the rows by name of the group, in the order of the values.
        caption: Below the figure.

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
                    f"{panel.title}, {model}: one entry a row is wanted, {len(rows)} in all, got {len(values)}"
                )
    places, ticks, names = _layout(groups)
    lines = caption_lines(caption, PAGE) if caption else 0
    with paper_figure(PAGE, 1.35 + ROW * len(ticks) + LINE * lines) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
            _draw_panel(axes, panel, places)
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
    """Places of the rows, and places and names of all lines: a group's name, then its rows."""
    names = [name for group, members in groups.items() if members for name in (group, *members)]
    places = [i for i, name in enumerate(names) if name not in groups]
    return places, list(range(len(names))), names


def _draw_panel(axes: Axes, panel: StudyPanel, places: Sequence[int]) -> None:
    axes.set(title=panel.title, xlabel=panel.unit, xlim=_limits(panel))
    axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), color="#EEEEEE", linewidth=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    count = len(panel.values)
    for i, (model, values) in enumerate(panel.values.items()):
        offset = (i - (count - 1) / 2) * APART
        _draw_model(axes, model, values, np.add(places, offset), i)
        if panel.untrained.get(model) is not None:
            # dashes begin where those of the other models end: lines at one place are all seen
            dashes = (4 * i, (4, 4 * (count - 1))) if count > 1 else "-"
            axes.axvline(
                panel.untrained[model], color=MODEL_COLOURS[i], linestyle=dashes, linewidth=0.9,
                label=f"{model}: untrained", zorder=1,
            )  # fmt: skip
    for (name, value), style in zip(panel.marks.items(), MARK_STYLES):
        if value is not None:
            axes.axvline(value, color=MARK, linestyle=style, linewidth=1.1, label=name, zorder=1)


def _draw_model(axes: Axes, model: str, values: Sequence[Sequence[float] | None], places: ArrayLike, i: int) -> None:
    """A dot a trial and a bar at the mean; or that a row was not run."""
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
                markeredgewidth=0, label=f"{model}: a run, bar at the mean", zorder=4,
            )  # fmt: skip


def _limits(panel: StudyPanel) -> tuple[float, float] | None:
    """Ends of the axis: all that is drawn, and a margin."""
    trials = [value for values in panel.values.values() for row in values for value in row or ()]
    marks = [value for value in (*panel.marks.values(), *panel.untrained.values()) if value is not None]
    if not trials and not marks:
        return None
    low, high = min(*trials, *marks, np.inf), max(*trials, *marks, -np.inf)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
