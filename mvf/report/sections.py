"""The sections of a page about one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mvf import plotting
from mvf.config import load_config, presets
from mvf.plotting.report import SCORES, score_groups
from mvf.report.markup import Html, bullets, chart, details, element, section, table_markup
from mvf.report.media import media_markup
from mvf.report.reading import PLACES, Story, judge

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
