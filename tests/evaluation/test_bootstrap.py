import numpy as np
import pytest

from mvf.evaluation.bootstrap import combine, mean_interval, paired_interval, verdict


def naive_interval(first, second, resamples=3000):
    rng = np.random.default_rng(5)
    differences = []
    for _ in range(resamples):
        per_action = []
        for action in first:
            pick = rng.integers(len(first[action]), size=len(first[action]))
            per_action.append(combine(first[action][pick].sum(0)) - combine(second[action][pick].sum(0)))
        differences.append(np.mean(per_action))
    return np.percentile(differences, (2.5, 97.5))


def test_interval_equals_a_loop_that_draws_videos():
    rng = np.random.default_rng(0)
    frames = {action: rng.integers(20, 60, 12) for action in "ab"}
    first = {a: np.stack([rng.binomial(n, 0.9), n], 1).astype(float) for a, n in frames.items()}
    second = {a: np.stack([rng.binomial(n, 0.8), n], 1).astype(float) for a, n in frames.items()}
    np.testing.assert_allclose(paired_interval(first, second), naive_interval(first, second), atol=0.006)


def test_interval_is_a_function_of_its_arguments():
    pieces = {"a": np.random.default_rng(0).uniform(1, 2, (9, 2))}
    other = {"a": pieces["a"] * [[0.5, 1.0]]}
    assert paired_interval(pieces, other) == paired_interval(pieces, other) != paired_interval(pieces, other, seed=3)


def test_combined_squares_are_r_squared():
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(1)
    truth, guess = rng.normal(size=(2, 30, 3))
    pieces = np.stack([(guess - truth) ** 2, np.ones_like(truth), truth, truth**2], axis=-1).sum(axis=0)
    assert combine(pieces) == pytest.approx(np.mean([r2_score(truth[:, i], guess[:, i]) for i in range(3)]))


def test_one_video_has_no_interval():
    pieces = {"a": np.array([[1.0, 2.0]])}
    assert paired_interval(pieces, pieces) is None and mean_interval(np.array([1.0])) is None
    assert "too few videos" in verdict(0.5, 0.5, None)


def test_draws_without_a_value_are_left_out():
    pieces = {"a": np.array([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])}
    assert np.isfinite(paired_interval(pieces, pieces)).all()


def test_interval_that_holds_zero_is_flagged():
    assert "not distinguishable" in verdict(0.9, 0.9, (-0.1, 0.1)) and "not dist" not in verdict(0.9, 0.8, (0.05, 0.1))
    assert verdict(0.9, 0.8, (0.05, 0.1), "untrained 0.850").endswith("; strongest control: untrained 0.850")


def test_an_r_squared_below_zero_claims_nothing():
    low = verdict(-4.0, -99.0, (50.0, 120.0), "untrained -5.000", r_squared=True)
    assert low == "below the mean: an R² below zero is no gain over any control"
    said = verdict(0.2, -99.0, (50.0, 120.0), r_squared=True)
    assert said == "0.200: the clock alone below the mean"
    assert "add 95.000" in verdict(-4.0, -99.0, None) and "add" not in low + said
    assert verdict(0.4, 0.2, (0.1, 0.3), r_squared=True) == verdict(0.4, 0.2, (0.1, 0.3))
