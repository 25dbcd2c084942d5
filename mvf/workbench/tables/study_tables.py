"""Tables and a figure of the study of objectives: scores, gains by training, differences, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf.losses.objective import SUPERVISION
from mvf.workbench import plotting
from mvf.workbench.plotting.scores import below_mean
from mvf.workbench.tables.notes import (
    NOTES,
    coverage_notes,
    difference_cell,
    runs_sentence,
    settings_note,
    video_notes,
)
from mvf.workbench.tables.rows import ALIGNMENT, READINGS, REFERENCE, Column, PaperTable, Row
from mvf.workbench.tables.runs import score_spread, spread
from mvf.workbench.tables.trials import PLACES, Batch, Reports, compare, ranked, scores_of

CONTROLS = {  # the same for both models
    "cropped": {"position_only": "clock alone", "backbone_motion": "backbone motion", "motion_pca": "motion PCA"},
    "whole": {
        "position_only": "clock alone",
        "frame_count": "frame count",
        "backbone_mean": "backbone mean",
        "backbone_motion": "backbone motion",
        "motion_pca": "motion PCA",
    },
}
DRAWN = {"classification": "accuracy, %", "retrieval@5": "retrieval@5, %"}  # scores in the figure, with axis labels


def study_tables(study: PaperTable, batch: Batch) -> tuple[plotting.Table, ...]:
    """Tabulates cropped windows, whole videos, differences between models and between objectives, and costs."""
    return (
        study_scores(study, batch, "cropped"),
        study_scores(study, batch, "whole"),
        models_compared(study, batch),
        objectives_compared(study, batch),
        study_costs(study, batch),
    )


def study_scores(study: PaperTable, batch: Batch, place: str) -> plotting.Table:
    """Tabulates every objective on each model, and below them the controls."""
    columns = fields(study, place)
    lines: list[tuple[str, ...]] = []
    groups: list[dict[int, list[float | None]]] = []
    for rows in _by_model(study).values():
        groups.append({})
        for row in rows:
            found = [field.values(batch.of(row, field.column)) for field in columns]
            groups[-1][len(lines)] = [field.rank(values) for field, values in zip(columns, found)]
            cells = (
                field.cell(values) if batch.of(row, field.column) else plotting.NOT_RUN
                for field, values in zip(columns, found)
            )
            lines.append((*_labels(row, batch), *cells, batch.progress_of(row)))
    lines += _control_lines(study, batch, place, columns)
    gains = gain_notes(study, batch) if place == "cropped" else ()
    notes = (*warnings(study, batch), *gains, *score_notes(study, batch, place))
    caption = f"Study of objectives, {PLACES[place]}. {study.title}. {study_sentence(study, batch)}"
    headings = (*study.labels, *(field.heading for field in columns), "runs")
    return plotting.Table(tuple(lines), headings, caption, notes, **ranked(len(study.labels), *groups))


def models_compared(study: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates the first model minus the second, for each objective."""
    (first, rows), (second, others) = _by_model(study).items()
    pairs = [(row, other, _labels(row, batch)[1:]) for row, other in zip(rows, others)]
    return _differences(study, batch, pairs, study.labels[1:], f"{first} minus {second}")


def objectives_compared(study: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates every objective minus `scl` on the same model."""
    pairs = [
        (row, base, _labels(row, batch))
        for members in _by_model(study).values()
        for base in members
        if base.labels[1] == REFERENCE
        for row in members
        if row is not base
    ]
    return _differences(study, batch, pairs, study.labels, f"Each objective minus {REFERENCE} on the same model")


def study_costs(study: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates seconds per epoch on each data set, parameters and milliseconds per frame."""
    datasets = tuple(study.rows[0].presets)
    lines = []
    for row in study.rows:
        runs = {dataset: batch.reports.get(row.presets[dataset], ()) for dataset in datasets}
        cells = [_cost_cell(runs[dataset], "seconds_per_epoch", 2) for dataset in datasets]
        every = [report for reports in runs.values() for report in reports]
        cells += [_cost_cell(every, "parameters", 2, 1e6), _cost_cell(every, "ms_per_frame", 2)]
        lines.append((*_labels(row, batch), *cells, batch.progress_of(row)))
    timed = (f"{dataset} seconds an epoch" for dataset in datasets)
    columns = (*study.labels, *timed, "trained, 10⁶", "ms a frame", "runs")
    caption = f"Study of objectives. Time and size, as run. {study_sentence(study, batch)}"
    return plotting.Table(tuple(lines), columns, caption, COST_NOTES)


def study_figure(study: PaperTable, batch: Batch) -> Figure:
    """Draws every run of every objective on cropped windows, beside the controls."""
    models = _by_model(study)
    panels = []
    for field in (f for f in fields(study, "cropped") if f.ranked and f.column.score in DRAWN):
        values = {
            model: [field.values(found) if (found := batch.of(row, field.column)) else None for row in members]
            for model, members in models.items()
        }
        marks = {name: _mean(field.control(key, study.rows, batch)) for key, name in CONTROLS["cropped"].items()}
        untrained = {model: _mean(field.control("untrained", rows, batch)) for model, rows in models.items()}
        title = f"{field.column.dataset}\n{field.column.score}"
        panels.append(plotting.StudyPanel(title, DRAWN[field.column.score], values, marks, untrained))
    first = next(iter(models.values()))
    groups = {
        f"{'no' if kind == 'none' else kind} labels": [row.labels[1] for row in first if row.labels[2] == kind]
        for kind in SUPERVISION
    }
    caption = " ".join(
        (
            f"{study.title}. On cropped windows; by labels that training consumed. {study_sentence(study, batch)}.",
            *warnings(study, batch),
        )
    )
    return plotting.plot_study(panels, groups, caption)


# ----------------------------------------------------------------------------------------------------------------------
# Lines of the tables.


def _by_model(study: PaperTable) -> dict[str, list[Row]]:
    models: dict[str, list[Row]] = {}
    for row in study.rows:
        models.setdefault(row.labels[0], []).append(row)
    return models


def _labels(row: Row, batch: Batch) -> tuple[str, ...]:
    """Returns a row's labels, with the training labels of its reports, or the objective's if it was not run."""
    found = batch.labels_of(row)
    return row.labels if found == plotting.MISSING else (*row.labels[:-1], found)


def _control_lines(study: PaperTable, batch: Batch, place: str, columns: Sequence[Field]) -> list[tuple[str, ...]]:
    models = _by_model(study)
    wanted: list[tuple[str, str, str, Sequence[Row]]] = [
        (model, "untrained", "untrained", rows) for model, rows in models.items()
    ]
    wanted += [("any", key, name, study.rows) for key, name in CONTROLS[place].items()]
    return [
        (
            model, name, plotting.MISSING,
            *(f.cell(f.control(key, rows, batch)) if f.ranked else "" for f in columns), "",
        )
        for model, key, name, rows in wanted
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _differences(
    study: PaperTable, batch: Batch, pairs: Sequence[tuple[Row, Row, tuple[str, ...]]],
    labels: tuple[str, ...], title: str,
) -> plotting.Table:  # fmt: skip
    # The bootstrap needs sums per video, which an alignment error does not have.
    columns = [field.column for field in fields(study, "cropped") if field.ranked and field.column.score != ALIGNMENT]
    found = [[compare(batch.of(a, c), batch.of(b, c), "cropped", c.score) for c in columns] for a, b, _ in pairs]
    lines = [(*named, *map(difference_cell, columns, compared)) for (*_, named), compared in zip(pairs, found)]
    headings = tuple(f"{column.dataset} {column.heading}" for column in columns)
    caption = f"Study of objectives, cropped windows. {title}, in the units of the scores"
    return plotting.Table(tuple(lines), (*labels, *headings), caption, (*NOTES, *video_notes(headings, found)))


def _cost_cell(reports: Reports, name: str, decimals: int, unit: float = 1.0) -> str:
    """Formats mean ± two standard deviations over runs; a single number if all runs have the same."""
    if not reports:
        return plotting.NOT_RUN
    found = [report["cost"][name] / unit for report in reports if name in report.get("cost", {})]
    return spread(found[:1] if len(set(found)) == 1 else found, decimals)


# ----------------------------------------------------------------------------------------------------------------------
# Columns of the study's tables.

SHOWN = {  # scores on whole videos and windows, in the order of the columns
    "cropped": ("classification", "retrieval@5", "kendall_tau", ALIGNMENT),
    "whole": ("classification", "progression", "kendall_tau", "retrieval@5", ALIGNMENT),
}


@dataclass(frozen=True)
class Field:
    """A column of the study's tables.

    Attributes:
        column: Score and data set.
        place: `whole` or `cropped`.
        member: The embedding that is scored.
        minus: Embedding of the same run whose score is subtracted; empty for none.
    """

    column: Column
    place: str
    member: str = "model"
    minus: str = ""

    @property
    def heading(self) -> str:
        whose = "" if self.member == "model" else f"{self.member.replace('_', ' ')}, "
        less = f" minus {self.minus}" * bool(self.minus)
        return f"{self.column.dataset} {whose}{self.column.heading}{less}"

    @property
    def ranked(self) -> bool:
        """Whether objectives are ranked by this score."""
        return self.member == "model" and not self.minus

    def of(self, report: Mapping, member: str = "") -> float | None:
        """Returns the value of one run in the column's unit; None if it has none."""
        value = _score(report, self.place, self.column.score, member or self.member)
        less = _score(report, self.place, self.column.score, self.minus) if self.minus else 0.0
        return None if value is None or less is None else self.column.in_units([value - less])[0]

    def values(self, reports: Reports) -> list[float]:
        """Returns the values of the runs that have one."""
        return [value for report in reports if (value := self.of(report)) is not None]

    def control(self, control: str, rows: Sequence[Row], batch: Batch) -> list[float]:
        """Returns the values of a control, one per seed: the mean over the rows' runs of that seed."""
        seeds: dict[int, list[float]] = {}
        for report in (report for row in rows for report in batch.of(row, self.column)):
            value = self.of(report, control)
            if value is not None:
                seeds.setdefault(report["seed"], []).append(value)
        return [float(np.mean(values)) for values in seeds.values()]

    def cell(self, values: Sequence[float]) -> str:
        """Formats mean ± two standard deviations, a difference with its sign."""
        text = score_spread("" if self.minus else self.column.score, values, self.column.decimals)
        return f"+{text}" if self.minus and values and not text.startswith("-") else text

    def rank(self, values: Sequence[float]) -> float | None:
        """Returns the printed mean, negated if lower is better; None if the column is not ranked, or R² is below 0."""
        if not values or not self.ranked:
            return None
        mean = round(float(np.mean(values)), self.column.decimals)
        if below_mean(self.column.score, mean):
            return None
        return -mean if self.column.score == ALIGNMENT else mean


def fields(study: PaperTable, place: str) -> list[Field]:
    """Returns the columns of each data set: scores, then the gain by training (cropped) or counting score (whole)."""
    last = {"minus": "untrained"} if place == "cropped" else {"member": "frozen_frame"}
    found = []
    for dataset in dict.fromkeys(column.dataset for column in study.columns):
        columns = {column.score: column for column in study.columns if column.dataset == dataset}
        found += [Field(columns[score], place) for score in SHOWN[place]]
        found.append(Field(columns["classification"], place, **last))
    return found


def _score(report: Mapping, place: str, score: str, member: str) -> float | None:
    if score != ALIGNMENT:
        return scores_of(report, place, member).get(score)
    own = report.get(ALIGNMENT, {}) if member == "model" else report.get(f"{ALIGNMENT}_controls", {}).get(member, {})
    return own.get("window" if place == "cropped" else "whole")


# ----------------------------------------------------------------------------------------------------------------------
# Notes below the study's tables.

PLACE_NOTES = {
    "cropped": "The test that counts: a clock does not know where a window starts.",
    "whole": "Frozen frame: the trained model fed one frame of the video over and over, which leaves it counting.",
}
STUDY_NOTES = (
    "Mean ± two standard deviations (ddof 1) over seeds. Best bold, second underlined, of each model's objectives.",
    "Alignment error: of the event time of the nearest frame in another video, which is in [0, 1]; lower is better.",
    "Controls: untrained is the same model before training. A control's value of a seed is the mean over all "
    "objectives' runs of that seed. An alignment error of untrained models and of mean features is not measured.",
    "“video, assumed”: the clips have no action labels, and all are taken to be of one action.",
    f"{' and '.join(READINGS.values())}: only the abstract was readable, and no code was found.",
)
COST_NOTES = (
    "Seconds an epoch: median over the epochs of a run; mean ± two standard deviations (ddof 1) over seeds. "
    "Runs shared the machine: compare within this batch only.",
    "Trained parameters include the training-only head, not what an objective owns (sal: a classifier). "
    "Milliseconds a frame: embedding, backbone included; over the runs on all data sets.",
)


def study_sentence(study: PaperTable, batch: Batch) -> str:
    """Describes the data and backbones of the runs, and names the folder of videos."""
    root = batch.parameters.get("data_root")
    return runs_sentence(study, batch) + (f"; videos of {Path(str(root)).name}" if root else "")


def warnings(study: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Lists the reasons why the numbers are not those of the study."""
    found = [
        (column.dataset, report) for row in study.rows for column in study.columns for report in batch.of(row, column)
    ]
    notes = []
    if any(report["backbone_weights"] == "random" for _, report in found):
        notes.append("RANDOM backbone weights: these scores say nothing about a pretrained one.")
    elsewhere = {(dataset, report["dataset"]) for dataset, report in found}
    notes += [f"Run on {there} in place of {here}." for here, there in sorted(elsewhere) if here != there]
    return (*notes, *settings_note({k: v for k, v in batch.parameters.items() if k != "data_root"}))


def score_notes(study: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """Explains how to read the scores on whole videos or windows, and why some are missing."""
    return (PLACE_NOTES[place], *STUDY_NOTES, *_skipped_notes(study, batch, place), *coverage_notes(study, batch))


def gain_notes(study: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Lists the objectives whose training did not improve on the untrained model, or by no more than the spread."""
    worse, within, run = [], [], False
    for gain in (field for field in fields(study, "cropped") if field.minus):
        for row in study.rows:
            values = gain.values(batch.of(row, gain.column))
            run |= bool(values)
            name = f"{row.labels[1]} ({row.labels[0]}, {gain.column.dataset})"
            if values and np.mean(values) <= 0:
                worse.append(name)
            elif len(values) > 1 and np.mean(values) <= 2 * np.std(values, ddof=1):
                within.append(name)
    if not run:
        return ()
    notes = [f"NOT better than untrained in cropped classification: {'; '.join(worse) or 'none of what was run'}."]
    if within:
        notes.append(f"Better than untrained by no more than two standard deviations: {'; '.join(within)}.")
    return tuple(notes)


def _skipped_notes(study: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """Lists scores that finished runs lack, with the reason; by data set, because most rows lack the same scores."""
    notes = []
    for field in (field for field in fields(study, place) if field.ranked):
        found = [report for row in study.rows for report in batch.of(row, field.column)]
        without = [report for report in found if field.of(report) is None]
        if without:
            reasons = dict.fromkeys(filter(None, (_reason(report, field) for report in without)))
            said = "; ".join(reasons) or "no reason given"
            notes.append(f"{field.heading}: lacking in {len(without)} of {len(found)} runs: {said}.")
    return tuple(notes)


def _reason(report: Mapping, field: Field) -> str:
    score = field.column.score
    cropped = (f"cropped.{score}", f"cropped.model.{score}", f"{score}.window", "cropped")
    names = (*(cropped if field.place == "cropped" else ()), score)
    return next((report["skipped"][name] for name in names if name in report.get("skipped", {})), "")
