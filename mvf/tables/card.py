"""The report card: every row of the paper's tables, the preset that reproduces it, its cost, and the command.

`python -m mvf.tables.card` writes it to `figures/report_card.md`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mvf import plotting
from mvf.config import PRESET_FOLDER, load_config, presets
from mvf.cost import model_cost
from mvf.files import atomic
from mvf.run_folder import REPOSITORY
from mvf.tables.paper import NOT_RERUN, PaperTable, Row, paper_tables

PATH = REPOSITORY / "figures" / "report_card.md"
BASE = "penn"  # settings are shown as differences from it
TRIALS = 3
INTRODUCTION = f"""# Report card

Every row of the paper's Tables 1 to 6, the preset that reproduces it, what it sets otherwise than `{BASE}`, and what
its model costs at full size. Rows that no preset reproduces are other people's methods: "{NOT_RERUN}".
Printed numbers: accuracy and retrieval in percent, mean ± two standard deviations over three trials where there is a ±.
Trained parameters include the training-only head. Operations are floating-point operations to embed a frame, a
multiplication and an addition counted as two. The notes say what the paper's own numbers say; "spread" is the sum of
two rows' ±. Generated from the presets by `python -m mvf.tables.card`."""
COSTS = ("trained, 10⁶", "frozen, 10⁶", "operations a frame, 10⁹")


def card_text() -> str:
    """The report card as Markdown."""
    tables = (*map(table_card, paper_tables().values()), other_presets())
    return "\n\n".join([INTRODUCTION, *map(str, tables)]) + "\n"


def table_card(table: PaperTable) -> plotting.Table:
    """Rows and presets of one table; a row has a line for every data set that it is of.

    Example:
        >>> table_card(paper_tables()["table1"]).rows[4][:3]
        ('VSP [54]', 'all', 'reported by the paper, not rerun')
    """
    lines = [line for row in table.rows for line in _lines(table, row)]
    command = f"python -m mvf batch {table.name} --trials {TRIALS} --out runs/{table.name}"
    notes = (f"Run by `{command}`, drawn by `figures.ipynb` with `tables=../runs/{table.name}`.", *table.notes)
    headings = " / ".join(dict.fromkeys(column.heading for column in table.columns))
    columns = (*table.labels, "data set", "preset", f"differs from {BASE}", *COSTS, f"paper: {headings}")
    return plotting.Table(tuple(lines), columns, f"## Table {table.number}. {table.title}", notes)


def other_presets() -> plotting.Table:
    """Presets that are of no row: what others start from, and what the tables have not."""
    of_rows = {preset for table in paper_tables().values() for row in table.rows for preset in row.presets.values()}
    lines = [
        (load_config(preset).dataset, preset, _differences(preset), *_costs(preset), _purpose(preset))
        for preset in presets()
        if preset not in of_rows
    ]
    columns = ("data set", "preset", f"differs from {BASE}", *COSTS, "purpose")
    return plotting.Table(tuple(lines), columns, "## Presets of no row")


def write_card(path: Path = PATH) -> None:
    """Writes the report card."""
    with atomic(path) as temporary:
        temporary.write_text(card_text(), encoding="utf-8")


def _lines(table: PaperTable, row: Row) -> list[tuple[str, ...]]:
    if not row.presets:
        return [(*row.labels, "all", NOT_RERUN, *[""] * (1 + len(COSTS)), " / ".join(row.paper))]
    lines = []
    for dataset, preset in row.presets.items():
        printed = (cell for cell, column in zip(row.paper, table.columns) if column.dataset == dataset)
        lines.append((*row.labels, dataset, preset, _differences(preset), *_costs(preset), " / ".join(printed)))
    return lines


def _differences(preset: str) -> str:
    base = load_config(BASE).as_dict()
    config = load_config(preset).as_dict()
    changed = {name: value for name, value in config.items() if value != base[name]}
    shown = (f"{name} {_short(value)}" for name, value in changed.items() if name not in ("preset", "dataset"))
    return ", ".join(shown) or "nothing"


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={inner}" for name, inner in value.items())
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


@cache
def _costs(preset: str) -> tuple[str, ...]:
    cost = model_cost(load_config(preset))
    return f"{cost.parameters / 1e6:.2f}", f"{cost.backbone_parameters / 1e6:.2f}", f"{cost.operations / 1e9:.2f}"


def _purpose(preset: str) -> str:
    """The comment that a preset's file begins with."""
    text = (PRESET_FOLDER / f"{preset}.toml").read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


if __name__ == "__main__":
    write_card()
