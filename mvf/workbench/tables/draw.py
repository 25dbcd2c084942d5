"""Tables and figures of batches: scores, differences, costs and seed sensitivity beside the paper's; studies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf.config import nearest, presets
from mvf.files import atomic
from mvf.workbench import plotting
from mvf.workbench.plotting.scores import below_mean
from mvf.workbench.tables.notes import (
    COST_NOTES,
    SPREAD_NOTE,
    clock_notes,
    clock_of,
    coverage_notes,
    differences,
    heading,
    paper_title,
    runs_sentence,
    skipped_notes,
    warnings,
)
from mvf.workbench.tables.rows import NOT_RERUN, Column, PaperTable, Row, paper_tables, printed, studies
from mvf.workbench.tables.runs import LABELS, score_spread, spread, supervision
from mvf.workbench.tables.study_tables import study_figure, study_tables
from mvf.workbench.tables.trials import PLACES, Batch, Reports, ranked, read_batches, sensitivity, trial_values

UNITS = {
    "classification": "accuracy, %",
    "progression": "R²",
    "kendall_tau": "rank correlation",
    "retrieval@5": "retrieval@5, %",
}


@dataclass(frozen=True)
class DrawnTable:
    """A table of the paper beside its runs, or a study.

    Attributes:
        name: Name of its files.
        tables: Tables of scores on whole videos and cropped windows, differences and costs; for the paper's tables also
            of the sensitivity to the seed.
        figure: Figure of every trial of every row.
    """

    name: str
    tables: tuple[plotting.Table, ...]
    figure: Figure

    def save(self, out: Path) -> None:
        """Writes `<name>.md`, `.png` and `.pdf` into `out`."""
        with atomic(out / f"{self.name}.md") as temporary:
            temporary.write_text("\n\n".join(map(str, self.tables)) + "\n", encoding="utf-8")
        plotting.save_figure(self.figure, out / self.name)


def draw_tables(patterns: str) -> list[DrawnTable]:
    """Makes the tables of all batches in the matching folders; see `read_batches`.

    If several batches ran a table, its name contains the folder of the batch.

    Raises:
        ValueError: if there is no batch, none ran a table, or one names an unknown table.
    """
    known = paper_tables() | studies()
    batches = read_batches(patterns)
    pairs = [(batch, name) for batch in batches for name in batch.tables if name in known or name not in presets()]
    if not pairs:
        found = ", ".join(str(batch.folder) for batch in batches)
        raise ValueError(f"{found}: runs of presets and no table; show them by -p runs '{batches[0].folder}/*'")
    for batch, name in pairs:
        if name not in known:
            raise ValueError(f'{batch.folder} names the table "{name}"; {nearest(name, known)}')
    return [draw_table(known[name], batch, file) for (batch, name), file in zip(pairs, _file_names(pairs))]


def draw_table(table: PaperTable, batch: Batch, name: str = "") -> DrawnTable:
    """Makes one table with the runs of one batch."""
    if table.name in studies():
        return DrawnTable(name or table.name, study_tables(table, batch), study_figure(table, batch))
    made = [scores(table, batch, place) for place in PLACES]
    made += [make(table, batch) for make in (differences, seed_sensitivity, costs)]
    return DrawnTable(name or table.name, tuple(made), trials_figure(table, batch))


def scores(table: PaperTable, batch: Batch, place: str) -> plotting.Table:
    """Tabulates the runs' scores, on whole videos beside the paper's, which has none on cropped windows."""
    lines: list[tuple[str, ...]] = []
    paper: dict[int, tuple[float | None, ...]] = {}
    runs: dict[int, tuple[float | None, ...]] = {}
    for row in table.rows:
        if place == "whole":
            paper[len(lines)] = row.means
            cells = (plotting.MISSING if cell == "-" else cell for cell in row.paper)
            lines.append((*row.labels, "paper", *cells, plotting.MISSING, "" if row.presets else NOT_RERUN))
        if row.presets:
            runs[len(lines)] = _run_means(table, row, batch, place)
            lines.append(_run_line(table, row, batch, place))
    lines.append(_clock_line(table, batch, place))
    notes = (*warnings(table, batch), SPREAD_NOTE, *clock_notes(table, batch, place))
    if place == "whole":
        notes += (*coverage_notes(table, batch), *skipped_notes(table, batch), *table.notes)
    else:
        notes += ("The test that counts: a clock does not know where a window starts. The paper has none.",)
    caption = f"{heading(table, batch)}, {PLACES[place]}. {paper_title(table, batch)}. {runs_sentence(table, batch)}"
    columns = (*table.labels, "numbers", *table.headings, LABELS, "runs")
    marks = ranked(len(table.labels) + 1, paper, runs)
    return plotting.Table(tuple(lines), columns, caption, notes, **marks)


def seed_sensitivity(table: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates standard deviation over mean, for the paper's numbers and the runs."""
    lines, notes = [], []
    for source in ("paper", "run"):
        rows = {row.labels: _sensitivities(table, row, batch, source) for row in table.reproduced}
        consumed = {
            row.labels: batch.labels_of(row) if source == "run" else plotting.MISSING for row in table.reproduced
        }
        lines += [(*row, source, *map(_share, found), consumed[row]) for row, found in rows.items() if any(found)]
        means = [_mean(values) for values in zip(*rows.values())]
        lines.append(("mean of rows", *[""] * (len(table.labels) - 1), source, *map(_share, means), ""))
        if any(means):
            worst = max(range(len(means)), key=lambda i: means[i] or 0)
            notes.append(f"Most sensitive to the seed: {table.headings[worst]} ({source}).")
    measure = "standard deviation / |mean| in percent, whole videos"
    caption = f"{heading(table, batch)}. Sensitivity to the seed: {measure}"
    return plotting.Table(tuple(lines), (*table.labels, "numbers", *table.headings, LABELS), caption, tuple(notes))


def costs(table: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates parameters, operations and time of every row as it was run."""
    lines = [
        (*row.labels, preset, *_cost_cells(reports), supervision(reports) or plotting.NOT_RUN)
        for row in table.reproduced
        for preset in dict.fromkeys(row.presets.values())
        for reports in [batch.reports.get(preset, ())]
    ]
    columns = (*table.labels, "preset", "trained, 10⁶", "frozen, 10⁶", "operations a frame, 10⁹", "ms a frame", LABELS)
    caption = f"{heading(table, batch)}. Parameters, operations and time, as run"
    return plotting.Table(tuple(lines), columns, caption, COST_NOTES)


def trials_figure(table: PaperTable, batch: Batch) -> Figure:
    """Draws every trial of every row with a preset, on whole videos and on cropped windows."""
    groups: dict[str, list[int]] = {}
    for i, column in enumerate(table.columns):
        groups.setdefault(column.group, []).append(i)
    panels = [
        (
            "\n".join([group] * (len(groups) > 1) + [PLACES[place]]),
            [_panel(table, i, batch, place) for i in members],
        )
        for group, members in groups.items()
        for place in PLACES
    ]
    title = f"{heading(table, batch)}. {paper_title(table, batch)}"
    caption = " ".join((f"{runs_sentence(table, batch)}.", *_labels_sentence(table, batch), *warnings(table, batch)))
    return plotting.plot_trials(panels, [table.row_name(row) for row in table.reproduced], title, caption)


def _file_names(pairs: Sequence[tuple[Batch, str]]) -> list[str]:
    """Names the tables, with the part of the batch's path that distinguishes batches of the same table."""
    folders: dict[str, list[Path]] = {}
    for batch, name in pairs:
        folders.setdefault(name, []).append(batch.folder.resolve())
    names = []
    for batch, name in pairs:
        base = os.path.commonpath([folder.parent for folder in folders[name]])
        parts = batch.folder.resolve().relative_to(base).parts
        names.append(name if len(folders[name]) == 1 else f"{name}-{'+'.join(parts)}")
    return names


def _run_line(table: PaperTable, row: Row, batch: Batch, place: str) -> tuple[str, ...]:
    cells = [_run_cell(row, column, batch, place) for column in table.columns]
    return (*row.labels, "run", *cells, batch.labels_of(row), batch.progress_of(row))


def _run_cell(row: Row, column: Column, batch: Batch, place: str) -> str:
    if column.dataset not in row.presets:
        return plotting.MISSING
    if not batch.of(row, column):
        return plotting.NOT_RUN
    values = column.in_units(trial_values(batch.of(row, column), place, column.score))
    return score_spread(column.score, values, column.decimals)


def _clock_line(table: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    cells = []
    for column in table.columns:
        value = clock_of(table, batch, column, place)
        cells.append(score_spread(column.score, [] if value is None else [value], column.decimals))
    return ("clock alone", *[""] * (len(table.labels) - 1), "run", *cells, "", "")


def _run_means(table: PaperTable, row: Row, batch: Batch, place: str) -> tuple[float | None, ...]:
    """Returns the means of the runs, rounded as printed; None for an R² below zero, which has no rank."""
    means = []
    for column in table.columns:
        values = column.in_units(trial_values(batch.of(row, column), place, column.score))
        mean = round(float(np.mean(values)), column.decimals) if values else None
        means.append(None if below_mean(column.score, mean) else mean)
    return tuple(means)


def _labels_sentence(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Says which labels the training of each row used."""
    rows: dict[str, list[str]] = {}
    for row in table.reproduced:
        rows.setdefault(batch.labels_of(row), []).append(table.row_name(row))
    rows.pop(plotting.MISSING, None)
    found = [f"{labels} ({', '.join(dict.fromkeys(names))})" for labels, names in rows.items()]
    if len(found) == 1:  # the same for every row that was run: name no row
        found = [*rows]
    return (f"Training labels: {'; '.join(found)}.",) * bool(found)


def _cost_cells(reports: Reports) -> tuple[str, ...]:
    found = [report["cost"] for report in reports if "cost" in report]
    if not found:
        return (plotting.MISSING if reports else plotting.NOT_RUN,) * 4
    millions = (f"{found[0][part] / 1e6:.2f}" for part in ("parameters", "backbone_parameters"))
    times = [cost["ms_per_frame"] for cost in found if cost.get("ms_per_frame") is not None]
    return (*millions, f"{found[0]['operations'] / 1e9:.2f}", spread([np.mean(times)] if times else [], 2))


def _panel(table: PaperTable, i: int, batch: Batch, place: str) -> plotting.TrialPanel:
    column, values, paper = table.columns[i], [], []
    for row in table.reproduced:
        reports, asked = batch.of(row, column), column.dataset in row.presets
        found = tuple(column.in_units(trial_values(reports, place, column.score)))
        values.append(found if reports or not asked else None)
        comparable = place == "whole" and reports and reports[0]["dataset"] == column.dataset
        paper.append(printed(row.paper[i]) if comparable else None)
    clock = clock_of(table, batch, column, place)
    return plotting.TrialPanel(column.heading, UNITS[column.score], tuple(values), tuple(paper), clock)


def _sensitivities(table: PaperTable, row: Row, batch: Batch, source: str) -> list[float | None]:
    if source == "run":
        return [sensitivity(trial_values(batch.of(row, c), "whole", c.score)) for c in table.columns]
    cells = map(printed, row.paper)
    return [cell[1] / 2 / cell[0] if cell and cell[1] is not None else None for cell in cells]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _share(value: float | None) -> str:
    return plotting.MISSING if value is None else f"{100 * value:.2f}"
