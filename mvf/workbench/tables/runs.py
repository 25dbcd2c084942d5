"""Tables and a figure of several runs: mean and spread over seeds, beside the controls."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf.config import load_config, presets, stored_config
from mvf.evaluation import read_report
from mvf.evaluation.bootstrap import FEWEST, mean_interval
from mvf.files import atomic, expand_user
from mvf.training.run import default_folder
from mvf.workbench import plotting
from mvf.workbench.plotting.scores import below_mean, control_name, score_cell, score_words
from mvf.workbench.plotting.style import fit_words
from mvf.workbench.plotting.table import BELOW_MEAN

SCORES = ("classification", "progression", "kendall_tau", "retrieval@5")
WHOLE = ("model", "position_only", "frame_count", "untrained", "backbone_mean", "backbone_motion", "motion_pca",
         "motion_skip", "frozen_frame", "shuffled_order", "untrained_shuffled")  # fmt: skip
CROPPED = ("model", "position_only", "untrained", "backbone_motion", "motion_pca", "motion_skip", "reversed")
REPORT = "metrics.json"
HEADING = 2.3  # inches: bold headings are broken into lines of this width, which the left panel holds
MEASURES = ("auroc", "lift", "average_precision", "jaccard", "pointing", "mass")

Reports = Mapping[str, dict]


def matching_folders(patterns: str | Sequence[str], file: str) -> list[Path]:
    """Finds the matching folders that contain `file`.

    Args:
        patterns: Folders, separated by commas; * matches any name. A relative one is looked for in the working
            directory, then at the repository root.
        file: Name of a file.

    Raises:
        ValueError: if some match, but one that is named without * does not.
    """
    root = default_folder(load_config()).parent.parent
    folders: dict[Path, Path] = {}  # one folder may match under several names
    lacking = []
    for pattern in map(str.strip, patterns.split(",") if isinstance(patterns, str) else patterns):
        found = map(Path, sorted(glob.glob(pattern) or glob.glob(str(root / pattern)))) if pattern else ()
        whole = {folder.resolve(): folder for folder in found if (folder / file).exists()}
        lacking += [] if whole or not pattern or glob.has_magic(pattern) else [pattern]
        folders = whole | folders
    if lacking and folders:
        raise ValueError(f"there is no {lacking[0]}/{file}, here or at {root}: name only what is finished")
    return sorted(folders.values())


def read_reports(patterns: str | Sequence[str]) -> dict[str, dict]:
    """Reads reports by run folder, from all matching folders (`matching_folders`) with a `metrics.json`.

    Raises:
        ValueError: if there is none.
    """
    found = {
        str(folder): _with_name(read_report(folder / REPORT), folder) for folder in matching_folders(patterns, REPORT)
    }
    if not found:
        there = ", ".join(map(str, matching_folders("runs/*", REPORT))) or "none in runs/"
        raise ValueError(
            f"no finished run in {patterns}: train one first, or name other run folders; there are {there}"
        )
    return found


def _with_name(report: dict, folder: Path) -> dict:
    """Adds the name of the data: of videos from a folder the folder's, which the run's configuration has."""
    stored = folder / "config.json"
    if report.get("dataset") != "folder" or not stored.exists():
        return report
    return report | {"data_name": Path(stored_config(stored).data_root).name}


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """Formats mean ± two standard deviations (ddof 1); a single value without a spread.

    A spread that is not zero but would be printed as 0.000 gets a fourth decimal, as in the paper.

    Example:
        >>> spread([0.9, 0.92, 0.94]), spread([0.9]), spread([])
        ('0.920 ± 0.040', '0.900', '–')
        >>> spread([94.21, 94.23], 2), spread([0.995, 0.9951])
        ('94.22 ± 0.03', '0.995 ± 0.0001')
    """
    if not len(values):
        return plotting.MISSING
    mean = f"{np.mean(values):.{decimals}f}"
    if len(values) == 1:
        return mean
    two_deviations = 2 * np.std(values, ddof=1)
    finer = decimals == 3 and 0.00005 <= two_deviations < 0.00095
    return f"{mean} ± {two_deviations:.{4 if finer else decimals}f}"


def score_spread(score: str, values: Sequence[float], decimals: int = 3) -> str:
    """Formats the `spread` of a score in its unit; a mean R² below zero as "below the mean".

    Example:
        >>> score_spread("progression", [-7.0, 0.5]), score_spread("progression", [0.5])
        ('below the mean', '0.500')
    """
    low = len(values) > 0 and below_mean(score, float(np.mean(values)))
    return BELOW_MEAN if low else spread(values, decimals)


def row_name(report: Mapping) -> str:
    """Names a report's row: data, preset, backbone, objective, sampling, backbone weights.

    Data and sampling are always named, the data of a folder by the folder's name; the rest only if it differs from the
    default: a preset other than the data set's, a backbone other than the preset's, an objective other than scl,
    weights other than the published ones.

    Example:
        >>> run = {"dataset": "penn", "preset": "penn", "sampling": "published", "backbone_weights": "hub"}
        >>> row_name(run), row_name(run | {"preset": "penn_last_1", "backbone_weights": "random"})
        ('penn, published sampling', 'penn, penn_last_1, published sampling, RANDOM backbone')
    """
    dataset, preset, weights = report["dataset"], report.get("preset", ""), report["backbone_weights"]
    seed = f" (data seed {report['data_seed']})" if dataset == "synthetic" else ""
    parts = [(report.get("data_name") or dataset) + seed]
    parts += [preset] if preset not in ("", dataset) else []
    own = load_config(preset).backbone if preset in presets() else ""
    parts += [report["backbone"]] if report.get("backbone", own) != own else []
    parts += [f"{report['objective']} objective"] if report.get("objective", "scl") != "scl" else []
    parts.append(f"{report['sampling']} sampling")
    parts += ["entity competition"] if report.get("entity_competition") else []
    parts += [f"overlap penalty {report['overlap_penalty']:g}"] if report.get("overlap_penalty") else []
    parts += [f"token merge {report['token_merge']:g}"] if report.get("token_merge") else []
    weighted = ", weighted by augmentation" * (report.get("motion_weighting") == "augmentation")
    parts += [f"motion skip {report['motion_skip']:g}{weighted}"] if report.get("motion_skip") else []
    parts += ["velocity as input"] if report.get("velocity") else []
    named = {"hub": "", "index": "", "random": "RANDOM backbone", "file": "backbone from a file"}
    return ", ".join(filter(None, [*parts, named.get(weights, f"{weights} backbone")]))


def grouped(reports: Reports) -> dict[str, list[dict]]:
    """Groups the reports by row, in order of seed."""
    rows: dict[str, list[dict]] = {}
    for report in sorted(reports.values(), key=lambda r: r["seed"]):
        rows.setdefault(row_name(report), []).append(report)
    return dict(sorted(rows.items()))


def runs_table(reports: Reports) -> plotting.Table:
    """Tabulates the scores of every run, one row per run."""
    rows = tuple(
        (
            Path(folder).name,
            row_name(r),
            supervision([r]),
            str(r["seed"]),
            *(score_cell(s, r["scores"].get(s)) for s in SCORES),
        )
        for folder, r in reports.items()
    )
    return plotting.Table(rows, ("run", "row", LABELS, "seed", *_headings(SCORES)))


def tables(reports: Reports) -> dict[str, plotting.Table]:
    """Tabulates mean ± two standard deviations over the runs of every row: scores, localization and attention.

    A table that would have no row, because the videos lack labels or masks, is left out.
    `differences` compares entity 1 with the maps that it must beat, per video, with intervals over videos.
    """
    rows = grouped(reports)
    made = {
        "cropped": _table(
            rows, lambda r: r.get("cropped", {}), CROPPED, SCORES, "On cropped windows, the test that counts"
        ),
        "scores": _table(rows, lambda r: {"model": r["scores"], **r["controls"]}, WHOLE, SCORES, "On whole videos"),
        "localization": _table(rows, lambda r: r.get("localization", {}), MAPS, MEASURES, "Where it looks"),
        "differences": differences_table(rows, MEASURES[:2]),
        "attention": _table(rows, by_entity, ENTITIES, ATTENDS, "Attention without masks; overlap: with the others"),
    }
    return {name: table for name, table in made.items() if table.rows}


def write_tables(made: Mapping[str, plotting.Table], path: Path) -> None:
    """Writes tables as Markdown."""
    with atomic(path) as temporary:
        temporary.write_text("\n\n".join(map(str, made.values())) + "\n", encoding="utf-8")


def plot_results(reports: Reports) -> Figure:
    """Draws classification and retrieval on cropped windows: a dot per run, a bar at the mean, a row per control."""
    rows = grouped(reports)
    if not any(report.get("cropped", {}).get("model") for report in reports.values()):
        return plotting.plot_message("No run has scores on cropped windows: its validation videos have no labels.")
    names = [name for name in CROPPED if any(name in report.get("cropped", {}) for report in reports.values())]
    headings = [fit_words(f"{row}, runs: {len(runs)}", HEADING) for row, runs in rows.items()]
    tall = [len(names) + heading.count("\n") + 1 for heading in headings]
    firsts = np.cumsum(tall) - len(names)  # a line of a heading is as tall as a row
    with plotting.paper_figure(plotting.PAGE, 0.7 + 0.16 * sum(tall)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, score in zip(panels, ("classification", "retrieval@5")):
            for first, runs in zip(firsts, rows.values()):
                for place, name in enumerate(names, start=first):
                    values = [v for r in runs if (v := r.get("cropped", {}).get(name, {}).get(score)) is not None]
                    colour = "#0072B2" if name == "model" else "#7F7F7F"
                    axes.plot(values, [place] * len(values), "o", color=colour, markersize=3.5, alpha=0.8)
                    if values:
                        axes.plot([np.mean(values)] * 2, [place - 0.35, place + 0.35], color=colour)
            axes.set(title=f"{score} on cropped windows", xlabel="share")
        labels = [control_name(name) for name in names]
        panels[0].set_yticks([first + i for first in firsts for i in range(len(names))], labels * len(rows))
        panels[0].set_ylim(sum(tall) - 0.4, -0.2)
        for first, heading in zip(firsts, headings):
            panels[0].text(
                0.01, first - 0.55, heading, transform=panels[0].get_yaxis_transform(), fontsize=6, va="bottom",
                fontweight="bold",
            )  # fmt: skip
    return figure


def figures_folder(out: str = "") -> Path:
    """The folder that `figures.ipynb` writes: `out`, or `runs/figures` at the repository root."""
    return expand_user(out) if out else default_folder(load_config()).parent / "figures"


def copy_figures(reports: Reports, out: Path, show: str = "") -> list[Path]:
    """Copies the PNG figures and the movies of the run `show`, or of the first run of `reports` that has some.

    Raises:
        ValueError: if `show` is no run, or has none.
    """
    runs = matching_folders(show, REPORT) if show else [*map(Path, reports)]
    found = ([path for kind in ("*.png", "*.gif") for path in sorted(run.glob(f"figures/{kind}"))] for run in runs)
    figures = next(filter(None, found), [])
    if show and not figures:
        why = "has no figures: run probe.ipynb and attention.ipynb on it" if runs else "is not a finished run"
        raise ValueError(f"{show} {why}")
    out.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, out / path.name)) for path in figures]


def _headings(scores: Sequence[str]) -> list[str]:
    return [score_words(score).replace("_", " ") for score in scores]


def _table(
    rows: Mapping[str, list[dict]],
    part: Callable[[dict], Mapping[str, Mapping[str, float]]],
    members: Sequence[str],
    scores: Sequence[str],
    caption: str,
) -> plotting.Table:
    lines = []
    for row, runs in rows.items():
        for member in members:
            found = [part(run).get(member, {}) for run in runs]
            if any(found):
                cells = (score_spread(score, [f[score] for f in found if score in f]) for score in scores)
                consumed = supervision(runs, member)
                lines.append((row, consumed, str(sum(map(bool, found))), control_name(member), *cells))
    notes = ("Mean ± two standard deviations (ddof 1) over runs.",)
    return plotting.Table(tuple(lines), ("row", LABELS, "runs", "embedding", *_headings(scores)), caption, notes)


MAPS = (
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
RIVALS = MAPS[2:]
ENTITIES = tuple(f"entity_{i}" for i in range(1, 7))
ATTENDS = ("overlap", "steadiness", "entropy", "effective_share")
TRAINED = (
    "model",
    "frozen_frame",
    "shuffled_order",
    "entity_best",
    *ENTITIES,
)  # embeddings and maps that depend on training
LABELS = "training labels"


def supervision(runs: Sequence[Mapping], member: str = "model") -> str:
    """Returns the labels that the training of runs used; a dash for untrained embeddings.

    Example:
        >>> supervision([{"supervision": "video"}]), supervision([{"supervision": "video"}], "untrained")
        ('video', '–')
    """
    if member not in TRAINED:
        return plotting.MISSING
    return " or ".join(dict.fromkeys(run.get("supervision", "unknown") for run in runs))


def by_entity(report: Mapping) -> dict[str, dict[str, float]]:
    """Returns the attention measures without masks by entity; overlap is the mean overlap with the others."""
    found = report.get("attention") or {}
    overlap = found.get("overlap") or []
    table = {
        name: {kind: found[kind][name] for kind in ATTENDS[1:] if name in found.get(kind, {})} for name in ENTITIES
    }
    for i, row in enumerate(overlap if len(overlap) > 1 else ()):
        table.setdefault(f"entity_{i + 1}", {})["overlap"] = (sum(row) - row[i]) / (len(row) - 1)
    return table


def differences_table(rows: Mapping[str, list[dict]], measures: Sequence[str]) -> plotting.Table:
    """Tabulates entity 1 minus other maps: the mean over runs per video, then mean and 95 % interval over videos."""
    lines = []
    for row, runs in rows.items():
        found = [run.get("videos", {}).get("localization", {}) for run in runs]
        for rival in RIVALS:
            both = [maps for maps in found if "entity_1" in maps and rival in maps]
            cells = [_difference(both, rival, measure) for measure in measures]
            if any(cells):
                shown = (c or plotting.MISSING for c in cells)
                lines.append((row, supervision(runs), str(len(both)), control_name(rival), *shown))
    notes = ("Mean over runs for every video, then mean and 95 % bootstrap interval over videos.",)
    return plotting.Table(
        tuple(lines), ("row", LABELS, "runs", "entity 1 minus", *_headings(measures)), "What entity 1 adds", notes
    )


def _difference(runs: Sequence[Mapping], rival: str, measure: str) -> str:
    """Formats the difference in a measure over the videos that all runs have; empty if they are too few."""
    sides = [[{v: s[measure] for v, s in maps[name].items() if measure in s} for name in ("entity_1", rival)]
             for maps in runs]  # fmt: skip
    videos = sorted(set.intersection(*(set(side) for pair in sides for side in pair))) if sides else []
    if len(videos) < FEWEST:
        return ""
    values = np.mean([[own[v] - other[v] for v in videos] for own, other in sides], axis=0)
    interval = mean_interval(values)
    return "" if interval is None else f"{values.mean():+.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
