"""Quality cost of merging tokens along time: scores on cropped windows with merging minus those without.

    python bench/merge_quality.py [--merge 0.5] [--seeds 3] [--preset synthetic] [--out runs/merge] [-p NAME VALUE]

For every seed a model is trained and scored without merging, one with each share of `--merge`, and the first is scored
again with merging switched on only then. Runs in `--out` are resumed or read. The table has the difference of the means
over seeds, the 95 % interval of a paired bootstrap over the validation videos with seeds pooled
(`mvf.workbench.tables.trials.compare`), and the difference of every seed. For other sizes use `-p num_frames 80` or
`-p entities 6`, each with another `--out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import mvf
from mvf.config import Config
from mvf.workbench.notebook.session import open_session, stored_or_new_report
from mvf.workbench.plotting import Table
from mvf.workbench.tables.notes import NOTES, difference_cell
from mvf.workbench.tables.rows import Column
from mvf.workbench.tables.runs import SCORES, spread
from mvf.workbench.tables.trials import compare, trial_values

PLACE = "cropped"


def judged(config: Config, folder: Path) -> dict:
    """Returns the report of a run, which is trained and scored if necessary."""
    mvf.train(config, folder)
    return stored_or_new_report(open_session(folder))


def reports_of(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Returns the reports of all seeds by way of merging, without merging first."""
    rows: dict[str, list[dict]] = {}
    for seed in range(1, options.seeds + 1):
        settings = {"motion_skip": 0, **dict(options.p), "seed": seed}  # a skip, which is not merged, would hide it
        config = mvf.load_config(options.preset, **settings, token_merge=0.0)
        plain = options.out / f"plain-{seed}"
        rows.setdefault("none", []).append(judged(config, plain))
        for share in options.merge:
            trained = mvf.load_config(options.preset, **settings, token_merge=share)
            switched = settings | {"init_from": str(plain.resolve()), "epochs": 0}
            switched = mvf.load_config(options.preset, **switched, token_merge=share)
            for name, each in (("trained", trained), ("switched", switched)):
                report = judged(each, options.out / f"{name}-{share:g}-{seed}")
                rows.setdefault(f"{share:g}, {name}", []).append(report)
    return rows


def table(rows: dict[str, list[dict]], preset: str) -> Table:
    """Tabulates every score and way of merging."""
    plain, lines = rows["none"], []
    for score in SCORES:
        column = Column("", score, "", score, percent=False)
        base = trial_values(plain, PLACE, score)
        lines.append((score, "none", spread(base), "", ""))
        for name, reports in rows.items():
            if reports is not plain:
                values = trial_values(reports, PLACE, score)
                each = ", ".join(f"{ours - theirs:+.3f}" for ours, theirs in zip(values, base, strict=True))
                difference = difference_cell(column, compare(reports, plain, PLACE, score))
                lines.append((score, name, spread(values), difference, each))
    caption = f"Cropped windows, {preset}, {len(plain)} seeds: mean ± two standard deviations; minus no merging"
    floor = [
        np.mean([r[PLACE][control]["classification"] for r in plain]) for control in ("untrained", "position_only")
    ]
    controls = f"Controls, classification: {floor[0]:.3f} untrained, {floor[1]:.3f} from the place alone."
    notes = (*NOTES, "Switched: trained without merging, judged with it.", controls)
    return Table(tuple(lines), ("score", "merged", "mean", "difference", "by seed"), caption, notes)


def main() -> None:
    """Trains, scores and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merge", type=float, nargs="+", default=[0.5], help="shares, the values of token_merge")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--preset", default="synthetic")
    parser.add_argument("--out", type=Path, default=Path("runs/merge"), help="folder of the run folders")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a field")
    options = parser.parse_args()
    print(table(reports_of(options), options.preset))


if __name__ == "__main__":
    main()
