"""Phase classification: does a linear classifier read the phase from a frozen frame embedding?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from mvf.metrics.neighbours import (
    check_embeddings,
    check_labels,
    check_same_width,
    count_videos,
    labelled_frames,
    one_thread,
    split_videos,
)
from mvf.progress import tqdm

PROBES = ("logistic", "sgd")


def phase_classification(
    train_embeddings: Sequence[np.ndarray],
    train_phases: Sequence[np.ndarray],
    val_embeddings: Sequence[np.ndarray],
    val_phases: Sequence[np.ndarray],
    fraction: float = 1.0,
    *,
    probe: str = "logistic",
    seed: int = 0,
) -> float:
    """Accuracy of a linear classifier of the phase, over all labelled validation frames.

    Range: [0, 1], a fraction of frames; higher is better, chance is the share of the commonest phase.

    Reference: MV-Former, section 4 ("Fine-Grained Phase Classification"); Dwibedi et al., CVPR 2019, section 4.

    Args:
        train_embeddings: Videos (T, E) that the classifier is fitted on.
        train_phases: Their phases (T,); frames below 0 are dropped.
        val_embeddings: Videos (T, E) that are scored.
        val_phases: Their phases (T,); frames below 0 are dropped.
        fraction: The first max(1, int(fraction * n)) training videos are used.
        probe: "logistic" regression, or FineGym's linear layer by "sgd".
        seed: Seed of the SGD probe, for its initial weights and the order of the videos.

    Raises:
        ValueError: if the training frames show a single phase, or no frame is labelled.

    Example:
        >>> video, phase = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
        >>> phase_classification([video], [phase], [video], [phase])
        1.0
    """
    labelled_frames(val_embeddings, val_phases, "val_embeddings")  # fails before anything is fitted
    predicted = predict_phases(train_embeddings, train_phases, val_embeddings, fraction, probe=probe, seed=seed)
    correct, frames = count_correct(predicted, val_phases)
    return float(correct.sum() / frames.sum())


def predict_phases(
    train_embeddings: Sequence[np.ndarray],
    train_phases: Sequence[np.ndarray],
    val_embeddings: Sequence[np.ndarray],
    fraction: float = 1.0,
    *,
    probe: str = "logistic",
    seed: int = 0,
) -> list[np.ndarray]:
    """The phase (T,) that the classifier gives every frame of every validation video, unlabelled ones too.

    Example:
        >>> predict_phases([[[-1.0], [1.0]]], [[0, 3]], [[[2.0]], [[-2.0], [3.0]]])
        [array([3]), array([0, 3])]
    """
    if probe not in PROBES:
        raise ValueError(f'unknown probe "{probe}"; known: {", ".join(PROBES)}')
    videos, labels = check_labels(train_embeddings, train_phases, "train_embeddings")
    targets = check_embeddings(val_embeddings, "val_embeddings")
    check_same_width(videos[0], targets[0], "train_embeddings and val_embeddings")
    count = count_videos(fraction, len(videos))
    videos, labels = labelled_frames(videos[:count], labels[:count], f"the first {count} train_embeddings")
    classes = np.unique(np.concatenate(labels))
    if len(classes) < 2:
        raise ValueError(f"a classifier needs 2 phases, the labelled training frames show only phase {classes[0]}")
    if probe == "sgd":
        shown = [video for video in videos if len(video)]
        indices = [np.searchsorted(classes, label) for label in labels if len(label)]
        logits = fit_softmax_sgd(shown, indices, len(classes), seed)
        return [classes[logits(video).argmax(1)] for video in targets]
    with one_thread():
        model = LogisticRegression(max_iter=100_000).fit(np.concatenate(videos), np.concatenate(labels))
        return split_videos(model.predict(np.concatenate(targets)), targets)


def count_correct(predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Correct and labelled frames of every video, each (videos,), which a bootstrap over videos resamples.

    Example:
        >>> count_correct([np.array([0, 1]), np.array([2, 2])], [np.array([0, 0]), np.array([-1, 2])])
        (array([1, 1]), array([2, 1]))
    """
    labels = [np.asarray(phase) for phase in phases]
    correct = [np.count_nonzero((guess == truth) & (truth >= 0)) for guess, truth in zip(predicted, labels)]
    return np.array(correct), np.array([np.count_nonzero(truth >= 0) for truth in labels])


def phase_confusion(predicted: Sequence[np.ndarray], phases: Sequence[np.ndarray], num_phases: int) -> np.ndarray:
    """Labelled frames by true (row) and predicted phase (column), (num_phases, num_phases) counts.

    Example:
        >>> phase_confusion([np.array([0, 1, 1])], [np.array([0, 0, 1])], 2)
        array([[1, 1], [0, 1]])
    """
    guess, truth = np.concatenate(predicted), np.concatenate(phases)
    return confusion_matrix(truth[truth >= 0], guess[truth >= 0], labels=range(num_phases))


def fit_softmax_sgd(
    videos: Sequence[np.ndarray],
    classes: Sequence[np.ndarray],
    num_classes: int,
    seed: int = 0,
    *,
    epochs: int = 100,
    videos_per_step: int = 10,
    learning_rate: float = 50.0,
    momentum: float = 0.9,
    weight_decay: float = 1e-6,
) -> Callable[[np.ndarray], np.ndarray]:
    """FineGym's probe: one linear layer by stochastic gradient descent on the cross-entropy of whole videos.

    The rate follows half a cosine to 0 over the epochs, and videos are drawn in a new order every epoch.

    Args:
        videos: (T, E) of unit norm, which the learning rate of 50 assumes.
        classes: (T,) class indices from 0.

    Returns:
        A function of (T, E) -> logits (T, num_classes).

    Example:
        >>> fit_softmax_sgd([np.array([[-1.0], [1.0]])], [np.array([0, 1])], 2)(np.array([[-0.5], [0.5]])).argmax(1)
        array([0, 1])
    """
    generator, width = np.random.default_rng(seed), videos[0].shape[1]
    videos = [np.column_stack([video, np.ones(len(video), video.dtype)]) for video in videos]  # the ones carry the bias
    weight = generator.uniform(-(width**-0.5), width**-0.5, (width + 1, num_classes)).astype(videos[0].dtype)
    velocity = np.zeros_like(weight)
    for epoch in tqdm(range(epochs), "linear probe", unit="epoch", delay=5, leave=False):
        rate = learning_rate * (1 + np.cos(np.pi * epoch / epochs)) / 2
        order = generator.permutation(len(videos))
        for step in np.split(order, range(videos_per_step, len(order), videos_per_step)):
            frames, labels = np.concatenate([videos[i] for i in step]), np.concatenate([classes[i] for i in step])
            gradient = _softmax_gradient(frames, labels, weight)
            velocity = momentum * velocity + gradient + weight_decay * weight
            weight = weight - weight.dtype.type(rate) * velocity
    return lambda video: video @ weight[:-1] + weight[-1]


def _softmax_gradient(frames: np.ndarray, classes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gradient (E, classes) of the mean cross-entropy: frames^T (softmax - one hot) / number of frames."""
    logits = frames @ weight
    error = np.exp(logits - logits.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(classes)), classes] -= 1
    return frames.T @ error / len(frames)
