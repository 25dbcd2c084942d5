"""Sets the recipe beside its training alone, the published sampling and the controls: figures/held_out.md.

    python bench/held_out.py BATCH [BATCH ...] [--out FILE]

A batch is a folder of `python -m mvf batch`. Its runs are sorted by data set and by setting: `recipe` has a motion
skip weighted by augmentation, `spread` one weighted by spread, `content` the same training without it, `published` the
paper's sampling. Controls are those of the recipe's reports; `motion_skip` is the skip alone, without training.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mvf.files import atomic
from mvf.training.run import REPOSITORY
from mvf.workbench.plotting import MISSING, Table
from mvf.workbench.tables.trials import Reports, compare, read_batches, scores_of

RECIPE, SPREAD, CONTENT, PUBLISHED = SETTINGS = ("recipe", "spread", "content", "published")
CONTROLS = ("motion_skip", "motion_pca", "backbone_motion", "untrained", "position_only")
COLUMNS = (
    "classification",
    "retrieval@5",
    "alignment error ↓",
    "whole: classification",
    "whole: Kendall's tau",
    "frozen frame",
)
Sets = Mapping[str, Mapping[str, Reports]]  # by data set and setting


def sort_reports(patterns: Sequence[str]) -> Sets:
    """Reports of all runs of batches, by data set and by setting."""
    found: dict[str, dict[str, list[Mapping]]] = defaultdict(lambda: defaultdict(list))
    for batch in read_batches(",".join(patterns)):
        for reports in batch.reports.values():
            for report in reports:
                seed = report["data_seed"]
                name = f"drawn {seed}" if report["dataset"] == "synthetic" else str(batch.parameters.get("data_root"))
                skip = RECIPE if report.get("motion_weighting") == "augmentation" else SPREAD
                setting = skip if report["motion_skip"] else report["sampling"]
                found[name.rstrip("/").rpartition("/")[2]][setting].append(report)
    return found


def values_of(report: Mapping, name: str) -> list[float | None]:
    """The scores of `COLUMNS` of the model (a setting) or of a control in a report."""
    own = name in SETTINGS
    cropped, whole = (scores_of(report, place, "model" if own else name) for place in ("cropped", "whole"))
    alignment = report["alignment_error"] if own else report["alignment_error_controls"].get(name, {})
    frozen = report["controls"]["frozen_frame"]["classification"] if own else None
    scores = [cropped.get("classification"), cropped.get("retrieval@5"), alignment.get("window")]
    return [*scores, whole.get("classification"), whole.get("kendall_tau"), frozen]


def scores_table(sets: Sets) -> Table:
    """Mean of every score and two standard deviations over runs; below, over all drawn sets."""
    drawn = [settings for name, settings in sets.items() if name.startswith("drawn")]
    pooled = {key: [r for settings in drawn for r in settings.get(key, ())] for key in SETTINGS}
    groups = {**sets, **({f"all {len(drawn)} drawn sets": pooled} if len(drawn) > 1 else {})}
    rows = []
    for name, settings in groups.items():
        for setting in (*SETTINGS, *CONTROLS):
            reports = _judged(settings, setting)
            if reports:
                cells = zip(*(values_of(report, setting) for report in reports))
                rows.append((name, setting, str(len(reports)), *map(spread, cells)))
    return Table(tuple(rows), ("data", "embedding", "runs", *COLUMNS))


def _judged(settings: Mapping[str, Reports], name: str) -> Reports:
    """The reports that hold a setting, or a control beside the recipe."""
    if name not in CONTROLS:
        return settings.get(name, ())
    return [report for report in settings.get(RECIPE, ()) if scores_of(report, "cropped", name)]


def spread(values: Sequence[float | None]) -> str:
    """Mean ± two standard deviations; no deviation where all values are one.

    Example:
        >>> spread([0.5, 0.7])
        '0.600 ± 0.283'
    """
    known = [value for value in values if value is not None]
    deviation = 2 * np.std(known, ddof=1) if len(known) > 1 else 0.0
    return MISSING if not known else f"{np.mean(known):.3f}" + (f" ± {deviation:.3f}" if deviation > 5e-4 else "")


def differences_table(sets: Sets) -> Table:
    """The recipe minus everything else on cropped windows, with intervals of a paired bootstrap over videos."""
    rows = []
    others = [o for o in (*SETTINGS[1:], *CONTROLS) if any(_judged(settings, o) for settings in sets.values())]
    for name, settings in sets.items():
        for score in ("classification", "retrieval@5"):
            rows.append((name, score, *(_difference(settings, other, score) for other in others)))
    return Table(tuple(rows), ("data", "recipe minus", *others))


def _difference(settings: Mapping[str, Reports], other: str, score: str) -> str:
    recipe, judged, control = settings.get(RECIPE, ()), _judged(settings, other), other if other in CONTROLS else ""
    if not (recipe and judged):
        return MISSING
    found = compare(judged if control else recipe, judged, "cropped", score, control)
    if found is not None and found.interval is not None:
        return _interval(found.mean, *found.interval)
    if not control:
        return MISSING
    means, lows, highs = zip(*(report["cropped_differences"][other][score] for report in judged))
    return _interval(float(np.mean(means)), min(lows), max(highs)) + " *"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


NOTES = """Scores on cropped windows unless said: phase classification by a linear probe, retrieval@5, alignment error
of windows with whole videos (uniform guessing gives 1/3). `frozen frame`: classification where one picture is repeated.
Mean ± two standard deviations over runs; over all drawn sets these hold the differences of the sets too. Differences
have the 95 % interval of a paired bootstrap over videos, the sums of all seeds pooled; with a star: the widest ends of
the intervals of single runs, whose reports do not hold the sums."""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batches", nargs="+", help="folders of mvf batch")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures" / "held_out.md", help="page that is written")
    options = parser.parse_args()
    sets = sort_reports(options.batches)
    command = f"`python bench/held_out.py {' '.join(sys.argv[1:])}`"
    text = "\n\n".join(
        [f"# The recipe on {', '.join(sets)}", command, NOTES.replace("\n", " ")]
        + [str(scores_table(sets)), "## Differences", str(differences_table(sets))]
    )
    with atomic(options.out) as path:
        path.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
