"""Segment metrics against hand-counted cases and a slow counter."""

import numpy as np
import pytest

from mvf.metrics import boundary_errors, edit_score, segment_f1


def phases(text):
    return np.array([-1 if letter == "." else int(letter) for letter in text])


@pytest.mark.parametrize(
    ("guess", "truth", "wanted"),
    [
        ("000111222", "000111222", 1.0),
        ("000000222", "000111222", 1 - 1 / 3),  # one phase is missing
        ("010101222", "000111222", 1 - 4 / 7),  # four segments too many
        ("222111000", "000111222", 1 - 2 / 3),  # turned around: two substitutions
        ("011111122", "000111222", 1.0),  # lengths do not count
    ],
)  # fmt: skip
def test_edit_score(guess, truth, wanted):
    assert edit_score([phases(guess)], [phases(truth)]) == pytest.approx(wanted)


def test_f1_counts_each_true_segment_once():
    truth, twice = phases("0000111111"), phases("0000101111")
    assert segment_f1([truth], [truth], 1.0) == 1
    # four predicted segments: 0 right, 1 of one frame overlaps 1/6, 0 of one frame nothing, 1 of four frames 4/6
    assert segment_f1([twice], [truth], 0.5) == pytest.approx(2 * 2 / (4 + 2))
    assert segment_f1([twice], [truth], 0.1) == pytest.approx(2 * 2 / (4 + 2))
    assert segment_f1([twice], [truth], 0.7) == pytest.approx(2 * 1 / (4 + 2))


def test_f1_sums_over_videos():
    right, wrong = phases("0011"), phases("1100")
    assert segment_f1([right, right], [right, wrong], 0.5) == pytest.approx(2 * 2 / 8)


def test_boundaries_in_frames_and_seconds():
    guess, truth = phases("0001112222"), phases("0011122222")
    assert boundary_errors([guess], [truth])[0].tolist() == [1, 1]
    times = np.cumsum([0, 1, 1, 0.5, 1, 1, 0.25, 1, 1, 1])
    found, missed = boundary_errors([guess], [truth], [times])
    assert found.tolist() == [0.5, 0.25] and missed == 0


def test_a_phase_that_is_predicted_nowhere_is_counted():
    assert boundary_errors([phases("000000")], [phases("001122")])[1] == 2


def test_unlabelled_frames_are_dropped_and_their_places_kept():
    guess, truth = phases("9001117"), phases(".00.11.")
    assert edit_score([guess], [truth]) == 1
    assert boundary_errors([guess], [truth])[0].tolist() == [0]  # the 1 of frame 3 is not labelled


@pytest.mark.parametrize("score", [edit_score, boundary_errors, lambda a, b: segment_f1(a, b, 0.5)])
def test_bad_input_is_named(score):
    with pytest.raises(ValueError, match="no frame"):
        score([phases("01")], [phases("..")])
    with pytest.raises(ValueError, match="video 0"):
        score([phases("01")], [phases("011")])
    with pytest.raises(ValueError, match="same videos"):
        score([phases("01")], [])


def test_an_overlap_of_nothing_is_refused():
    with pytest.raises(ValueError, match="overlap"):
        segment_f1([phases("01")], [phases("01")], 0)
