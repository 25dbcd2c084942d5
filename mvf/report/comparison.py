"""The sections of a page that sets one run against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from mvf import plotting
from mvf.evaluation.scoring import KEPT
from mvf.plotting.report import SCORES, control_name, present, score_groups
from mvf.plotting.style import OKABE_ITO, PAGE, paper_figure
from mvf.report.markup import Html, chart, details, element, section, table_markup
from mvf.report.reading import PLACES, Story, changed_videos, localization_differences, read_difference
from mvf.report.sections import alarm, shown_setting
from mvf.tables.trials import Difference, compare, scores_of

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
