"""Notes below a table of runs: its data, coverage, backbone weights, the clock, and differences between rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mvf.config import load_config
from mvf.workbench import plotting
from mvf.workbench.plotting.scores import below_mean
from mvf.workbench.tables.rows import Column, PaperTable, Row
from mvf.workbench.tables.runs import LABELS
from mvf.workbench.tables.trials import FEWEST, PLACES, Batch, Difference, Reports, compare, trial_values

CLOCK = "position_only"
SPREAD_NOTE = (
    "Mean ± two standard deviations (ddof 1) over trials. "
    "Best bold, second underlined: of the rows run, and of the paper's numbers among themselves."
)
COST_NOTES = (
    "Operations: floating-point; a multiplication and an addition count as two.",
    "Trained parameters include the training-only head. Time: mean over trials.",
)
NAMED = 3  # number of left-out videos that a note names
TIMM = "timm's supervised ImageNet weights"


def heading(table: PaperTable, batch: Batch) -> str:
    """Returns the start of a caption, which names the data if they are not the paper's."""
    if not _elsewhere(table, batch):
        return f"Table {table.number}"
    data = dict.fromkeys(report["dataset"] for _, _, found in _found(table, batch) for report in found)
    return f"Table {table.number}'s rows on {', '.join(data)}"


def paper_title(table: PaperTable, batch: Batch) -> str:
    """Says what the table compares, marked as the paper's comparison if the runs are on other data."""
    return f"In the paper: {table.title}" if _elsewhere(table, batch) else table.title


def runs_sentence(table: PaperTable, batch: Batch) -> str:
    """Describes the runs' data, backbones and source of weights."""
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
    """Lists the reasons why the runs' numbers are not comparable with the paper's."""
    notes = []
    random = [table.row_name(row) for row, _, found in _found(table, batch) if _random(found)]
    if random:
        rows = ", ".join(dict.fromkeys(random))
        notes.append(f"RANDOM backbone weights in {rows}: these scores say nothing about a pretrained one.")
    notes += _resnet_notes(table, batch)
    if elsewhere := _elsewhere(table, batch):
        pairs = ", ".join(f"{there} where the paper has {here}" for here, there in elsewhere)
        notes.append(f"NOT COMPARABLE with the paper's numbers: run on {pairs}.")
    notes += _pre_training_notes(table, batch)
    return (*notes, *settings_note(batch.parameters))


def settings_note(parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Lists the settings that were changed for all rows of a batch, if any.

    Example:
        >>> settings_note({"data_options": {"train_videos": 18, "actions": ["squat", "golf"]}})
        ("Settings of this batch, not the presets' own: data_options (train_videos 18; actions squat, golf).",)
    """
    shown = ", ".join(f"{name} {_in_words(value)}" for name, value in parameters.items())
    return (f"Settings of this batch, not the presets' own: {shown}.",) * bool(shown)


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({'; '.join(f'{name} {_in_words(inner)}' for name, inner in value.items())})"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def coverage_notes(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Says how many of the expected videos of each data set were found, and what was left out."""
    notes = []
    for report in (report for _, _, found in _found(table, batch) for report in found):
        parts = (_coverage(split, part) for split, part in report.get("coverage", {}).items())
        notes.append(f"Coverage of {report['dataset']}: {'; '.join(parts) or 'unknown'}.")
    return tuple(dict.fromkeys(notes))


def skipped_notes(table: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Lists the scores that finished runs lack, with the reason."""
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
    """Returns the score of `position_only` in the reference row, else in the first row that was run."""
    for row in (table.reference_row, *table.reproduced):
        values = trial_values(batch.of(row, column), place, column.score, CLOCK)
        if values:
            return column.in_units([float(np.mean(values))])[0]
    return None


def clock_notes(table: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """Lists the rows and scores that a clock reaches without seeing the video."""
    reached: dict[str, list[str]] = {}
    clocked = False
    for row, column, found in _found(table, batch):
        values, clock = (trial_values(found, place, column.score, name) for name in ("model", CLOCK))
        clocked |= bool(clock)
        low = bool(values) and below_mean(column.score, float(np.mean(values)))
        if values and clock and (low or _low_end(values) <= np.mean(clock)):
            heading = table.headings[table.columns.index(column)]
            reached.setdefault(table.row_name(row), []).append(heading)
    rows = "; ".join(f"{row} ({', '.join(scores)})" for row, scores in reached.items())
    says = (
        f"It reaches, as mean − 2 sd is not above it or R² is below zero: {rows}."
        if rows
        else "It reaches no score of a row."
    )
    return (f"Clock alone: the model's position table without the video (position_only). {says}",) * clocked


def _found(table: PaperTable, batch: Batch) -> Iterator[tuple[Row, Column, Reports]]:
    """Yields every cell that has finished runs, with their reports."""
    for row in table.reproduced:
        for column in table.columns:
            if reports := batch.of(row, column):
                yield row, column, reports


def _elsewhere(table: PaperTable, batch: Batch) -> list[tuple[str, str]]:
    """Returns pairs of a data set of the paper and the data set that was run in its place."""
    pairs = {(column.dataset, report["dataset"]) for _, column, found in _found(table, batch) for report in found}
    return sorted(pair for pair in pairs if pair[0] != pair[1])


def _resnet_notes(table: PaperTable, batch: Batch) -> list[str]:
    """Notes rows whose ResNet-50 has other weights than the paper's; only a file can hold BYOL weights."""
    rows: dict[str, list[str]] = {}
    for row, _, found in _found(table, batch):
        for report in found:
            if report["backbone"] == "resnet50" and report["backbone_weights"] != "file":
                rows.setdefault(report["backbone_weights"], []).append(table.row_name(row))
    named = {"random": "RANDOM weights", "hub": TIMM, "index": TIMM}
    return [
        f"The paper's ResNet-50 rows use BYOL weights; here {', '.join(dict.fromkeys(names))} have "
        f"{named.get(weights, f'weights of another source ({weights})')}."
        for weights, names in rows.items()
    ]


def _pre_training_notes(table: PaperTable, batch: Batch) -> list[str]:
    rows: dict[str, list[str]] = {}
    for row, column, _ in _found(table, batch):
        start = load_config(row.presets[column.dataset]).init_from
        for report in batch.reports.get(start, ()):
            if report["dataset"] != "kinetics400":
                rows.setdefault(report["dataset"], []).append(table.row_name(row))
    return [
        f"{', '.join(dict.fromkeys(names))}: pre-trained on {dataset}, not Kinetics-400."
        for dataset, names in rows.items()
    ]


def _coverage(split: str, part: Mapping) -> str:
    unreadable = [f"{name} ({reason})" for name, reason in part["unreadable"].items()]
    more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    left_out = f", left out {', '.join(unreadable[:NAMED])}{more}" if unreadable else ""
    return f"{split} {part['found']} of {part['expected']} videos{left_out}"


def _random(reports: Reports) -> bool:
    return any(report["backbone_weights"] == "random" for report in reports)


def _reason(report: Mapping, place: str, score: str) -> str:
    cropped = (f"cropped.{score}", f"cropped.model.{score}", "cropped")
    names = (*(cropped if place == "cropped" else ()), score)
    return next((report["skipped"][name] for name in names if name in report.get("skipped", {})), "")


def _low_end(values: Sequence[float]) -> float:
    return float(np.mean(values) - (2 * np.std(values, ddof=1) if len(values) > 1 else 0))


NOTES = (
    "‡ exceeds the spread: the means differ by more than the sum of the two rows' two standard deviations.",
    "† holds over the videos: 0 is outside [ ], 95 % of a paired bootstrap over the validation videos, trials pooled. "
    f"No † is given where an action has fewer than {FEWEST} videos that both rows share.",
    "Where there is no real difference, † is set in about 1 of 20 cases with many videos, 1 of 12 with 6 videos in "
    "each of 4 actions, 1 of 6 with 5 videos in a single action.",
)


def differences(table: PaperTable, batch: Batch) -> plotting.Table:
    """Tabulates every row of a table minus the reference row, in the units of the table."""
    reference = table.reference_row
    places = [(row, place) for row in table.reproduced if row is not reference for place in PLACES]
    found = [
        [compare(batch.of(row, column), batch.of(reference, column), place, column.score) for column in table.columns]
        for row, place in places
    ]
    lines = [
        (*row.labels, PLACES[place], *map(difference_cell, table.columns, compared), batch.labels_of(row))
        for (row, place), compared in zip(places, found)
    ]
    caption = f"{heading(table, batch)}. Differences from {table.row_name(reference)}, in the table's units"
    notes = (*NOTES, *video_notes(table.headings, found))
    return plotting.Table(tuple(lines), (*table.labels, "on", *table.headings, LABELS), caption, notes)


def difference_cell(column: Column, found: Difference | None) -> str:
    """Formats a difference with its marks and interval, which `NOTES` explain."""
    if found is None:
        return plotting.MISSING
    (mean,) = column.in_units([found.mean])
    text = f"{mean:+.{column.decimals}f}{'‡' * found.exceeds_spread}{'†' * found.holds}"
    if found.interval is None:
        return text
    low, high = column.in_units(found.interval)
    return f"{text} [{low:+.{column.decimals}f}, {high:+.{column.decimals}f}]"


def video_notes(headings: Sequence[str], found: Sequence[Sequence[Difference | None]]) -> tuple[str, ...]:
    """Says how many validation videos and actions the intervals are over, and in which columns."""
    columns: dict[str, list[str]] = {}
    for name, compared in zip(headings, zip(*found)):
        for videos in {each.videos for each in compared if each and each.interval}:
            several = f"{len(videos)} actions, at least {min(videos)} in each"
            counted = f"{sum(videos)} in {several if len(videos) > 1 else '1 action'}"
            columns.setdefault(counted, []).append(name)
    counts = "; ".join(f"{count} ({', '.join(dict.fromkeys(names))})" for count, names in sorted(columns.items()))
    return (f"Validation videos that both rows share: {counts or 'none'}.",)
