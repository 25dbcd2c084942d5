"""Scores of maps on single videos, assembled: means with intervals, paired differences, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvf.evaluation.verdicts import mean_interval

OTHERS = (
    "head_best", "head_oracle", "mean_training_mask", "centre", "uniform", "backbone_pca", "untrained_entity_best",
)  # fmt: skip
COMPARED = ("auroc", "lift")
DECIDES = ("head_best", "mean_training_mask")  # what entity 1 has to beat
EXPECTED = {
    "auroc": "the actor covers half of a patch and leaves another in no frame of it: use a finer grid",
    "limbs": "it has no 13 joints within the actor, or a map leaves out the torso",
    "object_auroc": "it has no object mask, or the object is never seen",
}

Scores = dict[str, float]


@dataclass(frozen=True)
class Judged:
    """Scores of one video.

    Attributes:
        name: Of the video.
        area: Share of the frames that the actor covers.
        scores: By map and metric; a metric that the video does not define is absent.
    """

    name: str
    area: float
    scores: dict[str, Scores]


def assemble(judged: Sequence[Judged], index: Mapping[str, int], skipped: dict[str, str]) -> dict:
    """Table, differences and scores of single videos; what is missing goes to `skipped`.

    Args:
        judged: Scores of the validation videos, at least one.
        index: Number of the entity or head behind a row, where it was chosen on training videos.
        skipped: Reasons, added to.
    """
    maps = list(judged[0].scores)
    for kind in ("entity", "head"):
        if f"{kind}_best" not in index:
            what = "pooling" if kind == "entity" else "backbone"
            skipped[f"localization.{kind}_best"] = f"this {what} has no attention"
    for metric, reason in EXPECTED.items():
        lacking = [video.name for video in judged if metric not in video.scores["uniform"]]
        if lacking:
            named = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            skipped[f"localization.{metric}"] = f"{len(lacking)} of {len(judged)} videos ({named}): {reason}"
    table = {name: _row([video.scores[name] for video in judged]) for name in maps}
    for name, number in index.items():
        table[name]["index"] = number
    return {
        "localization": table | {"area": float(np.mean([video.area for video in judged]))},
        "localization_differences": _differences(judged, index),
        "localization_videos": {name: {video.name: video.scores[name] for video in judged} for name in maps},
    }


def _row(videos: Sequence[Scores]) -> dict:
    """Means over the videos that define a metric, and under `interval` where they lie."""
    row: dict = {"interval": {}}
    for metric in dict.fromkeys(metric for scores in videos for metric in scores):
        values = np.array([scores[metric] for scores in videos if metric in scores])
        row[metric] = float(values.mean())
        interval = mean_interval(values)
        if interval is not None:
            row["interval"][metric] = list(interval)
    return row


def _differences(judged: Sequence[Judged], index: Mapping[str, int]) -> dict[str, dict]:
    """Entity 1, and the entity chosen on training videos, minus the others."""
    table: dict[str, dict] = {}
    for first in ("entity_1", "entity_best"):
        for other in OTHERS:
            if {first, other} <= judged[0].scores.keys():
                rows = {metric: _difference(judged, first, other, metric) for metric in COMPARED}
                rows = {metric: row for metric, row in rows.items() if row}
                if first == "entity_1" and other in DECIDES:
                    for metric, row in rows.items():
                        row["verdict"] = _verdict(row, metric, _words(first, index), _words(other, index))
                table[f"{first} - {other}"] = rows
    return table


def _difference(judged: Sequence[Judged], first: str, other: str, metric: str) -> dict:
    pairs = [(video.scores[first], video.scores[other]) for video in judged]
    values = np.array([a[metric] - b[metric] for a, b in pairs if metric in a and metric in b])
    if not len(values):
        return {}
    interval = mean_interval(values)
    row = {"mean": float(values.mean()), "videos": len(values)}
    return row if interval is None else row | {"interval": list(interval)}


def _words(name: str, index: Mapping[str, int]) -> str:
    return f"head {index[name]} (chosen on training videos)" if name == "head_best" else name.replace("_", " ")


def _verdict(row: Mapping, metric: str, first: str, other: str) -> str:
    """One sentence: which is higher, and whether the interval excludes zero.

    Example:
        >>> _verdict({"mean": 0.02, "videos": 24, "interval": [0.01, 0.03]}, "auroc", "entity 1", "head 6")
        'AUROC: entity 1 is above head 6 by 0.020 [0.010, 0.030] over 24 videos: the interval excludes zero'
    """
    name = {"auroc": "AUROC"}.get(metric, metric)
    if "interval" not in row:
        return f"{name}: {first} minus {other} is {row['mean']:+.3f}: one video gives no interval"
    low, high = row["interval"]
    ends = f"[{low:.3f}, {high:.3f}] over {row['videos']} videos"
    if low <= 0 <= high:
        return f"{name}: {first} is not distinguishable from {other}: {row['mean']:+.3f} {ends} holds zero"
    side, by = ("above", f"{row['mean']:.3f}") if low > 0 else ("below", f"{row['mean']:+.3f}")
    return f"{name}: {first} is {side} {other} by {by} {ends}: the interval excludes zero"
