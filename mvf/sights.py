"""What several runs say together of where a model looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvf import plotting
from mvf.evaluation.bootstrap import FEWEST, mean_interval

PLACES = (
    "entity_1",
    "entity_best",
    "head_best",
    "head_oracle",
    "head_best_any_layer",
    "head_oracle_any_layer",
    "untrained_entity_best",
    "mean_training_mask",
    "centre",
    "uniform",
    "backbone_pca",
)
RIVALS = PLACES[2:]
ENTITIES = tuple(f"entity_{i}" for i in range(1, 7))
ATTENDS = ("overlap", "steadiness", "entropy", "effective_share")
TRAINED = ("model", "frozen_frame", "shuffled_order", "entity_best", *ENTITIES)  # what the objective has had a part in
LABELS = "training labels"


def supervision(runs: Sequence[Mapping], member: str = "model") -> str:
    """Which labels the training of runs consumed; a dash for what they did not train.

    Example:
        >>> supervision([{"supervision": "video"}]), supervision([{"supervision": "video"}], "untrained")
        ('video', '–')
    """
    if member not in TRAINED:
        return plotting.MISSING
    return " or ".join(dict.fromkeys(run.get("supervision", "unknown") for run in runs))


def by_entity(report: Mapping) -> dict[str, dict[str, float]]:
    """What needs no mask, by entity; an entity's overlap is its mean with the others."""
    found = report.get("attention") or {}
    overlap = found.get("overlap") or []
    table = {
        name: {kind: found[kind][name] for kind in ATTENDS[1:] if name in found.get(kind, {})} for name in ENTITIES
    }
    for i, row in enumerate(overlap if len(overlap) > 1 else ()):
        table.setdefault(f"entity_{i + 1}", {})["overlap"] = (sum(row) - row[i]) / (len(row) - 1)
    return table


def differences_table(rows: Mapping[str, list[dict]], measures: Sequence[str]) -> plotting.Table:
    """Entity 1 minus other maps: mean over the runs for every video, then mean and 95 % interval over videos."""
    lines = []
    for row, runs in rows.items():
        looked = [run.get("videos", {}).get("localization", {}) for run in runs]
        for rival in RIVALS:
            both = [maps for maps in looked if "entity_1" in maps and rival in maps]
            cells = [_difference(both, rival, measure) for measure in measures]
            if any(cells):
                shown = (c or plotting.MISSING for c in cells)
                lines.append((row, supervision(runs), str(len(both)), rival.replace("_", " "), *shown))
    notes = ("Mean over runs for every video, then mean and 95 % bootstrap interval over videos.",)
    return plotting.Table(
        tuple(lines), ("row", LABELS, "runs", "entity 1 minus", *measures), "What entity 1 adds", notes
    )


def _difference(runs: Sequence[Mapping], rival: str, measure: str) -> str:
    """Of one measure, over the videos that all runs have it for; empty where they are too few."""
    sides = [[{v: s[measure] for v, s in maps[name].items() if measure in s} for name in ("entity_1", rival)]
             for maps in runs]  # fmt: skip
    videos = sorted(set.intersection(*(set(side) for pair in sides for side in pair))) if sides else []
    if len(videos) < FEWEST:
        return ""
    values = np.mean([[own[v] - other[v] for v in videos] for own, other in sides], axis=0)
    low, high = mean_interval(values)
    return f"{values.mean():+.3f} [{low:.3f}, {high:.3f}]"
