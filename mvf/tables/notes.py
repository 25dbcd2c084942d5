"""What has to stand beside a table of runs: of which data, how much of them, with which weights, and the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mvf.tables.paper import Column, PaperTable, Row
from mvf.tables.trials import PLACES, Batch, Reports, trial_values

CLOCK = "position_only"
SPREAD_NOTE = "Mean ± two standard deviations (ddof 1) over trials; of the rows run, best bold, second underlined."
DIFFERENCE_NOTES = (
    "‡ exceeds the spread: the means differ by more than the sum of the two rows' two standard deviations.",
    "† holds over the videos: 0 is outside [ ], 95 % of a paired bootstrap over the validation videos, trials pooled.",
    "Of twenty differences without substance, one holds by chance.",
)
COST_NOTES = (
    "Operations: floating-point; a multiplication and an addition count as two.",
    "Trained parameters include the training-only head. Time: mean over trials.",
)
NAMED = 3  # videos left out that a note names


def subject(table: PaperTable, batch: Batch) -> str:
    """On what the rows were run: data, backbones, where their weights came from."""
    reports = [report for _, _, found in _found(table, batch) for report in found]
    if not reports:
        return "No run yet"
    weights = {"random": "RANDOM weights", "hub": "hub", "index": "package index", "file": "a file"}
    data = dict.fromkeys(r["dataset"] + (f" (data seed {r['data_seed']})" * bool(r.get("data_seed"))) for r in reports)
    backbones = dict.fromkeys(
        f"{r['backbone']} ({weights.get(r['backbone_weights'], r['backbone_weights'])})" for r in reports
    )
    return f"Runs: {', '.join(data)}; {', '.join(backbones)}"


def warnings(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Why the runs' numbers are not to be read beside the paper's."""
    notes = []
    random = [table.row_name(row) for row, _, found in _found(table, batch) if _random(found)]
    if random:
        rows = ", ".join(dict.fromkeys(random))
        notes.append(f"RANDOM backbone weights in {rows}: these scores say nothing of a pretrained one.")
    elsewhere = {(c.dataset, r["dataset"]) for _, c, found in _found(table, batch) for r in found}
    elsewhere = sorted(pair for pair in elsewhere if pair[0] != pair[1])
    if elsewhere:
        pairs = ", ".join(f"{there} where the paper has {here}" for here, there in elsewhere)
        notes.append(f"NOT COMPARABLE with the paper's numbers: run on {pairs}.")
    if batch.parameters:
        settings = ", ".join(f"{name} {value}" for name, value in batch.parameters.items())
        notes.append(f"Settings of this batch, not the presets' own: {settings}.")
    return tuple(notes)


def coverage_notes(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """How many of the expected videos were found, and what was left out, by data set."""
    notes = []
    for report in (report for _, _, found in _found(table, batch) for report in found):
        parts = (_coverage(split, part) for split, part in report.get("coverage", {}).items())
        notes.append(f"Coverage of {report['dataset']}: {'; '.join(parts) or 'unknown'}.")
    return tuple(dict.fromkeys(notes))


def skipped_notes(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Scores that finished runs lack, with the reason."""
    notes = []
    for row, column, found in _found(table, batch):
        for place in PLACES:
            lacking = len(found) - len(trial_values(found, place, column.score))
            if lacking:
                where = f"{table.row_name(row)}, {column.heading}, {place}"
                reason = ", ".join(dict.fromkeys(filter(None, (_reason(r, place, column.score) for r in found))))
                notes.append(f"{where}: skipped in {lacking} of {len(found)} trials: {reason or 'no reason given'}.")
    return tuple(dict.fromkeys(notes))


def clock_of(table: PaperTable, batch: Batch, column: Column, place: str) -> float | None:
    """What `position_only` scores: beside the reference row, else beside the first row that was run."""
    for row in (table.reference_row, *table.reproduced):
        values = trial_values(batch.of(row, column), place, column.score, CLOCK)
        if values:
            return column.in_units([float(np.mean(values))])[0]
    return None


def clock_notes(table: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """The rows and scores that a clock reaches without looking at the video."""
    reached: dict[str, list[str]] = {}
    clocked = False
    for row, column, found in _found(table, batch):
        values, clock = (trial_values(found, place, column.score, name) for name in ("model", CLOCK))
        clocked |= bool(clock)
        if values and clock and _low_end(values) <= np.mean(clock):
            heading = table.headings[table.columns.index(column)]
            reached.setdefault(table.row_name(row), []).append(heading)
    rows = "; ".join(f"{row} ({', '.join(scores)})" for row, scores in reached.items())
    says = f"It reaches, as mean - 2 sd is not above it: {rows}." if rows else "It reaches no score of a row."
    return (f"Clock alone: the model's position table without the video (position_only). {says}",) * clocked


def _found(table: PaperTable, batch: Batch) -> Iterator[tuple[Row, Column, Reports]]:
    """Every cell that has finished runs."""
    for row in table.reproduced:
        for column in table.columns:
            if reports := batch.of(row, column):
                yield row, column, reports


def _coverage(split: str, part: Mapping) -> str:
    unreadable = [f"{name} ({reason})" for name, reason in part["unreadable"].items()]
    more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    left_out = f", left out {', '.join(unreadable[:NAMED])}{more}" if unreadable else ""
    return f"{split} {part['found']} of {part['expected']} videos{left_out}"


def _random(reports: Reports) -> bool:
    return any(report["backbone_weights"] == "random" for report in reports)


def _reason(report: dict, place: str, score: str) -> str:
    cropped = (f"cropped.{score}", f"cropped.model.{score}", "cropped")
    names = (*(cropped if place == "cropped" else ()), score)
    return next((report["skipped"][name] for name in names if name in report.get("skipped", {})), "")


def _low_end(values: Sequence[float]) -> float:
    return np.mean(values) - (2 * np.std(values, ddof=1) if len(values) > 1 else 0)
