"""The paper's Tables 1 to 6, with printed numbers and presets that reproduce them; the study of objectives."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mvf.config import stored_presets
from mvf.losses import OBJECTIVES
from mvf.losses.objective import SUPERVISION
from mvf.workbench.tables.runs import LABELS

TABLES = Path(__file__).with_name("paper.toml")
NOT_RERUN = "reported by the paper, not rerun"


@dataclass(frozen=True)
class Column:
    """A column of scores.

    Attributes:
        group: Heading above several columns, or empty.
        heading: Heading, the paper's, with the full name of Kendall's tau.
        dataset: Name of the data set.
        score: Key of `scores` in `metrics.json`.
        percent: True if printed in percent, False if a fraction.
    """

    group: str
    heading: str
    dataset: str
    score: str
    percent: bool

    @property
    def decimals(self) -> int:
        """Number of decimals that the paper prints."""
        return 2 if self.percent else 3

    def in_units(self, values: Iterable[float]) -> list[float]:
        """Converts fractions to the unit that the paper prints."""
        return [100 * value if self.percent else value for value in values]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        labels: The row's labels, one for each of the table's label headings.
        presets: The preset that reproduces the row on each data set; empty for a row that is not rerun.
        paper: Printed cells, one per column; "-" where the paper has none.
    """

    labels: tuple[str, ...]
    presets: dict[str, str]
    paper: tuple[str, ...]

    @property
    def means(self) -> tuple[float | None, ...]:
        """The printed means; None where the paper has none."""
        return tuple(cell and cell[0] for cell in map(printed, self.paper))


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: `table1` ... `table6`.
        title: What the table compares.
        labels: Headings of the rows' labels.
        columns: Columns of scores.
        rows: Rows in the paper's order.
        notes: Remarks on its numbers.
        reference: Labels of the row that the others are compared with.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    reference: tuple[str, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.labels) != len(self.labels) or len(row.paper) != len(self.columns):
                wanted = f"{len(self.labels)} labels and {len(self.columns)} cells"
                raise ValueError(f"{self.name}: a row must have {wanted}, got {row.labels} with {row.paper}")
            unknown = row.presets.keys() - {column.dataset for column in self.columns}
            if unknown:
                raise ValueError(f"{self.name}: {row.labels} has presets for {sorted(unknown)}, which no column is of")

    @property
    def number(self) -> str:
        """The number in the table's name."""
        return self.name.removeprefix("table")

    @property
    def reproduced(self) -> tuple[Row, ...]:
        """The rows that have presets."""
        return tuple(row for row in self.rows if row.presets)

    @property
    def reference_row(self) -> Row:
        """The row that the others are compared with."""
        return next(row for row in self.rows if row.labels == self.reference)

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the columns of scores, with the group where there are several groups."""
        several = len({column.group for column in self.columns}) > 1
        return tuple(f"{c.group} {c.heading}" if several else c.heading for c in self.columns)

    def row_name(self, row: Row) -> str:
        """Joins a row's labels to one line; a tick is replaced by its heading, and missing labels are omitted.

        Example:
            >>> table = paper_tables()["table2"]
            >>> table.row_name(table.rows[-1])
            'MVF Pre. Fine.'
        """
        words = (heading if label == "✓" else label for heading, label in zip(self.labels, row.labels))
        return " ".join(word for word in words if word not in ("", "-", "None"))


@cache
def paper_tables() -> dict[str, PaperTable]:
    """Returns the tables by name, `table1` to `table6`.

    Example:
        >>> table = paper_tables()["table3"]
        >>> table.rows[6].labels, table.rows[6].presets, table.rows[6].paper[0]
        (('Multi.', '3'), {'penn': 'penn'}, '94.21 ± 0.04')
    """
    stored = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    columns = {
        dataset: tuple(Column(dataset=dataset, **values) for values in listed)
        for dataset, listed in stored.pop("columns").items()
    }
    return {name: _table(name, columns, **values) for name, values in stored.items()}


def printed(cell: str) -> tuple[float, float | None] | None:
    """Parses mean and ± (two standard deviations) of a printed cell; None for "-".

    Example:
        >>> printed("94.21 ± 0.04"), printed("93.9"), printed("-")
        ((94.21, 0.04), (93.9, None), None)
    """
    if cell == "-":
        return None
    mean, _, spread = cell.partition(" ± ")
    return float(mean), float(spread) if spread else None


def _table(
    name: str, columns: dict[str, tuple[Column, ...]], datasets: list[str], rows: list[dict], title: str, **lists: list
) -> PaperTable:
    return PaperTable(
        name=name,
        title=title,
        columns=tuple(column for dataset in datasets for column in columns[dataset]),
        rows=tuple(Row(tuple(row["labels"]), row.get("presets", {}), tuple(row["paper"])) for row in rows),
        **{key: tuple(value) for key, value in lists.items()},
    )


# The study of objectives: every objective on the same two models and the same data. It is not in the paper.

DATASETS = {"synthetic": "study", "folder": "study_pullups"}  # the preset of scl on each data set
MODELS = {"LSTP + MTF": "", "late fusion": "_late"}  # suffixes of the presets' names
REFERENCE = "scl"  # the objective of the base presets
ALIGNMENT = "alignment_error"
READINGS = {"lrprop": "lrprop (our reading)"}  # objectives without available code or formula
MEASURES = {
    "classification": ("class., %", True),
    "progression": ("progression, R²", False),
    "kendall_tau": ("Kendall's tau", False),
    "retrieval@5": ("retrieval@5, %", True),
    ALIGNMENT: ("alignment error", False),
}


@cache
def studies() -> dict[str, PaperTable]:
    """Returns the study on both data sets and on each alone, by name; all cells of the paper are empty.

    Example:
        >>> studies()["study"].rows[0].presets
        {'synthetic': 'study', 'folder': 'study_pullups'}
        >>> list(studies()), studies()["study_folder"].rows[-1].labels
        (['study', 'study_synthetic', 'study_folder'], ('late fusion', 'vsp_f', 'frame'))
    """
    return {"study": _study("study", *DATASETS)} | {f"study_{name}": _study(f"study_{name}", name) for name in DATASETS}


def objectives() -> dict[str, str]:
    """Returns every objective of the study with the labels that it uses, in order of supervision."""
    families = {preset.objective for preset in stored_presets().values() if preset.objective}
    labels = {name: OBJECTIVES[name].labels for name in (REFERENCE, *sorted(families))}
    return dict(sorted(labels.items(), key=lambda item: SUPERVISION.index(item[1])))


def _study(name: str, *datasets: str) -> PaperTable:
    columns = tuple(
        Column(dataset, heading, dataset, score, percent)
        for dataset in datasets
        for score, (heading, percent) in MEASURES.items()
    )
    empty = ("-",) * len(columns)
    rows = tuple(
        Row((model, READINGS.get(objective, objective), labels), _presets(objective, ending, datasets), empty)
        for model, ending in MODELS.items()
        for objective, labels in objectives().items()
    )
    return PaperTable(
        name=name,
        title="What the objective brings: all else is the same",
        labels=("model", "objective", LABELS),
        columns=columns,
        rows=rows,
        notes=(),
        reference=rows[0].labels,
    )


def _presets(objective: str, ending: str, datasets: tuple[str, ...]) -> dict[str, str]:
    own = "" if objective == REFERENCE else f"_{objective}"
    return {dataset: f"{DATASETS[dataset]}{ending}{own}" for dataset in datasets}
