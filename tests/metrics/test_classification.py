"""Phase classification is scikit-learn's logistic regression on the labelled frames of whole videos."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mvf.metrics import count_correct, phase_classification, phase_confusion, predict_phases
from mvf.metrics.classification import fit_softmax_sgd


def naive_accuracy(train, train_phases, val, val_phases):
    x = [frame for video, phase in zip(train, train_phases) for frame, p in zip(video, phase) if p >= 0]
    y = [p for phase in train_phases for p in phase if p >= 0]
    model = LogisticRegression(max_iter=100000).fit(np.array(x), np.array(y))
    hits = [model.predict(f[None])[0] == p for v, phase in zip(val, val_phases) for f, p in zip(v, phase) if p >= 0]
    return np.mean(hits)


@pytest.mark.parametrize("fraction, videos", [(1.0, 7), (0.5, 3), (0.01, 1)])
def test_equals_a_naive_loop_on_the_first_videos(labelled, fraction, videos):
    train, train_phases, val, val_phases = labelled
    wanted = naive_accuracy(train[:videos], train_phases[:videos], val, val_phases)
    assert phase_classification(*labelled, fraction=fraction) == pytest.approx(wanted, abs=1e-12)


def test_unlabelled_frames_change_nothing(labelled):
    train, train_phases, val, val_phases = labelled
    score = phase_classification(*labelled)
    noisy = [np.where(phase[:, None] < 0, 100.0, video) for video, phase in zip(train, train_phases)]
    assert phase_classification(noisy, train_phases, val, val_phases) == score


def test_correct_frames_and_confusion_add_up_to_the_accuracy(labelled):
    predicted = predict_phases(*labelled[:3])
    assert [len(p) for p in predicted] == [len(v) for v in labelled[2]]
    correct, frames = count_correct(predicted, labelled[3])
    assert frames.tolist() == [(p >= 0).sum() for p in labelled[3]]
    assert correct.sum() / frames.sum() == phase_classification(*labelled)
    confusion = phase_confusion(predicted, labelled[3], 4)
    assert confusion.shape == (4, 4) and np.trace(confusion) == correct.sum() and confusion.sum() == frames.sum()


def test_phases_need_not_be_counted_from_zero(labelled):
    train, train_phases, val, val_phases = labelled
    shifted = [np.where(p < 0, p, 3 * p + 1) for p in train_phases], [np.where(p < 0, p, 3 * p + 1) for p in val_phases]
    for probe in ("logistic", "sgd"):
        wanted = phase_classification(*labelled, probe=probe)
        assert phase_classification(train, shifted[0], val, shifted[1], probe=probe) == wanted


def test_sgd_is_seeded_and_close_to_logistic_regression(labelled):
    scores = [phase_classification(*labelled, probe="sgd", seed=seed) for seed in (1, 1, 2)]
    assert scores[0] == scores[1]
    assert scores[2] == pytest.approx(phase_classification(*labelled), abs=0.1)


def test_a_training_video_without_labels_changes_nothing(labelled):
    train, train_phases, val, val_phases = labelled
    train, train_phases = (
        [*train, *train, *train[:1]],
        [*train_phases, *(0 * p - 1 for p in train_phases), train_phases[0]],
    )
    kept = [*train[:7], train[0]], [*train_phases[:7], train_phases[0]]
    for probe in ("logistic", "sgd"):
        wanted = phase_classification(*kept, val, val_phases, probe=probe)
        assert phase_classification(train, train_phases, val, val_phases, probe=probe) == wanted


def test_sgd_equals_the_steps_of_torch(labelled):
    torch = pytest.importorskip("torch")
    videos, classes = [v[p >= 0] for v, p in zip(*labelled[:2])], [p[p >= 0] for p in labelled[1]]
    start = np.random.default_rng(3).uniform(-(6**-0.5), 6**-0.5, (7, 3))
    layer = torch.nn.Linear(6, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(start[:6].T))
        layer.bias.copy_(torch.tensor(start[6]))
    optimiser = torch.optim.SGD(layer.parameters(), lr=2.0, momentum=0.9, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    for _ in range(5):
        optimiser.zero_grad()
        frames, labels = torch.tensor(np.concatenate(videos)), torch.tensor(np.concatenate(classes))
        torch.nn.functional.cross_entropy(layer(frames), labels).backward()
        optimiser.step()
        schedule.step()
    logits = fit_softmax_sgd(videos, classes, 3, 3, epochs=5, learning_rate=2.0, weight_decay=1e-2)
    np.testing.assert_allclose(logits(videos[0]), layer(torch.tensor(videos[0])).detach().numpy(), atol=1e-9)


def test_what_cannot_be_scored_says_why(labelled):
    train, train_phases, val, val_phases = labelled
    with pytest.raises(ValueError, match="only phase 1"):
        phase_classification(train, [0 * p + 1 for p in train_phases], val, val_phases)
    with pytest.raises(ValueError, match="no frame of val_embeddings is labelled"):
        phase_classification(train, train_phases, val, [0 * p - 1 for p in val_phases])
    with pytest.raises(ValueError, match="no frame of the first 3 train_embeddings"):
        phase_classification(train, [0 * p - 1 for p in train_phases], val, val_phases, fraction=0.5)
    with pytest.raises(ValueError, match="one width, got 6 and 2"):
        phase_classification(train, train_phases, [v[:, :2] for v in val], val_phases)
    with pytest.raises(ValueError, match='unknown probe "svm"'):
        phase_classification(*labelled, probe="svm")
