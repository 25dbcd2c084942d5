"""Where the attention lies, in a figure: entities and heads beside the answers that look at no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mvf.plotting.curves import plot_message
from mvf.plotting.localization import TITLES, map_name, ordered
from mvf.plotting.style import PAGE, paper_figure, set_caption

CHANCE: Mapping[str, float] = MappingProxyType({"auroc": 0.5, "lift": 1.0})
GROUPS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "entity": ("entities", "#0072B2"),
        "head": ("CLS heads", "#D55E00"),
        "": ("controls without training or without image", "#7F7F7F"),
    }
)


def plot_localization(report: Mapping) -> Figure:
    """AUROC and lift of every map, and entity 1 minus the others: dots are means over videos, lines 95 % intervals.

    A good model has its entities to the right of all heads and of the mean training mask, and all differences to
    the right of zero. Reports without masks give a figure that says so.
    """
    found = report.get("localization")
    if not found:
        reason = (report.get("skipped") or {}).get("localization", "this report has no localization")
        return plot_message(f"Localization: {reason}")
    maps = [name for name in ordered(found) if name != "actor_mask"]  # its lift would squeeze all others together
    pairs = [pair for pair in report.get("localization_differences") or {} if pair.startswith("entity_1 - ")]
    differences = [report["localization_differences"][pair] for pair in pairs]
    heights = [len(maps) + 1.5] + ([len(pairs) + 1.5] if pairs else [])
    with paper_figure(PAGE, 0.9 + 0.17 * sum(heights)) as figure:
        grid = figure.subplots(len(heights), 2, sharey="row", squeeze=False, height_ratios=heights)
        colours = [_group(name)[1] for name in maps]
        names = [map_name(name, found[name], short=True) for name in maps]
        for axes, measure in zip(grid[0], TITLES):
            values = [(found[n].get(measure), (found[n].get("interval") or {}).get(measure)) for n in maps]
            _draw_rows(axes, values, colours, names, CHANCE[measure])
            axes.set_title(TITLES[measure])
        if pairs:
            others = [pair.removeprefix("entity_1 - ") for pair in pairs]
            names = [f"− {map_name(other, found.get(other, {}), short=True)}" for other in others]
            for axes, measure in zip(grid[1], TITLES):
                found_rows = [row.get(measure, {}) for row in differences]
                values = [(r.get("mean"), None if r.get("too_few") else r.get("interval")) for r in found_rows]
                _draw_rows(axes, values, [_group(other)[1] for other in others], names, 0.0)
                axes.set_title(f"entity 1 minus others, {TITLES[measure]}")
        _add_legend(figure, maps)
        set_caption(figure, _caption(report, differences))
    return figure


def _group(name: str) -> tuple[str, str]:
    return GROUPS.get(name.partition("_")[0], GROUPS[""])


def _draw_rows(
    axes: Axes,
    values: Sequence[tuple[float | None, Sequence[float] | None]],
    colours: Sequence[str],
    names: Sequence[str],
    chance: float,
) -> None:
    axes.axvline(chance, color="#404040", linestyle=(0, (1, 1.5)), linewidth=1.0, zorder=1)
    for place, ((mean, interval), colour) in enumerate(zip(values, colours)):
        if interval:
            axes.plot(interval, [place] * 2, color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        if mean is not None:
            axes.plot([mean], [place], "o", color=colour, markersize=3.5, zorder=3)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.06)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _add_legend(figure: Figure, maps: Sequence[str]) -> None:
    groups = dict.fromkeys(_group(name) for name in maps)
    handles = [Line2D([], [], color=colour, marker="o", markersize=3.5, label=label) for label, colour in groups]
    handles.append(
        Line2D([], [], color="#404040", linestyle=(0, (1, 1.5)), linewidth=1.0, label="chance, or no difference")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _caption(report: Mapping, differences: Sequence[Mapping]) -> str:
    area = report["localization"].get("area")
    videos = np.max([row["videos"] for by in differences for row in by.values() if "videos" in row], initial=0)
    counted = f" {videos:.0f} validation videos." if videos else ""
    covered = f" The actor covers {100 * area:.1f} % of the frame." if area is not None else ""
    few = any(row.get("too_few") for by in differences for row in by.values())
    few = " Too few videos to say: no intervals of differences." if few else ""
    return (
        "Means over videos with 95 % bootstrap intervals. Entity best, head best and untrained entity best are chosen "
        f"by AUROC on training videos; head oracles are the best head of each video by AUROC on its own mask. In "
        f"brackets the entity, the head, or layer.head.{counted}{covered}{few}"
    )
