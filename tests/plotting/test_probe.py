"""Figures of embeddings and phases: every video named, every colour and mark explained."""

import numpy as np
import pytest

from mvf.workbench import plotting
from tests.plotting.examples import colour_word, frames, inside, similarity, texts


def test_views_show_both_strips_with_their_frame_numbers():
    figure = plotting.plot_views((frames(), frames()), (np.arange(6) + 10, np.arange(6) + 50), shown=3, title="squat")
    assert len(figure.axes) == 2 * 3 + 1
    assert {"10", "15", "50", "55", "view 1", "view 2", "squat"} <= set(texts(figure))
    assert "view 2" not in texts(plotting.plot_views((frames(),), (np.arange(6),), shown=3))
    with pytest.raises(ValueError, match=r"indices\[1\] must be \(6,\), one per frame, got \(5,\)"):
        plotting.plot_views((frames(), frames()), (np.arange(6), np.arange(5)))
    with pytest.raises(ValueError, match=r"views\[0\] must be \(T, H, W, 3\).*\(6, 3, 4, 5\)"):
        plotting.plot_views((np.zeros((6, 3, 4, 5)), frames()), (np.arange(6), np.arange(6)))
    with pytest.raises(ValueError, match=r"float in \[0, 1\], got float64 from 0.0 to 255"):
        plotting.plot_views((frames() * 0.0 + [0, 0, 255], frames()), (np.arange(6), np.arange(6)))


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
    assert axes.get_ylim() == (-0.5, 7.5)  # upwards, as in `plot_alignment`
    (ribbon,) = plotting.plot_similarity(similarity(), phases_a=[0] * 5 + [1] * 3).axes[0].child_axes
    assert ribbon.get_ylim() == (-0.5, 7.5) and ribbon.images[0].origin == "lower"
    with pytest.raises(ValueError, match=r"phases must be \(6,\).*got \(8,\)"):
        plotting.plot_similarity(similarity(), phases_b=np.zeros(8, int))
    with pytest.raises(ValueError, match=r"\(Ta, Tb\), got \(8,\)"):
        plotting.plot_similarity(np.zeros(8))


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


@pytest.mark.parametrize("right, said", [(True, "✓ green:"), (False, "✗ orange:"), (None, "grey:")])
def test_the_caption_of_retrieval_names_the_colour_that_is_drawn_and_no_other(right, said):
    row = plotting.RetrievalRow(frames()[0], "a, up", [frames()[1]], ["b"], [right])
    figure = plotting.plot_retrieval([row])
    caption = figure.get_supxlabel()
    assert said in caption and caption.count(":") == 1
    assert colour_word(figure.axes[1].spines["left"].get_edgecolor()) == said.strip("✓✗ :")


def test_retrieval_of_portraits_fits_a_page():
    tall = np.zeros((160, 90, 3), np.uint8)
    figure = plotting.plot_retrieval([plotting.RetrievalRow(tall, "a", [tall], ["b"], [None])] * 4)
    assert figure.get_size_inches()[1] <= 9


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
    with pytest.raises(ValueError, match="40 rows are .* a page has 9.0 in: draw fewer queries"):
        plotting.plot_retrieval([row] * 40)
