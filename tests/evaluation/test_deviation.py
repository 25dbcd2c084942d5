"""A performance that leaves its references is found where it does; those that follow them are inside the band."""

from types import SimpleNamespace

import numpy as np
import pytest

from mvf.evaluation.deviation import INSIDE, ONE_REFERENCE, deviation


def performance(length, seed, noise=0.02):
    """(T, 6) embeddings of one movement in `length` frames, with a person's own noise."""
    turns = np.linspace(0, np.pi, length)
    clean = np.stack([np.cos(turns), np.sin(turns), np.cos(2 * turns)], axis=1)
    return np.concatenate([clean, np.zeros((length, 3))], axis=1) + np.random.default_rng(seed).normal(
        scale=noise, size=(length, 6)
    )


REFERENCES = [performance(length, seed) for seed, length in enumerate((40, 48, 36, 52))]


@pytest.mark.parametrize("start", [5, 20, 33])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_replaced_stretch_is_the_first_moment(start, count):
    video = performance(44, 9)
    video[start : start + 5] = video[(start + 22) % 40]
    found = deviation(REFERENCES[:count], video)
    first = found.moments[0]
    assert first.start < start + 5 and first.end > start and first.end - first.start < 15
    assert first.start <= first.peak < first.end
    assert first.excess == (found.distance / found.band).max() > 1
    assert [m.excess for m in found.moments] == sorted((m.excess for m in found.moments), reverse=True)


def test_the_band_holds_most_frames_of_other_good_performances():
    inside = [
        (found := deviation(REFERENCES, performance(44, seed))).distance <= found.band for seed in range(100, 110)
    ]
    assert INSIDE - 0.15 < np.mean(inside) < 1


def test_a_moment_where_references_differ_has_a_wider_band():
    references = [reference.copy() for reference in REFERENCES]
    for i, reference in enumerate(references):
        reference[len(reference) // 2 :, 3] += i
    found = deviation(references, performance(44, 9))
    assert found.band[-10:].min() > 1.5 * found.band[:10].max()


def test_a_video_that_is_further_all_along_has_a_raised_band_and_says_so():
    far = performance(44, 9)
    far[:, 4] += 2
    far[20:25, 5] += 3
    found = deviation(REFERENCES, far)
    assert "times as far" in found.note
    assert len(found.moments) < 4 and found.moments[0].start <= 22 < found.moments[0].end
    assert np.mean(found.distance <= found.band) > 0.5
    assert deviation(REFERENCES, performance(44, 9)).note == ""


def test_the_nearest_reference_is_named_and_matched():
    found = deviation([performance(50, 1) + 1, REFERENCES[0]], REFERENCES[0])
    assert found.closest == 1
    assert found.matched.shape == (2, 40)
    assert (found.matched[1] == np.arange(40)).all()


def test_one_reference_says_what_its_band_is():
    found = deviation(REFERENCES[:1], performance(44, 9))
    assert found.note == ONE_REFERENCE
    assert np.mean(found.distance <= found.band) == pytest.approx(INSIDE, abs=0.03)


def test_other_vectors_are_compared_along_the_same_alignment():
    video, seen = performance(44, 9), [np.zeros((len(r), 4, 4)) for r in REFERENCES]
    own = np.zeros((44, 4, 4))
    own[30] = 1
    found = deviation(REFERENCES, video, compared=(seen, own))
    assert (found.matched == deviation(REFERENCES, video).matched).all()
    assert found.moments[0].start <= 30 < found.moments[0].end and found.distance[:25].max() == 0


def test_what_cannot_be_compared_is_refused():
    named = [SimpleNamespace(name=f"good {a}", action=a, embeddings=REFERENCES[0]) for a in ("squat", "lunge")]
    with pytest.raises(ValueError, match="one action, got lunge, squat"):
        deviation(named, REFERENCES[1])
    with pytest.raises(ValueError, match="at least one reference"):
        deviation([], REFERENCES[1])
    with pytest.raises(ValueError, match="good squat has 1 frame"):
        deviation([SimpleNamespace(name="good squat", action="squat", embeddings=REFERENCES[0][:1])], named[0])
    with pytest.raises(ValueError, match="6 and 5|width|channels"):
        deviation(REFERENCES, REFERENCES[1][:, :5])
