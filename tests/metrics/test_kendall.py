"""Kendall's tau equals scipy's on every pair of videos."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from mvf.metrics import kendall, kendall_tau, kendall_tau_pairs


def naive_tau(videos, stride):
    taus = []
    for i, query in enumerate(videos):
        for j, reference in enumerate(videos):
            if i != j:
                q, r = query[::stride], reference[::stride]
                nearest = np.square(q[:, None] - r[None]).sum(-1).argmin(1)
                taus.append(kendalltau(np.arange(len(q)), nearest).correlation)
    return np.nanmean(taus)


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("draw", ["real", "ties"])
def test_equals_scipy_on_every_pair(rng, stride, draw):
    lengths = (11, 30, 17, 24)
    videos = [rng.normal(size=(n, 3)) if draw == "real" else rng.integers(0, 3, (n, 2)).astype(float) for n in lengths]
    assert kendall_tau(videos, stride) == pytest.approx(naive_tau(videos, stride), abs=1e-14)


def test_agreement_equals_scipy_to_the_last_digits(rng):
    positions = rng.integers(0, 20, (40, 30))
    wanted = [kendalltau(np.arange(40), column).correlation for column in positions.T]
    np.testing.assert_allclose(kendall.order_agreement(positions), wanted, atol=1e-15)


def test_the_size_of_a_block_changes_nothing(rng, monkeypatch):
    positions = rng.integers(0, 9, (12, 7))
    whole = kendall.order_agreement(positions)
    monkeypatch.setattr(kendall, "_BLOCK", 1)
    np.testing.assert_array_equal(kendall.order_agreement(positions), whole)


@pytest.mark.parametrize("largest", [1, 3, 40, 2**15 + 5, 2**40])
def test_agreement_counts_every_pair_of_frames(rng, largest):
    positions = rng.integers(0, largest, (35, 50))
    earlier, later = np.triu_indices(35, 1)
    rising = (positions[later] > positions[earlier]).sum(0)
    falling = (positions[later] < positions[earlier]).sum(0)
    with np.errstate(invalid="ignore"):
        wanted = np.clip((rising - falling) / np.sqrt(35 * 34 / 2) / np.sqrt(rising + falling), -1, 1)
    np.testing.assert_array_equal(kendall.order_agreement(positions), wanted)


def test_a_clock_scores_one_and_a_reversed_one_minus_one():
    clock = np.arange(10.0)[:, None]
    assert kendall_tau([clock, clock + 0.1]) == pytest.approx(1)
    assert kendall_tau([clock, clock[::-1]]) == pytest.approx(-1)


def test_one_order_of_all_videos_is_as_good_as_another(rng):
    videos = [rng.normal(size=(n, 4)) for n in (8, 9, 10)]
    assert kendall_tau(videos[::-1]) == pytest.approx(kendall_tau(videos), abs=1e-15)


def test_pairs_without_a_value_are_left_out(rng):
    constant, clock = np.zeros((6, 1)), np.arange(6.0)[:, None]
    pairs = kendall_tau_pairs([clock, clock, constant, clock[:0], clock[:1]])
    np.testing.assert_array_equal(np.isnan(pairs).sum(1), [4, 4, 5, 5, 5])  # all but clock to clock
    assert kendall_tau([clock, clock, constant]) == pytest.approx(1)


def test_what_cannot_be_scored_says_why(rng):
    with pytest.raises(ValueError, match="at least 2 are needed, got 1"):
        kendall_tau([np.zeros((3, 2))])
    with pytest.raises(ValueError, match="no value"):
        kendall_tau([np.zeros((3, 2))] * 2)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        kendall_tau([np.zeros((3, 2))] * 2, stride=0)
