"""The trials of every row of a batch, and the differences between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from mvf.evaluation import read_report
from mvf.evaluation.bootstrap import FEWEST, paired_interval
from mvf.workbench import plotting
from mvf.workbench.plotting.scores import below_mean
from mvf.workbench.tables.plan import MANIFEST, read_manifest
from mvf.workbench.tables.rows import Column, Row
from mvf.workbench.tables.runs import REPORT, matching_folders, supervision

PLACES = {
    "whole": "whole videos",
    "cropped": "cropped windows",
}  # what scores are computed on: key in reports, text in tables

Reports = Sequence[Mapping]  # reports of the finished trials of one row, in order of seed
Sums = Mapping[str, Mapping[str, np.ndarray]]  # by action and video


@dataclass(frozen=True)
class Batch:
    """The results that `python -m mvf batch` has written so far.

    Attributes:
        folder: Folder of the batch.
        tables: Names of its tables.
        trials: Number of seeds per row.
        parameters: Settings that were changed for all rows.
        reports: Reports of the finished runs of each preset, in order of seed.
    """

    folder: Path
    tables: tuple[str, ...]
    trials: int
    parameters: Mapping[str, object]
    reports: Mapping[str, Reports]

    def of(self, row: Row, column: Column) -> Reports:
        """Returns the reports of a cell's trials; empty if it was not run."""
        return self.reports.get(row.presets.get(column.dataset, ""), ())

    def progress_of(self, row: Row) -> str:
        """Says how many trials of a row are finished, by data set if the numbers differ."""
        counts = {dataset: len(self.reports.get(preset, ())) for dataset, preset in row.presets.items()}
        words = {name: f"{n} of {self.trials} trials" if n else plotting.NOT_RUN for name, n in counts.items()}
        return _by_dataset(words)

    def labels_of(self, row: Row) -> str:
        """Says which labels the training of a row used, by data set if they differ; a dash if it was not run."""
        found = {dataset: self.reports.get(preset, ()) for dataset, preset in row.presets.items()}
        return _by_dataset({dataset: supervision(r) for dataset, r in found.items() if r}, "; ") or plotting.MISSING


@dataclass(frozen=True)
class Difference:
    """A row's score minus another's, as fractions.

    Attributes:
        mean: Difference of the means over trials.
        spread: Sum of the two rows' two standard deviations; None if one has a single trial.
        interval: 95 % of a paired bootstrap over the videos that both rows share, trials pooled; None without any.
        videos: Number of those videos in each action.
    """

    mean: float
    spread: float | None
    interval: tuple[float, float] | None
    videos: tuple[int, ...] = ()

    @property
    def exceeds_spread(self) -> bool:
        """Whether the means differ by more than the spread."""
        return self.spread is not None and abs(self.mean) > self.spread

    @property
    def holds(self) -> bool:
        """Whether the interval excludes 0 and every action has at least `FEWEST` videos."""
        if self.interval is None or min(self.videos, default=0) < FEWEST:
            return False
        return not self.interval[0] <= 0 <= self.interval[1]


def read_batches(patterns: str | Sequence[str]) -> list[Batch]:
    """Reads the batches in all matching folders.

    Args:
        patterns: Folders given to `python -m mvf batch --out`, separated by commas; * matches any name.

    Raises:
        ValueError: if there is no batch, or a manifest is damaged.
    """
    folders = matching_folders(patterns, MANIFEST)
    if not folders:
        raise ValueError(f"no batch in {patterns}: python -m mvf batch table3 --out runs/table3 makes one")
    return [_read_batch(folder) for folder in folders]


def scores_of(report: Mapping, place: str, embedding: str = "model") -> Mapping[str, float]:
    """Returns the scores of the model or a control, on whole videos or cropped windows."""
    if place == "cropped":
        return report.get("cropped", {}).get(embedding, {})
    return report["scores"] if embedding == "model" else report.get("controls", {}).get(embedding, {})


def trial_values(reports: Reports, place: str, score: str, embedding: str = "model") -> list[float]:
    """Returns the score of every trial that has it."""
    found = (scores_of(report, place, embedding) for report in reports)
    return [scores[score] for scores in found if score in scores]


def sensitivity(values: Sequence[float]) -> float | None:
    """Standard deviation over trials (ddof 1) divided by |mean|; None for a single trial or a mean of zero.

    Example:
        >>> round(sensitivity([0.9, 1.0, 1.1]), 3)
        0.1
    """
    if len(values) < 2 or not np.mean(values):
        return None
    return float(np.std(values, ddof=1) / abs(np.mean(values)))


def compare(first: Reports, second: Reports, place: str, score: str, control: str = "") -> Difference | None:
    """Computes `first` minus `second`, or minus a control in its reports.

    Reports have the sums over videos of controls on cropped windows, and none if they were made by an older version.

    Returns:
        The difference; None if one side has no trial with the score, or both have an R² below zero.
    """
    sides = [trial_values(first, place, score), trial_values(second, place, score, control or "model")]
    if not all(sides) or all(below_mean(score, float(np.mean(values))) for values in sides):
        return None
    spreads = [2 * np.std(values, ddof=1) for values in sides if len(values) > 1]
    own, others = _pooled_sums(first, place, score), _pooled_sums(second, place, score, control)
    shared = _shared_videos(own, others)
    return Difference(
        mean=float(np.mean(sides[0]) - np.mean(sides[1])),
        spread=float(sum(spreads)) if len(spreads) == 2 else None,
        interval=_interval(own, others, shared),
        videos=tuple(map(len, shared.values())),
    )


class Ranks(TypedDict):
    """(row, column) of a table's bold and underlined cells."""

    best: tuple[tuple[int, int], ...]
    second: tuple[tuple[int, int], ...]


def ranked(start: int, *groups: Mapping[int, Sequence[float | None]]) -> Ranks:
    """Finds the best and second-best cells of each group of lines, in columns from `start`; equal scores tie."""
    best: list[tuple[int, int]] = []
    second: list[tuple[int, int]] = []
    for group in groups:
        for column, values in enumerate(zip(*group.values()), start=start):
            known = {line: value for line, value in zip(group, values) if value is not None}
            for cells, value in zip((best, second), sorted(set(known.values()), reverse=True)):
                if len(known) > 1:
                    cells += [(line, column) for line, mean in known.items() if mean == value]
    return {"best": tuple(best), "second": tuple(second)}


def _read_batch(folder: Path) -> Batch:
    stored = read_manifest(folder / MANIFEST)
    runs = {
        preset: [folder / seeds[seed] for seed in sorted(seeds, key=int)] for preset, seeds in stored["runs"].items()
    }
    reports = {
        preset: tuple(read_report(run / REPORT) for run in found if (run / REPORT).exists())
        for preset, found in runs.items()
    }
    return Batch(folder, tuple(stored["tables"]), stored["trials"], stored["parameters"] or {}, reports)


def _by_dataset(words: Mapping[str, str], mark: str = ", ") -> str:
    if len(set(words.values())) > 1:
        return mark.join(f"{dataset} {word}" for dataset, word in words.items())
    return next(iter(words.values()), "")


def _pooled_sums(reports: Reports, place: str, score: str, control: str = "") -> Sums:
    """Adds over trials, by action and video, the sums that scores are computed from (`evaluation.bootstrap.combine`).

    Every score is a quotient of sums, so sums over trials give each trial equal weight.
    """
    having = (report for report in reports if score in scores_of(report, place))
    kept = [report.get("videos", {}) for report in having]
    parts = [videos.get("controls", {}).get(control, {}) if control else videos.get(place, {}) for videos in kept]
    trials = [part.get(score, {}) for part in parts]
    return {
        action: {
            video: np.sum([np.asarray(trial[action][video], float) for trial in trials], axis=0)
            for video in sorted(set.intersection(*(set(trial[action]) for trial in trials)))
        }
        for action in sorted(set.intersection(*map(set, trials)))
    }


def _shared_videos(first: Sums, second: Sums) -> dict[str, list[str]]:
    """Returns the videos that both have, for every action of either."""
    actions = sorted(first.keys() | second.keys())
    return {action: sorted(first.get(action, {}).keys() & second.get(action, {}).keys()) for action in actions}


def _interval(first: Sums, second: Sums, shared: Mapping[str, Sequence[str]]) -> tuple[float, float] | None:
    shared = {action: videos for action, videos in shared.items() if videos}
    if not shared:
        return None
    own, others = ({a: np.stack([side[a][v] for v in shared[a]]) for a in shared} for side in (first, second))
    return paired_interval(own, others)
