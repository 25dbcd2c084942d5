"""The figure of deviation shows the curve over its band, numbered moments, pairs of frames and the controls."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from mvf.evaluation.deviation import Deviation, Moment
from mvf.workbench.plotting import FramePair, plot_deviation
from mvf.workbench.plotting.style import PAGE, WRONG
from tests.plotting.examples import frames, inside, texts

DISTANCE = np.array([0.2, 0.3, 0.9, 0.8, 0.2, 0.2, 0.6, 0.2])
BAND = np.full(8, 0.5)
MOMENTS = (Moment(2, 4, 2, 1.7), Moment(6, 7, 6, 1.2))


def found(distance=DISTANCE, moments=MOMENTS):
    return Deviation(np.zeros((2, len(distance)), int), distance, BAND[: len(distance)], moments, 0)


def shaded(axes):
    """Left and right end of every stretch in the warning colour."""
    warning = mpl.colors.to_rgb(WRONG)
    boxes = [patch for patch in axes.patches if patch.get_facecolor()[:3] == warning]
    return [(box.get_x(), box.get_x() + box.get_width()) for box in boxes]


def test_moments_are_shaded_from_their_first_frame_to_the_one_after_and_numbered_by_rank():
    figure = plot_deviation(found(), title="clip", caption="from two references")
    (axes,) = figure.axes
    assert shaded(axes) == [(1.5, 3.5), (5.5, 6.5)] and axes.get_xlabel() == "frame"
    assert axes.lines[0].get_ydata().tolist() == DISTANCE.tolist()
    assert [line.get_ydata().tolist() for line in axes.lines[1:]] == [[0.9, 0.8], [0.6]]
    ranks = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert ranks == {"1": 2.5, "2": 6.0}
    (band,) = (area for area in axes.collections if isinstance(area, FillBetweenPolyCollection))
    assert band.get_paths()[0].vertices[:, 1].max() == 0.5
    words = {"clip", "from two references", "band", "outside the band", "distance to the references"}
    assert words <= set(texts(figure)) and figure.get_size_inches()[0] == PAGE and inside(figure)


def test_uneven_times_are_the_places_of_frames():
    times = np.array([1.0, 1.1, 1.2, 1.3, 2.3, 2.4, 2.5, 2.6])
    (axes,) = plot_deviation(found(), times=times).axes
    assert np.allclose(shaded(axes), [(1.15, 1.8), (2.45, 2.55)]) and axes.get_xlabel() == "time (s)"
    assert np.allclose(axes.get_xlim(), (0.95, 2.65))


def test_pairs_stand_above_one_another_and_each_control_has_its_own_moments():
    pictures = frames(4)
    pairs = [
        FramePair(a, b, f"{i}: here", "there") for i, (a, b) in enumerate(zip(pictures[:2], pictures[2:]), start=1)
    ]
    controls = {"clock": found(0 * DISTANCE, ()), "pixels": found(DISTANCE[::-1], (Moment(4, 6, 5, 1.7),))}
    figure = plot_deviation(found(), pairs, controls, np.arange(8) / 10)
    main, *rest = figure.axes
    shown = [axes for axes in rest if axes.images]
    drawn = [np.asarray(axes.images[0].get_array()) for axes in shown]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, pictures)) and len(drawn) == 4
    assert [axes.get_title() for axes in shown] == ["1: here", "2: here", "there", "there"]
    clock, pixels = rest[4:]
    assert (clock.get_title(), shaded(clock)) == ("clock", [])
    assert pixels.get_title() == "pixels" and np.allclose(shaded(pixels), [(0.35, 0.55)])
    assert inside(figure)


def test_the_axis_begins_at_zero_unless_the_curve_is_far_from_it():
    (near,) = plot_deviation(found()).axes
    (far,) = plot_deviation(found(1 + DISTANCE / 10, ())).axes
    assert near.get_ylim()[0] == 0 and 0.3 < far.get_ylim()[0] < 0.5


def test_what_is_of_other_frames_is_refused():
    with pytest.raises(ValueError, match="clock must be of the 8 frames of the video, got 3"):
        plot_deviation(found(), controls={"clock": found(DISTANCE[:3], ())})
    with pytest.raises(ValueError, match=r"times and numbers must be \(8,\), one for each frame, got \(2,\)"):
        plot_deviation(found(), times=[0, 1])
