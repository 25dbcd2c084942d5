"""Scores of attention maps: without a mask, and against a mask of the actor."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import average_precision_score, roc_auc_score

from mvf.metrics import (
    attention_auroc,
    attention_average_precision,
    attention_entropy,
    attention_jaccard,
    attention_lift,
    attention_mass,
    attention_overlap,
    attention_set_size,
    attention_steadiness,
    density_share,
    effective_share,
    patch_shares,
    pointing_game,
    region_area,
)

RNG = np.random.default_rng(0)
MAPS = RNG.random((5, 3, 4, 6))  # (T, N, h, w)


def test_overlap_is_that_of_a_loop():
    wanted = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for t in range(5):
                a, b = (MAPS[t, k] / MAPS[t, k].sum() for k in (i, j))
                wanted[i, j] += np.minimum(a, b).sum() / 5
    np.testing.assert_allclose(attention_overlap(MAPS), wanted)


def test_disjoint_maps_do_not_overlap_and_scale_changes_nothing():
    maps = np.zeros((1, 2, 2, 2))
    maps[0, 0, 0], maps[0, 1, 1] = 3, 0.1
    np.testing.assert_array_equal(attention_overlap(maps), np.eye(2))
    np.testing.assert_allclose(attention_overlap(MAPS * [[[[7]], [[1]], [[2]]]]), attention_overlap(MAPS))


def test_steadiness_is_one_less_total_variation():
    a, b = MAPS[:, 0], MAPS[:, 1]
    distance = np.abs(patch_shares(a) - patch_shares(b)).sum(-1).mean() / 2
    assert attention_steadiness(a, b) == pytest.approx(1 - distance)
    assert attention_steadiness(a, 5 * a) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"one shape, got \(5, 24\) and \(4, 24\)"):
        attention_steadiness(a, b[1:])


def test_entropy_and_effective_share_of_uniform_and_of_single_patches():
    flat, point = np.ones((2, 3, 5)), np.zeros((2, 3, 5))
    point[:, 1, 1] = 4
    assert attention_entropy(flat) == pytest.approx(1) and effective_share(flat) == pytest.approx(1)
    assert attention_entropy(point) == pytest.approx(0) and effective_share(point) == pytest.approx(1 / 15)
    wanted = [entropy(map_.ravel()) / np.log(24) for map_ in MAPS[:, 0]]
    assert attention_entropy(MAPS[:, 0]) == pytest.approx(np.mean(wanted))
    with pytest.raises(ValueError, match="at least 2 patches"):
        attention_entropy(np.ones((2, 1, 1)))


def test_set_size_grows_with_mass_and_is_mass_for_uniform_maps():
    assert attention_set_size(np.ones((2, 10, 10))) == pytest.approx(0.6)
    sizes = [attention_set_size(MAPS[:, 0], mass) for mass in (0.2, 0.6, 1.0)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] == 1
    with pytest.raises(ValueError, match=r"mass must be in \(0, 1\], got 2"):
        attention_set_size(MAPS[:, 0], 2)


def test_density_share_is_attention_per_area_between_zero_and_one():
    limbs, torso = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    limbs[:, 0], torso[:, 1, 0] = 0.5, 1
    attention = np.broadcast_to([[4.0, 2.0], [1.0, 9.0]], (2, 2, 2))
    assert density_share(attention, limbs, torso) == pytest.approx(3 / 4)
    assert density_share(np.ones((2, 2, 2)), limbs, torso) == pytest.approx(1 / 2)
    assert density_share(np.where(torso > 0, 0, attention + 0.0), limbs, torso) == 1
    two = np.stack([attention[0], [[0.0, 0.0], [1.0, 0.0]]])  # the mean of frames, not of their attention
    assert density_share(two, limbs, torso) == pytest.approx((3 / 4 + 0) / 2)
    two[1] = [[0.0, 0.0], [0.0, 1.0]]  # neither: left out
    assert density_share(two, limbs, torso) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="neither region gets attention"):
        density_share(two[[1, 1]], limbs, torso)
    torso[1] = 0  # this frame is left out
    assert density_share(np.concatenate([attention[:1], np.ones((1, 2, 2))]), limbs, torso) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="no frame shows both"):
        density_share(attention, limbs, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="one shape"):
        density_share(attention, limbs[:1], torso)


@pytest.mark.parametrize("wrong, message", [
    (-np.ones((1, 2, 2)), "finite and non-negative"),
    (np.full((1, 2, 2), np.nan), "finite and non-negative"),
    (np.stack([np.ones((2, 2)), np.zeros((2, 2))]), "frame 1 is all zero"),
    (np.ones((2, 2)), r"got \(2, 2\)"),
])  # fmt: skip
def test_what_is_no_attention_is_refused(wrong, message):
    for metric in (patch_shares, attention_entropy, effective_share, attention_set_size):
        with pytest.raises(ValueError, match=message):
            metric(wrong)


# localization of the actor


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
