"""The study of objectives as tables and a figure: scores, what training adds, differences, costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mvf import plotting
from mvf.losses.objective import SUPERVISION
from mvf.results import spread
from mvf.tables.differences import NOTES, difference_cell, video_notes
from mvf.tables.paper import PaperTable, Row
from mvf.tables.study import ALIGNMENT, REFERENCE
from mvf.tables.study_fields import Field, fields
from mvf.tables.study_notes import COST_NOTES, gain_notes, score_notes, subject, warnings
from mvf.tables.trials import PLACES, Batch, Reports, compare, ranked

CONTROLS = {  # that are the same for both models
    "cropped": {"position_only": "clock alone", "backbone_motion": "backbone motion"},
    "whole": {
        "position_only": "clock alone",
        "frame_count": "frame count",
        "backbone_mean": "backbone mean",
        "backbone_motion": "backbone motion",
    },
}
DRAWN = {"classification": "accuracy, %", "retrieval@5": "AP@5, %"}  # scores of the figure, with the unit of the axis


def study_tables(study: PaperTable, batch: Batch) -> tuple[plotting.Table, ...]:
    """Cropped windows first, whole videos, differences between models and between objectives, costs."""
    return (
        study_scores(study, batch, "cropped"),
        study_scores(study, batch, "whole"),
        models_compared(study, batch),
        objectives_compared(study, batch),
        study_costs(study, batch),
    )


def study_scores(study: PaperTable, batch: Batch, place: str) -> plotting.Table:
    """Every objective on each model, and below them the controls."""
    columns, lines, groups = fields(study, place), [], []
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
    caption = f"Study of objectives, {PLACES[place]}. {study.title}. {subject(study, batch)}"
    headings = (*study.labels, *(field.heading for field in columns), "runs")
    return plotting.Table(tuple(lines), headings, caption, notes, **ranked(len(study.labels), *groups))


def models_compared(study: PaperTable, batch: Batch) -> plotting.Table:
    """The first model minus the second, for each objective."""
    (first, rows), (second, others) = _by_model(study).items()
    pairs = [(row, other, _labels(row, batch)[1:]) for row, other in zip(rows, others)]
    return _differences(study, batch, pairs, study.labels[1:], f"{first} minus {second}")


def objectives_compared(study: PaperTable, batch: Batch) -> plotting.Table:
    """Every objective minus `scl` on the same model."""
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
    """Seconds an epoch on each data set, parameters and milliseconds a frame."""
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
    caption = f"Study of objectives. Time and size, as run. {subject(study, batch)}"
    return plotting.Table(tuple(lines), columns, caption, COST_NOTES)


def study_figure(study: PaperTable, batch: Batch) -> Figure:
    """Every run of every objective on cropped windows, beside the controls."""
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
            f"{study.title}. On cropped windows; by labels that training consumed. {subject(study, batch)}.",
            *warnings(study, batch),
        )
    )
    return plotting.plot_study(panels, groups, caption)


# lines ----------------------------------------------------------------------------------------------------------------


def _by_model(study: PaperTable) -> dict[str, list[Row]]:
    models: dict[str, list[Row]] = {}
    for row in study.rows:
        models.setdefault(row.labels[0], []).append(row)
    return models


def _labels(row: Row, batch: Batch) -> tuple[str, ...]:
    """A row's labels, training labels as reports have them; what the objective declares where it was not run."""
    found = batch.labels_of(row)
    return row.labels if found == plotting.MISSING else (*row.labels[:-1], found)


def _control_lines(study: PaperTable, batch: Batch, place: str, columns: Sequence[Field]) -> list[tuple[str, ...]]:
    models = _by_model(study)
    wanted = [(model, "untrained", "untrained", rows) for model, rows in models.items()]
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
    # the bootstrap needs the pieces of every video, which an alignment error has not
    columns = [field.column for field in fields(study, "cropped") if field.ranked and field.column.score != ALIGNMENT]
    found = [[compare(batch.of(a, c), batch.of(b, c), "cropped", c.score) for c in columns] for a, b, _ in pairs]
    lines = [(*named, *map(difference_cell, columns, compared)) for (*_, named), compared in zip(pairs, found)]
    headings = tuple(f"{column.dataset} {column.heading}" for column in columns)
    caption = f"Study of objectives, cropped windows. {title}, in the units of the scores"
    return plotting.Table(tuple(lines), (*labels, *headings), caption, (*NOTES, *video_notes(headings, found)))


def _cost_cell(reports: Reports, name: str, decimals: int, unit: float = 1.0) -> str:
    """Mean ± over runs; a count that is the same for all stands alone."""
    if not reports:
        return plotting.NOT_RUN
    found = [report["cost"][name] / unit for report in reports if name in report.get("cost", {})]
    return spread(found[:1] if len(set(found)) == 1 else found, decimals)
