"""What maps say without any mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mvf.attention import SampledMaps as Look
from mvf.evaluation.verdicts import mean_interval
from mvf.metrics import (
    attention_entropy,
    attention_overlap,
    attention_steadiness,
    effective_share,
)

STEP = 1  # frames, between the two maps whose overlap is called steadiness


def describe(seen: Look, later: Look | None, skipped: dict[str, str]) -> dict:
    """What maps say without any mask: `overlap` (N, N) of entities; entropy, effective share, steadiness by map.

    What a video's maps do not define is left out, and its reason goes to `skipped`.
    """
    found: dict = {name: {} for name in ("entropy", "effective_share", "steadiness")}

    def tell(into: dict, key: str, kind: str, measure: Callable, *maps: np.ndarray) -> None:
        try:
            into[key] = measure(*maps)
        except ValueError as error:
            skipped.setdefault(f"attention.{kind}", str(error))

    entities = [map_ for name, map_ in seen.named.items() if name.startswith("entity_")]
    if entities:
        tell(found, "overlap", "overlap", attention_overlap, np.stack(entities, axis=1))
    for name, map_ in seen.named.items():
        tell(found["entropy"], name, "entropy", attention_entropy, map_)
        tell(found["effective_share"], name, "effective_share", effective_share, map_)
        if later is not None:
            pair = map_[: len(later.index)], later.named[name]
            tell(found["steadiness"], name, "steadiness", attention_steadiness, *pair)
    return found


def mean_description(videos: Sequence[Mapping]) -> dict:
    """Means over videos of what `describe` gives, and under `interval` where they lie: `report["attention"]`."""
    report: dict = {"videos": len(videos), "step": STEP, "interval": {}}
    overlaps = np.array([video["overlap"] for video in videos if "overlap" in video])
    if len(overlaps):
        report["overlap"] = overlaps.mean(axis=0).tolist()
    if len(overlaps) > 1:
        ends = [[mean_interval(pair) for pair in row] for row in overlaps.transpose(1, 2, 0)]
        report["interval"]["overlap"] = np.array(ends).tolist()
    for kind in ("entropy", "effective_share", "steadiness"):
        names = dict.fromkeys(name for video in videos for name in video[kind])
        values = {name: np.array([v[kind][name] for v in videos if name in v[kind]]) for name in names}
        if values:
            report[kind] = {name: float(of.mean()) for name, of in values.items()}
        ends = {name: list(mean_interval(of)) for name, of in values.items() if len(of) > 1}
        report["interval"] |= {kind: ends} if ends else {}
    return report
