"""The contents of each section of the page: tables, charts and sentences, which `page.html` renders."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from types import MappingProxyType

import av
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mvf.config import DATA_FIELDS, Config, load_config, presets
from mvf.data import VideoRecord, find_config_videos
from mvf.evaluation import read_report
from mvf.evaluation.bootstrap import combine, mean_interval
from mvf.evaluation.report import in_plain_words
from mvf.evaluation.scoring import KEPT
from mvf.files import data_folder
from mvf.models.stored import is_released, model_folder
from mvf.training.run import kept_sides, read_config, read_history
from mvf.workbench import plotting
from mvf.workbench.plotting import Table
from mvf.workbench.plotting.scores import (
    SCORES,
    below_mean,
    control_name,
    present,
    score_cell,
    score_groups,
    score_words,
    skipped_scores,
)
from mvf.workbench.plotting.style import MESSAGE, OKABE_ITO, PAGE, paper_figure
from mvf.workbench.plotting.table import GLOSSARY
from mvf.workbench.tables.trials import FEWEST, Difference, compare, scores_of

MAIN = tuple(SCORES)[:4]
ABILITIES = {
    "classification": "Telling the phase of a frame",
    "progression": "Telling how far away the next phase is",
    "kendall_tau": "Keeping the frames of two videos in order",
    "retrieval@5": "Finding the same moment in other videos",
}
PIXELS_PER_INCH = 125  # makes a figure's 8 point text as large as the page's small print


@dataclass(frozen=True)
class Chart:
    """A figure as SVG markup.

    Attributes:
        svg: The markup, with text as text.
        label: Description for screen readers.
        caption: Printed below the figure.
        width: Width on the page, in pixels.
    """

    svg: str
    label: str
    caption: str
    width: float


def page_values(run: ReportedRun, other: ReportedRun | None = None) -> dict[str, object]:
    """Returns the variables of `page.html`."""
    unscored = why_unscored(run)
    browsers, chapters, left_out = _chapters(run.folder / "figures")
    return {
        "run": run,
        "other": other,
        "summary": in_plain_words(run.report),
        "unscored": unscored,
        "abilities": abilities(run.report),
        "warnings": warnings(run.report),
        "facts": facts(run),
        "comparison": _comparison(run, other) if other else None,
        "clips": _clips(run) if unscored else None,
        "glance": [chapter for chapter in chapters if chapter.title == STORY[0].title],
        "chapters": [chapter for chapter in chapters if chapter.title != STORY[0].title],
        "left_out": left_out,
        "allowed_scripts": [source for browser in browsers for source in browser.scripts],
        "scores": _scores(run),
        "glossary": GLOSSARY,
        "localization": _localization(run),
        "training": _training(run),
        "coverage": _coverage(run.report),
        "changed_settings": _changed_settings(run),
        "settings": plotting.config_table(run.config.as_dict()),
    }


def why_unscored(run: ReportedRun) -> str:
    """Says why no phase could be classified, and what to do; empty for a run that was scored."""
    report = run.report
    if any("classification" in values for group in score_groups(report).values() for values in group.values()):
        return ""
    reason = (report.get("skipped") or {}).get("classification", "the report says no reason")
    if "label" not in reason:
        return f"No phase could be scored: {reason}."
    return (
        f"No phase could be scored: {reason}. Label some clips at the end of align.ipynb, then run "
        f"python -m mvf evaluate {run.folder}. What needs no labels is below."
    )


def warnings(report: Mapping) -> list[tuple[str, str]]:
    """Returns the warnings above all numbers of a report, each as (bold text, normal text)."""
    scored = score_verdicts(report)
    found = [(str(report["warning"]), "")] if report.get("warning") else []
    if str(report.get("supervision", "")).endswith("assumed"):
        found.append(("", "The objective needs videos of a single action; this was assumed, because no file says so."))
    for place in PLACES:
        here = [score for score in scored if score.place == place]
        if here and all(score.rival and not score.beaten for score in here):
            many = f"none of the {len(here)} scores beats" if len(here) > 1 else "the score does not beat"
            found.append((f"On {PLACES[place]} {many} its controls.", ""))
    if scored and not any(score.place == "cropped" for score in scored):
        found.append(("", "Not evaluated on cropped windows: on whole videos a clock alone can score as high."))
    return found


def abilities(report: Mapping) -> tuple[str, list[tuple[str, str, str]]]:
    """What a run is good for and what not, on the decisive test that there is.

    Returns:
        Name of the test, and for each score (symbol, ability, the score beside its controls), the best first.

    Example:
        >>> report = {"scores": {"kendall_tau": 0.8}, "controls": {"untrained": {"kendall_tau": 0.9}}}
        >>> abilities(report)[1]
        [('▼', 'Keeping the frames of two videos in order', "Kendall's tau 0.800, not above untrained, 0.900")]
    """
    scored = score_verdicts(report)
    place = next((place for place in PLACES if any(score.place == place for score in scored)), "")
    rows = [
        (s.reading[0], ABILITIES[s.name], f"{SCORES[s.name]}{shown}, {s.reading[2:]}")
        for s in scored
        if s.place == place
        for shown in ["" if below_mean(s.name, s.value) else f" {score_cell(s.name, s.value)}"]
    ]
    return PLACES.get(place, ""), sorted(rows, key=lambda row: "▲≈–▼".index(row[0]))


def facts(run: ReportedRun) -> dict[str, str]:
    """Summarises the run in a dozen words and numbers that do not depend on the machine."""
    config, report, cost = run.config, run.report, run.report.get("cost") or {}
    coverage = report.get("coverage") or {}
    videos = [f"{c.get('found', '?')} {'training' if s == 'train' else 'validation'}" for s, c in coverage.items()]
    sizes = [f"{cost[key] / 1e6:.1f} M {word}" for key, word in
             (("parameters", "trained"), ("backbone_parameters", "frozen")) if key in cost]  # fmt: skip
    trained = f"{len(run.history)} of {config.epochs}" if run.history else f"{config.epochs} configured"
    weights = report.get("backbone_weights", "unknown")
    found = {
        "Data": f"{config.dataset}, data seed {config.data_seed}" if config.dataset == "synthetic" else config.dataset,
        "Videos": ", ".join(videos),
        "Objective": report.get("objective", config.objective),
        "Supervision": report.get("supervision", "unknown"),
        "Sampling": f"{config.sampling}, {config.num_frames} frames",
        "Backbone": f"{config.backbone}, weights: {weights.upper() if weights == 'random' else weights}",
        "Pooling": f"{config.pooling}, {config.entities} entities" if config.pooling == "lstp" else config.pooling,
        "Parameters": ", ".join(sizes),
        "Epochs": trained,
    }
    return {name: text for name, text in found.items() if text}


def verdict_tables(run: ReportedRun) -> list[Table]:
    """Tabulates the verdicts, one sentence per score, the decisive test first."""
    found, scored = [], score_verdicts(run.report)
    for place, title in PLACES.items():
        rows = tuple(
            (
                SCORES[s.name],
                score_cell(s.name, s.value),
                s.reading,
                s.verdict.partition(": ")[2].partition("; strongest")[0],
            )
            for s in scored
            if s.place == place
        )
        counts = ", the test that counts" if place == "cropped" else ""
        if rows:
            columns = ("score", "model", "against all controls", "against the clock")
            found.append(Table(rows, columns, f"On {title}{counts}"))
    return found


def _scores(run: ReportedRun) -> dict[str, object]:
    """Returns the verdicts, and the tables and charts of every score beside its controls."""
    report = run.report
    rows = [values for members in score_groups(report).values() for values in members.values()]
    charts = []
    if any(score in values for values in rows for score in MAIN):
        label = f"Scores of {run.name} and its controls"
        caption = "Right is better: a score is worth what lies between its dot and the furthest control."
        charts.append(chart(plotting.plot_controls(report), label, caption))
    fractions = report.get("label_fractions") or {}
    if any(fractions.values()):
        label = f"Scores of {run.name} by share of labelled training videos"
        caption = "Scores with labels for a part of the training videos: where a curve is flat, few labels are enough."
        charts.append(chart(plotting.plot_label_fractions(fractions), label, caption))
    more = [table for table in (plotting.actions_table(report), plotting.kinds_table(report)) if table.rows]
    return {
        "verdicts": verdict_tables(run),
        "charts": charts,
        "all": replace(plotting.scores_table(report), notes=()),  # the notes have their own section
        "more": more,
    }


def _localization(run: ReportedRun) -> dict[str, object]:
    """Returns the tables and the chart of localization, and the attention measures that need no mask."""
    report, table = run.report, plotting.localization_table(run.report)
    label = f"Localization of {run.name}: entities, heads and baselines"
    caption = "Right is better: in a good model entity 1 is to the right of the heads, and its differences of zero."
    drawn = chart(plotting.plot_localization(report), label, caption) if table.rows else None
    tables = (replace(table, notes=()), plotting.localization_differences_table(report))
    return {
        "chart": drawn,
        "verdicts": table.notes if table.rows else (),
        "tables": [table for table in tables if table.rows],
        "attention": plotting.attention_table(report),
    }


def _training(run: ReportedRun) -> dict[str, object]:
    """Returns the training curves, or why there are none."""
    missing = []
    if not (run.config.per_action or (run.folder / "model.safetensors").exists()):
        missing.append("The folder has no checkpoint (model.safetensors): the report is valid without it.")
    if run.history:
        first, last = run.history[0], run.history[-1]
        ends = (f"{row['loss']:.3f} after epoch {row['epoch']:g}" for row in (first, last))
        caption = f"The loss should fall and level off: {', '.join(ends)}."
        curves = chart(plotting.plot_history(run.history), f"Training curves of {run.name}", caption)
        return {"missing": missing, "curves": curves}
    there = (run.folder / "history.csv").exists()
    missing.append("Evaluated without training: no curves." if there else "The folder has no history.csv: no curves.")
    return {"missing": missing, "curves": None}


def _coverage(report: Mapping) -> dict[str, Table]:
    """Tabulates which videos were found or left out and which scores were skipped, with reasons."""
    coverage = report.get("coverage") or {}
    found = tuple(
        (split, *(plotting.cell(c.get(k)) for k in ("found", "expected")), str(len(c.get("unreadable") or {})))
        for split, c in coverage.items()
    )
    lost = tuple((s, name, why) for s, c in coverage.items() for name, why in (c.get("unreadable") or {}).items())
    skipped = tuple((names, reason) for reason, names in skipped_scores(report))
    return {
        "videos": Table(found, ("split", "found", "expected", "left out"), "Videos"),
        "left_out": Table(lost, ("split", "video", "reason"), "Videos left out"),
        "skipped": Table(skipped, ("what", "reason"), "Skipped: what could not be computed"),
    }


def _changed_settings(run: ReportedRun) -> Table:
    """Tabulates the settings that differ from the run's preset."""
    preset = run.config.preset
    usual = load_config(preset).as_dict() if preset in presets() else {}
    changed = tuple(
        (name, shown_setting(value), shown_setting(usual.get(name)))
        for name, value in run.config.as_dict().items()
        if name not in usual or value != usual[name]
    )
    return Table(changed, ("setting", "this run", "preset"), f"Settings that differ from the preset “{preset}”")


def shown_setting(value: object) -> str:
    """Formats a setting in full: a number as written, a mapping item by item."""
    if isinstance(value, dict):
        return ", ".join(f"{name} = {plotting.cell(inner)}" for name, inner in value.items()) or plotting.MISSING
    return f"{value:g}" if isinstance(value, float) else plotting.cell(value) or '""'


def chart(figure: Figure, label: str, caption: str = "") -> Chart:
    """Renders a figure as SVG with text as text, which follows the page's colours and can be searched.

    Args:
        figure: The figure.
        label: Description for screen readers; must be unique on the page.
        caption: Printed below the figure.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):  # ids in the SVG are reproducible, and unique per chart
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r'<g id="[^"]*">', "<g>", buffer.getvalue())  # ids like axes_1 would occur in every chart
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    return Chart(svg, label, caption, figure.get_size_inches()[0] * PIXELS_PER_INCH)


# ----------------------------------------------------------------------------------------------------------------------
# Two runs compared.

SIDES = ("A", "B")
READ = ("A − B", "95 % low", "95 % high", "in words")
# Other entities have no counterpart in another run, and untrained baselines are the same in both.
MAPS = ("entity_1", "entity_best", "background", "head_best", "head_best_any_layer")


@dataclass(frozen=True)
class Gap:
    """A score of two runs and their difference, the first minus the second."""

    place: str
    score: str
    values: tuple[float, float]
    found: Difference


def _comparison(first: ReportedRun, second: ReportedRun) -> dict[str, object]:
    """Returns everything that compares `first`, A, with `second`, B, evaluated on the same data."""
    gaps = gaps_of(first.report, second.report)
    rows = (
        (PLACES[g.place], SCORES[g.score], *(score_cell(g.score, v) for v in g.values), *_numbers(g.found))
        for g in gaps
    )
    drawn = losses = None
    if any(gap.found.interval for gap in gaps):
        caption = "Differences and their 95 % intervals; filled if the interval excludes 0."
        drawn = chart(plot_gaps(gaps), f"Differences of scores, {first.name} minus {second.name}", caption)
    if first.history and second.history:
        losses = chart(plot_losses(first, second), f"Loss of {first.name} and {second.name}")
    here, there = first.config.as_dict(), second.config.as_dict()
    changed = tuple((k, shown_setting(here[k]), shown_setting(there[k])) for k in here if here[k] != there[k])
    return {
        "names": _names(first, second),
        "warnings": warnings(second.report),
        "without_sums": [side for side, run in zip(SIDES, (first, second)) if not run.report.get("videos")],
        "scores": Table(tuple(rows), ("on", "score", *SIDES, *READ), "Scores of A and B"),
        "chart": drawn,
        "localization": _localization_table(first, second),
        "changed": list(_changed_videos(first, second)),
        "settings": Table(changed, ("setting", *SIDES), "Settings that differ"),
        "losses": losses,
        "controls": [table for place in PLACES if (table := _controls_table(first, second, place)).columns[1:]],
    }


def gaps_of(first: Mapping, second: Mapping) -> list[Gap]:
    """Computes the differences of two reports, `cropped` first.

    Example:
        >>> [gap.found.mean for gap in gaps_of({"scores": {"kendall_tau": 0.75}}, {"scores": {"kendall_tau": 0.5}})]
        [0.25]
    """
    places = [(place, score) for place in PLACES for score in KEPT]
    found = [(place, score, compare([first], [second], place, score)) for place, score in places]
    return [
        Gap(place, score, (scores_of(first, place)[score], scores_of(second, place)[score]), difference)
        for place, score, difference in found
        if difference
    ]


def plot_gaps(gaps: Sequence[Gap]) -> Figure:
    """Draws every difference with its interval, one panel per score; filled if the interval excludes zero."""
    scores = list(dict.fromkeys(gap.score for gap in gaps))
    places = [place for place in PLACES if any(gap.place == place for gap in gaps)]
    with paper_figure(PAGE, 0.75 + 0.25 * len(places)) as figure:
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, score in zip(panels, scores):
            axes.axvline(0, color="#7F7F7F", linewidth=0.8)
            for gap in (gap for gap in gaps if gap.score == score):
                y, low_high = places.index(gap.place), gap.found.interval
                colour = OKABE_ITO[0] if gap.found.holds else "#7F7F7F"
                axes.plot(low_high or (), [y] * 2 if low_high else (), color=colour)
                fill = colour if gap.found.holds else "none"
                axes.plot(gap.found.mean, y, "o", color=colour, markerfacecolor=fill, markersize=4.5)
            axes.set_title(SCORES[score], fontsize=7.5)
            axes.locator_params(axis="x", nbins=4)
        panels[0].set_yticks(range(len(places)), [PLACES[place] for place in places])
        panels[0].set_ylim(len(places) - 0.4, -0.6)
        figure.supxlabel("A minus B", fontsize=7)
    return figure


def plot_losses(first: ReportedRun, second: ReportedRun) -> Figure:
    """Draws the loss of two runs in one figure."""
    with paper_figure(PAGE, 2.1) as figure:
        axes = figure.subplots()
        for run, side, colour, style in zip((first, second), SIDES, (OKABE_ITO[0], OKABE_ITO[5]), ("-", "--")):
            epochs, losses = ([row[name] for row in run.history] for name in ("epoch", "loss"))
            axes.plot(epochs, losses, style, color=colour, label=f"{side}: {run.name}")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def _localization_table(first: ReportedRun, second: ReportedRun) -> Table:
    found = [row for row in localization_differences(first.report, second.report) if row[0] in MAPS and row[2].mean]
    rows = (
        (plotting.map_name(name), score_words(metric).replace("_", " "), *_numbers(gap)) for name, metric, gap in found
    )
    notes = (
        "Entities have no fixed roles: entity 1 of one run need not be entity 1 of the other.",
        "These intervals pool all actions: the bootstrap resamples videos from all of them together.",
    )
    return Table(tuple(rows), ("map", "measure", *READ), "Localization, A minus B", notes)


def _changed_videos(first: ReportedRun, second: ReportedRun) -> Iterator[tuple[str, bool, list[Table]]]:
    """Yields (place, unfolded, one table per score) of the videos whose own scores differ most."""
    for place, title in PLACES.items():
        made = ((score, changed_videos(first.report, second.report, place, score)) for score in KEPT)
        tables = [_changed_table(score, rows) for score, rows in made if rows]
        if tables:
            yield title, place == "cropped", tables


def _changed_table(score: str, rows: Sequence[tuple[str, str, float, float]]) -> Table:
    lines = tuple(
        (video, action, score_cell(score, a), score_cell(score, b), f"{a - b:+.3f}") for action, video, a, b in rows
    )
    return Table(lines, ("video", "action", *SIDES, "A − B"), SCORES[score])


def _controls_table(first: ReportedRun, second: ReportedRun, place: str) -> Table:
    sides = [score_groups(run.report).get(place, {}) for run in (first, second)]
    scores = present(KEPT, [values for side in sides for values in side.values()])
    rows = tuple(
        (control_name(name), *(score_cell(score, side.get(name, {}).get(score)) for score in scores for side in sides))
        for name in dict.fromkeys((*sides[0], *sides[1]))
    )
    columns = ("embedding", *(f"{SCORES[score]}, {side}" for score in scores for side in SIDES))
    return Table(rows, columns, f"Controls of both on {PLACES[place]}", strong=(0,))


def _names(first: ReportedRun, second: ReportedRun) -> list[str]:
    """Returns the folder names, with their parents' names if the two are equal."""
    parts = 1 if first.name != second.name else 2
    return ["/".join(run.folder.resolve().parts[-parts:]) for run in (first, second)]


def _numbers(found: Difference) -> tuple[str, ...]:
    ends = (plotting.MISSING,) * 2 if found.interval is None else tuple(f"{end:+.3f}" for end in found.interval)
    return f"{found.mean:+.3f}", *ends, read_difference(found)


# ----------------------------------------------------------------------------------------------------------------------
# Clips of an unlabelled run, and the pictures, movies and browsers of a run's `figures/`, embedded in the page.

MOST_CLIPS = 24
CLIP_HEIGHT = 180  # pixels of a clip's frame
MOVIES = {".gif": "image/gif", ".mp4": "video/mp4"}
DRAWN = ("history", "controls", "label_fractions", "localization")  # the page draws them itself
BUDGET = 20_000_000  # characters of all media together, so that the page can be sent by mail
LARGEST_MOVIE = 2_500_000  # bytes
LARGEST_PNG = 250_000  # bytes; larger ones are stored as WebP
WIDEST = 2000  # pixels
PIXELS_PER_POINT = 1.6  # scale on the page of a figure saved at 200 dots per inch
OTHER = "More figures"


@dataclass(frozen=True)
class Chapter:
    """A section of figures on the page.

    Attributes:
        title: Its heading.
        captions: How to read a figure, by the beginning of its file's name; in reading order.
        covered: Those of them that are left out beside the chapter's browser, which shows the same.
    """

    title: str
    captions: Mapping[str, str]
    covered: str = ""


STORY = (
    Chapter(  # above everything else
        "At a glance",
        {
            "attention": "A clip beside its maps, bright where an entity or a head of the frozen backbone looks: a "
            "good entity stays on the actor.",
            "alignment_player": "Videos of one action on one clock: in a good alignment all show the same moment at "
            "any time.",
        },
    ),
    Chapter(
        "Where it looks",
        {
            "attention_browser": "Choose a video, an entity, a layer and a head, and drag the timeline: a good entity "
            "stays on the actor in every frame.",
            "attention_figure": "Entities beside a head of the frozen backbone, as in the paper's Figures 1 and 3: a "
            "good entity lights the actor, another the background.",
            "attention_": "Rows are frames, columns the entities and a backbone head: a good entity lights the actor, "
            "limbs included, and leaves bystanders dark.",
            "temporal_attention": "Bright cells are frames that a frame attends to: a band along the diagonal is "
            "motion nearby, a stripe one frame that many others attend to.",
            "knockouts": "Scores after an entity or a region is removed: the further from zero, the more the result "
            "rests on it.",
        },
        covered="attention_",
    ),
    Chapter(
        "Alignment",
        {
            "alignment": "The line pairs the frames of two videos and should follow the bright band; the pairs below "
            "it should show one moment.",
            "similarity": "Every frame of one video against every frame of another: a good matrix is bright along the "
            "path that aligns them and dark elsewhere.",
            "transfer": "Phases carried from one labelled video to the others: they should change where the true ones "
            "do.",
        },
    ),
    Chapter(
        "Deviation",
        {
            "deviation_player": "A clip beside its nearest reference: where the line is above the grey band, the clip "
            "is further from the references than they mostly are from one another.",
            "deviation": "Distance of a clip from its references over the band, numbered where it is outside; what "
            "the controls below show too needs no model.",
        },
    ),
    Chapter(
        "Retrieval",
        {
            "retrieval_browser": "A frame and its nearest frames in other videos: click one to go on from there; good "
            "neighbours show one moment of the action.",
            "retrieval": "A frame and its nearest frames in other videos: a good row shows one moment of the action in "
            "different clothes.",
        },
        covered="retrieval",
    ),
    Chapter(
        "Embeddings",
        {
            "embedding_explorer": "Each point is a frame and shows it when pointed at: videos of one action should run "
            "side by side.",
            "embeddings": "Each point is a frame, each line a video: lines of one action should run side by side, with "
            "phases in the same order.",
        },
        covered="embeddings",
    ),
    Chapter(
        "Phases",
        {
            "confusion": "Rows are true phases, columns predicted ones: a good matrix is bright on the diagonal only.",
            "progression": "Time since each phase boundary, negative before it: solid lines, predicted, should lie on "
            "the dashed, true ones.",
        },
    ),
)


@dataclass(frozen=True)
class Medium:
    """A picture, movie or browser on the page.

    Attributes:
        name: Name as text.
        caption: How to read it; empty for an unknown one.
        uri: Contents of a picture or movie as a `data:` URI.
        size: Width and height on the page, in pixels; of a browser unknown.
        poster: A frame of an MP4 as a `data:` URI, shown before it plays.
        html: Contents of a browser, an HTML file with scripts.
        scripts: Source expressions of a content security policy that allow these scripts and no others.
        fit: Height in CSS at which the browser fills its frame, which is 100cqw wide; empty if it says none.
    """

    name: str
    caption: str
    uri: str = ""
    size: tuple[int, int] | None = None
    poster: str = ""
    html: str = ""
    scripts: tuple[str, ...] = ()
    fit: str = ""


@dataclass(frozen=True)
class ShownChapter:
    """A chapter with figures: groups of figures that are read alike."""

    title: str
    groups: list[list[Medium]] = field(default_factory=list)


def place_of(name: str) -> tuple[Chapter | None, str]:
    """The chapter of a figure, by its file's name, and the key of its caption; None and "" for an unknown one.

    Example:
        >>> place_of("attention_2")[1], place_of("temporal_attention")[1], place_of("my_figure")[1]
        ('attention_', 'temporal_attention', '')
    """
    found = [(key, chapter) for chapter in STORY for key in chapter.captions if re.match(rf"{key}(?![a-z])", name)]
    key, chapter = max(found, key=lambda item: len(item[0]), default=("", None))
    return chapter, key


def caption_of(name: str) -> str:
    """Says how to read the figure with a file name; empty for an unknown one, whose name stands beside it anyway."""
    chapter, key = place_of(name)
    return chapter.captions[key] if chapter else ""


def _chapters(folder: Path) -> tuple[list[Medium], list[ShownChapter], list[str]]:
    """Embeds the figures that fit in `BUDGET`, in reading order; returns the browsers, all chapters, what is left out.

    Left out without a word are a figure that its browser shows already, a `.gif` whose movie is also there as `.mp4`, a
    figure that only explains why there is nothing to draw (`mvf.workbench.plotting.plot_message`), and an HTML file
    that is no browser.
    """
    spent, left_out = 0, []
    browsers, chapters = [], {title: ShownChapter(title) for title in (*(c.title for c in STORY), OTHER)}
    groups: dict[str, list[Medium]] = {}
    for path in _in_reading_order(folder):
        try:
            medium = READERS[path.suffix](path)
        except (OSError, ValueError, av.FFmpegError, Image.DecompressionBombError) as error:
            medium = f"cannot be read ({error})"
        if medium is None:
            continue
        size = 0 if isinstance(medium, str) else len(medium.uri) + len(medium.html) + len(medium.poster)
        if isinstance(medium, str) or spent + size > BUDGET:
            left_out.append(f"{path.name}: {medium if isinstance(medium, str) else 'the page would be too large'}")
            continue
        spent += size
        chapter, key = place_of(path.stem)
        group = groups.setdefault(key or path.stem, [])
        if not group:
            chapters[chapter.title if chapter else OTHER].groups.append(group)
        group.append(medium)
        browsers += [medium] if medium.html else []
    return browsers, [chapter for chapter in chapters.values() if chapter.groups], left_out


def _in_reading_order(folder: Path) -> list[Path]:
    """Files of figures: by the order of `STORY`, unknown ones last."""
    paths = [path for path in sorted(folder.glob("*")) if path.suffix in READERS and path.stem not in DRAWN]
    places = {path: place_of(path.stem) for path in paths}
    browsers = {chapter.title for path, (chapter, _) in places.items() if chapter and path.suffix == ".html"}
    order = [key for chapter in STORY for key in chapter.captions]

    def is_shown(path: Path) -> bool:
        chapter, key = places[path]
        if path.suffix == ".html":
            return chapter is not None
        if path.suffix == ".gif":
            return path.with_suffix(".mp4") not in paths
        return not (chapter and chapter.title in browsers and key == chapter.covered)

    rank = {path: order.index(key) if key else len(order) for path, (_, key) in places.items()}
    return sorted(filter(is_shown, paths), key=lambda path: (rank[path], path.suffix not in MOVIES, path.name))


def _picture(path: Path) -> Medium | None:
    """Reads a picture; None if it only explains why there is nothing to draw."""
    with Image.open(path) as image:
        if image.info.get("Title") == MESSAGE:
            return None
        size = image.size
        data, kind = path.read_bytes(), "image/png"
        if len(data) > LARGEST_PNG or size[0] > WIDEST:
            smaller = image.convert("RGB")
            smaller.thumbnail((WIDEST, 4 * WIDEST))
            data, kind = webp(smaller), "image/webp"
    width, height = (round(pixels / PIXELS_PER_POINT) for pixels in size)
    return Medium(_words(path), caption_of(path.stem), data_uri(kind, data), (width, height))


def _movie(path: Path) -> Medium | str:
    """Reads a movie and a frame of it, or returns why it is left out."""
    data = path.read_bytes()
    if len(data) > LARGEST_MOVIE:
        return f"{len(data) / 1e6:.1f} MB; the limit for a movie is {LARGEST_MOVIE / 1e6:.1f} MB"
    poster, size = "", None
    if path.suffix == ".mp4":
        with av.open(str(path)) as film:
            frames = list(film.decode(video=0))
        middle = frames[len(frames) // 2].to_image()
        poster, size = data_uri("image/webp", webp(middle)), middle.size
    return Medium(_words(path), caption_of(path.stem), data_uri(MOVIES[path.suffix], data), size, poster)


def _browser(path: Path) -> Medium:
    html = path.read_text(encoding="utf-8")
    scripts = re.findall(r"<script\b(?![^>]*\bjson\b)[^>]*>(.*?)</script>", html, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = tuple(f"'sha256-{mark}'" for mark in hashes)
    fit = re.search(r'<body [^>]*data-fit="([^";]+)"', html)
    return Medium(_words(path), caption_of(path.stem), html=html, scripts=allowed, fit=fit[1] if fit else "")


READERS: Mapping[str, Callable[[Path], Medium | str | None]] = MappingProxyType(
    {".png": _picture, **dict.fromkeys(MOVIES, _movie), ".html": _browser}
)


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=4)
    return buffer.getvalue()


def _clips(run: ReportedRun) -> dict[str, object]:
    """Returns a frame of each clip with its name and length, or why the clips cannot be shown."""
    sides = kept_sides(run.folder, run.config)
    try:
        found = {
            words: find_config_videos(run.config, split, allow_empty=True, sides=sides)
            for split, words in (("train", "training"), ("val", "validation"))
        }
        records = [(words, record) for words, videos in found.items() for record in videos]
        shown = [_clip(record, words) for words, record in records[:MOST_CLIPS]]
    except (OSError, ValueError) as error:
        return {"shown": [], "more": 0, "missing": f"The clips cannot be shown: {error}"}
    return {"shown": shown, "more": len(records) - len(shown), "missing": ""}


def _clip(record: VideoRecord, split: str) -> Medium:
    middle = Image.fromarray(next(iter(record.frames_at([record.num_frames // 2]))))
    middle.thumbnail((2 * CLIP_HEIGHT, CLIP_HEIGHT))
    times = record.frame_times
    seconds = "" if times is None or len(times) < 2 else f", {times[-1] - times[0] + np.diff(times).mean():.1f} s"
    words = f"{record.num_frames} frames{seconds}, {split}"
    return Medium(record.name, words, data_uri("image/webp", webp(middle)), middle.size)


# ----------------------------------------------------------------------------------------------------------------------
# What reports say: each score beside its strongest control, and two runs beside each other.

PLACES = {"cropped": "cropped windows", "whole": "whole videos"}  # the decisive test is first
UNCLEAR = "not distinguishable"


@dataclass(frozen=True)
class ReportedRun:
    """The contents of a run folder that the page needs; the model is not among them.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        report: Its `metrics.json` and the report files beside it.
        history: Rows of `history.csv`; empty if there is no such file.
    """

    folder: Path
    config: Config
    report: Mapping
    history: Sequence[Mapping[str, float]]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read_run(folder: str | Path) -> ReportedRun:
    """Reads the configuration, report and history of a run folder.

    Raises:
        ValueError: if there is no run or no report; the message has the command that makes one.
    """
    folder = model_folder(folder)
    if is_released(folder):
        raise ValueError(f"{folder.name} is a released head, not a run: mvf report --clips {folder.name} CLIPS")
    config = read_config(folder)
    if not (folder / "metrics.json").exists():
        trained = (folder / "history.csv").exists()
        command = f"evaluate {folder}" if trained else f"train {config.preset} --run-dir {folder}"
        raise ValueError(f"{folder} has no report (metrics.json): python -m mvf {command} makes one")
    try:
        history = read_history(folder)
    except FileNotFoundError:
        history = []
    return ReportedRun(folder, config, read_report(folder / "metrics.json"), history)


@dataclass(frozen=True)
class ScoreVerdict:
    """A score of the model beside its strongest control.

    Attributes:
        place: `cropped` or `whole`.
        name: Name of the score.
        value: The model's score.
        rival: Name of the strongest control; empty if no control was scored.
        best: Score of that control.
        verdict: The report's sentence.
        level: Whether the interval of the difference from that control contains zero.
    """

    place: str
    name: str
    value: float
    rival: str
    best: float
    verdict: str
    level: bool = False

    @property
    def beaten(self) -> bool:
        """Whether the model is above every control and distinguishable from the clock; no R² below zero is."""
        return self.value > self.best and not below_mean(self.name, self.value) and UNCLEAR not in self.verdict

    @property
    def reading(self) -> str:
        """The comparison with the controls as text that begins with a symbol."""
        if not self.rival:
            return "– no control was scored"
        if below_mean(self.name, self.value):
            return "▼ below the mean: no gain over any control"
        if self.value > self.best and UNCLEAR in self.verdict:
            return "≈ not distinguishable from the clock"
        if self.level:
            return f"≈ level with {self.rival}, {self.best:.3f}"
        return "▲ above every control" if self.beaten else f"▼ not above {self.rival}, {self.best:.3f}"


def score_verdicts(report: Mapping) -> list[ScoreVerdict]:
    """Compares the paper's four scores with their controls, `cropped` first.

    Example:
        >>> report = {"scores": {"kendall_tau": 0.8}, "controls": {"untrained": {"kendall_tau": 0.9}}}
        >>> [score.reading for score in score_verdicts(report)]
        ['▼ not above untrained, 0.900']
    """
    groups = score_groups(report)
    found = [(place, score) for place in PLACES for score in KEPT if score in groups.get(place, {}).get("model", {})]
    return [_score_verdict(report, groups[place], place, score) for place, score in found]


def _score_verdict(report: Mapping, members: Mapping[str, Mapping], place: str, score: str) -> ScoreVerdict:
    own = ("model", "reversed")  # the same embeddings of reversed windows are no rival
    rivals = {name: values[score] for name, values in members.items() if name not in own and score in values}
    rival = max(rivals, key=rivals.__getitem__, default="")
    verdict = (report.get("verdicts") or {}).get(score if place == "whole" else f"cropped.{score}", "")
    if below_mean(score, members["model"][score]):
        verdict = "below the mean: no gain over any control"  # older reports claimed one
    gaps = (report.get("cropped_differences") or {}) if place == "cropped" else {}
    _, *ends = gaps.get(rival, {}).get(score, (0,))
    level = bool(ends) and ends[0] <= 0 <= ends[1]
    best = rivals.get(rival, -np.inf)
    return ScoreVerdict(place, score, members["model"][score], control_name(rival), best, verdict, level)


def check_same_data(first: ReportedRun, second: ReportedRun) -> None:
    """Refuses to compare two runs that were evaluated on different data.

    A folder can have several paths. If only `data_root` differs, the data count as the same if both paths resolve to
    the same folder, the fingerprints `judged_on` agree, or both reports score the same validation videos.

    Raises:
        ValueError: if the data differ; the message names the settings that differ.
    """
    here, there = first.config.as_dict(), second.config.as_dict()
    changed = [f"{k} (there {there[k]!r}, here {here[k]!r})" for k in DATA_FIELDS if here[k] != there[k]]
    marks = [run.report.get("judged_on") for run in (first, second)]
    if [k for k in DATA_FIELDS if here[k] != there[k]] == ["data_root"]:
        roots = [data_folder(settings["data_root"]).resolve() for settings in (here, there)]
        same_videos = _scored_videos(first.report) == _scored_videos(second.report) != set()
        same = roots[0] == roots[1] or marks[0] == marks[1] is not None or same_videos
    else:
        same = not changed and marks[0] == marks[1]
    if same:
        return
    why = ", ".join(changed) or (
        f"the settings agree but the fingerprints judged_on do not ({marks[0]}, {marks[1]}), so one report is of other "
        "data or from an older version: run python -m mvf evaluate again"
    )
    raise ValueError(
        f"{second.folder} and {first.folder} were evaluated on different data: {why}. Compare runs on the same data"
    )


def _scored_videos(report: Mapping) -> set[tuple[str, str]]:
    """Returns (action, name) of every validation video with stored sums."""
    by_score = [score for place in PLACES for score in report.get("videos", {}).get(place, {}).values()]
    return {(action, video) for actions in by_score for action, videos in actions.items() for video in videos}


def read_difference(found: Difference) -> str:
    """Describes a difference as text that begins with a symbol.

    Example:
        >>> read_difference(Difference(0.1, None, (0.05, 0.15), (6,))), read_difference(Difference(0.1, None, None))
        ('▲ higher: the interval excludes 0', '– no interval: too few videos, or their sums were not stored')
    """
    if found.interval is None:
        return "– no interval: too few videos, or their sums were not stored"
    if found.interval[0] <= 0 <= found.interval[1]:
        return "≈ no difference shown: the interval contains 0"
    if not found.holds:
        return f"? the interval excludes 0, but an action has fewer than {FEWEST} videos"
    return f"{'▲ higher' if found.mean > 0 else '▼ lower'}: the interval excludes 0"


def changed_videos(
    first: Mapping, second: Mapping, place: str, score: str, most: int = 10
) -> list[tuple[str, str, float, float]]:
    """Returns (action, video, value in `first`, value in `second`) for the videos whose scores differ most."""
    sides = [report.get("videos", {}).get(place, {}).get(score, {}) for report in (first, second)]
    rows = []
    for action in sorted(sides[0].keys() & sides[1].keys()):
        for video in sorted(sides[0][action].keys() & sides[1][action].keys()):
            values = [float(combine(np.asarray(side[action][video], float))) for side in sides]
            if np.isfinite(values).all() and values[0] != values[1]:
                rows.append((action, video, *values))
    return sorted(rows, key=lambda row: -abs(row[2] - row[3]))[:most]


def localization_differences(first: Mapping, second: Mapping) -> list[tuple[str, str, Difference]]:
    """Returns (map, metric, difference) of the localization that both reports store per video."""
    sides = [report.get("videos", {}).get("localization", {}) for report in (first, second)]
    found = []
    for name in (name for name in sides[0] if name in sides[1]):
        rows = [side[name] for side in sides]
        videos = sorted(rows[0].keys() & rows[1].keys())
        for metric in dict.fromkeys(metric for video in videos for metric in rows[0][video]):
            both = [[row[video].get(metric) for row in rows] for video in videos]
            pairs = np.array([pair for pair in both if None not in pair], float)
            if len(pairs):
                gaps = pairs[:, 0] - pairs[:, 1]
                found.append((name, metric, Difference(gaps.mean(), None, mean_interval(gaps), (len(gaps),))))
    return found
