"""Repetitions of drawn curves are counted and cut; what does not repeat is not cut."""

import numpy as np
import pytest

from mvf.embedding import EmbeddedVideo
from mvf.evaluation.controls import frame_clock
from mvf.evaluation.repetitions import count_passes, find_repetitions
from mvf.evaluation.report import score_report
from mvf.evaluation.scoring import Protocol


def recording(lengths, noise=0.2, seed=0):
    """Embeddings of a movement repeated in different numbers of frames."""
    shares = np.concatenate([np.linspace(0, 1, length, endpoint=False) for length in lengths])
    turns = 2 * np.pi * shares
    clean = np.stack([np.cos(turns), np.sin(turns), 0.5 * np.cos(2 * turns)], axis=1)
    found = np.concatenate([clean, np.random.default_rng(seed).normal(scale=noise, size=(len(shares), 4))], axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("lengths", [[30, 24], [20, 30, 25], [22, 28, 35, 27, 30], [30] * 8, [16] * 19])
def test_repetitions_of_uneven_length_are_counted_and_cut(lengths):
    found = find_repetitions(recording(lengths))
    assert found.count == len(lengths)
    assert np.abs(found.cuts - np.cumsum([0, *lengths])).max() <= 0.2 * np.mean(lengths)
    assert found.likeness.min() > 0.5 and found.lengths.sum() >= 0.95 * sum(lengths)


def test_idle_time_at_both_ends_is_left_out():
    acting, idle = recording([30, 26, 34]), recording([1] * 25, noise=0.5, seed=1)
    idle[:, 0] += 0.5
    idle /= np.linalg.norm(idle, axis=1, keepdims=True)
    found = find_repetitions(np.concatenate([idle, acting, idle[::-1]]))
    assert found.count == 3 and np.abs(found.cuts - [25, 55, 81, 115]).max() <= 6


def test_a_drift_in_time_hides_no_repetition():
    acting = recording([30] * 6)
    times = np.linspace(0, 3, len(acting))
    drifting = np.concatenate([acting, 1.5 * np.stack([np.cos(times), np.sin(times)], axis=1)], axis=1)
    found = find_repetitions(drifting / np.linalg.norm(drifting, axis=1, keepdims=True))
    assert found.count == 6 and np.abs(found.cuts - 30 * np.arange(7)).max() <= 6


@pytest.mark.parametrize("seed", range(5))
def test_one_repetition_is_not_cut(seed):
    assert find_repetitions(recording([40], seed=seed)).count == 1


def test_a_still_recording_and_a_clock_do_not_repeat():
    still = recording([1] * 60, noise=0.05)
    assert find_repetitions(still).count == 1
    times = np.arange(90)[:, None] / 10000.0 ** np.linspace(0, 1, 16)
    clock = np.concatenate([np.sin(times[:, 6:]), np.cos(times[:, 6:])], axis=1)
    assert find_repetitions(clock / np.linalg.norm(clock, axis=1, keepdims=True)).count == 1


def test_a_long_recording_is_cut_on_a_coarser_grid():
    found = find_repetitions(recording([100] * 12))
    assert found.count == 12 and np.abs(found.lengths - 100).max() <= 20


def test_every_nth_frame_of_a_very_long_recording_is_compared_and_cuts_are_its_own_frames():
    found = find_repetitions(recording([1500] * 6 + [1501], noise=0.02))
    assert found.count == 7 and found.cuts[-1] == 10_501
    assert np.abs(found.cuts - 1500 * np.arange(8)).max() <= 150


def test_a_recording_shorter_than_two_repetitions_is_one():
    assert find_repetitions(recording([5])).cuts.tolist() == [0, 5]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((0, 3)), np.full((4, 2), np.nan)])
def test_bad_embeddings_are_named(wrong):
    with pytest.raises(ValueError, match="embeddings must be"):
        find_repetitions(wrong)


def test_scores_that_suppose_one_pass_say_how_many_videos_hold_several():
    rng = np.random.default_rng(0)
    once = np.repeat([0, 1], 10)

    def video(name, phases):
        return EmbeddedVideo(name, "squat", rng.normal(size=(len(phases), 4)).astype(np.float32), phases)

    train = [video(name, once) for name in "ab"]
    val = [video("c", once), video("d", np.concatenate([once, [-1] * 3, once]))]
    found = score_report(train, val, Protocol({"squat": 2}), {"position_only": frame_clock(4)})["verdicts"]
    said = "; 1 of 2 videos hold several repetitions, taken for one pass"
    assert {name for name, words in found.items() if words.endswith(said)} == {"progression", "kendall_tau"}
    assert count_passes(val[0].embeddings, once) == 1 and count_passes(recording([30, 30])) == 2
