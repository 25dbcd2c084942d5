"""Figures of phases and embeddings for several videos: every video named, every colour and mark explained."""

import matplotlib as mpl
import numpy as np
import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting.style import fit_words


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def inside(figure):
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


def test_ribbons_of_several_videos_share_a_clock_and_name_each_accuracy():
    predicted, true = [[0, 1, 1, 0], [0, 0, 1, 1, 1, 1]], [[0, 1, 1, 1], [-1, 0, 1, 1, 1, 0]]
    figure = plotting.plot_phase_ribbons(predicted, true, ["up", "down"], "squat", ["first", "second"])
    assert {"squat", "first: accuracy 0.750", "second: accuracy 0.800", "unlabelled"} <= set(texts(figure))
    assert len(figure.axes) == 4 and len({axes.get_xlim() for axes in figure.axes}) == 1 and len(figure.legends) == 1
    assert figure.axes[0].images[0].get_extent()[1] == 3.5 and figure.axes[2].images[0].get_extent()[1] == 5.5
    assert inside(figure)


@pytest.mark.parametrize("count", [1, 6, 15])
def test_ribbons_of_many_videos_fit_a_page(count):
    names = ["bar to the hips", "drop under the bar", "stand up", "dip", "thrust", "balance overhead", "lower the bar"]
    phases = [np.arange(-1, 7)] * count
    figure = plotting.plot_phase_ribbons(phases, phases, names, "clean and jerk")
    assert figure.get_size_inches()[1] <= 9 and inside(figure)
    legend, lowest = figure.legends[0].get_window_extent(), figure.axes[-1].get_tightbbox()
    assert legend.y1 <= lowest.y0


def test_ribbons_refuse_other_lengths_no_video_and_more_than_a_page():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        plotting.plot_phase_ribbons([[0, 1], [0, 1, 1]], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="1 to 16 videos, which fit a page, got 0"):
        plotting.plot_phase_ribbons([], [])
    with pytest.raises(ValueError, match="got 40"):
        plotting.plot_phase_ribbons([[0]] * 40, [[0]] * 40)


def test_trajectories_are_few_and_their_ends_explained():
    points = [np.random.default_rng(i).random((9, 2)) for i in range(6)]
    figure = plotting.plot_embeddings(points, [np.arange(9) % 3] * 6, lines=2)
    axes = figure.axes[0]
    assert len(axes.collections) == 6
    assert sum(len(line.get_xdata()) == 9 for line in axes.lines) == 2
    starts = [line for line in axes.lines if line.get_marker() == "o"]
    assert [tuple(line.get_xydata()[0]) for line in starts] == [tuple(p[0]) for p in points[:2]]
    assert {"start", "end", "phase 2"} <= set(texts(figure)) and any("2 of the 6 videos" in t for t in texts(figure))
    assert "unlabelled" not in texts(figure) and "unlabelled" in texts(plotting.plot_embeddings(points))
    assert inside(figure)


def test_the_alignment_is_in_the_one_legend_of_a_similarity_matrix():
    phases = np.array([-1, 0, 0, 1])
    figure = plotting.plot_similarity(np.eye(4), [(0, 0), (3, 3)], phases, phases)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["phase 0", "phase 1", "unlabelled", "alignment"] and len(figure.legends) == 1
    assert "cosine similarity" in texts(figure) and not plotting.plot_similarity(np.eye(4)).legends


def test_long_captions_of_retrieved_frames_wrap_beside_one_another():
    picture = np.zeros((20, 30, 3), np.uint8)
    caption = "clean_and_jerk_001 #117\nbalance overhead"
    row = plotting.RetrievalRow(picture, caption, [picture] * 5, [caption] * 5, [True, False, None, True, False])
    figure = plotting.plot_retrieval([row, row])
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:6]]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))
    assert figure.axes[3].get_title().startswith("3\n") and inside(figure)  # unlabelled: neither right nor wrong
    with pytest.raises(ValueError, match="40 rows are .* a page has 9.0: draw fewer queries"):
        plotting.plot_retrieval([row] * 40)


def test_words_break_at_spaces_and_underscores_and_only_where_they_must():
    assert fit_words("squat", 2) == "squat" and fit_words("", 2) == ""
    assert fit_words("clean_and_jerk_001 #37", 1.1) == "clean_and_jerk_001\n#37"
    assert all(len(line) <= 10 for line in fit_words("x" * 25, 0.565).split("\n"))
