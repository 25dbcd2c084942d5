"""What maps say without masks, against loops and closed forms."""

import numpy as np
import pytest
from scipy.stats import entropy

from mvf.metrics import (
    attention_entropy,
    attention_overlap,
    attention_set_size,
    attention_steadiness,
    density_share,
    effective_share,
    patch_shares,
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
    with pytest.raises(ValueError, match=r"alike, got \(5, 24\) and \(4, 24\)"):
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
    with pytest.raises(ValueError, match="alike"):
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
