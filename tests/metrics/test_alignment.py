"""Alignment error sees a wrong clock, which Kendall's tau cannot."""

import numpy as np
import pytest

from mvf.metrics import alignment_error, alignment_error_pairs, event_times, kendall_tau


def naive_error(queries, references, query_times, reference_times, stride, sources):
    errors = []
    for query, times, source in zip(queries, query_times, sources):
        for j, (reference, other_times) in enumerate(zip(references, reference_times)):
            if j != source:
                q, qt = query[~np.isnan(times)][::stride], times[~np.isnan(times)][::stride]
                r, rt = reference[~np.isnan(other_times)][::stride], other_times[~np.isnan(other_times)][::stride]
                nearest = np.square(q[:, None] - r).sum(-1).argmin(1)
                errors.append(np.abs(qt - rt[nearest]).mean())
    return np.mean(errors)


@pytest.fixture
def timed(labelled):
    return labelled[2], [event_times(phase) for phase in labelled[3]]


@pytest.mark.parametrize("stride", [1, 3])
def test_equals_a_naive_loop_whole_to_whole(timed, stride):
    videos, times = timed
    wanted = naive_error(videos, videos, times, times, stride, range(5))
    assert alignment_error(videos, videos, times, times, stride) == pytest.approx(wanted, abs=1e-12)


def test_equals_a_naive_loop_window_to_whole(timed):
    videos, times = timed
    windows, window_times = ([x[s : s + 8] for x in whole for s in (0, 3)] for whole in (videos, times))
    sources = [0, 0, 1, 1, 2, 2, 3, 3, 4, -1]
    wanted = naive_error(windows, videos, window_times, times, 1, sources)
    assert alignment_error(windows, videos, window_times, times, sources=sources) == pytest.approx(wanted, abs=1e-12)
    everywhere = naive_error(windows, videos, window_times, times, 1, [-1] * len(windows))
    assert alignment_error(windows, videos, window_times, times) == pytest.approx(everywhere, abs=1e-12)


def test_a_single_pair_of_different_videos_is_compared(timed):
    videos, times = timed
    wanted = naive_error(videos[:1], videos[1:2], times[:1], times[1:2], 1, [-1])
    assert alignment_error(videos[:1], videos[1:2], times[:1], times[1:2]) == pytest.approx(wanted, abs=1e-12)


def test_a_wrong_clock_is_monotone_but_misaligned():
    early, late = np.repeat([0, 1], [4, 16]), np.repeat([0, 1], [16, 4])
    clock = np.arange(20.0)[:, None]
    times = [event_times(early), event_times(late)]
    assert kendall_tau([clock, clock]) == pytest.approx(1)
    assert alignment_error([clock, clock], [clock, clock], times, times) > 0.2
    truth = [time[:, None] for time in times]
    assert alignment_error(truth, truth, times, times) < 0.03


def test_pairs_are_missing_on_the_diagonal_and_without_times(timed):
    videos, times = timed
    times = [*times[:4], np.full(len(videos[4]), np.nan)]
    pairs = alignment_error_pairs(videos, videos, times, times)
    np.testing.assert_array_equal(np.isnan(pairs), (np.eye(5) + np.eye(5)[4] + np.eye(5)[:, 4:]) > 0)
    assert alignment_error(videos, videos, times, times) == pytest.approx(np.nanmean(pairs))


def test_event_times_are_linear_between_boundaries():
    np.testing.assert_allclose(event_times(np.array([0, 0, 1, 1, 1, 1])), [0, 0.25, 0.5, 0.625, 0.75, 0.875])
    np.testing.assert_allclose(event_times(np.array([1, 1]), num_phases=4), [0.25, 0.375])


def test_event_times_start_again_with_every_repetition():
    once = np.array([0, 0, 1, 1, 1])
    np.testing.assert_array_equal(event_times(np.tile(once, 3)), np.tile(event_times(once), 3))


def test_event_times_skip_unlabelled_frames():
    times = event_times(np.array([-1, 0, -1, 0, 1, -1]))
    np.testing.assert_array_equal(times, [np.nan, 0, np.nan, 0.25, 0.5, np.nan])
    assert np.isnan(event_times(np.array([-1, -1]))).all()


def test_what_cannot_be_scored_says_why(timed):
    videos, times = timed
    with pytest.raises(ValueError, match="two different videos"):
        alignment_error(videos[:1], videos[:1], times[:1], times[:1])
    with pytest.raises(ValueError, match="event times of queries must be one per frame"):
        alignment_error(videos, videos, [t[1:] for t in times], times)
    with pytest.raises(ValueError, match="one width, got 6 and 2"):
        alignment_error(videos, [v[:, :2] for v in videos], times, times)
    with pytest.raises(ValueError, match="each of the 5 queries, got 1"):
        alignment_error(videos, videos, times, times, sources=[0])
    with pytest.raises(ValueError, match="below num_phases = 2, got 2"):
        event_times(np.array([0, 2]), num_phases=2)
