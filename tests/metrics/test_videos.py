"""Lists of per-video arrays are checked once, for all tasks."""

import numpy as np
import pytest

from mvf.metrics.neighbours import check_embeddings, check_labels, count_videos, labelled_frames


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_video(bad):
    with pytest.raises(ValueError, match=r"embeddings\[1\] holds NaN"):
        check_embeddings([np.zeros((3, 2)), np.full((3, 2), bad)])


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"embeddings\[1\] must be \(T, 2\), got \(3, 4\)"):
        check_embeddings([np.zeros((3, 2)), np.zeros((3, 4))])
    with pytest.raises(ValueError, match=r"must be \(T, E\), got \(3,\)"):
        check_embeddings([np.zeros(3)])
    with pytest.raises(ValueError, match=r"must be \(3,\), one a frame, got \(4,\)"):
        check_labels([np.zeros((3, 2))], [np.zeros(4, int)])
    with pytest.raises(ValueError, match="has 1 videos, its phases 2"):
        check_labels([np.zeros((3, 2))], [np.zeros(3, int)] * 2)
    with pytest.raises(ValueError, match="must be integers, got float64"):
        check_labels([np.zeros((3, 2))], [np.zeros(3)])
    with pytest.raises(ValueError, match="at least one video"):
        check_embeddings([])


def test_unlabelled_frames_are_dropped_and_none_left_is_an_error():
    videos, labels = labelled_frames([np.arange(3.0)[:, None]] * 2, [np.array([-1, 2, -1]), np.array([-1, -1, -1])])
    assert [v.tolist() for v in videos] == [[[1.0]], []] and [p.tolist() for p in labels] == [[2], []]
    with pytest.raises(ValueError, match="no frame of embeddings is labelled"):
        labelled_frames([np.zeros((2, 1))], [np.array([-1, -1])])


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match=f"got {fraction}"):
        count_videos(fraction, 10)
