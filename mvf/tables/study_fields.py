"""What the columns of the study's tables hold: scores, what training adds to them, what counting scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvf.results import spread
from mvf.tables.paper import Column, PaperTable, Row
from mvf.tables.study import ALIGNMENT
from mvf.tables.trials import Batch, Reports, scores_of

SHOWN = {  # scores of each place, in the order of the columns
    "cropped": ("classification", "retrieval@5", "kendall_tau", ALIGNMENT),
    "whole": ("classification", "progression", "kendall_tau", "retrieval@5", ALIGNMENT),
}


@dataclass(frozen=True)
class Field:
    """What a column of numbers holds.

    Attributes:
        column: The score, of which data set.
        place: `whole` or `cropped`.
        member: Of which embedding.
        minus: The embedding of the same run whose score is subtracted; empty: none.
    """

    column: Column
    place: str
    member: str = "model"
    minus: str = ""

    @property
    def heading(self) -> str:
        whose = "" if self.member == "model" else f"{self.member.replace('_', ' ')}, "
        less = f" minus {self.minus}" * bool(self.minus)
        return f"{self.column.dataset} {whose}{self.column.heading}{less}"

    @property
    def ranked(self) -> bool:
        """True for the scores that objectives are ranked by."""
        return self.member == "model" and not self.minus

    def of(self, report: Mapping, member: str = "") -> float | None:
        """The value of one run, in the column's unit; None where it has none."""
        members = filter(None, (member or self.member, self.minus))
        found = [_score(report, self.place, self.column.score, each) for each in members]
        return None if None in found else self.column.in_units([found[0] - sum(found[1:])])[0]

    def values(self, reports: Reports) -> list[float]:
        """One a run that has it."""
        return [value for report in reports if (value := self.of(report)) is not None]

    def control(self, control: str, rows: Sequence[Row], batch: Batch) -> list[float]:
        """Of a control, one a seed: the mean over the rows' runs of that seed."""
        seeds: dict[int, list[float]] = {}
        for report in (report for row in rows for report in batch.of(row, self.column)):
            value = self.of(report, control)
            if value is not None:
                seeds.setdefault(report["seed"], []).append(value)
        return [float(np.mean(values)) for values in seeds.values()]

    def cell(self, values: Sequence[float]) -> str:
        """Mean ± two standard deviations; of a difference with its sign."""
        text = spread(values, self.column.decimals)
        return f"+{text}" if self.minus and values and not text.startswith("-") else text

    def rank(self, values: Sequence[float]) -> float | None:
        """The mean as printed, such that the highest is the best; None where nothing is ranked."""
        if not values or not self.ranked:
            return None
        mean = round(float(np.mean(values)), self.column.decimals)
        return -mean if self.column.score == ALIGNMENT else mean


def fields(study: PaperTable, place: str) -> list[Field]:
    """By data set, the scores of a place, and at the end what training adds, or what counting scores."""
    last = {"minus": "untrained"} if place == "cropped" else {"member": "frozen_frame"}
    found = []
    for dataset in dict.fromkeys(column.dataset for column in study.columns):
        columns = {column.score: column for column in study.columns if column.dataset == dataset}
        found += [Field(columns[score], place) for score in SHOWN[place]]
        found.append(Field(columns["classification"], place, **last))
    return found


def _score(report: Mapping, place: str, score: str, member: str) -> float | None:
    if score != ALIGNMENT:
        return scores_of(report, place, member).get(score)
    own = report.get(ALIGNMENT, {}) if member == "model" else report.get(f"{ALIGNMENT}_controls", {}).get(member, {})
    return own.get("window" if place == "cropped" else "whole")
