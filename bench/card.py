"""Writes the report card: every row of the paper's tables, its preset, cost and command.

`python bench/card.py` writes `figures/report_card.md`.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from mvf.config import Config, load_config, make_config, stored_presets
from mvf.cost import model_cost
from mvf.files import atomic
from mvf.losses import build_config_loss, build_loss
from mvf.models import Architecture
from mvf.training.run import REPOSITORY
from mvf.workbench import plotting
from mvf.workbench.tables.rows import NOT_RERUN, PaperTable, Row, paper_tables

PATH = REPOSITORY / "figures" / "report_card.md"
BASE = "penn"  # settings are shown as differences from this preset
TRIALS = 3
MODEL = (  # settings that the cost of a model depends on
    *"backbone image_size layers trainable_blocks features velocity motion_offsets".split(),
    *(f.name for f in fields(Architecture) if hasattr(Config, f.name)),
)
INTRODUCTION = f"""# Report card

Every row of the paper's Tables 1 to 6, the preset that reproduces it, what it sets otherwise than `{BASE}`, and what
its model costs at full size. Rows of other people's methods have their objective with its settings, as far as those
are known, on CARL's model, not their own frame encoders (section "Objectives").
LRProp is our reading of it: only the abstract was readable, and no code was found.
Printed numbers: accuracy and retrieval in percent, mean ± two standard deviations over three trials where there is a ±.
Trained parameters include the training-only head. Operations are floating-point operations to embed a frame, a
multiplication and an addition counted as two. The notes say what the paper's own numbers say; "spread" is the sum of
two rows' ±. Generated from the presets by `python bench/card.py`."""
COSTS = ("trained, 10⁶", "frozen, 10⁶", "operations a frame, 10⁹")


def card_text() -> str:
    """The report card as Markdown."""
    tables = (*map(table_card, paper_tables().values()), objectives(), other_presets())
    return "\n\n".join([INTRODUCTION, *map(str, tables)]) + "\n"


def table_card(table: PaperTable) -> plotting.Table:
    """Tabulates the rows and presets of one table; a row has a line for each of its data sets.

    Example:
        >>> table_card(paper_tables()["table5"]).rows[0][:3]
        ('RN50', 'penn', 'penn_resnet50')
    """
    lines = [line for row in table.rows for line in _lines(table, row)]
    command = f"python -m mvf batch {table.name} --trials {TRIALS} --out runs/{table.name}"
    notes = (f"Run by `{command}`, drawn by `figures.ipynb` with `tables=../runs/{table.name}`.", *table.notes)
    headings = " / ".join(dict.fromkeys(column.heading for column in table.columns))
    columns = (*table.labels, "data set", "preset", f"differs from {BASE}", *COSTS, f"paper: {headings}")
    return plotting.Table(tuple(lines), columns, f"## Table {table.number}. {table.title}", notes)


def objectives() -> plotting.Table:
    """Tabulates the presets of each objective, the labels that it uses, and its published settings.

    Example:
        >>> [row[:3] for row in objectives().rows if row[0] == "gta"]
        [('gta', 'video', 'penn_gta, study_gta, study_late_gta, study_pullups_gta, study_pullups_late_gta')]
    """
    families: dict[str, list[str]] = {}
    for preset, stored in stored_presets().items():
        if stored.objective:
            families.setdefault(stored.objective, []).append(preset)
    lines = []
    for name, members in sorted(families.items()):
        published = [preset for preset in members if preset.endswith("_published")]
        own = [preset for preset in members if preset not in published]
        known = stored_presets()[own[0]].purpose
        lines.append((name, build_loss(name, embedding_size=1).labels, ", ".join(own), ", ".join(published), known))
    columns = ("objective", "labels", "presets, the base's own settings", "presets, as published", "what is published")
    return plotting.Table(tuple(lines), columns, "## Objectives")


def other_presets() -> plotting.Table:
    """Tabulates the presets that belong to no row and no objective."""
    of_rows = {preset for table in paper_tables().values() for row in table.rows for preset in row.presets.values()}
    lines = [
        (load_config(preset).dataset, preset, _differences(preset), *_costs(preset), stored.purpose)
        for preset, stored in stored_presets().items()
        if preset not in of_rows and not stored.objective
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


def _costs(preset: str) -> tuple[str, ...]:
    config = load_config(preset)
    head = "projection" in build_config_loss(config).reads
    return _model_costs(tuple((name, getattr(config, name)) for name in MODEL), "scl" if head else "vsp")


@cache
def _model_costs(model: tuple[tuple[str, Any], ...], objective: str) -> tuple[str, ...]:
    """Returns the costs of a model; of the objective it matters only whether it uses the training-only head."""
    cost = model_cost(make_config({**dict(model), "objective": objective}))
    return f"{cost.parameters / 1e6:.2f}", f"{cost.backbone_parameters / 1e6:.2f}", f"{cost.operations / 1e9:.3g}"


if __name__ == "__main__":
    write_card()
