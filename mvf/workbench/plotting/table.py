"""Tables that are shown as HTML in a notebook and as Markdown in a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from typing import Protocol

MISSING = "–"
NOT_RUN = "not run"
BELOW_MEAN = "below the mean"  # in place of an R² below zero


@dataclass(frozen=True)
class Table:
    """A table of text with headings, shown as HTML in a notebook and as Markdown by `str`.

    Attributes:
        rows: Cells, one tuple per row; `cell` formats numbers as text.
        columns: Headings of the columns.
        caption: A line above the table.
        notes: Lines below it.
        strong: Indices of the rows in bold.
        best: (row, column) of the cells in bold.
        second: (row, column) of the underlined cells.

    Example:
        >>> print(Table((("model", "0.960"),), ("embedding", "classification"), "Scores"))
        Scores
        <BLANKLINE>
        | embedding | classification |
        | --------- | -------------: |
        | model     |          0.960 |
    """

    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    strong: tuple[int, ...] = ()
    best: tuple[tuple[int, int], ...] = ()
    second: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"every row must have {len(self.columns)} cells, got {len(row)}: {row}")

    def _is_numeric(self, column: int) -> bool:
        cells = [row[column] for row in self.rows]
        return any(_is_number(c) for c in cells) and all(
            _is_number(c) or c in (MISSING, NOT_RUN, BELOW_MEAN, "") for c in cells
        )

    def _marked(self, best: str, second: str, escaped: Callable[[str], str] = str) -> list[list[str]]:
        """Returns the rows, with `best` and `second`, patterns like "**{}**", applied to the marked cells."""
        rows = [[escaped(minus(cell)) for cell in row] for row in self.rows]
        for pattern, cells in ((best, self.best), (second, self.second)):
            for i, j in cells:
                rows[i][j] = pattern.format(rows[i][j])
        return rows

    def __str__(self) -> str:
        rows = self._marked("**{}**", "<u>{}</u>")
        widths = [max(len(row[i]) for row in (self.columns, *rows)) for i in range(len(self.columns))]
        numeric = [self._is_numeric(i) for i in range(len(self.columns))]
        rule = tuple("-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric))
        lines = [minus(self.caption), ""] if self.caption else []
        for row in (self.columns, rule, *rows):
            cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric))
            lines.append(f"| {' | '.join(cells)} |")
        notes = [minus(note) for note in self.notes]
        notes = notes if len(notes) < 2 else [f"- {note}" for note in notes]
        return "\n".join(lines + ([""] if notes else []) + list(notes))

    def _repr_html_(self) -> str:
        if not self.rows:  # headings of nothing
            return "".join(f"<div>{escape(minus(line))}</div>" for line in self.notes)
        numeric = [self._is_numeric(i) for i in range(len(self.columns))]
        # Text columns before the first numeric column are row headings.
        named = next((i for i, is_number in enumerate(numeric) if is_number), 1) or 1
        style = "caption-side:top;text-align:left;font-weight:bold"
        caption = f'<caption style="{style}">{escape(minus(self.caption))}</caption>' if self.caption else ""
        head = _html_row([escape(c) for c in self.columns], numeric, "col", len(self.columns), weight="")
        rows = enumerate(self._marked("<b>{}</b>", "<u>{}</u>", escape))
        weights = {True: "font-weight:bold", False: "font-weight:normal"}
        body = "".join(_html_row(row, numeric, "row", named, weights[i in self.strong]) for i, row in rows)
        notes = "".join(f'<div style="font-size:85%">{escape(minus(note))}</div>' for note in self.notes)
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{notes}"


def _html_row(cells: list[str], numeric: list[bool], scope: str, headings: int, weight: str) -> str:
    """Formats a row whose first cells are headings of `scope`; digits have equal widths, so that they line up."""
    inner = ""
    for i, (text, is_number) in enumerate(zip(cells, numeric)):
        tag, opened = ("th", f'th scope="{scope}"') if i < headings else ("td", "td")
        side = "text-align:right;font-variant-numeric:tabular-nums" if is_number else "text-align:left"
        inner += f'<{opened} style="{";".join(filter(None, (side, weight)))}">{text}</{tag}>'
    return f"<tr>{inner}</tr>"


def _is_number(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split(" ± ")])
    except ValueError:
        return False


def minus(text: str) -> str:
    """Writes the minus signs of negative numbers as U+2212.

    Hyphens stay hyphens. Everything that people read passes through here; files for programs keep ASCII.

    Example:
        >>> minus("-0.1 [-.2, -3 %], run-3, 2026-11-30, a - b.mp4")
        '−0.1 [−.2, −3 %], run-3, 2026-11-30, a - b.mp4'
    """
    return re.sub(r"(?<![^\s(\[,;:=~])-(?=\.?\d[\d.,]*(?:[^\w.,]|$))", "−", text)


def cell(value: object) -> str:
    """Formats a value for a table: three decimals, a dash if it is missing.

    Example:
        >>> cell(0.96), cell(None), cell((4, 8)), cell(3)
        ('0.960', '–', '4, 8', '3')
    """
    if value is None:
        return MISSING
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:.3f}" if math.isfinite(value) else str(float(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def config_table(config: Mapping[str, object]) -> Table:
    """Tabulates a configuration, one row per field. Numbers are shown in full.

    Example:
        >>> print(config_table({"seed": 1, "layers": (4, 8, 12)}))
        | setting | value    |
        | ------- | -------- |
        | seed    | 1        |
        | layers  | 4, 8, 12 |
    """
    rows = tuple((name, f"{v:g}" if isinstance(v, float) else cell(v)) for name, v in config.items())
    return Table(rows, ("setting", "value"))


@dataclass(frozen=True, repr=False)
class Folded:
    """A table with a longer one below it, which opens at a click; in a terminal only the first.

    Attributes:
        table: The table that is shown.
        title: Words that open the other one.
        more: The other one.
    """

    table: Table
    title: str
    more: Table

    def __repr__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        more = f"<details><summary>{escape(self.title)}</summary>{self.more._repr_html_()}</details>"
        return self.table._repr_html_() + (more if self.more.rows else "")


class HasShape(Protocol):
    """An array or tensor of any library."""

    @property
    def shape(self) -> Sequence[int]: ...


def shapes_table(
    tensors: Mapping[str, HasShape | Sequence[int] | None], parameters: Mapping[str, int] | None = None
) -> Table:
    """Tabulates the shape of each tensor in a model, with the number of parameters of each module below.

    Args:
        tensors: By name, ideally with its axes, such as `"entities (B, T, N, D)"`: anything with a `shape`, a shape
            itself, or None (absent).
        parameters: Number of parameters of each module.

    Example:
        >>> print(shapes_table({"embeddings (B, T, E)": (2, 32, 128)}, {"fusion": 1_230_000}))
        | tensor               | shape        |
        | -------------------- | ------------ |
        | embeddings (B, T, E) | 2 x 32 x 128 |
        <BLANKLINE>
        fusion: 1,230,000 parameters
    """
    shapes = {name: t if t is None or isinstance(t, Sequence) else t.shape for name, t in tensors.items()}
    rows = tuple((name, MISSING if shape is None else " x ".join(map(str, shape))) for name, shape in shapes.items())
    notes = tuple(f"{part}: {count:,} parameters" for part, count in (parameters or {}).items())
    return Table(rows, ("tensor", "shape"), notes=notes)
