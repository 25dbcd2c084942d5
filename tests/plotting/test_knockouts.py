"""Table and figure of knock-outs."""

import pytest

from mvf.workbench.plotting import knockouts_table, plot_knockouts
from tests.plotting.examples import colour_word


def result():
    change = {"mean": -0.1, "interval": [-0.2, -0.05]}
    return {
        "scores": {
            "nothing": {"whole": {"classification": 0.9, "progression": 0.5}},
            "without_entity_1": {"whole": {"classification": 0.8, "progression": -2.5}},
            "without_background": {"whole": {"classification": 0.8}},
            "position_only": {"whole": {"classification": 0.7}},
        },
        "differences": {
            "without_entity_1": {
                "whole": {"classification": change, "progression": {"mean": -3.0, "interval": [-4.0, 0.3]}}
            },
            "without_background": {"whole": {"classification": change}},
            "position_only": {"whole": {"classification": {"mean": -0.2, "interval": [-0.3, -0.1], "too_few": True}}},
        },
        "removed": {"without_background": 0.9},
        "mass": {"without_background": [0.25, 0.5]},
        "reached": {"without_background": 0.4},
        "blank": {"without_background": 0.002},
        "skipped": {"without_actor": "no mask"},
    }


def test_the_table_of_knock_outs_names_everything():
    text = str(knockouts_table(result(), "whole"))
    for words in (
        "| nothing removed        | –                         | 0.900",
        "| background's patches   | 25 / 50                   | 0.800",
        "| % of attention, by entity |",
        "0.800 (−0.100 [−0.200, −0.050])",
        "0.700 (−0.200 [−0.300, −0.100] ?)",
        "?: too few validation videos of an action to tell a change from chance",
        "background's patches: 90.0 % of the patches, which get 40 % as much attention as the actor's, "
        "0.2 % of the frames left without any",
        "without_actor skipped: no mask",
    ):
        assert words in text, text
    assert not knockouts_table(result(), "cropped").rows


def test_the_figure_of_knock_outs_keeps_far_changes_inside():
    figure = plot_knockouts(result())
    classification, progression = figure.axes
    names = ["entity 1", "background's patches", "all pixels (the clock)"]
    assert [label.get_text() for label in classification.get_yticklabels()] == names
    assert "from 0.900" in classification.get_title()
    assert min(min(line.get_xdata()) for line in progression.lines) >= -0.6
    assert "<" in [line.get_marker() for line in progression.lines]


def test_changes_on_too_few_videos_are_not_marked():
    figure = plot_knockouts(result())
    last = figure.axes[0].lines[-1]
    assert last.get_xdata().tolist() == [-0.2] and last.get_color() == "#7F7F7F"
    assert last.get_markerfacecolor() == "white" and "Hollow:" in figure.get_supxlabel()


def test_without_a_score_the_figure_says_why():
    figure = plot_knockouts({"scores": {}, "differences": {}, "skipped": {"knock_outs": "no videos"}})
    assert not figure.axes and "no videos" in figure.get_supxlabel()


@pytest.mark.parametrize(
    "interval, said", [((-0.2, -0.05), "Orange: lower"), ((0.05, 0.2), "Blue: higher"), ((-0.1, 0.1), "Grey: no")]
)
def test_the_caption_names_the_colour_that_is_drawn_and_no_other(interval, said):
    found = result()
    change = {"mean": sum(interval) / 2, "interval": interval}
    found["differences"] = {"without_entity_1": {"whole": {"classification": change}}}
    figure = plot_knockouts(found)
    assert [word for word in ("Orange:", "Blue:", "Grey:") if word in figure.get_supxlabel()] == [said.split()[0]]
    assert said in figure.get_supxlabel()
    assert colour_word(figure.axes[0].lines[-1].get_color()) == said.partition(":")[0].lower()
