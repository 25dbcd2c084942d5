"""Figures show what they say, fit a page, and refuse arrays that do not fit; tables miss nothing."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mvf.workbench import plotting

SCORES = ("classification", "progression", "kendall_tau", "retrieval@5", "retrieval@10", "retrieval@15")


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def frames(count=6, height=20, width=30):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def scores(value):
    return {name: value - 0.01 * i for i, name in enumerate(SCORES)}


def report():
    controls = {
        "position_only": 0.6,
        "frame_count": 0.59,
        "untrained": 0.7,
        "backbone_motion": 0.75,
        "shuffled_order": 0.5,
    }
    cropped = {"model": 0.84, "position_only": 0.52, "untrained": 0.63, "backbone_motion": 0.72}
    return {
        "dataset": "synthetic", "seed": 1, "epochs": 60, "backbone": "vit", "backbone_weights": "random",
        "warning": "the backbone has RANDOM weights", "scores": scores(0.96),
        "controls": {name: scores(value) for name, value in controls.items()},
        "cropped": {name: scores(value) for name, value in cropped.items()},
        "per_action": {"squat": {"classification": 0.91}, "bowling": {"kendall_tau": 0.5}},
        "label_fractions": {f: {"classification": 0.9, "progression": 0.5} for f in ("1.0", "0.1", "0.5")},
        "alignment_error": {"whole": 0.05, "window": 0.07},
        "alignment_error_controls": {"position_only": {"whole": 0.15, "window": 0.25}},
        "phase_kinds": {"pose": {"classification": {"model": 0.9, "shuffled_order": 0.8}}},
        "verdicts": {"classification": "whole verdict", "cropped.classification": "cropped verdict"},
        "localization": {
            "area": 0.1, "uniform": {"auroc": 0.5, "lift": 1.0}, "entity_2": {"auroc": 0.9, "lift": 4.0},
            "entity_1": {"auroc": 0.8, "lift": 3.0}, "entity_best": {"auroc": 0.9, "lift": 4.0, "index": 2},
        },
        "localization_differences": {"entity_best - head_best": {"auroc": {"mean": 0.1, "interval": [0.05, 0.15]}}},
        "coverage": {"train": {"found": 9, "expected": 10, "unreadable": {"x.avi": "zero bytes"}}},
        "skipped": {"progression.squat": "one phase"},
    }  # fmt: skip


def history(epochs=3):
    keys = ("loss", "learning_rate", "grad_norm")
    return [{"epoch": i + 1} | {key: str(1.0 / (i + 1)) for key in keys} for i in range(epochs)]


def similarity(rows=8, columns=6):
    return np.linspace(0, 1, rows * columns).reshape(rows, columns)


def one_of_each():
    phases = np.array([-1, 0, 0, 1, 1, 1])
    row = plotting.RetrievalRow(frames()[0], "a, up", list(frames()[1:6]), list("bcdef"), [True, False] * 2 + [True])
    maps = np.random.default_rng(1).random((6, 2, 4, 4))
    yield "history", plotting.plot_history(history())
    yield "views", plotting.plot_views((frames(), frames() / 255), (np.arange(6), np.arange(6) + 4))
    yield "controls", plotting.plot_controls(report())
    yield "fractions", plotting.plot_label_fractions(report()["label_fractions"])
    yield "confusion", plotting.plot_confusion([[8, 2], [0, 10]], ["up", "down"])
    yield "progression", plotting.plot_progression(np.zeros((6, 2)), np.ones((6, 2)), ["top", "impact"])
    yield "similarity", plotting.plot_similarity(similarity(6, 6), [(0, 0), (5, 5)], phases, phases)
    yield "ribbons", plotting.plot_phase_ribbons(phases, phases)
    yield "embeddings", plotting.plot_embeddings([np.ones((6, 2))], [phases])
    yield "retrieval", plotting.plot_retrieval([row])
    yield "attention", plotting.plot_attention(frames(), maps, maps[:, 0], contour_mass=0.6, layer="Layer 12.")


@pytest.fixture(scope="module")
def figures():
    return dict(one_of_each())


def test_every_figure_fits_a_column_or_a_page_and_nothing_stays_open(figures):
    for name, figure in figures.items():
        width, height = figure.get_size_inches()
        assert plotting.COLUMN - 0.01 <= width <= plotting.PAGE + 0.01 and height < 9.5, name
    assert plt.get_fignums() == []


def test_no_text_is_cut_off_at_the_edge(figures):
    for name, figure in figures.items():
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, name


def test_importing_and_plotting_leave_matplotlibs_settings_alone(figures):
    before = dict(mpl.rcParams)
    plotting.plot_history(history()).draw_without_rendering()
    assert dict(mpl.rcParams) == before


def test_a_figure_shows_itself_as_one_png(figures):
    assert figures["history"]._repr_png_().startswith(b"\x89PNG")


def test_saving_writes_png_and_pdf_with_real_text_and_leaves_no_other_file(figures, tmp_path):
    png, pdf = plotting.save_figure(figures["history"], tmp_path / "figures" / "v1.2")
    assert {path.name for path in png.parent.iterdir()} == {"v1.2.png", "v1.2.pdf"}
    assert Image.open(png).width == round(plotting.PAGE * 200)
    first = pdf.read_bytes()
    assert b"/FontFile2" in first and b"/Type3" not in first  # TrueType outlines, which journals ask for
    assert plotting.save_figure(figures["history"], tmp_path / "again")[1].read_bytes() == first


def test_history_has_three_labelled_curves_of_all_epochs():
    figure = plotting.plot_history(history(5), epochs=9)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate", "gradient norm"]
    for axes in figure.axes:
        assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5] and axes.get_xlim()[1] == 9


def test_a_run_judged_without_training_has_a_history_figure_that_says_so():
    assert plotting.plot_history([], epochs=0).get_supxlabel().startswith("Judged without training")


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


def test_views_show_both_strips_with_their_frame_numbers():
    figure = plotting.plot_views((frames(), frames()), (np.arange(6) + 10, np.arange(6) + 50), shown=3, title="squat")
    assert len(figure.axes) == 2 * 3 + 1
    assert {"10", "15", "50", "55", "view 1", "view 2", "squat"} <= set(texts(figure))
    assert "view 2" not in texts(plotting.plot_views((frames(),), (np.arange(6),), shown=3))
    with pytest.raises(ValueError, match=r"indices\[1\] must be \(6,\), one a frame, got \(5,\)"):
        plotting.plot_views((frames(), frames()), (np.arange(6), np.arange(5)))
    with pytest.raises(ValueError, match=r"views\[0\] must be \(T, H, W, 3\).*\(6, 3, 4, 5\)"):
        plotting.plot_views((np.zeros((6, 3, 4, 5)), frames()), (np.arange(6), np.arange(6)))
    with pytest.raises(ValueError, match=r"float in \[0, 1\], got float64 from 0.0 to 255"):
        plotting.plot_views((frames() * 0.0 + [0, 0, 255], frames()), (np.arange(6), np.arange(6)))


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
    assert figure.axes[1].get_xlim()[0] > -1 and "-40.00" in texts(figure)
    assert any("triangle" in text for text in texts(figure))


def test_unlabelled_videos_give_figures_that_say_why():
    unlabelled = {"scores": {}, "skipped": {"classification": "no labels"}}
    assert any("classification: no labels" in text for text in texts(plotting.plot_controls(unlabelled)))
    assert any("no phase labels" in text for text in texts(plotting.plot_label_fractions({"0.1": {}})))


def test_label_fractions_are_in_order_and_in_percent():
    axes = plotting.plot_label_fractions(report()["label_fractions"]).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[10, 50, 100]] * 2


def test_confusion_divides_rows_and_names_accuracy_and_counts():
    figure = plotting.plot_confusion([[8, 2], [0, 40]], ["up", "down"])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.8, 0.2], [0, 1]])
    assert {"80", "20", "up (10)", "down (40)"} <= set(texts(figure)) and "0.960" in " ".join(texts(figure))
    assert len(plotting.plot_confusion(np.eye(12), list("abcdefghijkl")).axes) == 2  # a colour bar for large ones
    with pytest.raises(ValueError, match=r"\(2, 2\), one row a name, got \(3, 3\)"):
        plotting.plot_confusion(np.eye(3), ["a", "b"])


def test_progression_draws_true_and_predicted_of_every_boundary():
    figure = plotting.plot_progression(np.zeros((9, 2)), np.ones((9, 2)), ["top", "impact"], "golf")
    assert sum(len(line.get_xdata()) == 9 for line in figure.axes[0].lines) == 4
    assert {"predicted", "true", "top", "impact", "golf"} <= set(texts(figure))
    with pytest.raises(ValueError, match=r"\(9, 2\) and \(9, 3\)"):
        plotting.plot_progression(np.zeros((9, 2)), np.ones((9, 3)))


def test_similarity_puts_video_a_in_rows_and_the_path_over_it():
    path = [(0, 0), (7, 5)]
    figure = plotting.plot_similarity(similarity(), path, names=("first", "second"))
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("first (frame)", "second (frame)")
    assert list(axes.lines[0].get_xdata()) == [0, 5] and list(axes.lines[0].get_ydata()) == [0, 7]
    with pytest.raises(ValueError, match=r"phases must be \(6,\).*got \(8,\)"):
        plotting.plot_similarity(similarity(), phases_b=np.zeros(8, int))
    with pytest.raises(ValueError, match=r"\(Ta, Tb\), got \(8,\)"):
        plotting.plot_similarity(np.zeros(8))


def test_ribbons_name_accuracy_over_labelled_frames_only():
    figure = plotting.plot_phase_ribbons([0, 1, 1, 0], [-1, 1, 1, 1], ["up", "down"], "squat")
    assert {"squat: accuracy 0.667", "up", "down", "unlabelled"} <= set(texts(figure))
    with pytest.raises(ValueError, match="each of 2 phases, got 1"):
        plotting.plot_phase_ribbons([0, 1], [0, 1], ["up"])


def test_embeddings_draw_one_trajectory_a_video_coloured_by_phase():
    points = [np.random.default_rng(i).random((5, 2)) for i in range(3)]
    figure = plotting.plot_embeddings(points, [np.arange(5) % 2, None, np.full(5, -1)], ["up", "down"], caption="PCA.")
    axes = figure.axes[0]
    assert len(axes.collections) == 3 and len(np.unique(axes.collections[0].get_facecolors(), axis=0)) == 2
    assert {"up", "down", "unlabelled"} <= set(texts(figure)) and any("PCA." in text for text in texts(figure))
    with pytest.raises(ValueError, match=r"video 1: points must be \(T, 2\).*\(5, 3\)"):
        plotting.plot_embeddings([np.zeros((5, 2)), np.zeros((5, 3))])


def test_retrieval_marks_right_and_wrong_by_colour_and_by_sign():
    row = plotting.RetrievalRow(frames()[0], "a, up", list(frames()[1:3]), ["b, up", "c, down"], [True, False])
    figure = plotting.plot_retrieval([row, row])
    assert sum(bool(axes.images) for axes in figure.axes) == 6
    right, wrong = figure.axes[1], figure.axes[2]
    assert right.get_title() == "1 ✓\nb, up" and wrong.get_title() == "2 ✗\nc, down"
    assert right.spines["left"].get_edgecolor() != wrong.spines["left"].get_edgecolor()


def test_retrieval_of_portraits_fits_a_page():
    tall = np.zeros((160, 90, 3), np.uint8)
    figure = plotting.plot_retrieval([plotting.RetrievalRow(tall, "a", [tall], ["b"], [None])] * 4)
    assert figure.get_size_inches()[1] <= 9


def test_phase_colours_differ_for_any_number_of_phases():
    for count in (2, 8, 30):
        assert len(set(plotting.phase_colours(count))) == count


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
        "RANDOM" in notes and "x.avi left out: zero bytes" in notes and "progression.squat skipped: one phase" in notes
    )


def test_report_without_a_score_shows_a_dash_and_the_reason():
    table = plotting.report_table({"scores": {"kendall_tau": 0.9}, "skipped": {"classification": "no labels"}})
    assert ("whole videos", "classification", "–", "") in table.rows and "classification skipped: no labels" in str(
        table
    )


def test_scores_table_has_every_control_of_both_groups():
    rows = [row[:2] for row in plotting.scores_table(report()).rows]
    assert len(rows) == 4 + 6 and rows[0] == ("cropped windows", "model") and ("whole videos", "shuffled order") in rows


def test_localization_table_orders_maps_and_names_the_chosen_entity():
    table = plotting.localization_table(report())
    assert [row[0] for row in table.rows] == [
        "entity 1", "entity 2", "entity best: entity 2, chosen on training videos", "uniform",
    ]  # fmt: skip
    assert table.rows[0][1:] == ("0.800", "3.000") and "10.0 %" in table.caption
    assert table.notes == ("entity_best - head_best, auroc: +0.100 [0.050, 0.150]",)
    assert "no masks" in str(plotting.localization_table({"skipped": {"localization": "no masks"}}))


def test_small_tables_show_missing_values_as_dashes():
    assert plotting.actions_table(report()).rows[0] == ("squat", "0.910", "–")
    assert plotting.kinds_table(report()).rows == (("model", "0.900"), ("shuffled order", "0.800"))
    config = plotting.config_table({"learning_rate": 1e-4, "layers": (4, 8), "chunk": None})
    assert config.rows == (("learning_rate", "0.0001"), ("layers", "4, 8"), ("chunk", "–"))
    assert plotting.shapes_table({"frames": np.zeros((2, 3)), "cls": None}).rows == (("frames", "2 x 3"), ("cls", "–"))


def test_html_escapes_text_and_holds_every_cell():
    html = plotting.Table((("<b>", "0.5"),), ("name", "value"), "A & B", ("note",))._repr_html_()
    assert "&lt;b&gt;" in html and "A &amp; B" in html and "note" in html and "text-align:right" in html
    with pytest.raises(ValueError, match="2 cells, got 1"):
        plotting.Table((("a",),), ("name", "value"))


@pytest.mark.parametrize("clock, text", [(-1398.7, "← clock alone -1399"), (999.7, "clock alone 1000 →")])
def test_a_clock_far_outside_is_an_arrow_with_a_plain_number(clock, text):
    panel = plotting.TrialPanel("Progress", "R²", ((0.5, 0.6),), (None,), clock)
    figure = plotting.plot_trials([("whole videos", [panel])], ["ours"])
    assert figure.axes[0].get_xlabel() == f"R²\n{text}"


def test_a_long_title_is_wrapped():
    panel = plotting.TrialPanel("Class.", "%", ((45.0, 46.0),), (None,))
    figure = plotting.plot_trials([("whole videos", [panel])], ["ours"], title="a long title " * 10)
    assert "\n" in figure.legends[0].get_title().get_text()
