"""Phase progression is one least-squares regression a phase, scored by R^2."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mvf.metrics import phase_progression, predict_progression, progression_score


def naive_rows(videos, phases, phase):
    rows, targets = [], []
    for video, label in zip(videos, phases):
        kept = [(frame, p) for frame, p in zip(video, label) if p >= 0]
        shown = [t for t, (_, p) in enumerate(kept) if p == phase]
        for t, (frame, _) in enumerate(kept if shown else []):
            rows.append(frame)
            targets.append((t - shown[-1]) / len(kept))
    return np.array(rows), np.array(targets)


def naive_progression(train, train_phases, val, val_phases, num_phases):
    scores = []
    for phase in range(num_phases - 1):
        model = LinearRegression().fit(*naive_rows(train, train_phases, phase))
        scores.append(model.score(*naive_rows(val, val_phases, phase)))
    return np.mean(scores)


@pytest.mark.parametrize("fraction, videos", [(1.0, 7), (0.5, 3)])
def test_equals_a_naive_loop(labelled, fraction, videos):
    train, train_phases, val, val_phases = labelled
    wanted = naive_progression(train[:videos], train_phases[:videos], val, val_phases, 3)
    assert phase_progression(*labelled, num_phases=3, fraction=fraction) == pytest.approx(wanted, abs=1e-9)


def test_a_video_that_lacks_a_phase_is_left_out_of_its_regression_only(labelled):
    train, train_phases, val, val_phases = labelled
    train_phases[1] = np.where(train_phases[1] == 1, -1, train_phases[1])
    val_phases[0] = np.where(val_phases[0] == 0, 1, val_phases[0])
    wanted = naive_progression(train, train_phases, val, val_phases, 3)
    assert phase_progression(train, train_phases, val, val_phases, 3) == pytest.approx(wanted, abs=1e-9)


def test_predictions_follow_the_frames_and_give_the_score(labelled):
    predicted, target = predict_progression(*labelled, num_phases=3)
    for video, phase, guess, truth in zip(labelled[2], labelled[3], predicted, target):
        assert guess.shape == truth.shape == (len(video), 2) and np.isfinite(guess).all()
        np.testing.assert_array_equal(np.isnan(truth).all(1), phase < 0)
    assert progression_score(predicted, target) == phase_progression(*labelled, num_phases=3)


def test_fewer_frames_than_channels_still_give_the_smallest_solution(rng, labelled):
    wide = [np.concatenate([v, rng.normal(size=(len(v), 60))], 1) for v in (*labelled[0][:1], *labelled[2])]
    wanted = naive_progression(wide[:1], labelled[1][:1], wide[1:], labelled[3], 3)
    assert phase_progression(wide[:1], labelled[1][:1], wide[1:], labelled[3], 3) == pytest.approx(wanted, abs=1e-9)


def test_what_cannot_be_scored_says_why(labelled):
    train, train_phases, val, val_phases = labelled
    with pytest.raises(ValueError, match="at least 2 phases, got 1"):
        phase_progression(*labelled, num_phases=1)
    with pytest.raises(ValueError, match="no training video shows phase 2"):
        phase_progression(train, [np.minimum(p, 1) for p in train_phases], val, val_phases, 4)
    with pytest.raises(ValueError, match="below num_phases = 2, got 2"):
        phase_progression(*labelled, num_phases=2)
    with pytest.raises(ValueError, match="videos that show phase 0 have 0"):
        phase_progression(train, train_phases, val, [np.maximum(p, 1) for p in val_phases], 3)
    with pytest.raises(ValueError, match="no frame of val_embeddings"):
        phase_progression(train, train_phases, val, [0 * p - 1 for p in val_phases], 3)
