"""Every row minus the reference row: against the spread over trials, and over the validation videos."""

from __future__ import annotations

from collections.abc import Sequence

from mvf import plotting
from mvf.sights import LABELS
from mvf.tables.notes import heading
from mvf.tables.paper import Column, PaperTable
from mvf.tables.trials import FEWEST, PLACES, Batch, Difference, compare

NOTES = (
    "‡ exceeds the spread: the means differ by more than the sum of the two rows' two standard deviations.",
    "† holds over the videos: 0 is outside [ ], 95 % of a paired bootstrap over the validation videos, trials pooled. "
    f"No † is given where an action has fewer than {FEWEST} videos that both rows share.",
    "Of differences without substance, † marks about 1 in 20 with many videos, 1 in 12 with 6 videos in each of 4 "
    "actions, 1 in 6 with 5 videos in a single action.",
)


def differences(table: PaperTable, batch: Batch) -> plotting.Table:
    """The differences of one table, in its units."""
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
    """A difference with its marks and interval, as `NOTES` explain them."""
    if found is None:
        return plotting.MISSING
    (mean,) = column.in_units([found.mean])
    text = f"{mean:+.{column.decimals}f}{'‡' * found.exceeds_spread}{'†' * found.holds}"
    if found.interval is None:
        return text
    low, high = column.in_units(found.interval)
    return f"{text} [{low:+.{column.decimals}f}, {high:+.{column.decimals}f}]"


def video_notes(headings: Sequence[str], found: Sequence[Sequence[Difference | None]]) -> tuple[str, ...]:
    """How many validation videos and actions the intervals are over, and in which columns."""
    columns: dict[str, list[str]] = {}
    for name, compared in zip(headings, zip(*found)):
        for videos in {each.videos for each in compared if each and each.interval}:
            several = f"{len(videos)} actions, at least {min(videos)} in each"
            counted = f"{sum(videos)} in {several if len(videos) > 1 else '1 action'}"
            columns.setdefault(counted, []).append(name)
    counts = "; ".join(f"{count} ({', '.join(dict.fromkeys(names))})" for count, names in sorted(columns.items()))
    return (f"Validation videos that both rows share: {counts or 'none'}.",)
