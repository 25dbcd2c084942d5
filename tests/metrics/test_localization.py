"""Localization scores equal naive loops and scikit-learn, at any scale of the attention."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mvf.metrics import (
    attention_auroc,
    attention_average_precision,
    attention_jaccard,
    attention_lift,
    attention_mass,
    pointing_game,
    region_area,
)

SCORES = [
    attention_mass, attention_lift, attention_auroc, attention_average_precision, attention_jaccard, pointing_game,
]  # fmt: skip
RANKED = SCORES[2:]


@pytest.fixture(params=["real", "ties"])
def maps(request, rng):
    attention = rng.random((9, 5, 6)) ** 4 + 1e-3 if request.param == "real" else rng.integers(0, 4, (9, 5, 6)) + 1.0
    region = np.clip(rng.normal(0.2, 0.5, (9, 5, 6)), 0, 1)
    region[3] = 0.4  # a frame without the actor
    return attention, region


def actor_frames(attention, region):
    return [(a.ravel(), r.ravel() >= 0.5) for a, r in zip(attention, region) if (r >= 0.5).any()]


def test_mass_equals_a_naive_loop_over_all_frames(maps):
    wanted = np.mean([sum(a * r for a, r in zip(x.ravel(), y.ravel())) / x.sum() for x, y in zip(*maps)])
    assert attention_mass(*maps) == pytest.approx(wanted, abs=1e-12)
    assert attention_lift(*maps) == pytest.approx(wanted / maps[1].mean(), abs=1e-12)


def test_auroc_and_average_precision_equal_scikit_learn(maps):
    frames = actor_frames(*maps)
    assert len(frames) == 8
    assert attention_auroc(*maps) == pytest.approx(np.mean([roc_auc_score(r, a) for a, r in frames]), abs=1e-12)
    wanted = np.mean([average_precision_score(r, a) for a, r in frames])
    assert attention_average_precision(*maps) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.9, 1.0])
def test_jaccard_equals_a_naive_loop(maps, mass):
    scores = []
    for attention, actor in actor_frames(*maps):
        kept, held = set(), 0.0
        for patch in sorted(range(len(attention)), key=lambda p: (-attention[p], p)):
            if held >= mass * attention.sum() - 1e-12:
                break
            kept.add(patch)
            held += attention[patch]
        inside = set(np.flatnonzero(actor))
        scores.append(len(kept & inside) / len(kept | inside))
    assert attention_jaccard(*maps, mass=mass) == pytest.approx(np.mean(scores), abs=1e-12)


def test_pointing_equals_a_naive_loop(maps):
    scores = []
    for attention, actor in actor_frames(*maps):
        strongest = [p for p in range(len(attention)) if attention[p] == attention.max()]
        scores.append(np.mean([actor[p] for p in strongest]))
    assert pointing_game(*maps) == pytest.approx(np.mean(scores), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_the_scale_of_each_frame_changes_nothing(maps, score, rng):
    scale = 2.0 ** rng.integers(-30, 30, (9, 1, 1))
    assert score(maps[0] * scale, maps[1]) == pytest.approx(score(*maps), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_a_perfect_map_scores_best_and_the_region_matters(score):
    region = np.zeros((2, 4, 4))
    region[:, 1:3, 1:3] = 1
    best = score(region + 1e-12, region)
    assert best == pytest.approx(4 if score is attention_lift else 1) or score is attention_jaccard
    assert score(1 - region + 1e-12, region) < best


def test_the_constant_answers():
    region = np.zeros((2, 4, 5))
    region[:, 1:3, 1:3] = 1
    uniform = np.full((2, 4, 5), 0.05, np.float32)
    assert attention_mass(uniform, region) == pytest.approx(region_area(region)) == pytest.approx(0.2)
    assert attention_lift(uniform, region) == pytest.approx(1)
    assert attention_auroc(uniform, region) == 0.5
    assert attention_average_precision(uniform, region) == pytest.approx(0.2)
    assert pointing_game(uniform, region) == pytest.approx(0.2)
    assert attention_jaccard(uniform, np.ones_like(region), mass=0.6) == pytest.approx(0.6)


def test_exactly_the_wanted_mass_needs_no_further_patch():
    attention, region = np.full((1, 1, 10), 0.1, np.float32), np.ones((1, 1, 10))
    assert [attention_jaccard(attention, region, mass=k / 10) for k in range(1, 11)] == [k / 10 for k in range(1, 11)]


@pytest.mark.parametrize("score", RANKED)
def test_no_frame_with_a_region_is_an_error(score):
    with pytest.raises(ValueError, match="no frame has a patch with region >= 0.5"):
        score(np.ones((2, 3, 3)), np.full((2, 3, 3), 0.49))


@pytest.mark.parametrize("score", SCORES)
def test_bad_input_is_named(score):
    region = np.ones((2, 3, 3))
    with pytest.raises(ValueError, match=r"got \(2, 3, 3\) and \(2, 3, 4\)"):
        score(np.ones((2, 3, 3)), np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"got \(3, 3\) and \(3, 3\)"):
        score(np.ones((3, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="non-negative, got -1.0"):
        score(-region, region)
    with pytest.raises(ValueError, match="non-negative, got nan"):
        score(region * np.nan, region)
    with pytest.raises(ValueError, match="got 2.0 to 2.0"):
        score(region, 2 * region)
    with pytest.raises(ValueError, match="frame 1 is all zero"):
        score(region * [[[1]], [[0]]], region)


def test_what_cannot_be_scored_says_why():
    with pytest.raises(ValueError, match="fills every frame"):
        attention_auroc(np.ones((1, 2, 2)), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="region is empty in every frame"):
        attention_lift(np.ones((1, 2, 2)), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"mass must be in \(0, 1\], got 0"):
        attention_jaccard(np.ones((1, 2, 2)), np.ones((1, 2, 2)), mass=0)
