"""Tables and figures of localization: entities and heads beside baselines, some of which use no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mvf.workbench.plotting.scores import control_name, plot_message, present, score_words
from mvf.workbench.plotting.style import GRID, PAGE, paper_figure, set_caption
from mvf.workbench.plotting.table import MISSING, Table, cell

# Entities, then the baselines that a model must beat, then those that use no image.
MAPS = (
    "entity_best", "head_best", "head_oracle", "head_best_any_layer", "head_oracle_any_layer", "untrained_entity_best",
    "backbone_pca", "mean_training_mask", "centre", "uniform", "actor_mask",
)  # fmt: skip
MEASURES = (
    "auroc", "lift", "average_precision", "mass", "pointing", "jaccard", "jaccard_size", "limbs", "object_auroc",
    "object_lift",
)  # fmt: skip
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "head_best": "head best, last layer",
        "head_oracle": "head oracle by AUROC, last layer",
        "head_best_any_layer": "head best, any layer",
        "head_oracle_any_layer": "head oracle by AUROC, any layer",
        "backbone_pca": "backbone PCA",
        "actor_mask": "the region itself",
    }
)
TITLES: Mapping[str, str] = MappingProxyType({"auroc": "AUROC", "lift": "lift"})
WITH_ENDS = (*TITLES, "limbs")


def localization_table(report: Mapping) -> Table:
    """Tabulates how well attention maps find the actor: entities and heads beside baselines, some without an image.

    The measures, which `GLOSSARY` explains, are means over videos; AUROC, lift and limbs have 95 % bootstrap intervals.

    Example:
        >>> print(localization_table({"localization": {"entity_1": {"auroc": 0.9, "lift": 4.0}, "area": 0.1}}))
        Localization (the region covers 10.0 % of the frame; chance: AUROC 0.5, lift 1)
        <BLANKLINE>
        | map      | AUROC |  lift |
        | -------- | ----: | ----: |
        | entity 1 | 0.900 | 4.000 |
    """
    found = report.get("localization") or {}
    maps = {name: found[name] for name in (*ordered(found), "background") if name in found}
    measures = present(MEASURES, maps.values())
    rows = tuple((map_name(name, row), *(_cell(row, m) for m in measures)) for name, row in maps.items())
    area = f"the region covers {found['area']:.1%} of the frame; ".replace("%", " %") if "area" in found else ""
    intervals = "; [95 % over videos]" if any(row.get("interval") for row in maps.values()) else ""
    caption = f"Localization ({area}chance: AUROC 0.5, lift 1{intervals})"
    strong = tuple(i for i, name in enumerate(maps) if name.startswith("entity_"))
    return Table(rows, ("map", *(score_words(m).replace("_", " ") for m in measures)), caption, _notes(report), strong)


def localization_differences_table(report: Mapping) -> Table:
    """Tabulates entity 1, and the entity chosen on training videos, minus the other maps, paired over videos.

    Example:
        >>> row = {"mean": 0.1, "interval": [0.05, 0.15], "videos": 9}
        >>> print(localization_differences_table({"localization_differences": {"entity_1 - centre": {"auroc": row}}}))
        Localization: paired differences over videos [95 %]
        <BLANKLINE>
        | difference        | AUROC               | lift | videos |
        | ----------------- | ------------------- | ---- | -----: |
        | entity 1 − centre | +0.100 [.050, .150] | –    |      9 |
    """
    rows, few = [], False
    for pair, measures in (report.get("localization_differences") or {}).items():
        cells = [_signed(measures.get(measure)) for measure in TITLES]
        few |= any(row.get("too_few") for row in measures.values())
        videos = max((row.get("videos", 0) for row in measures.values()), default=0)
        rows.append((" − ".join(map(map_name, pair.split(" - "))), *cells, str(videos) if videos else MISSING))
    columns = ("difference", *TITLES.values(), "videos")
    notes = ("No interval: there are too few videos.",) if few else ()
    return Table(tuple(rows), columns, "Localization: paired differences over videos [95 %]", notes)


def attention_table(report: Mapping) -> Table:
    """Tabulates measures that need no mask for entities and for the head chosen on training videos.

    All, explained in `GLOSSARY`, are means over videos with 95 % intervals.

    Example:
        >>> found = {"overlap": [[1.0, 0.25], [0.25, 1.0]], "entropy": {"entity_1": 0.5, "entity_2": 0.75}}
        >>> print(attention_table({"attention": found | {"videos": 9}}))
        Attention without masks: means over 9 videos
        <BLANKLINE>
        | map      | overlap with entity 1 | overlap with entity 2 | entropy |
        | -------- | --------------------: | --------------------: | ------: |
        | entity 1 |                     – |                 0.250 |   0.500 |
        | entity 2 |                 0.250 |                     – |   0.750 |
    """
    found = report.get("attention") or {}
    interval, overlap = found.get("interval") or {}, found.get("overlap") or []
    kinds = [kind for kind in ("steadiness", "entropy", "effective_share") if found.get(kind)]
    known = dict.fromkeys([f"entity_{i + 1}" for i in range(len(overlap))])
    known |= dict.fromkeys(name for kind in kinds for name in found[kind] if name.startswith("entity_"))
    head = f"head_{((report.get('localization') or {}).get('head_best') or {}).get('index')}"
    names = [*known, *([head] if any(head in found[kind] for kind in kinds) else [])]
    ends = interval.get("overlap")
    rows = []
    for i, name in enumerate(names):
        shared = [MISSING if i == j or i >= len(overlap) else _with_ends(overlap[i][j], ends and ends[i][j])
                  for j in range(len(overlap))]  # fmt: skip
        alone = [_with_ends(found[kind].get(name), interval.get(kind, {}).get(name)) for kind in kinds]
        words = name.replace("_", " ") + (", last layer, chosen on training videos" if name == head else "")
        rows.append((words, *shared, *alone))
    columns = (
        "map",
        *(f"overlap with entity {j + 1}" for j in range(len(overlap))),
        *(k.replace("_", " ") for k in kinds),
    )
    videos = found.get("videos", 0)
    over = f"means over {videos} video{'s' * (videos != 1)}" + (" [95 % over videos]" if interval else "")
    return Table(tuple(rows), columns, f"Attention without masks: {over}")


def ordered(found: Mapping) -> list[str]:
    entities = sorted((name for name in found if name[7:].isdigit()), key=lambda name: int(name[7:]))
    return [*entities, *(name for name in MAPS if name in found)]


def map_name(name: str, values: Mapping = MappingProxyType({}), short: bool = False) -> str:
    """Describes a map, with the number of its entity or head.

    Example:
        >>> map_name("head_best_any_layer", {"index": 3, "layer": 8}, short=True)
        'head best, any layer (8.3)'
    """
    words = NAMES.get(name, control_name(name))
    if "index" not in values:
        return words
    kind = "head" if name.startswith("head") else "entity"
    if "oracle" in name:
        return words if short else f"{words}: most often {kind} {values['index']} of layer {values['layer']}"
    if short:
        return (
            f"{words} ({values['layer']}.{values['index']})"
            if "layer" in values
            else f"{words} ({kind} {values['index']})"
        )
    of = f" of layer {values['layer']}" if "layer" in values else ""
    where = ", scored on the rest of the frame" if name == "background" else ""
    return f"{words}: {kind} {values['index']}{of}, chosen on training videos{where}"


def _cell(row: Mapping, measure: str) -> str:
    """Formats the mean, with its interval for the measures in `WITH_ENDS`."""
    return _with_ends(row.get(measure), (row.get("interval") or {}).get(measure) if measure in WITH_ENDS else None)


def _with_ends(value: float | None, interval: Sequence[float] | None) -> str:
    return cell(value) + (f" {_ends(interval)}" if interval else "")


def _signed(row: Mapping | None) -> str:
    if not row:
        return MISSING
    return f"{row['mean']:+.3f}" + (
        f" {_ends(row['interval'])}" if row.get("interval") and not row.get("too_few") else ""
    )


def _ends(interval: Sequence[float]) -> str:
    """Formats the ends of an interval, without zeros before the decimal point.

    Example:
        >>> _ends([-0.0104, 0.99]), _ends([6.1, 7.05])
        ('[-.010, .990]', '[6.10, 7.05]')
    """
    text = [f"{end:.3f}".replace("0.", ".", 1) if abs(end) < 0.9995 else f"{end:.2f}" for end in interval]
    return f"[{', '.join(text)}]"


def _notes(report: Mapping) -> tuple[str, ...]:
    """Lists why localization was skipped, and the verdicts on the differences."""
    reason = (report.get("skipped") or {}).get("localization")
    notes = [f"localization skipped: {reason}"] if reason else []
    rows = [
        (pair, m, row) for pair, by in (report.get("localization_differences") or {}).items() for m, row in by.items()
    ]
    said = [row["verdict"] for _, _, row in rows if "verdict" in row]
    # older reports have no verdicts
    plain = [f"{pair}, {score_words(m)}: {r['mean']:+.3f} [{r['interval'][0]:.3f}, {r['interval'][1]:.3f}]"
             for pair, m, r in rows if r.get("interval") and not r.get("too_few")]  # fmt: skip
    return (*notes, *(said or plain))


CHANCE: Mapping[str, float] = MappingProxyType({"auroc": 0.5, "lift": 1.0})
GROUPS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "entity": ("entities", "#0072B2"),
        "head": ("CLS heads", "#D55E00"),
        "": ("controls without training or without image", "#7F7F7F"),
    }
)


def plot_localization(report: Mapping) -> Figure:
    """Draws AUROC and lift of every map, and entity 1 minus the others, with 95 % intervals over videos.

    In a good model the entities are to the right of all heads and of the mean training mask, and all differences are to
    the right of zero. For a report without masks the figure says so.
    """
    found = report.get("localization")
    if not found:
        reason = (report.get("skipped") or {}).get("localization", "this report has no localization")
        return plot_message(f"Localization: {reason}")
    maps = [name for name in ordered(found) if name != "actor_mask"]  # its lift would squeeze the others together
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
    axes.grid(axis="y", color=GRID, linewidth=0.6)
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
    too_few = any(row.get("too_few") for by in differences for row in by.values())
    few = " No intervals of differences: there are too few videos." if too_few else ""
    return (
        "Means over videos with 95 % bootstrap intervals. Entity best, head best and untrained entity best are chosen "
        f"by AUROC on training videos; head oracles are each video's best head by AUROC on its own mask. In "
        f"brackets: the entity, the head, or layer.head.{counted}{covered}{few}"
    )
