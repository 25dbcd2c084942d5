"""Scores of maps on single videos, assembled: means with intervals, paired differences, and what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mvf.attention import Candidate
from mvf.evaluation.verdicts import FEWEST, mean_interval

OTHERS = (
    "head_best", "head_oracle", "head_best_any_layer", "head_oracle_any_layer", "mean_training_mask",
    "centre", "uniform", "backbone_pca", "untrained_entity_best",
)  # fmt: skip
COMPARED = ("auroc", "lift")
DECIDES = ("head_best", "head_best_any_layer", "mean_training_mask")  # what entity 1 has to beat
EXPECTED = {
    "auroc": "the actor covers half of a patch and leaves another in no frame of it: use a finer grid",
    "limbs": "it has no 13 joints, or no frame shows limbs and torso within the actor",
    "object_auroc": "it has no object mask, or the object is never seen",
}

Scores = dict[str, float]


@dataclass(frozen=True)
class Judged:
    """Scores of one video.

    Attributes:
        name: Of the video.
        area: Share of the frames that the actor covers.
        scores: By map and metric; what the video does not define is absent.
        picked: Heads of the oracles.
    """

    name: str
    area: float
    scores: dict[str, Scores]
    picked: Mapping[str, Candidate] = field(default_factory=dict)


def assemble(judged: Sequence[Judged], chosen: Mapping[str, Candidate], skipped: dict[str, str]) -> dict:
    """Table, differences and scores of single videos; what is missing goes to `skipped`.

    Args:
        judged: Scores of the validation videos, at least one.
        chosen: The entity or head behind a row that was chosen on training videos.
        skipped: Reasons, added to.
    """
    maps = list(dict.fromkeys(name for video in judged for name in video.scores))
    for kind in ("entity", "head"):
        if f"{kind}_best" not in chosen:
            what = "pooling" if kind == "entity" else "backbone"
            skipped.setdefault(f"localization.{kind}_best", f"this {what} has no attention")
    for metric, reason in EXPECTED.items():
        lacking = [video.name for video in judged if metric not in video.scores["uniform"]]
        if lacking:
            named = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            skipped[f"localization.{metric}"] = f"{len(lacking)} of {len(judged)} videos ({named}): {reason}"
    table = {name: _row([video.scores[name] for video in judged if name in video.scores]) for name in maps}
    for name in maps:
        table[name] |= _behind(name, chosen, judged)
    return {
        "localization": table | {"area": float(np.mean([video.area for video in judged]))},
        "localization_differences": _differences(judged, chosen),
        "localization_videos": {name: _by_video(judged, name) for name in maps},
    }


def _behind(name: str, chosen: Mapping[str, Candidate], judged: Sequence[Judged]) -> dict[str, int]:
    """`index` of a chosen row; of rows over several layers `layer` too, for the oracle those it picked most often."""
    if name == "head_oracle_any_layer":
        candidate = Counter(video.picked[name] for video in judged if name in video.picked).most_common(1)[0][0]
    elif name in chosen:
        candidate = chosen[name]
    else:
        return {}
    return {"index": candidate.number} | ({"layer": candidate.layer} if name.endswith("_any_layer") else {})


def _by_video(judged: Sequence[Judged], name: str) -> dict[str, Scores]:
    return {video.name: video.scores[name] for video in judged if name in video.scores}


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


def _differences(judged: Sequence[Judged], chosen: Mapping[str, Candidate]) -> dict[str, dict]:
    """Entity 1, and the entity chosen on training videos, minus the others."""
    table: dict[str, dict] = {}
    for first in ("entity_1", "entity_best"):
        for other in OTHERS:
            if any({first, other} <= video.scores.keys() for video in judged):
                rows = {metric: _difference(judged, first, other, metric) for metric in COMPARED}
                rows = {metric: row for metric, row in rows.items() if row}
                if first == "entity_1" and other in DECIDES:
                    for metric, row in rows.items():
                        row["verdict"] = _verdict(row, metric, _words(first, chosen), _words(other, chosen))
                table[f"{first} - {other}"] = rows
    return table


def _difference(judged: Sequence[Judged], first: str, other: str, metric: str) -> dict:
    pairs = [(video.scores.get(first, {}), video.scores.get(other, {})) for video in judged]
    values = np.array([a[metric] - b[metric] for a, b in pairs if metric in a and metric in b])
    if not len(values):
        return {}
    interval = mean_interval(values)
    row = {"mean": float(values.mean()), "videos": len(values)} | ({"too_few": True} if len(values) < FEWEST else {})
    return row if interval is None else row | {"interval": list(interval)}


def _words(name: str, chosen: Mapping[str, Candidate]) -> str:
    if not name.startswith("head_best"):
        return name.replace("_", " ")
    layer = f"layer {chosen[name].layer}" if name.endswith("_any_layer") else "the last layer"
    return f"head {chosen[name].number} of {layer} (chosen on training videos)"


def _verdict(row: Mapping, metric: str, first: str, other: str) -> str:
    """One sentence: which is higher, and whether the interval excludes zero.

    Example:
        >>> _verdict({"mean": -0.02, "videos": 24, "interval": [-0.03, -0.01]}, "auroc", "entity 1", "head 6")
        'AUROC: entity 1 is below head 6 by 0.020 [0.010, 0.030] over 24 videos: the interval excludes zero'
        >>> _verdict({"mean": -0.02, "videos": 3, "interval": [-0.03, -0.01]}, "auroc", "entity 1", "head 6")
        'AUROC: entity 1 minus head 6 is -0.020: too few videos (3) to say'
    """
    name = {"auroc": "AUROC"}.get(metric, metric)
    if row["videos"] < FEWEST:
        return f"{name}: {first} minus {other} is {row['mean']:+.3f}: too few videos ({row['videos']}) to say"
    low, high = row["interval"]
    over = f"over {row['videos']} videos"
    if low <= 0 <= high:
        ends = f"[{low:.3f}, {high:.3f}]"
        return f"{name}: {first} is not distinguishable from {other}: {row['mean']:+.3f} {ends} {over} holds zero"
    side, (near, far) = ("above", (low, high)) if low > 0 else ("below", (-high, -low))
    by = f"{abs(row['mean']):.3f} [{near:.3f}, {far:.3f}]"
    return f"{name}: {first} is {side} {other} by {by} {over}: the interval excludes zero"
