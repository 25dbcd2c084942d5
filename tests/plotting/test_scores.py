"""Scores stand beside their controls, cropped windows first; what is missing is said."""

import io

import numpy as np
import pytest

from mvf.workbench import plotting
from tests.plotting.examples import history, report, texts


def test_history_has_three_labelled_curves_of_all_epochs():
    figure = plotting.plot_history(history(5), epochs=9)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate", "gradient norm"]
    for axes in figure.axes:
        assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5] and axes.get_xlim()[1] == 9


def test_numbers_of_the_history_are_no_formulas():
    figure = plotting.plot_history([row | {"learning_rate": 1e-5 * row["epoch"]} for row in history(5)])
    figure.savefig(drawn := io.StringIO(), format="svg")
    assert "1e−5" in drawn.getvalue() and "$" not in drawn.getvalue()


def test_a_run_judged_without_training_has_a_history_figure_that_says_so():
    assert plotting.plot_history([], epochs=0).get_supxlabel().startswith("Evaluated without training")


def test_live_plot_replaces_one_output_and_always_draws_the_last_epoch(monkeypatch):
    shown, updated = [], []

    class Handle:
        update = staticmethod(updated.append)

    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append(figure) or Handle())
    live = plotting.LivePlot(epochs=5)
    for row in history(5):
        live(row)
    assert len(shown) == 1 and len(updated) == 1  # quick epochs in between are not drawn
    assert len(updated[-1].axes[0].lines[0].get_xdata()) == 5


def test_controls_show_cropped_above_whole_with_the_clocks_line():
    figure = plotting.plot_controls(report())
    grid = np.array(figure.axes).reshape(2, 4)
    assert grid[0, 0].get_ylabel() == "cropped\nwindows" and grid[1, 0].get_ylabel() == "whole\nvideos"
    assert [t.get_text() for t in grid[0, 0].get_yticklabels()][:2] == ["model", "position only (clock)"]
    assert 0.52 in [line.get_xdata()[0] for line in grid[0, 0].lines if line.get_linestyle() != "None"]
    assert {"0.84", "0.96", "0.52"} <= set(texts(figure))


def test_controls_keep_their_scale_beside_a_score_far_below_zero():
    low = report()
    low["controls"]["untrained"]["progression"] = -40.0
    figure = plotting.plot_controls(low)
    assert figure.axes[1].get_xlim()[0] > -1 and "< −10" in texts(figure)
    assert any("triangle" in text for text in texts(figure))


def test_unlabelled_videos_give_figures_that_say_why():
    unlabelled = {"scores": {}, "skipped": {"classification": "no labels"}}
    assert any("No score to compare: no labels" in text for text in texts(plotting.plot_controls(unlabelled)))
    assert any("no phase labels" in text for text in texts(plotting.plot_label_fractions({"0.1": {}})))


def test_label_fractions_are_in_order_and_in_percent():
    axes = plotting.plot_label_fractions(report()["label_fractions"]).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[10, 50, 100]] * 2


def test_confusion_divides_rows_and_names_accuracy_and_counts():
    figure = plotting.plot_confusion([[8, 2], [0, 40]], ["up", "down"])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.8, 0.2], [0, 1]])
    assert {"80", "20", "up (10)", "down (40)"} <= set(texts(figure)) and "0.960" in " ".join(texts(figure))
    assert len(plotting.plot_confusion(np.eye(12), list("abcdefghijkl")).axes) == 2  # a colour bar for large ones
    with pytest.raises(ValueError, match=r"\(2, 2\), one row per name, got \(3, 3\)"):
        plotting.plot_confusion(np.eye(3), ["a", "b"])


def test_report_table_has_cropped_first_beside_controls_and_verdicts():
    table = plotting.report_table(report())
    assert table.columns[:4] == ("on", "score", "model", "position only (clock)") and table.columns[-1] == "verdict"
    assert table.rows[0][:4] == ("cropped windows", "classification", "0.840", "0.520")
    assert table.rows[0][-1] == "cropped verdict"
    whole = next(row for row in table.rows if row[:2] == ("whole videos", "classification"))
    assert whole[2:4] == ("0.960", "0.600") and whole[-1] == "whole verdict"
    errors = [row[2:4] for row in table.rows if row[1] == "alignment error ↓"]
    assert errors == [("0.070", "0.250"), ("0.050", "0.150")]
    notes = "\n".join(table.notes)
    assert (
        "RANDOM" in notes and "x.avi left out: zero bytes" in notes and "progression: squat skipped: one phase" in notes
    )


def test_report_without_a_score_shows_a_dash_and_the_reason():
    table = plotting.report_table({"scores": {"kendall_tau": 0.9}, "skipped": {"classification": "no labels"}})
    assert ("whole videos", "classification", "–", "") in table.rows and "classification skipped: no labels" in str(
        table
    )


@pytest.mark.filterwarnings("error")
def test_a_history_of_one_epoch_has_room_for_its_axes():
    figure = plotting.plot_history([{"epoch": 1, "loss": 2.2, "learning_rate": 1e-3, "grad_norm": 3.2}])
    figure.canvas.draw()
    assert all(len(axes.get_xticks()) < 10 for axes in figure.axes)


def test_a_reason_is_said_once_for_all_that_it_explains():
    skipped = dict.fromkeys([f"retrieval@{k}" for k in range(1, 19)], "no label") | {"kendall_tau": "one video"}
    left_out = {"train": {"unreadable": {"a.mp4": "zero bytes", "b.mp4": "zero bytes"}}}
    notes = plotting.scores_table({"skipped": skipped, "coverage": left_out}).notes
    assert notes[0] == "train: a.mp4, b.mp4 left out: zero bytes" and len(notes) == 3
    assert "retrieval@12 and 6 more skipped: no label" in notes[1]


def test_scores_table_has_every_control_of_both_groups():
    rows = [row[:2] for row in plotting.scores_table(report()).rows]
    assert len(rows) == 6 + 7 and rows[0] == ("cropped windows", "model") and ("whole videos", "shuffled order") in rows


def test_below_the_mean_no_band_shows_a_gain_over_the_clock():
    def bands(model, clock):
        made = {"scores": {"progression": model}, "controls": {"position_only": {"progression": clock}}}
        table = str(plotting.report_table(made | {"verdicts": {"progression": "the pixels add 95"}}))
        figure = plotting.plot_controls(made)
        assert ("R² is below zero" in figure.get_supxlabel()) == (model < 0)
        return sum(patch.get_alpha() == 0.12 for patch in figure.axes[0].patches), table

    assert bands(0.4, 0.2)[0] == 1
    drawn, table = bands(-0.3, -0.45)
    assert drawn == 0 and table.count("below the mean") == 2 and "pixels" not in table


def test_scores_have_one_name_in_every_table():
    made = report() | {"skipped": {"cropped.kendall_tau": "one video"}}
    text = "\n".join(map(str, (plotting.report_table(made), plotting.scores_table(made),
                               plotting.localization_table(made), plotting.actions_table(made))))  # fmt: skip
    assert "kendall_tau" not in text and "auroc" not in text and "Kendall's tau" in text and "AUROC" in text
