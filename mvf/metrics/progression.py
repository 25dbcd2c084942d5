"""Phase progression: does a linear model read the time to each phase boundary from a frame embedding?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from mvf.metrics.neighbours import (
    check_labels,
    check_same_width,
    count_videos,
    labelled_frames,
    one_thread,
    split_videos,
)


def phase_progression(
    train_embeddings: Sequence[np.ndarray],
    train_phases: Sequence[np.ndarray],
    val_embeddings: Sequence[np.ndarray],
    val_phases: Sequence[np.ndarray],
    num_phases: int,
    fraction: float = 1.0,
) -> float:
    """R^2 of the time to the end of every phase but the last, read linearly from the embedding.

    There is one ordinary least-squares regression per phase; the score is the mean of their R^2 over all labelled
    validation frames. Videos that lack a phase are left out of its regression and of its R^2.

    Range: (-inf, 1], a share of variance; higher is better, 0 is a constant guess.

    Reference: MV-Former, section 4 ("Phase Progression"); Dwibedi et al., CVPR 2019, section 4.

    Args:
        train_embeddings: Videos (T, E) that the regressions are fitted on.
        train_phases: Their phases (T,); frames below 0 are dropped.
        val_embeddings: Videos (T, E) that are scored.
        val_phases: Their phases (T,); frames below 0 are dropped.
        num_phases: Phases of the action; num_phases - 1 regressions.
        fraction: The first max(1, int(fraction * n)) training videos are used.

    Raises:
        ValueError: if there is only one phase, or a phase that no training or no validation video shows.

    Example:
        >>> video, phase = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])
        >>> phase_progression([video], [phase], [video], [phase], num_phases=2)
        1.0
    """
    labelled_frames(val_embeddings, val_phases, "val_embeddings")
    predicted, target = predict_progression(
        train_embeddings, train_phases, val_embeddings, val_phases, num_phases, fraction
    )
    return progression_score(predicted, target)


def predict_progression(
    train_embeddings: Sequence[np.ndarray],
    train_phases: Sequence[np.ndarray],
    val_embeddings: Sequence[np.ndarray],
    val_phases: Sequence[np.ndarray],
    num_phases: int,
    fraction: float = 1.0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predicted and true progression of the validation videos, lists of (T, num_phases - 1); see `progression_target`.

    Every frame has a prediction; the truth is NaN where a frame is unlabelled or its video lacks the phase.

    Example:
        >>> video, phase = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
        >>> predicted, target = predict_progression([video], [phase], [video], [phase], num_phases=2)
        >>> predicted[0].ravel().round(3) + 0, target[0].ravel()
        (array([-0.25,  0.  ,  0.25,  0.5 ]), array([-0.25,  0.  ,  0.25,  0.5 ]))
    """
    if num_phases < 2:
        raise ValueError(f"progression needs at least 2 phases, got {num_phases}")
    videos, labels = check_labels(train_embeddings, train_phases, "train_embeddings")
    val_videos, val_labels = check_labels(val_embeddings, val_phases, "val_embeddings")
    check_same_width(videos[0], val_videos[0], "train_embeddings and val_embeddings")
    count = count_videos(fraction, len(videos))
    labelled_frames(videos[:count], labels[:count], f"the first {count} train_embeddings")
    target = np.concatenate([progression_target(label, num_phases) for label in labels[:count]])
    predicted = _regress(np.concatenate(videos[:count]), target, np.concatenate(val_videos))
    return split_videos(predicted, val_videos), [progression_target(label, num_phases) for label in val_labels]


def progression_target(phases: np.ndarray, num_phases: int) -> np.ndarray:
    """Signed time since the last frame of phase i, as a share of the video: (T,) -> (T, num_phases - 1).

    (t - last frame of phase i) / length, time and length counting labelled frames only; NaN in unlabelled frames
    and where the video lacks phase i.

    Example:
        >>> progression_target(np.array([-1, 0, 0, 2, 2]), num_phases=3)
        array([[  nan,   nan], [-0.25,   nan], [ 0.  ,   nan], [ 0.25,   nan], [ 0.5 ,   nan]])
    """
    phases = np.asarray(phases)
    if phases.max(initial=-1) >= num_phases:
        raise ValueError(f"phases must be below num_phases = {num_phases}, got {phases.max()}")
    kept = phases[phases >= 0]
    target = np.full((len(phases), num_phases - 1), np.nan)
    for phase in range(num_phases - 1):
        frames = np.flatnonzero(kept == phase)
        if len(frames):
            target[phases >= 0, phase] = (np.arange(len(kept)) - frames[-1]) / len(kept)
    return target


def progression_score(predicted: Sequence[np.ndarray], target: Sequence[np.ndarray]) -> float:
    """Mean over phases of R^2 over all frames that have a target.

    Example:
        >>> progression_score([np.array([[0.0], [1.0], [5.0]])], [np.array([[0.0], [1.0], [np.nan]])])
        1.0
    """
    guess, truth = np.concatenate(predicted), np.concatenate(target)
    scores = []
    for phase in range(truth.shape[1]):
        known = ~np.isnan(truth[:, phase])
        if np.count_nonzero(known) < 2:
            raise ValueError(f"R^2 needs 2 validation frames, and videos that show phase {phase} have {known.sum()}")
        scores.append(r2_score(truth[known, phase], guess[known, phase]))
    return float(np.mean(scores))


def _regress(frames: np.ndarray, target: np.ndarray, val_frames: np.ndarray) -> np.ndarray:
    """Least squares of every column of `target` on the rows where it is known, applied to `val_frames`."""
    known = ~np.isnan(target)
    lacking = np.flatnonzero(~known.any(0))
    if len(lacking):
        raise ValueError(f"no training video shows phase {', '.join(map(str, lacking))}; use more training videos")
    groups = defaultdict(list)  # phases known in the same frames share one factorisation
    for phase, column in enumerate(known.T):
        groups[column.tobytes()].append(phase)
    predicted = np.empty((len(val_frames), target.shape[1]))
    with one_thread():
        for phases in groups.values():
            rows = known[:, phases[0]]
            model = LinearRegression().fit(frames[rows].astype(np.float64), target[np.ix_(rows, phases)])
            predicted[:, phases] = model.predict(val_frames)
    return predicted
