"""Tables that are shown as HTML in a notebook and as Markdown in a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from types import MappingProxyType
from typing import Protocol

MISSING = "–"
NOT_RUN = "not run"
BELOW_MEAN = "below the mean"  # in place of an R² below zero

# What the words of tables mean, in a sentence; docs/design.md, section 7, defines them. Tables show it as a title.
GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "classification": "share of frames whose phase a linear classifier of the embeddings names, fitted on training "
        "videos; higher is better",
        "progression": "R² of the time since each phase boundary, predicted from the embeddings by linear regression; "
        "1 is perfect, 0 no better than the mean",
        BELOW_MEAN: "an R² below zero: worse than always guessing the mean, so it counts as no gain",
        "Kendall's tau": "how well the nearest frames in another video keep the order of time, from −1 to 1; a clock "
        "scores 1 without looking",
        "retrieval": "share of the k nearest frames in other videos that have the same phase (retrieval@k); higher is "
        "better",
        "alignment error": "how far the nearest frame in another video is from the same moment, in shares of an "
        "action; lower is better, guessing gives 1/3",
        "cropped windows": "random parts of 50 to 80 % of a video, embedded as if they were whole videos: the test "
        "that counts, because a clock cannot know where a part begins",
        "whole videos": "videos from beginning to end: the number of a frame alone can tell much of its phase",
        "clock": "an embedding of the number of the frame, which looks at no pixel",
        "position only": "the model's own position table without any pixel, stretched over the video: a clock",
        "frame count": "the position table of the plain frame number: a clock that does not know the video's length",
        "frozen frame": "the model fed the video's middle frame again and again: what it scores is counting",
        "untrained": "the same model before training",
        "backbone mean": "the mean patch feature of the frozen backbone, frame by frame",
        "backbone motion": "the mean patch feature and its differences over time: no training, no clock",
        "motion PCA": "128 numbers of the movement around a frame, in closed form from frozen features: no training, "
        "no labels",
        "motion skip alone": "the half of the embedding that is movement in closed form: no training, no labels",
        "shuffled order": "the model fed the frames in random order: appearance without order or motion",
        "untrained, shuffled": "the untrained model fed the frames in random order",
        "model, reversed order": "the model fed the frames from last to first: what it loses depends on the direction "
        "of time",
        "frame difference": "difference in grey of frames that the model aligns: no features",
        "distance over band": "distance to the references at the peak over the band there: above 1 is further than the "
        "references mostly are from one another",
        "entity": "what one learned query pools from the patches of every frame; its map is where it looks",
        "entity best": "the entity with the highest AUROC on training videos",
        "untrained entity best": "the best entity of the model before training, chosen on training videos",
        "background": "the entity with the lowest AUROC on training videos, scored on what is not the actor",
        "head": "a class-token head of the frozen backbone",
        "head best": "the class-token head of the frozen backbone with the highest AUROC on training videos",
        "head oracle by AUROC": "the best head of each video by its own mask, which is what picking by eye amounts to",
        "backbone PCA": "first principal component of the frozen patches, fitted on training videos",
        "mean training mask": "where the actor is on average in training videos; sees no image",
        "centre": "a bell around the middle of the frame; sees no image",
        "uniform": "the same everywhere; sees no image",
        "the region itself": "the actor's own mask: what a perfect map scores on this grid",
        "AUROC": "probability that a patch on the actor gets more attention than one beside it; 0.5 is chance",
        "lift": "attention on the actor over the actor's share of the frame; 1 is chance",
        "average precision": "area under precision over recall when patches are ranked by attention",
        "mass": "share of the attention that is on the actor",
        "pointing": "share of frames whose strongest patch is on the actor",
        "jaccard": "overlap of the actor with the strongest patches that hold 60 % of the attention, over their union",
        "jaccard size": "share of patches that hold 60 % of the attention",
        "limbs": "attention per area of the limbs over that of limbs and torso together; 0.5 is even",
        "object AUROC": "AUROC on the object that the actor handles",
        "object lift": "lift on the object that the actor handles",
        "overlap with entity": "attention that two entities share; 1 for equal maps",
        "steadiness": "share of the attention that stays on the same patches from one frame to the next",
        "entropy": "how spread out the attention is; 1 is even",
        "effective share": "share of patches that an even map as spread out as this one covers",
        "direction": "phases in which a pose is passed, told from others only by the direction of movement",
        "pose": "phases told by the pose of a single frame",
        "probe": "a linear model fitted on frozen embeddings of the training videos",
    }
)


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

    def _marked(self, best: str, second: str, shown: Callable[[str, int], str]) -> list[list[str]]:
        """Returns the rows, each cell as `shown(text, column)`; `best` and `second` are patterns like "**{}**"."""
        rows = [[shown(text, column) for column, text in enumerate(row)] for row in self.rows]
        for pattern, cells in ((best, self.best), (second, self.second)):
            for i, j in cells:
                rows[i][j] = pattern.format(rows[i][j])
        return rows

    def __str__(self) -> str:
        rows = self._marked("**{}**", "<u>{}</u>", lambda text, _: minus(text))
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
        head = _html_row([explained(c) for c in self.columns], numeric, "col", len(self.columns), weight="")
        rows = self._marked("<b>{}</b>", "<u>{}</u>", lambda text, i: explained(text, i < named))
        for above, row, shown in zip(self.rows, self.rows[1:], rows[1:]):
            if named > 1 and row[0] == above[0]:  # the name of a group of rows stands once
                shown[0] = ""
        weights = {True: "font-weight:bold", False: "font-weight:normal"}
        body = "".join(_html_row(row, numeric, "row", named, weights[i in self.strong]) for i, row in enumerate(rows))
        notes = "".join(f'<div style="font-size:85%">{escape(minus(note))}</div>' for note in self.notes)
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{notes}"


def explain(text: str) -> str:
    """Returns what a heading or the name of a score, a control or a map means; empty if `GLOSSARY` does not know it.

    Example:
        >>> explain("retrieval@5, %") == explain("retrieval@10") == GLOSSARY["retrieval"], explain("squat_000")
        (True, '')
    """
    known = {name.lower(): meaning for name, meaning in GLOSSARY.items()}
    name = text.replace("_", " ").lower().strip()
    return known.get(name) or known.get(re.split(r"[,:(↓@\d]", name)[0].strip(), "")


def explained(text: str, is_heading: bool = True) -> str:
    """Returns a text as HTML, a heading with what it means as its title."""
    shown, meaning = escape(minus(text)), explain(text) if is_heading or text == BELOW_MEAN else ""
    return f'<abbr title="{escape(meaning)}">{shown}</abbr>' if meaning else shown


def explained_text(text: str) -> str:
    """Returns a sentence as HTML, each name of `GLOSSARY` in it with what it means as its title.

    Example:
        >>> explained_text("level with untrained, 0.5")
        'level with <abbr title="the same model before training">untrained</abbr>, 0.5'
    """
    names = "|".join(sorted(map(re.escape, GLOSSARY), key=len, reverse=True))
    parts = re.split(rf"((?<!\w)(?:{names})(?!\w)(?:@\d+)?)", text)  # every second part is a name
    return "".join(explained(part, is_heading=bool(i % 2)) for i, part in enumerate(parts))


def _html_row(cells: list[str], numeric: list[bool], scope: str, headings: int, weight: str) -> str:
    """Formats a row whose first cells are headings of `scope`; digits have equal widths, so that they line up."""
    inner = ""
    for i, (text, is_number) in enumerate(zip(cells, numeric)):
        tag, opened = ("th", f'th scope="{scope}"') if i < headings else ("td", "td")
        side = "text-align:right;font-variant-numeric:tabular-nums" if is_number else "text-align:left"
        whole = "" if re.search("[A-Za-z]", text) else "white-space:nowrap"  # an interval stays on one line
        width = "min-width:12em" if scope == "row" and tag == "th" and len(re.sub("<.*?>", "", text)) > 20 else ""
        inner += f'<{opened} style="{";".join(filter(None, (side, whole, width, weight)))}">{text}</{tag}>'
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
