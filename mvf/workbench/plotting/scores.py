"""Tables and figures of a run and its report: scores beside their controls, cropped windows first."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mvf.workbench.plotting.style import COLUMN, GRID, MESSAGE, OKABE_ITO, PAGE, paper_figure, set_caption
from mvf.workbench.plotting.table import BELOW_MEAN, Folded, Table, cell, minus

SCORES: Mapping[str, str] = MappingProxyType(
    {
        "classification": "classification",
        "progression": "progression",
        "kendall_tau": "Kendall's tau",
        "retrieval@5": "retrieval@5",
        "retrieval@10": "retrieval@10",
        "retrieval@15": "retrieval@15",
        "alignment_error": "alignment error ↓",
    }
)
UNITS: Mapping[str, str] = MappingProxyType({"progression": "R²", "kendall_tau": "rank correlation"})
CONTROLS: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "position_only": "position only (clock)",
        "frame_count": "frame count (clock)",
        "frozen_frame": "frozen frame (counting)",
        "untrained": "untrained",
        "backbone_mean": "backbone mean",
        "backbone_motion": "backbone motion",
        "motion_pca": "motion PCA (no training)",
        "motion_skip": "motion skip alone (no training)",
        "shuffled_order": "shuffled order",
        "reversed": "model, reversed order",
        "untrained_shuffled": "untrained, shuffled",
        "frame_difference": "frame difference (pixels)",
    }
)
GROUPS: Mapping[str, str] = MappingProxyType({"cropped": "cropped windows", "whole": "whole videos"})
MOST_NAMED = 12  # names of one reason
HEADLINE = ("model", "position_only", "untrained", "backbone_motion", "motion_pca", "motion_skip")


def control_name(name: str) -> str:
    """Describes a control.

    Example:
        >>> control_name("frozen_frame"), control_name("entity_1")
        ('frozen frame (counting)', 'entity 1')
    """
    return CONTROLS.get(name, name.replace("_", " "))


def score_words(text: str) -> str:
    """Replaces keys of scores, measures and controls in a text by the names that people read.

    Example:
        >>> score_words("cropped.kendall_tau"), score_words("object_auroc"), score_words("strongest: backbone_motion")
        ("cropped.Kendall's tau", 'object AUROC', 'strongest: backbone motion')
    """
    controls = {key: name.partition(" (")[0] for key, name in CONTROLS.items() if "_" in key}
    tau = {"kendall_tau": SCORES["kendall_tau"], "alignment_error": "alignment error"}
    for key, name in (tau | controls | {"object_": "object ", "auroc": "AUROC"}).items():
        text = text.replace(key, name)
    return text


def below_mean(score: str, value: float | None) -> bool:
    """Whether a value is an R² below zero: worse than guessing the mean, and so no better than any control."""
    return score == "progression" and value is not None and value < 0


def score_cell(score: str, value: float | None) -> str:
    """Formats a score for a table.

    Example:
        >>> score_cell("progression", -4.2), score_cell("kendall_tau", -0.5), score_cell("progression", 0.25)
        ('below the mean', '-0.500', '0.250')
    """
    return BELOW_MEAN if below_mean(score, value) else cell(value)


def score_groups(report: Mapping) -> dict[str, dict[str, Mapping]]:
    """Returns the scores of a report, group -> embedding -> scores, `cropped` first and the model first in each.

    Example:
        >>> score_groups({"scores": {"kendall_tau": 0.9}, "cropped": {"model": {"kendall_tau": 0.8}}})
        {'cropped': {'model': {'kendall_tau': 0.8}}, 'whole': {'model': {'kendall_tau': 0.9}}}
    """
    whole = {"model": report.get("scores") or {}, **(report.get("controls") or {})}
    groups = {
        "cropped": _with_alignment(report, report.get("cropped") or {}, "window"),
        "whole": _with_alignment(report, whole, "whole"),
    }
    return {
        group: {name: members[name] for name in dict.fromkeys((*CONTROLS, *members)) if members.get(name)}
        for group, members in groups.items()
        if any(members.values())
    }


def _with_alignment(report: Mapping, members: Mapping[str, Mapping], kind: str) -> dict[str, Mapping]:
    """Adds the alignment errors, a separate entry of reports: window to whole for `cropped`, else whole to whole."""
    errors = {"model": report.get("alignment_error") or {}, **(report.get("alignment_error_controls") or {})}
    found = {name: {"alignment_error": values[kind]} for name, values in errors.items() if kind in values}
    return {name: {**members.get(name, {}), **found.get(name, {})} for name in dict.fromkeys((*members, *found))}


def present(names: Iterable[str], rows: Iterable[Mapping]) -> list[str]:
    """Returns the names for which at least one row has a value."""
    rows = list(rows)
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def _caption(report: Mapping) -> str:
    weights = report.get("backbone_weights", "unknown")
    return (
        f"{report.get('dataset', 'embeddings')}: objective {report.get('objective', 'unknown')} "
        f"(supervision {report.get('supervision', 'unknown')}), backbone {report.get('backbone', 'unknown')} "
        f"(weights: {weights}), {cell(report.get('epochs'))} epochs, seed {cell(report.get('seed'))}, "
        f"data seed {cell(report.get('data_seed'))}"
    )


def _notes(report: Mapping) -> tuple[str, ...]:
    notes = [report["warning"]] if report.get("warning") else []
    notes += [f"the stored report was made anew: {report['made_anew']}"] if report.get("made_anew") else []
    for split, coverage in (report.get("coverage") or {}).items():
        notes += [f"{split}: {names} left out: {why}" for why, names in by_reason(coverage.get("unreadable"))]
    return (*notes, *skipped_lines(report))


def skipped_lines(report: Mapping) -> list[str]:
    """Says which scores were skipped and why, each reason once.

    Example:
        >>> skipped_lines({"skipped": {"cropped.kendall_tau": "one video", "progression": "no label"}})
        ["cropped: Kendall's tau skipped: one video", 'progression skipped: no label']
    """
    return [f"{names} skipped: {reason}" for reason, names in skipped_scores(report)]


def skipped_scores(report: Mapping) -> list[tuple[str, str]]:
    """Lists each reason for skipped scores once, with the names of these scores as people read them."""
    named = {re.sub(r"^(\w+)\.", r"\1: ", name): why for name, why in (report.get("skipped") or {}).items()}
    return [(reason, score_words(names)) for reason, names in by_reason(named)]


def by_reason(reasons: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Lists each reason once, with the names that it is given for.

    Example:
        >>> by_reason({"a": "zero bytes", "b": "too short", "c": "zero bytes"})
        [('zero bytes', 'a, c'), ('too short', 'b')]
    """
    names: dict[str, list[str]] = {}
    for name, reason in (reasons or {}).items():
        names.setdefault(reason, []).append(name)
    many = {reason: f" and {len(of) - MOST_NAMED} more" if len(of) > MOST_NAMED else "" for reason, of in names.items()}
    return [(reason, ", ".join(of[:MOST_NAMED]) + many[reason]) for reason, of in names.items()]


def report_table(report: Mapping, scores: Sequence[str] = tuple(SCORES)) -> Table:
    """Tabulates each score of the model beside its controls, with the verdict. Read this table first.

    Scores on cropped windows come first, because the clock does not know where a window starts. A score that could not
    be computed is shown as a dash, with the reason below the table.

    Args:
        report: What `mvf.evaluate` returns, or a `metrics.json`.
        scores: The scores to show, in order.

    Example:
        >>> report = {"scores": {"classification": 0.96}, "controls": {"position_only": {"classification": 0.92}},
        ...           "verdicts": {"classification": "0.960: the clock alone 0.920, the pixels add 0.040"}}
        >>> report_table(report, scores=["classification"]).rows[0][1:4]
        ('classification', '0.960', '0.920')
    """
    groups = score_groups(report)
    columns = present(HEADLINE, groups.values()) or ["model"]
    verdicts = report.get("verdicts") or {}
    rows = []
    for group, members in groups.items():
        for score in present(scores, [*members.values(), report.get("skipped") or {}]):
            values = (score_cell(score, members.get(name, {}).get(score)) for name in columns)
            verdict = score_words(verdicts.get(score if group == "whole" else f"cropped.{score}", ""))
            if below_mean(score, members.get("model", {}).get(score)):
                verdict = "no gain over any control"  # older reports claimed one
            rows.append((GROUPS[group], SCORES.get(score, score), *values, verdict))
    headings = ("on", "score", *map(control_name, columns), "verdict")
    return Table(tuple(rows), headings, _caption(report), _notes(report))


def scores_table(report: Mapping) -> Table:
    """Tabulates every score of the model and of all controls.

    Example:
        >>> print(scores_table({"scores": {"kendall_tau": 0.9}, "controls": {"untrained": {"kendall_tau": 0.7}}}))
        All scores
        <BLANKLINE>
        | on           | embedding | Kendall's tau |
        | ------------ | --------- | ------------: |
        | whole videos | model     |         0.900 |
        | whole videos | untrained |         0.700 |
    """
    groups = score_groups(report)
    scores = present(SCORES, [values for members in groups.values() for values in members.values()])
    rows = [
        (GROUPS[group], control_name(name), *(score_cell(score, values.get(score)) for score in scores))
        for group, members in groups.items()
        for name, values in members.items()
    ]
    strong = tuple(i for i, row in enumerate(rows) if row[1] == "model")
    columns = ("on", "embedding", *(SCORES[score] for score in scores))
    return Table(tuple(rows), columns, "All scores", _notes(report), strong)


def folded_report(report: Mapping) -> Folded:
    """The table to read first, with all scores of all controls folded below it."""
    return Folded(report_table(report), "All scores of all controls", replace(scores_table(report), notes=()))


def actions_table(report: Mapping) -> Table:
    """Tabulates the model's scores on whole videos, one row per action."""
    actions = report.get("per_action") or {}
    scores = present(SCORES, actions.values())
    rows = tuple(
        (name, *(score_cell(score, values.get(score)) for score in scores)) for name, values in actions.items()
    )
    return Table(rows, ("action", *(SCORES[score] for score in scores)), "Scores by action, whole videos")


def kinds_table(report: Mapping) -> Table:
    """Tabulates phase accuracy by kind of phase: a pose, or a pose passed in two directions (which needs motion).

    Example:
        >>> print(kinds_table({"phase_kinds": {"pose": {"classification": {"model": 0.9}}}}))
        Phase classification by kind of phase, whole videos
        <BLANKLINE>
        | embedding |  pose |
        | --------- | ----: |
        | model     | 0.900 |
    """
    kinds = {kind: values.get("classification") or {} for kind, values in (report.get("phase_kinds") or {}).items()}
    names = present(CONTROLS, kinds.values())
    rows = tuple((control_name(name), *(cell(values.get(name)) for values in kinds.values())) for name in names)
    return Table(rows, ("embedding", *kinds), "Phase classification by kind of phase, whole videos", strong=(0,))


# ----------------------------------------------------------------------------------------------------------------------
# Figures: training curves, controls, label fractions, confusion.

CLOCKS = ("position_only", "frame_count", "frozen_frame")
LOWEST = -0.5  # an R² far below this would squeeze the rest of its column
BLUE, VERMILLION, GREY = OKABE_ITO[0], OKABE_ITO[5], "#7F7F7F"


def plot_history(history: Sequence[Mapping], epochs: int | None = None) -> Figure:
    """Draws loss, learning rate and gradient norm by epoch, side by side.

    Args:
        history: One row per epoch, as in `history.csv`: epoch, loss, learning_rate, grad_norm (text or numbers).
            If it is empty, the figure says that there was no training.
        epochs: Length of the run, which fixes the horizontal axis before the run is over.

    Example:
        >>> figure = plot_history([{"epoch": 1, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 3.0}])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'learning rate', 'gradient norm']
    """
    if not history:
        return plot_message("Evaluated without training: no epoch was trained, so there are no curves.")
    epoch = [float(row["epoch"]) for row in history]
    labels = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm"}
    with paper_figure(PAGE, 1.7) as figure:
        for axes, (key, text) in zip(figure.subplots(1, 3), labels.items()):
            axes.plot(epoch, [float(row[key]) for row in history], marker="." if len(epoch) < 20 else None)
            axes.set(xlabel="epoch", ylabel=text)
            axes.ticklabel_format(axis="y", scilimits=(-3, 4))
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            if epochs or len(epoch) == 1:  # around a single epoch there would be hundreds of ticks
                axes.set_xlim(0, epochs or 2 * epoch[0])
    return figure


REDRAWN = 5  # seconds: drawing takes a part of one, in which nothing is trained


class LivePlot:
    """Draws the training curves in one notebook output that is replaced as epochs finish.

    Give it to `mvf.train(..., on_epoch=LivePlot(config.epochs))`. It redraws every five seconds at most, and always
    after the last epoch. The output is one small picture, also under papermill.

    Args:
        epochs: Length of the run.
        history: Rows of epochs that finished earlier, when a run resumes.
    """

    def __init__(self, epochs: int | None = None, history: Sequence[Mapping] = ()) -> None:
        self.epochs = epochs
        self.history = list(history)
        self._handle = None
        self._drawn = -np.inf

    def __call__(self, row: Mapping) -> None:
        from IPython.display import display  # which is slow to import

        self.history.append(row)
        is_last = self.epochs is not None and int(row["epoch"]) >= self.epochs
        if time.monotonic() - self._drawn < REDRAWN and not is_last:
            return
        figure = plot_history(self.history, self.epochs)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._drawn = time.monotonic()


def plot_controls(report: Mapping, scores: Sequence[str] = tuple(SCORES)[:4]) -> Figure:
    """Draws the scores of the model beside those of its controls, on cropped windows and whole videos.

    The dashed line is the score of the clock alone. The band from it to the model is what the pixels add (orange
    if they add nothing).

    Args:
        report: What `mvf.evaluate` returns, or a `metrics.json`.
        scores: The scores to draw, one column each.
    """
    groups = score_groups(report)
    scores = present(scores, [values for members in groups.values() for values in members.values()])
    if not scores:
        skipped = {name: why for name, why in (report.get("skipped") or {}).items() if name in SCORES}
        return plot_message("No score to compare: " + "; ".join(reason for reason, _ in by_reason(skipped)))
    sizes = [len(members) for members in groups.values()]
    with paper_figure(PAGE, 0.8 + 0.17 * sum(sizes) + 0.25 * len(sizes)) as figure:
        grid = figure.subplots(
            len(groups),
            len(scores),
            sharex="col",
            sharey="row",
            squeeze=False,
            height_ratios=[size + 1 for size in sizes],
        )
        for row, (group, members) in zip(grid, groups.items()):
            row[0].set_ylabel(GROUPS[group].replace(" ", "\n"), fontweight="bold", fontsize=7)
            row[0].set_yticks(range(len(members)), [control_name(name) for name in members])
            row[0].set_ylim(len(members) - 0.4, -0.6)
            for axes, score in zip(row, scores):
                values = {name: found.get(score) for name, found in members.items()}
                _draw_scores(axes, values, band=not below_mean(score, values.get("model")))
        for axes, score in zip(grid[0], scores):
            axes.set_title(SCORES.get(score, score), fontsize=7.5, pad=4)
        for axes, score in zip(grid[-1], scores):
            axes.set_xlabel(UNITS.get(score, "share"), labelpad=1)
        figure.align_ylabels(grid[:, 0])
        low = any(below_mean("progression", members.get("model", {}).get("progression")) for members in groups.values())
        set_caption(
            figure,
            "Dashed: the clock alone (position only). Band: what the pixels add to it"
            + (", but not where the model's R² is below zero." if low and "progression" in scores else ".")
            + (f" A triangle points to scores below {LOWEST:g}." if _is_cut(groups, scores) else ""),
        )
    return figure


def _draw_scores(axes: Axes, values: Mapping[str, float | None], band: bool) -> None:
    """Draws one dot per row and prints its value at the right edge; `band` shows what the pixels add."""
    clock, model = values.get("position_only"), values.get("model")
    if clock is not None:
        axes.axvline(max(clock, LOWEST), color=VERMILLION, linestyle=(0, (3, 2)), linewidth=0.8, zorder=1)
        if model is not None and band:
            axes.axvspan(
                max(clock, LOWEST),
                max(model, LOWEST),
                color=BLUE if model > clock else VERMILLION,
                alpha=0.12,
                linewidth=0,
            )
    axes.xaxis.set_major_locator(MaxNLocator(2))
    for y, (name, value) in enumerate(values.items()):
        is_model = name == "model"
        colour, marker = (BLUE, "o") if is_model else (VERMILLION, "s") if name in CLOCKS else (GREY, "D")
        if value is not None:
            marker = "<" if value < LOWEST else marker
            axes.plot(max(value, LOWEST), y, marker, color=colour, markersize=5 if is_model else 3.5)
        axes.text(
            1.03,
            y,
            "–" if value is None else "< −10" if value < -10 else minus(f"{value:.2f}"),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=6.5,
            color=colour,
            fontweight="bold" if is_model else "normal",
        )
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def plot_message(reason: str) -> Figure:
    """Makes a figure that says why there is nothing to draw, so that unlabelled videos do not stop a notebook."""
    with paper_figure(PAGE, 0.35) as figure:
        figure.set_label(MESSAGE)
        set_caption(figure, reason)
    return figure


def _is_cut(groups: Mapping[str, Mapping[str, Mapping]], scores: Sequence[str]) -> bool:
    found = (values.get(score) for members in groups.values() for values in members.values() for score in scores)
    return any(value is not None and value < LOWEST for value in found)


def plot_label_fractions(fractions: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws classification and progression against the share of labelled training videos.

    Args:
        fractions: `report["label_fractions"]`: share of the training videos -> score -> value.
    """
    scores = present(("classification", "progression"), fractions.values())
    if not scores:
        return plot_message("No scores by share of labels: the videos have no phase labels, or only one phase.")
    with paper_figure(COLUMN, 2.1) as figure:
        axes = figure.subplots()
        for score, marker in zip(scores, "os"):
            points = sorted((100 * float(f), values[score]) for f, values in fractions.items() if score in values)
            axes.plot(
                *zip(*points),
                marker=marker,
                markersize=4,
                label={"classification": "classification (accuracy)", "progression": "progression (R²)"}[score],
            )
        ticks = sorted(100 * float(f) for f in fractions)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlabel="labelled training videos (%)", ylabel="score on validation videos", xlim=(0, 104))
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def plot_confusion(matrix: ArrayLike, names: Sequence[str], title: str = "Phase classification") -> Figure:
    """Draws the confusion matrix of phases, each row (true phase) divided by its number of frames.

    Args:
        matrix: (K, K) counts of frames.
        names: Names of the K phases.
        title: Printed above the figure.
    """
    counts = np.asarray(matrix, dtype=float)
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"matrix must be ({len(names)}, {len(names)}), one row per name, got {counts.shape}")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with paper_figure(COLUMN, 3.0, layout="compressed") as figure:
        axes = figure.subplots()
        image = axes.imshow(share, vmin=0, vmax=1)
        tilt, va = (40, "top") if len(names) <= 10 else (90, "center")
        axes.set_xticks(range(len(names)), names, rotation=tilt, ha="right", va=va, rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [f"{name} ({int(n):,})" for name, n in zip(names, counts.sum(axis=1))])
        axes.set(xlabel="predicted phase", ylabel="true phase (frames)")
        figure.suptitle(f"{title}\naccuracy {np.trace(counts) / max(counts.sum(), 1):.3f}")
        if len(names) > 10:
            figure.colorbar(image, ax=axes, label="share of the row's frames")
        else:
            set_caption(figure, "Percent of the row's frames.")
            for (row, column), value in np.ndenumerate(share):
                axes.text(
                    column,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="black" if value > 0.55 else "white",
                )
    return figure
