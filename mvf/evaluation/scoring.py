"""The four tasks on embedded videos: every action is scored alone, and scores are averaged over actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike

from mvf.embedding import EmbeddedVideo
from mvf.evaluation.bootstrap import combine
from mvf.metrics import (
    alignment_error_pairs,
    event_times,
    kendall_tau_pairs,
    phase_classification,
    phase_progression,
    predict_phases,
    predict_progression,
    retrieval_video_precisions,
)

FRACTIONS = (0.1, 0.5)  # of the training labels
KEPT = ("classification", "progression", "kendall_tau", "retrieval@5")  # the paper's four, video by video
UNLABELLED = "no validation frame is labelled"
UNORDERED = 'labels are classes without an order (judge="together")'


@dataclass(frozen=True)
class Protocol:
    """How scores are computed.

    Attributes:
        num_phases: Number of phases, by action.
        stride: Frame stride of Kendall's tau and retrieval.
        probe: `logistic`, or FineGym's `sgd`.
        ordered: False where labels are classes without an order, so that only classification and retrieval mean
            anything.
    """

    num_phases: Mapping[str, int]
    stride: int = 1
    probe: str = "logistic"
    ordered: bool = True


@dataclass
class Scored:
    """Scores of one embedding of the videos.

    Attributes:
        sums: By score and action, the sums that `combine` turns into the score, one row per validation video.
        phase_counts: By action, correct and all frames of every phase, (num_phases, 2).
        reasons: By score and action, why it is missing.
    """

    sums: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    phase_counts: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def per_action(self) -> dict[str, dict[str, float]]:
        """Scores by action."""
        actions = sorted({action for by_action in self.sums.values() for action in by_action})
        return {a: {s: _value(by[a]) for s, by in self.sums.items() if a in by} for a in actions}

    def means(self) -> dict[str, float]:
        """Scores averaged over the actions that have them."""
        return {score: float(np.mean([_value(p) for p in by.values()])) for score, by in self.sums.items()}

    def skipped(self) -> dict[str, str]:
        """Reasons by `score` where no action has it, else by `score: action`."""
        named = {}
        for score, by_action in self.reasons.items():
            if score not in self.sums and len(set(by_action.values())) == 1:
                named[score] = next(iter(by_action.values()))
            elif score not in self.sums:
                named[score] = "; ".join(f"{action}: {reason}" for action, reason in by_action.items())
            else:
                named |= {f"{score}: {action}": reason for action, reason in by_action.items()}
        return named

    def add(self, action: str, score: str, compute: Callable[[], np.ndarray]) -> None:
        """Adds the sums that `compute` returns to those already there, or the reason why it raises."""
        try:
            sums = compute()
            value = _value(sums)
            if not np.isfinite(value):
                raise ValueError(f"{score} has no value on these frames: nothing varies")
        except ValueError as error:
            self.reasons.setdefault(score, {})[action] = str(error)
            return
        by_action = self.sums.setdefault(score, {})
        by_action[action] = by_action.get(action, 0) + sums


def count_phases(videos: Sequence[EmbeddedVideo]) -> dict[str, int]:
    """Largest label + 1 of every action; 0 without labels."""
    numbers: dict[str, int] = {}
    for video in videos:
        largest = -1 if video.phases is None else int(np.max(video.phases, initial=-1))
        numbers[video.action] = max(numbers.get(video.action, 0), largest + 1)
    return numbers


def score_rounds(
    train: Rounds, val: Rounds, protocol: Protocol, features: Features | None = None, refit: bool = False
) -> Scored:
    """Computes all scores of the validation videos.

    Args:
        train: Videos that probes are fitted on, one list per round.
        val: Videos that are scored. Videos of different rounds are never compared: they may be windows of one video.
        protocol: See `Protocol`.
        features: For backbone controls: computed from each video, then z-scored (`standardiser`).
        refit: Fit a probe for every round, on that round, and average; else fit one probe on all rounds together.
    """
    scored = Scored()
    for action in sorted({video.action for video in val[0]}):
        pairs = [([t], [v]) for t, v in zip(train, val)] if refit else [(train, val)]
        for train_part, val_part in pairs:
            settings = (action, protocol.num_phases[action], protocol.stride, protocol.probe, features)
            _score(scored, action, action_task(train_part, val_part, *settings), protocol.ordered)
    return scored


def label_fractions(
    train: list[EmbeddedVideo], val: list[EmbeddedVideo], protocol: Protocol, full: Scored
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Classification and progression by share of the training videos, averaged over the actions that have them.

    Args:
        train: Training videos; the first of every action are used.
        val: Validation videos.
        protocol: See `Protocol`.
        full: Scores with all training videos; a score that is missing here is missing everywhere.

    Returns:
        Scores by fraction, and reasons for actions that lack one.
    """
    wanted = [(score, action) for score in ("classification", "progression") for action in full.sums.get(score, ())]
    kept = {action: (*_of_action(train, action), *_of_action(val, action)) for _, action in wanted}
    table: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}
    for fraction in FRACTIONS:
        values: dict[str, list[float]] = {}
        for score, action in wanted:
            try:
                value = _fraction_score(score, kept[action], fraction, protocol, action)
                values.setdefault(score, []).append(value)
            except ValueError as error:  # the first videos may lack a phase that the score needs
                skipped[f"label_fractions.{fraction}.{score}: {action}"] = str(error)
        table[str(fraction)] = {score: float(np.mean(found)) for score, found in values.items()}
    means = full.means()
    return table | {"1.0": {score: means[score] for score in dict.fromkeys(s for s, _ in wanted)}}, skipped


def alignment(
    queries: Sequence[tuple[EmbeddedVideo, int]], references: Sequence[EmbeddedVideo], protocol: Protocol
) -> float:
    """Alignment error averaged over actions.

    Args:
        queries: Videos or windows, each with the frame of its video at which it starts.
        references: Whole videos.
        protocol: `num_phases` is read.

    Raises:
        ValueError: if no action has two labelled videos, or labels have no order.
    """
    if not protocol.ordered:
        raise ValueError(UNORDERED)
    errors = []
    for action in sorted({video.action for video in references}):
        videos = [v for v in references if v.action == action and v.phases is not None]
        num_phases = protocol.num_phases[action] or None
        times = {v.name: event_times(v.phases, num_phases) for v in videos if v.phases is not None}
        asked = [(v, times[v.name][start : start + len(v.embeddings)]) for v, start in queries if v.name in times]
        if len(videos) < 2 or not asked:
            continue
        order = list(times)
        pairs = alignment_error_pairs(
            [v.embeddings for v, _ in asked],
            [v.embeddings for v in videos],
            [time for _, time in asked],
            [times[name] for name in order],
            sources=[order.index(v.name) for v, _ in asked],
        )
        errors += [np.nanmean(pairs)] if np.isfinite(pairs).any() else []
    if not errors:
        if not any(video.phases is not None and (video.phases >= 0).any() for video in references):
            raise ValueError(UNLABELLED)
        raise ValueError("alignment error needs two labelled validation videos of one action")
    return float(np.mean(errors))


def kind_accuracy(scored: Scored, kinds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Classification accuracy on the frames of each kind of phase (`pose`, `direction`), averaged over actions."""
    values: dict[str, list[float]] = {}
    for action, counts in scored.phase_counts.items():
        for kind in sorted(set(kinds.get(action, ()))):
            rows = [phase for phase, name in enumerate(kinds[action]) if name == kind and phase < len(counts)]
            right, frames = counts[rows].sum(axis=0)
            values.setdefault(kind, []).extend([right / frames] if frames else [])
    return {kind: float(np.mean(found)) for kind, found in values.items() if found}


def video_sums(scored: Scored, videos: Sequence[EmbeddedVideo]) -> dict[str, dict[str, dict[str, list]]]:
    """Sums of `KEPT` scores by score, action and video, for comparisons of runs over the same videos."""
    names: dict[str, list[str]] = {}
    for video in videos:
        names.setdefault(video.action, []).append(video.name)
    return {
        score: {action: dict(zip(names[action], sums.tolist(), strict=True)) for action, sums in by.items()}
        for score, by in scored.sums.items()
        if score in KEPT
    }


def _score(scored: Scored, action: str, task: ActionTask, ordered: bool) -> None:
    labelled = any((phases >= 0).any() for phases in task.val_phases)

    def needs_labels(compute: Callable[[], np.ndarray]) -> np.ndarray:
        if not labelled:
            raise ValueError(UNLABELLED)
        return compute()

    def needs_order(compute: Callable[[], np.ndarray]) -> np.ndarray:
        if not ordered:
            raise ValueError(UNORDERED)
        return compute()

    def classification() -> np.ndarray:
        counts = task.phase_counts()
        scored.phase_counts[action] = scored.phase_counts.get(action, 0) + counts.sum(axis=0)
        return counts.sum(axis=1)

    scored.add(action, "classification", partial(needs_labels, classification))
    scored.add(action, "progression", partial(needs_labels, partial(needs_order, task.progression)))
    scored.add(action, "kendall_tau", partial(needs_order, task.kendall_tau))
    for k in NEIGHBOURS:
        scored.add(action, f"retrieval@{k}", partial(needs_labels, partial(task.retrieval, k)))


def _value(sums: np.ndarray) -> float:
    return float(combine(sums.sum(axis=0)))


def _of_action(videos: Sequence[EmbeddedVideo], action: str) -> tuple[Arrays, Arrays]:
    return kept_frames([video for video in videos if video.action == action])


def _fraction_score(
    score: str, arrays: tuple[Arrays, Arrays, Arrays, Arrays], fraction: float, protocol: Protocol, action: str
) -> float:
    if score == "classification":
        return phase_classification(*arrays, fraction, probe=protocol.probe)
    return phase_progression(*arrays, protocol.num_phases[action], fraction)


# ----------------------------------------------------------------------------------------------------------------------
# The four tasks on the videos of one action, as sums over videos (see `mvf.evaluation.bootstrap.combine`).

NEIGHBOURS = (5, 10, 15)
SCORES = ("classification", "progression", "kendall_tau", *(f"retrieval@{k}" for k in NEIGHBOURS))

Rounds = list[list[EmbeddedVideo]]  # the same videos several times: five permutations, three windows
Arrays = list[np.ndarray]
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ActionTask:
    """Labelled frames of the training and validation videos of one action, the rounds one after the other.

    Attributes:
        train, train_phases: Videos that probes are fitted on, (T, E) and (T,).
        val, val_phases: Videos that are scored; all rounds hold the same videos in the same order.
        rounds: How many times the validation videos are repeated.
        num_phases: Number of phases of the action.
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
        """(videos, num_phases, 2): correct and all frames of every phase."""
        train, val = self._compact
        predicted = predict_phases(train, self.train_phases, val, probe=self.probe)
        return self._by_video([self._count(guess, truth) for guess, truth in zip(predicted, self.val_phases)])

    def progression(self) -> np.ndarray:
        """(videos, num_phases - 1, 4): squared error, count, sum and sum of squares of the targets."""
        train, val = self._compact
        predicted, target = predict_progression(train, self.train_phases, val, self.val_phases, self.num_phases)
        sums = []
        for guess, truth in zip(predicted, target):
            known = ~np.isnan(truth)
            truth = np.where(known, truth, 0)
            sums.append(np.stack([np.where(known, guess - truth, 0) ** 2, known, truth, truth**2], axis=-1).sum(axis=0))
        return self._by_video(sums)

    def kendall_tau(self) -> np.ndarray:
        """(videos, 2): sum of tau over the pairs in which a video is the query, and their number."""
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
        """Splits by round, because windows of one video are never compared with each other."""
        size = len(arrays) // self.rounds
        return [arrays[start : start + size] for start in range(0, len(arrays), size)]

    def _by_video(self, sums: ArrayLike) -> np.ndarray:
        """Adds up the rounds of every video."""
        of_rounds = np.asarray(sums, dtype=np.float64)
        return of_rounds.reshape(self.rounds, -1, *of_rounds.shape[1:]).sum(axis=0)


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

    `features` are computed from whole videos, before frames are dropped.
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
    """z-scores channels with the frames of `train` and divides by sqrt(width), on which the probe's penalty depends.

    `train` holds the frames that a probe is fitted on: the labelled training frames of one action. Channels that are
    constant there become zero. Without any frame nothing is changed.

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
