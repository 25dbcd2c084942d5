"""Alignment figures draw the right frames, the truth and its error, and refuse arrays that do not fit."""

import matplotlib as mpl
import numpy as np
import pytest

from mvf.workbench.plotting.alignment import plot_alignment, plot_transfer
from mvf.workbench.plotting.style import PAGE, phase_colours


def frames(count, start=0, height=8, width=6):
    return np.broadcast_to(
        np.arange(start, start + count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)
    )


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def pictures(figure):
    """Value of every one-coloured picture, in order."""
    images = [
        axes.images[0].get_array() for axes in figure.axes if axes.images and np.ndim(axes.images[0].get_array()) == 3
    ]
    return [int(image[0, 0, 0]) for image in images]


def test_each_frame_stands_over_its_partner_with_its_true_error():
    partner = np.array([1, 1, 4, 6, 6, 8])
    truth = np.array([1, 2, 3, 9, 6, np.nan])
    figure = plot_alignment(frames(6), frames(10, 100), partner, truth=truth, names=("left", "right"), shown=6)
    assert pictures(figure) == [v for t in range(6) for v in (t, 100 + partner[t])]
    assert [t for t in texts(figure) if t.startswith(("off", "no "))] == [
        "off by 0", "off by 1", "off by 1", "off by 3", "off by 0", "no partner",
    ]  # fmt: skip
    assert {"A: left (frame)", "aligned", "true"} <= set(texts(figure))
    line, dashed = figure.axes[0].lines[:2]
    assert line.get_ydata().tolist() == partner.tolist() and np.array_equal(dashed.get_ydata(), truth, equal_nan=True)


def test_a_path_is_drawn_whole_and_pairs_are_its_middle_partners():
    path = np.array([(0, 0), (0, 1), (0, 2), (1, 3), (2, 3)])
    figure = plot_alignment(frames(3), frames(4, 100), path, np.random.default_rng(0).random((3, 4)))
    assert figure.axes[0].lines[0].get_xydata().tolist() == path.tolist()
    assert figure.axes[0].images[0].get_array().shape == (4, 3)
    assert pictures(figure) == [0, 101, 1, 103, 2, 103]
    assert not [t for t in texts(figure) if t.startswith("off")]


def test_pairs_are_spread_over_the_video_and_the_figure_is_a_page_wide():
    figure = plot_alignment(frames(40), frames(40), np.arange(40), shown=4, title="walk", caption="dtw")
    assert pictures(figure)[::2] == [4, 14, 24, 34]
    assert figure.get_size_inches()[0] == PAGE and {"walk", "dtw"} <= set(texts(figure))
    assert pictures(plot_alignment(frames(1), frames(1), [0])) == [0, 0]


@pytest.mark.parametrize(
    ("alignment", "options", "message"),
    [
        ([0, 1], {}, r"\(3,\) frames of B or \(L, 2\) pairs, got \(2,\)"),
        ([0.0, 1.0, 2.0], {}, "float64"),
        ([0, 1, 4], {}, "within 3 and 4 frames"),
        ([(0, 0), (2, 1)], {}, "frame 1 has none"),
        ([0, 1, 2], {"truth": [0, 1]}, r"truth must be \(3,\)"),
        ([0, 1, 2], {"similarity": np.zeros((4, 3))}, r"similarity must be \(3, 4\).*got \(4, 3\)"),
    ],
)
def test_alignments_that_do_not_fit_are_refused(alignment, options, message):
    with pytest.raises(ValueError, match=message):
        plot_alignment(frames(3), frames(4), alignment, **options)


def test_transfer_shows_true_over_transferred_and_accuracy_over_labelled_frames():
    figure = plot_transfer([[0, 0, 1, 1], [0, 1]], [[0, 1, 1, -1], [-1, -1]], ["a", "b"], ["up", "down"], "squat")
    image = figure.axes[0].images[0].get_array()
    colours = [mpl.colors.to_rgb(c) for c in phase_colours(2)]
    assert np.allclose(image[0, :3], [colours[0], colours[1], colours[1]])
    assert np.allclose(image[2, :4], [colours[0], colours[0], colours[1], colours[1]])
    assert np.allclose(image[4], 1) and np.allclose(image[5:9, 2:], 1)
    assert {"squat: accuracy 0.667 over labelled frames", "up", "down", "unlabelled", " 0.67"} <= set(texts(figure))


def test_many_videos_go_into_columns_of_one_page():
    figure = plot_transfer([np.arange(5) % 2] * 77)
    assert len(figure.axes) == 3 and figure.get_size_inches()[1] < 9
    assert sum(len(axes.get_yticks()) for axes in figure.axes) == 77


def test_transfers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one video, got none"):
        plot_transfer([])
    with pytest.raises(ValueError, match="1 videos are transferred, but true has 2"):
        plot_transfer([[0]], [[0], [0]])
    with pytest.raises(ValueError, match=r"a: phases must be \(T,\), got \(2,\) and true \(3,\)"):
        plot_transfer([[0, 1]], [[0, 1, 1]], ["a"])


def test_frame_numbers_are_whole():
    alignment = plot_alignment(frames(20), frames(3, 100), np.arange(20) // 7)
    transfer = plot_transfer([np.zeros(4, int)])
    for axis in (alignment.axes[0].xaxis, alignment.axes[0].yaxis, transfer.axes[0].xaxis):
        assert all(tick == round(tick) for tick in axis.get_majorticklocs())
