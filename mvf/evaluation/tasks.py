"""The four tasks on the videos of one action, as sums over videos (see `mvf.evaluation.verdicts.combine`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mvf.embedding import EmbeddedVideo
from mvf.metrics import kendall_tau_pairs, predict_phases, predict_progression, retrieval_video_precisions

NEIGHBOURS = (5, 10, 15)
SCORES = ("classification", "progression", "kendall_tau", *(f"retrieval@{k}" for k in NEIGHBOURS))

Rounds = list[list[EmbeddedVideo]]  # the same videos several times: five permutations, three windows
Arrays = list[np.ndarray]
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ActionTask:
    """Labelled frames of the training and validation videos of one action, the rounds one after the other.

    Attributes:
        train, train_phases: What probes are fitted on, (T, E) and (T,).
        val, val_phases: What is scored; all rounds hold the same videos in the same order.
        rounds: How many times the validation videos are there.
        num_phases: Of the action.
        stride: Frame stride of Kendall's tau and retrieval.
        probe: `logistic` or `sgd`.
    """

    train: Arrays
    train_phases: Arrays
    val: Arrays
    val_phases: Arrays
    rounds: int
    num_phases: int
    stride: int
    probe: str

    def phase_counts(self) -> np.ndarray:
        """(videos, num_phases, 2): right and all frames of every phase."""
        if not any((phases >= 0).any() for phases in self.val_phases):
            raise ValueError("no validation frame is labelled")
        train, val = self._compact
        predicted = predict_phases(train, self.train_phases, val, probe=self.probe)
        return self._by_video([self._count(guess, truth) for guess, truth in zip(predicted, self.val_phases)])

    def progression(self) -> np.ndarray:
        """(videos, num_phases - 1, 4): squared error, count, sum and sum of squares of the targets."""
        train, val = self._compact
        predicted, target = predict_progression(train, self.train_phases, val, self.val_phases, self.num_phases)
        pieces = []
        for guess, truth in zip(predicted, target):
            known = ~np.isnan(truth)
            truth = np.where(known, truth, 0)
            pieces.append(
                np.stack([np.where(known, guess - truth, 0) ** 2, known, truth, truth**2], axis=-1).sum(axis=0)
            )
        return self._by_video(pieces)

    def kendall_tau(self) -> np.ndarray:
        """(videos, 2): sum of tau over the pairs that a video asks in, and their number."""
        pairs = [kendall_tau_pairs(videos, self.stride) for videos in self._split(self.val)]
        return self._by_video([(np.nansum(row), np.isfinite(row).sum()) for rows in pairs for row in rows])

    def retrieval(self, k: int) -> np.ndarray:
        """(videos, 2): precision, and 1 where the video has one."""
        try:
            values = self._precisions[k]
        except ValueError:  # too few frames for the largest k
            values = self._search((k,))[k]
        return self._by_video(np.stack([np.nan_to_num(values), np.isfinite(values)], axis=1))

    @cached_property
    def _precisions(self) -> dict[int, np.ndarray]:
        return self._search(NEIGHBOURS)

    def _search(self, ks: Sequence[int]) -> dict[int, np.ndarray]:
        """Precision of every video of every round, by k."""
        split = zip(self._split(self.val), self._split(self.val_phases))
        found = [retrieval_video_precisions(v, p, ks, self.stride) for v, p in split]
        return {k: np.concatenate([part[k] for part in found]) for k in ks}

    @cached_property
    def _compact(self) -> tuple[Arrays, Arrays]:
        return compact(self.train, self.val)

    def _count(self, guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
        labelled = truth[truth >= 0]
        right = truth[(truth >= 0) & (guess == truth)]
        return np.stack([np.bincount(part, minlength=self.num_phases) for part in (right, labelled)], axis=1)

    def _split(self, arrays: Arrays) -> list[Arrays]:
        """By round: windows of one video are never compared with each other."""
        size = len(arrays) // self.rounds
        return [arrays[start : start + size] for start in range(0, len(arrays), size)]

    def _by_video(self, pieces: Sequence) -> np.ndarray:
        """Sums the rounds of every video."""
        pieces = np.asarray(pieces, dtype=np.float64)
        return pieces.reshape(self.rounds, -1, *pieces.shape[1:]).sum(axis=0)


def action_task(
    train: Rounds, val: Rounds, action: str, num_phases: int, stride: int, probe: str, features: Features | None = None
) -> ActionTask:
    """Collects one action's videos; see `mvf.evaluation.scoring.score_rounds` for the arguments."""
    rounds = [[[v for v in videos if v.action == action] for videos in split] for split in (train, val)]
    (train_arrays, train_phases), (arrays, phases) = (kept_frames(sum(split, []), features) for split in rounds)
    if features is not None:
        scale = standardiser(train_arrays)
        train_arrays, arrays = [scale(video) for video in train_arrays], [scale(video) for video in arrays]
    return ActionTask(train_arrays, train_phases, arrays, phases, len(val), num_phases, stride, probe)


def kept_frames(videos: Sequence[EmbeddedVideo], features: Features | None = None) -> tuple[Arrays, Arrays]:
    """Embeddings and phases without unlabelled frames; a video without labels keeps all, labelled -1.

    `features` are taken of whole videos, before frames are dropped.
    """
    arrays, phases = [], []
    for video in videos:
        array = video.embeddings if features is None else features(video.embeddings)
        labels = np.full(len(array), -1) if video.phases is None else np.asarray(video.phases)
        keep = np.ones(len(array), bool) if video.phases is None else labels >= 0
        arrays.append(array[keep])
        phases.append(labels[keep])
    return arrays, phases


def standardiser(train: Arrays) -> Features:
    """z-scores channels by the frames of `train` and divides by sqrt(width), on which the probe's penalty depends.

    `train` is what a probe is fitted on: the labelled training frames of one action. Channels that never change
    there become zero. Without any frame nothing is changed.

    Example:
        >>> standardiser([np.array([[0.0], [2.0]])])(np.array([[3.0]]))
        array([[2.]])
    """
    if not sum(map(len, train)):
        return lambda video: video
    frames = np.concatenate(train)
    mean, spread = frames.mean(axis=0), frames.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf) * frames.shape[1] ** 0.5
    return lambda video: ((video - mean) / scale).astype(frames.dtype)


def compact(train: Arrays, val: Arrays) -> tuple[Arrays, Arrays]:
    """The same videos in coordinates of the space that the training frames span, when that is smaller.

    Ridge-penalised and least-norm linear models have their weights in that space, so predictions do not change.

    Example:
        >>> train, val = compact([np.eye(2, 9)], [np.ones((4, 9))])
        >>> train[0].shape, val[0].shape
        ((2, 2), (4, 2))
    """
    frames = np.concatenate(train) if train else np.zeros((1, 1))
    if not 0 < frames.shape[0] < frames.shape[1]:
        return train, val
    basis = np.linalg.qr(frames.T.astype(np.float64))[0].astype(frames.dtype)
    return [video @ basis for video in train], [video @ basis for video in val]
