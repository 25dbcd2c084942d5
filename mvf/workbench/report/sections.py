"""The sections of a page about one run."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from mvf.config import load_config, presets
from mvf.evaluation.scoring import KEPT
from mvf.workbench import plotting
from mvf.workbench.plotting import Table
from mvf.workbench.plotting.scores import SCORES, control_name, present, score_groups
from mvf.workbench.plotting.style import MESSAGE, OKABE_ITO, PAGE, paper_figure
from mvf.workbench.report.reading import PLACES, Story, changed_videos, judge, localization_differences, read_difference
from mvf.workbench.tables.trials import Difference, compare, scores_of

MANY = 10  # rows that are shown at once; more are folded
MAIN = tuple(SCORES)[:4]


def head(story: Story, kicker: str) -> Html:
    """What run, and what is wrong with it."""
    line = f"{story.config.preset} on {story.config.dataset}, seed {story.config.seed}"
    title = element("header", element("p", kicker, class_="kicker"), element("h1", story.name),
                    element("p", line, class_="lead"))  # fmt: skip
    return Html(title + alarm(story.report, "⚠ Read first") + facts(story))


def alarm(report: Mapping, title: str) -> Html:
    """What a reader must know before any number of a report, in a box that cannot be overlooked."""
    found = warnings(report)
    return element("aside", element("strong", title), bullets(found), class_="warning") if found else Html()


def warnings(report: Mapping) -> list[Html]:
    """Random weights, assumed supervision, controls that were not beaten."""
    judged = judge(report)
    found = [element("b", report["warning"])] if report.get("warning") else []
    if str(report.get("supervision", "")).endswith("assumed"):
        found.append(Html("The objective needs videos of one action. That they are was assumed, no file says so."))
    for place in PLACES:
        weak = [j for j in judged if j.place == place and j.rival and not j.beaten]
        if weak:
            total = sum(j.place == place for j in judged)
            text = f"{len(weak)} of {total} scores do not beat their controls: "
            listed = ", ".join(f"{SCORES[j.score]} ({j.reading[2:]})" for j in weak)
            found.append(element("span", element("b", f"On {PLACES[place]} {text}"), listed, "."))
    if judged and not any(j.place == "cropped" for j in judged):
        found.append(Html("Not judged on cropped windows: on whole videos a clock alone can score as high."))
    if not judged:
        found.append(Html("No score could be computed; “Skipped” says why."))
    return found


def facts(story: Story) -> Html:
    """The run in a dozen words and numbers; nothing that changes from one machine to the next."""
    config, report, cost = story.config, story.report, story.report.get("cost") or {}
    coverage = report.get("coverage") or {}
    videos = [f"{c.get('found', '?')} {'training' if s == 'train' else 'validation'}" for s, c in coverage.items()]
    sizes = [f"{cost[key] / 1e6:.1f} M {word}" for key, word in
             (("parameters", "trained"), ("backbone_parameters", "frozen")) if key in cost]  # fmt: skip
    trained = f"{len(story.history)} of {config.epochs}" if story.history else f"{config.epochs} configured"
    weights = report.get("backbone_weights", "unknown")
    pairs = {
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
    shown = [element("div", element("dt", name), element("dd", text)) for name, text in pairs.items() if text]
    return element("dl", *shown, class_="facts")


def verdict_section(story: Story) -> Html:
    """One sentence a score: the test that counts first."""
    body, judged = [], judge(story.report)
    for place, title in PLACES.items():
        rows = [(SCORES[j.score], f"{j.value:.3f}", j.reading, j.verdict.partition(": ")[2].partition("; strongest")[0])
                for j in judged if j.place == place]  # fmt: skip
        counts = ", the test that counts" if place == "cropped" else ""
        columns = ("score", "model", "against all controls", "against the clock")
        body += [table_markup(plotting.Table(tuple(rows), columns, f"On {title}{counts}"))] if rows else []
    return section("Verdicts", *body)


def score_section(story: Story) -> Html:
    """Every score beside its controls."""
    report = story.report
    # Their notes have a section of their own, what the first says of the run stands at the top of the page.
    first = replace(plotting.report_table(report), caption="Every score beside the first controls", notes=())
    everything = replace(plotting.scores_table(report), notes=())
    drawn = []
    if any(
        score in values for members in score_groups(report).values() for values in members.values() for score in MAIN
    ):
        label = f"Scores of {story.name} and its controls"
        drawn.append(chart(plotting.plot_controls(report), label, "The same numbers: the model beside its controls."))
    fractions = report.get("label_fractions") or {}
    if any(fractions.values()):
        label = f"Scores of {story.name} by share of labelled training videos"
        drawn.append(chart(plotting.plot_label_fractions(fractions), label, "How many labels a probe needs."))
    apart = [table for table in (plotting.actions_table(report), plotting.kinds_table(report)) if table.rows]
    if not first.rows:
        return section("Scores and controls", element("p", "No score could be computed.", class_="absent"))
    folded = details(f"All embeddings and scores ({len(everything.rows)} rows)", table_markup(everything))
    return section("Scores and controls", table_markup(first), *drawn, folded, *map(table_markup, apart))


def look_section(story: Story) -> Html:
    """Where the attention lies, in numbers, and what it says without masks."""
    report, table = story.report, plotting.localization_table(story.report)
    body = [] if table.rows else [element("p", note, class_="absent") for note in table.notes]
    if table.rows:
        label = f"Localization of {story.name}: entities, heads and constant answers"
        body += [table_markup(table), chart(plotting.plot_localization(report), label)]
    more = (plotting.localization_differences_table(report), plotting.attention_table(report))
    return section("Localization", *body, *(table_markup(table) for table in more if table.rows))


def curve_section(story: Story) -> Html:
    """Loss, learning rate and gradient norm."""
    body = []
    if not (story.config.per_action or (story.folder / "model.safetensors").exists()):
        body.append("The folder holds no checkpoint (model.safetensors): the report stands, the model is not there.")
    if not story.history:
        there = (story.folder / "history.csv").exists()
        body.append("Judged without training: no curves." if there else "The folder holds no history.csv: no curves.")
    missing = [element("p", text, class_="absent") for text in body]
    if not story.history:
        return section("Training", *missing)
    first, last = story.history[0], story.history[-1]
    text = f"Loss {first['loss']:.3f} after epoch {first['epoch']:g}, {last['loss']:.3f} after epoch {last['epoch']:g}."
    curves = chart(plotting.plot_history(story.history), f"Training curves of {story.name}", text)
    return section("Training", *missing, curves)


def coverage_section(story: Story) -> Html:
    """What was found, what was left out, what was not computed, each with its reason."""
    report, body = story.report, []
    coverage = report.get("coverage") or {}
    rows = tuple((split, *(plotting.cell(c.get(k)) for k in ("found", "expected")), str(len(c.get("unreadable") or {})))
                 for split, c in coverage.items())  # fmt: skip
    if rows:
        body.append(table_markup(plotting.Table(rows, ("split", "found", "expected", "left out"), "Videos")))
    lost = [(s, name, why) for s, c in coverage.items() for name, why in (c.get("unreadable") or {}).items()]
    body.append(_folded("Videos left out", ("split", "video", "reason"), lost))
    skipped = list((report.get("skipped") or {}).items())
    body.append(_folded("Skipped: what could not be computed", ("what", "reason"), skipped))
    if not skipped:
        body.append(element("p", "Nothing was skipped: every score and control was computed."))
    return section("Coverage", *body)


def configuration_section(story: Story) -> Html:
    """What the run sets otherwise than its preset, then everything."""
    own = story.config.as_dict()
    known = story.config.preset in presets()
    usual = load_config(story.config.preset).as_dict() if known else {}
    changed = tuple(
        (k, shown_setting(v), shown_setting(usual.get(k))) for k, v in own.items() if not known or v != usual[k]
    )
    named = f"Settings that differ from the preset “{story.config.preset}”"
    first = plotting.Table(changed, ("setting", "this run", "preset"), named)
    same = element("p", f"All settings are those of the preset “{story.config.preset}”.")
    everything = details(f"All {len(own)} settings", table_markup(plotting.config_table(own)))
    return section("Configuration", table_markup(first) if changed else same, everything)


def figure_section(story: Story) -> Html:
    """What the notebooks drew."""
    shown = media_markup(story.folder / "figures")
    hint = "None yet: probe.ipynb and attention.ipynb draw into the run's figures/."
    return section("Figures of the run", shown or element("p", hint, class_="absent"))


def shown_setting(value: object) -> str:
    """Settings in full: a number as written, a mapping item by item."""
    if isinstance(value, dict):
        return ", ".join(f"{name} = {plotting.cell(inner)}" for name, inner in value.items()) or plotting.MISSING
    return f"{value:g}" if isinstance(value, float) else plotting.cell(value) or '""'


def _folded(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Html:
    if not rows:
        return Html()
    table = table_markup(plotting.Table(tuple(rows), columns, title))
    return table if len(rows) <= MANY else details(f"{title} ({len(rows)})", table)


# ----------------------------------------------------------------------------------------------------------------------
# The sections of a page that sets one run against another.

SIDES = ("A", "B")
READ = ("A − B", "95 % low", "95 % high", "in words")
METHOD = (
    "Each interval of a score holds 95 % of a paired bootstrap: the validation videos are drawn anew 2,000 times "
    "within each action, the same for both runs. It is about these videos, not about other seeds. An interval that "
    "holds 0 shows no difference. Of differences without substance about 1 in 20 is marked with many videos, more "
    "with few."
)
# Other entities have no counterpart in another run, and answers without training are the same in both.
MAPS = ("entity_1", "entity_best", "background", "head_best", "head_best_any_layer")


@dataclass(frozen=True)
class Gap:
    """A score of two runs and the difference of the first minus the second."""

    place: str
    score: str
    values: tuple[float, float]
    found: Difference


def comparison_sections(first: Story, second: Story) -> list[Html]:
    """Everything that sets `first`, A, against `second`, B, judged on the same data."""
    return [
        _difference_section(first, second),
        _changed_section(first, second),
        _side_section(first, second),
    ]


def gaps_of(first: Mapping, second: Mapping) -> list[Gap]:
    """The differences of two reports, `cropped` first.

    Example:
        >>> [gap.found.mean for gap in gaps_of({"scores": {"kendall_tau": 0.75}}, {"scores": {"kendall_tau": 0.5}})]
        [0.25]
    """
    places = [(place, score) for place in PLACES for score in KEPT]
    found = [(place, score, compare([first], [second], place, score)) for place, score in places]
    return [
        Gap(place, score, tuple(scores_of(report, place)[score] for report in (first, second)), difference)
        for place, score, difference in found
        if difference
    ]


def plot_gaps(gaps: Sequence[Gap]) -> Figure:
    """Every difference with its interval, a panel a score; filled where the interval excludes zero."""
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


def plot_losses(first: Story, second: Story) -> Figure:
    """The loss of two runs in one figure."""
    with paper_figure(PAGE, 2.1) as figure:
        axes = figure.subplots()
        for story, side, colour, style in zip((first, second), SIDES, (OKABE_ITO[0], OKABE_ITO[5]), ("-", "--")):
            epochs = [row["epoch"] for row in story.history]
            axes.plot(
                epochs, [row["loss"] for row in story.history], style, color=colour, label=f"{side}: {story.name}"
            )
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def _difference_section(first: Story, second: Story) -> Html:
    gaps = gaps_of(first.report, second.report)
    one, two = _names(first, second)
    both = element("p", element("b", "A"), f" is {one}, this run; ", element("b", "B"), f" is {two}.")
    lacking = [side for side, story in zip(SIDES, (first, second)) if not story.report.get("videos")]
    body = [both, alarm(second.report, "⚠ Read first, of B")]
    if lacking:
        text = f"No intervals: {' and '.join(lacking)} kept no sums of videos (metrics.videos.json); "
        body.append(element("p", text, "python -m mvf evaluate RUN writes them.", class_="absent"))
    if gaps:
        rows = ((PLACES[g.place], SCORES[g.score], *map(plotting.cell, g.values), *_numbers(g.found)) for g in gaps)
        columns = ("on", "score", *SIDES, *READ)
        body.append(table_markup(plotting.Table(tuple(rows), columns, "Scores of A and B")))
        if any(gap.found.interval for gap in gaps):
            caption = "Differences and their 95 % intervals; filled where the interval excludes 0."
            body.append(chart(plot_gaps(gaps), f"Differences of scores, {first.name} minus {second.name}", caption))
    else:
        body.append(element("p", "The runs have no score in common.", class_="absent"))
    body.append(_localization_table(first, second))
    return section("Differences", *body, element("p", METHOD, class_="note"))


def _localization_table(first: Story, second: Story) -> Html:
    found = [row for row in localization_differences(first.report, second.report) if row[0] in MAPS and row[2].mean]
    rows = ((name.replace("_", " "), metric.replace("_", " "), *_numbers(gap)) for name, metric, gap in found)
    notes = (
        "Entities have no fixed roles: entity 1 of one run need not be entity 1 of the other.",
        "These intervals pool all actions: videos are drawn anew from all of them together.",
    )
    table = plotting.Table(tuple(rows), ("map", "measure", *READ), "Localization, A minus B", notes)
    return table_markup(table) if found else Html()


def _changed_section(first: Story, second: Story) -> Html:
    body = []
    for place, title in PLACES.items():
        made = ((score, changed_videos(first.report, second.report, place, score)) for score in KEPT)
        tables = [table_markup(_changed_table(score, rows)) for score, rows in made if rows]
        body += [details(f"On {title}", element("div", *tables, class_="grid"), open=place == "cropped")] * bool(tables)
    hint = "Each video's own score, up to ten videos a score. A single video's R² can be far below zero."
    return section("Videos that changed most", *([element("p", hint, class_="note"), *body] if body else []))


def _changed_table(score: str, rows: Sequence[tuple[str, str, float, float]]) -> plotting.Table:
    lines = tuple((video, action, f"{a:.3f}", f"{b:.3f}", f"{a - b:+.3f}") for action, video, a, b in rows)
    return plotting.Table(lines, ("video", "action", *SIDES, "A − B"), SCORES[score])


def _side_section(first: Story, second: Story) -> Html:
    """Settings, losses and controls of both."""
    here, there = first.config.as_dict(), second.config.as_dict()
    changed = tuple((k, shown_setting(here[k]), shown_setting(there[k])) for k in here if here[k] != there[k])
    settings = plotting.Table(changed, ("setting", *SIDES), "Settings that differ")
    body = [table_markup(settings) if changed else element("p", "A and B have the same settings.")]
    if first.history and second.history:
        body.append(chart(plot_losses(first, second), f"Loss of {first.name} and {second.name}"))
    return section("Side by side", *body, *(_controls_table(first, second, place) for place in PLACES))


def _controls_table(first: Story, second: Story, place: str) -> Html:
    sides = [score_groups(story.report).get(place, {}) for story in (first, second)]
    scores = present(KEPT, [values for side in sides for values in side.values()])
    rows = tuple(
        (control_name(name), *(plotting.cell(side.get(name, {}).get(score)) for score in scores for side in sides))
        for name in dict.fromkeys((*sides[0], *sides[1]))
    )
    columns = ("embedding", *(f"{SCORES[score]}, {side}" for score in scores for side in SIDES))
    table = plotting.Table(rows, columns, f"Controls of both on {PLACES[place]}", strong=(0,))
    return table_markup(table) if scores else Html()


def _names(first: Story, second: Story) -> tuple[str, str]:
    """Folder names, with those of their parents where the two are alike."""
    parts = 1 if first.name != second.name else 2
    return tuple("/".join(story.folder.resolve().parts[-parts:]) for story in (first, second))


def _numbers(found: Difference) -> tuple[str, ...]:
    ends = (plotting.MISSING,) * 2 if found.interval is None else (f"{end:+.3f}" for end in found.interval)
    return f"{found.mean:+.3f}", *ends, read_difference(found)


# ----------------------------------------------------------------------------------------------------------------------
# HTML from Python values: text is escaped where it enters, so nothing that a file says can become markup.

VOID = ("img", "meta", "br")
PIXELS_PER_INCH = 125  # of a figure on the page; its 8 point text is then as large as the page's small print


class Html(str):
    """Text that is markup already."""


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """An element; children that are no `Html` are escaped, attributes that are None or False left out.

    Example:
        >>> print(element("p", "a < b ", element("b", "c"), class_="note", aria_label='"x"', hidden=True))
        <p class="note" aria-label="&quot;x&quot;" hidden>a &lt; b <b>c</b></p>
    """
    opened = tag + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{opened}>" if tag in VOID else f"<{opened}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Markup of several children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def section(title: str, *body: object) -> Html:
    """A section of the page under a heading that can be linked to; empty without a body."""
    if not any(body):
        return Html()
    name = anchor(title)
    heading = element("h2", title, id=name)
    return element("section", heading, *body, aria_labelledby=name)


def anchor(title: str) -> str:
    """The id of the section of that title.

    Example:
        >>> anchor("Scores and controls")
        'scores-and-controls'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def details(summary: str, *body: object, open: bool = False) -> Html:
    """What is shown on request."""
    return element("details", element("summary", summary), *body, open=open)


def bullets(items: Iterable[object], **attributes: object) -> Html:
    """A list."""
    return element("ul", *(element("li", item) for item in items), **attributes)


def table_markup(table: Table) -> Html:
    """A table that scrolls by itself where the screen is narrower; a sentence where it has no row."""
    if not table.rows:
        return element("p", f"{table.caption}: nothing to show.", class_="absent")
    label = table.caption or ", ".join(table.columns)
    return element("div", Html(table._repr_html_()), class_="scroll", tabindex=0, role="region", aria_label=label)


def chart(figure: Figure, label: str, caption: str = "") -> Html:
    """A figure as SVG in the page, its text as text: it follows the page's colours and can be searched.

    Args:
        figure: The figure.
        label: What it shows, for those who cannot see it; unlike those of all other charts of the page.
        caption: Below it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):  # names inside the SVG: the same every time, others in every chart
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r'<g id="[^"]*">', "<g>", buffer.getvalue())  # names like axes_1 are those of every chart
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    width = figure.get_size_inches()[0] * PIXELS_PER_INCH
    width = f"width:{width:.0f}px;min-width:{0.75 * width:.0f}px"  # on a phone it scrolls before its text is too small
    drawn = element("div", element("div", Html(svg), style=width), class_="scroll", tabindex=0, role="region",
                    aria_label=label)  # fmt: skip
    return element("figure", drawn, element("figcaption", caption) if caption else "", class_="chart")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'


# ----------------------------------------------------------------------------------------------------------------------
# Pictures and movies of a run's `figures/`, put into the page itself.

MOVIES = {".gif": "image/gif", ".mp4": "video/mp4"}
DRAWN = ("history", "controls", "label_fractions")  # the page draws them itself
BUDGET = 7_000_000  # characters of all media together: the page stays below 8 MB
LARGEST_MOVIE = 2_500_000  # bytes
LARGEST_PNG = 250_000  # bytes; larger ones are stored as WebP
WIDEST = 2000  # pixels
PIXELS_PER_POINT = 1.6  # of a figure saved at 200 dots per inch, on the page
CAPTIONS = {
    "attention": "Where the model looks: frames, entity maps and a head of the backbone.",
    "entities": "What each entity looks at, over the frames.",
    "overlay": "What each entity looks at, over the frames.",
    "confusion": "Phases that the probe confuses, on frames of validation videos.",
    "embeddings": "Frames of validation videos in two dimensions, coloured by phase.",
    "progression": "Time to the next phase boundary: predicted and true.",
    "retrieval": "Frames of one video and their nearest frames in other videos.",
    "similarity": "Two videos, frame by frame: similarity and the path that aligns them.",
    "temporal": "Which frames and entities a frame looks at.",
    "knockouts": "Scores when an entity or a region is taken away.",
    "alignment": "Frames of several videos at the same moment of the action.",
    "ribbons": "Phases over time, predicted and true.",
}


def media_markup(folder: Path) -> Html:
    """Every `.png`, `.gif` and `.mp4` of `folder` that fits in `BUDGET`, pictures first, and what was left out.

    A film that is there as `.mp4` too is not taken as `.gif`, and figures that only say why there is nothing to draw
    (`mvf.workbench.plotting.plot_message`) are no pictures.
    """
    paths = [path for path in sorted(folder.glob("*")) if path.stem not in DRAWN]
    pictures = [path for path in paths if path.suffix == ".png"]
    shown, left_out, spent = [], [], 0
    films = [path for path in paths if path.suffix in MOVIES]
    for path in [
        *pictures,
        *(film for film in films if film.suffix == ".mp4" or film.with_suffix(".mp4") not in films),
    ]:
        markup = _embed(path)
        if isinstance(markup, Html) and spent + len(markup) <= BUDGET:
            shown.append(markup)
            spent += len(markup)
        else:
            left_out.append(f"{path.name}: {'the page would be too large' if isinstance(markup, Html) else markup}")
    note = element("p", "Left out of this page, see the run's figures/:") if left_out else Html()
    return Html("".join(shown) + note + (bullets(left_out) if left_out else ""))


def caption_of(name: str) -> str:
    """What a figure of that file name shows; the name in words where nothing is known of it.

    Example:
        >>> caption_of("attention_2"), caption_of("my_figure")
        ('Where the model looks: frames, entity maps and a head of the backbone.', 'My figure.')
    """
    known = CAPTIONS.get(re.split(r"[_\-.\d]", name)[0])
    return known or re.sub(r"[_\-]+", " ", name).capitalize() + "."


def _embed(path: Path) -> Html | str:
    """The figure of a file, or why there is none."""
    try:
        drawn = _movie(path) if path.suffix in MOVIES else _picture(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"cannot be read ({error})"
    caption = element("figcaption", element("b", path.stem.replace("_", " ")), f" {caption_of(path.stem)}")
    return element("figure", drawn, caption, class_="picture") if isinstance(drawn, Html) and drawn else drawn


def _picture(path: Path) -> Html:
    with Image.open(path) as image:
        if image.info.get("Title") == MESSAGE:
            return Html()
        size = image.size
        data, kind = path.read_bytes(), "image/png"
        if len(data) > LARGEST_PNG or size[0] > WIDEST:
            image = image.convert("RGB")
            image.thumbnail((WIDEST, 4 * WIDEST))
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=88, method=4)
            data, kind = buffer.getvalue(), "image/webp"
    width, height = (round(pixels / PIXELS_PER_POINT) for pixels in size)
    return element("img", src=_uri(data, kind), alt=caption_of(path.stem), width=width, height=height)


def _movie(path: Path) -> Html | str:
    data, caption = path.read_bytes(), caption_of(path.stem)
    if len(data) > LARGEST_MOVIE:
        return f"{len(data) / 1e6:.1f} MB, a movie may have {LARGEST_MOVIE / 1e6:.1f} MB"
    uri = _uri(data, MOVIES[path.suffix])
    if path.suffix == ".gif":
        return element("img", src=uri, alt=caption)
    return element("video", src=uri, controls=True, loop=True, muted=True, playsinline=True, aria_label=caption)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
