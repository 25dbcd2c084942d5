"""Figures of trials: every trial, every mark in the legend, nothing outside the page."""

import matplotlib as mpl
import numpy as np
import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting import PAGE, StudyPanel, plot_study
from tests.plotting.examples import inside, texts

GROUPS = {"no labels": ["scl", "vsp"], "video labels": ["lrprop (our reading)"], "frame labels": []}


VALUES = {"first": [[40.0, 42.0, 44.0], [50.0], None], "second": [[30.0, 31.0, 32.0], [], [45.0, 47.0]]}


def panel(title="drawn videos", values=VALUES, marks=None, untrained=None):
    marks = {"clock alone": 28.0, "backbone motion": 60.0} if marks is None else marks
    untrained = {"first": 35.0, "second": 35.0} if untrained is None else untrained
    return StudyPanel(title, "accuracy, %", values, marks, untrained)


def dots(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s")]


@pytest.mark.parametrize("clock, text", [(-1398.7, "← clock alone −1399"), (999.7, "clock alone 1000 →")])
def test_a_clock_far_outside_is_an_arrow_with_a_plain_number(clock, text):
    panel = plotting.TrialPanel("Progress", "R²", ((0.5, 0.6),), (None,), clock)
    figure = plotting.plot_trials([("whole videos", [panel])], ["ours"])
    assert figure.axes[0].get_xlabel() == f"R²\n{text}"


def test_a_long_title_is_wrapped():
    panel = plotting.TrialPanel("Class.", "%", ((45.0, 46.0),), (None,))
    figure = plotting.plot_trials([("whole videos", [panel])], ["ours"], title="a long title " * 10)
    assert "\n" in figure.legends[0].get_title().get_text()


def test_every_trial_is_a_dot_beside_a_bar_at_the_mean():
    axes = plot_study([panel()], GROUPS).axes[0]
    assert [list(line.get_xdata()) for line in dots(axes)] == [[40, 42, 44], [50], [30, 31, 32], [45, 47]]
    bars = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 1.6]
    assert bars == [np.mean(line.get_xdata()) for line in dots(axes)]
    assert len({line.get_color() for line in dots(axes)}) == len({line.get_marker() for line in dots(axes)}) == 2
    assert [text.get_text() for text in axes.texts] == ["not run"]


def test_rows_stand_under_the_names_of_their_groups_and_empty_groups_are_left_out():
    axes = plot_study([panel()], GROUPS).axes[0]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["no labels", "scl", "vsp", "video labels", "lrprop (our reading)"]
    assert [label.get_fontweight() == "bold" for label in labels] == [True, False, False, True, False]
    first, second = (line.get_ydata()[0] for line in dots(axes)[::2])
    assert first < 1 < second < first + 1  # both in the row of scl, the first model above


def test_all_that_is_drawn_lies_within_the_axes_and_is_in_the_legend():
    figure = plot_study([panel(), panel("real videos", marks={"clock alone": None}, untrained={})], GROUPS)
    low, high = figure.axes[0].get_xlim()
    assert low < 28 and high > 60
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    marks = {"clock alone", "backbone motion", "first: untrained", "second: untrained"}
    assert named == marks | {f"{model}: one run; bar: mean" for model in VALUES}
    assert len(figure.axes[1].lines) == len(figure.axes[0].lines) - 4


def test_untrained_models_that_score_alike_are_both_seen():
    lines = [line for line in plot_study([panel()], GROUPS).axes[0].lines if "untrained" in line.get_label()]
    dashes = [line._unscaled_dash_pattern for line in lines]
    assert dashes[0] == (0, (4, 4)) and dashes[1] == (4, (4, 4))


def test_it_fits_a_page_of_a_paper():
    figure = plot_study([panel(str(i)) for i in range(4)], GROUPS, caption="What was run. " * 30)
    assert figure.get_size_inches()[0] == PAGE and inside(figure)
    sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
    assert min(sizes) >= 6 and "not run" in texts(figure)


def test_nothing_run_gives_a_figure_that_says_so():
    figure = plot_study([panel(values={"first": [None] * 3}, marks={}, untrained={})], GROUPS)
    assert [text.get_text() for text in figure.axes[0].texts] == ["not run"] * 3 and not figure.legends


def test_values_for_other_rows_are_refused():
    with pytest.raises(ValueError, match="drawn videos, first: values must have one entry per row, 3 in all, got 1"):
        plot_study([panel(values={"first": [[1.0]]})], GROUPS)
