"""Table and figure of knock-outs: how scores change when something is removed from the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvf.workbench.plotting.scores import (
    GROUPS,
    SCORES,
    UNITS,
    below_mean,
    plot_message,
    present,
    score_cell,
    skipped_lines,
)
from mvf.workbench.plotting.style import GRID, OKABE_ITO, PAGE, paper_figure, set_caption
from mvf.workbench.plotting.table import MISSING, Table, cell, minus

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "nothing": "nothing removed",
        "without_actor": "actor's patches",
        "without_random_background": "as many background patches",
        "without_strongest_background": "as attended background",
        "without_background": "background's patches",
        "position_only": "all pixels (the clock)",
    }
)
TOO_FEW = "too few validation videos of an action to tell a change from chance"
LOWER, HIGHER, UNCLEAR = OKABE_ITO[5], OKABE_ITO[0], "#7F7F7F"
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        LOWER: " Orange: lower, and the bar excludes 0.",
        HIGHER: " Blue: higher, and the bar excludes 0.",
        UNCLEAR: " Grey: no change shown.",
    }
)
LOWEST = -0.6  # an R² far below this would squeeze the rest of its column


def knock_out_name(name: str) -> str:
    """Describes what was removed.

    Example:
        >>> knock_out_name("without_entity_1"), knock_out_name("only_entity_2"), knock_out_name("without_actor")
        ('entity 1', 'all but entity 2', "actor's patches")
    """
    words = name.replace("without_", "").replace("only_", "all but ").replace("_", " ")
    return NAMES.get(name, words)


def knockouts_table(result: Mapping, group: str = "cropped") -> Table:
    """Tabulates scores by what was removed, each with its change and the change's 95 % interval.

    Args:
        result: What `mvf.evaluation.knockouts.knock_outs` returns.
        group: "cropped" for windows or "whole" for videos.

    Example:
        >>> found = {"scores": {"nothing": {"whole": {"kendall_tau": 0.9}}}}
        >>> print(knockouts_table(found, "whole"))
        Knock-outs, whole videos
        <BLANKLINE>
        | removed         | Kendall's tau |
        | --------------- | ------------: |
        | nothing removed |         0.900 |
    """
    rows_of = {name: groups[group] for name, groups in (result.get("scores") or {}).items() if group in groups}
    scores, masses = present(SCORES, rows_of.values()), result.get("mass") or {}
    rows = []
    for name, values in rows_of.items():
        changes = (result.get("differences") or {}).get(name, {}).get(group, {})
        mass = [" / ".join(f"{100 * share:.0f}" for share in masses.get(name, ())) or MISSING] if masses else []
        rows.append((knock_out_name(name), *mass, *(_cell(s, values.get(s), changes.get(s)) for s in scores)))
    notes = [_amount(result, name) for name in result.get("removed") or {}]
    changes = (by_group.get(group, {}) for by_group in (result.get("differences") or {}).values())
    if any(not _is_tested(change) for by_score in changes for change in by_score.values()):
        notes.append(f"?: {TOO_FEW}")
    notes += skipped_lines(result)
    columns = ("removed", *(["% of attention, by entity"] if masses else []), *(SCORES[score] for score in scores))
    return Table(tuple(rows), columns, f"Knock-outs, {GROUPS[group]}", tuple(notes), strong=(0,) if rows else ())


def _cell(score: str, value: float | None, change: Mapping | None) -> str:
    if value is None or change is None or below_mean(score, value):
        return score_cell(score, value)
    interval = "" if change["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*change["interval"])
    return f"{value:.3f} ({change['mean']:+.3f}{interval}{'' if _is_tested(change) else ' ?'})"


def _is_tested(change: Mapping) -> bool:
    """Whether enough videos went into the interval to say that it excludes 0."""
    return change["interval"] is not None and not change.get("too_few", False)


def _amount(result: Mapping, name: str) -> str:
    """Says how many patches were removed."""
    lost, reached = ((result.get(key) or {}).get(name) for key in ("blank", "reached"))
    text = f"{knock_out_name(name)}: {100 * result['removed'][name]:.1f} % of the patches"
    if reached is not None and name != "without_actor":
        text += f", which get {100 * reached:.0f} % as much attention as the actor's"
    return text + (f", {100 * lost:.1f} % of the frames left without any" if lost else "")


def plot_knockouts(result: Mapping, scores: Sequence[str] = tuple(SCORES)[:4]) -> Figure:
    """Draws how much every score changes when something is removed, with paired 95 % intervals.

    Args:
        result: What `mvf.evaluation.knockouts.knock_outs` returns.
        scores: The scores to draw, one column each.
    """
    changes = result.get("differences") or {}
    groups = [group for group in GROUPS if any(group in by_group for by_group in changes.values())]
    scores = present(scores, [values for by_group in changes.values() for values in by_group.values()])
    if not scores:
        return plot_message("No knock-out to show: " + "; ".join(skipped_lines(result)))
    with paper_figure(PAGE, 0.8 + (0.17 * len(changes) + 0.2) * len(groups)) as figure:
        grid = figure.subplots(len(groups), len(scores), sharex="col", sharey=True, squeeze=False)
        grid[0, 0].set_yticks(range(len(changes)), [knock_out_name(name) for name in changes])
        grid[0, 0].set_ylim(len(changes) - 0.4, -0.6)
        for row, group in zip(grid, groups):
            row[0].set_ylabel(GROUPS[group].replace(" ", "\n"), fontweight="bold", fontsize=7)
            for axes, score in zip(row, scores):
                kept = result["scores"]["nothing"].get(group, {}).get(score)
                _draw(axes, [by_group.get(group, {}).get(score) for by_group in changes.values()])
                heading = f"{SCORES[score]}\n" if group == groups[0] else ""
                axes.set_title(minus(f"{heading}from {cell(kept)}"), fontsize=7, pad=3)
            row[0].text(-0.03, 1.02, "removed:", transform=row[0].transAxes, ha="right", fontsize=7, style="italic")
        for axes, score in zip(grid[-1], scores):
            axes.set_xlabel(f"Δ {UNITS.get(score, 'share')}", labelpad=1)
        found = (by_group.get(g, {}).get(s) for by_group in changes.values() for g in groups for s in scores)
        drawn = [change for change in found if change]
        colours = set(map(_colour, drawn))
        words = "".join(text for colour, text in MEANINGS.items() if colour in colours)
        words += f" A triangle points to changes beyond ±{-LOWEST:g}." if any(map(_is_cut, drawn)) else ""
        words += "" if all(map(_is_tested, drawn)) else f" Hollow: {TOO_FEW}."
        set_caption(
            figure,
            "Score with this removed minus score with nothing removed (above each panel); bars: paired 95 % bootstrap "
            f"intervals over videos.{words}",
        )
    return figure


def _draw(axes: Axes, changes: Sequence[Mapping | None]) -> None:
    axes.axvline(0, color="#7F7F7F", linestyle=(0, (3, 2)), linewidth=0.8, zorder=1)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for y, change in enumerate(changes):
        if change is None:
            continue
        low, high = change["interval"] or (change["mean"], change["mean"])
        colour = _colour(change)
        marker = ("<" if change["mean"] < 0 else ">") if _is_cut(change) else "o"
        axes.plot([_shown(low), _shown(high)], [y, y], color=colour, linewidth=1)
        face = colour if _is_tested(change) else "white"
        axes.plot(_shown(change["mean"]), y, marker, color=colour, markersize=3.5, markerfacecolor=face)


def _colour(change: Mapping) -> str:
    low, high = change["interval"] if _is_tested(change) else (0, 0)
    return LOWER if high < 0 else HIGHER if low > 0 else UNCLEAR


def _shown(value: float) -> float:
    return min(max(value, LOWEST), -LOWEST)


def _is_cut(change: Mapping) -> bool:
    return abs(change["mean"]) > -LOWEST
