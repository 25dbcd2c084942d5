"""The protocol on lists of embedded videos: every action judged alone, scores averaged over actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mvf.embedding import EmbeddedVideo
from mvf.evaluation.tasks import NEIGHBOURS, ActionTask, Features, Rounds, action_task, kept_frames
from mvf.evaluation.verdicts import combine
from mvf.metrics import alignment_error_pairs, event_times, phase_classification, phase_progression

FRACTIONS = (0.1, 0.5, 1.0)
KEPT = ("classification", "progression", "kendall_tau", "retrieval@5")  # the paper's four, video by video
UNORDERED = 'labels are classes without an order (judge="together")'


@dataclass(frozen=True)
class Protocol:
    """How scores are taken.

    Attributes:
        num_phases: By action.
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
        pieces: By score and action, the sums that `combine` turns into the score, one row a validation video.
        phase_counts: By action, right and all frames of every phase, (num_phases, 2).
        reasons: By score and action, why it is missing.
    """

    pieces: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    phase_counts: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def per_action(self) -> dict[str, dict[str, float]]:
        """Scores by action."""
        actions = sorted({action for by_action in self.pieces.values() for action in by_action})
        return {a: {s: _value(by[a]) for s, by in self.pieces.items() if a in by} for a in actions}

    def means(self) -> dict[str, float]:
        """Scores averaged over the actions that have them."""
        return {score: float(np.mean([_value(p) for p in by.values()])) for score, by in self.pieces.items()}

    def skipped(self) -> dict[str, str]:
        """Reasons by `score` where no action has it, else by `score: action`."""
        named = {}
        for score, by_action in self.reasons.items():
            if score not in self.pieces and len(set(by_action.values())) == 1:
                named[score] = next(iter(by_action.values()))
            elif score not in self.pieces:
                named[score] = "; ".join(f"{action}: {reason}" for action, reason in by_action.items())
            else:
                named |= {f"{score}: {action}": reason for action, reason in by_action.items()}
        return named

    def add(self, action: str, score: str, compute: Callable[[], np.ndarray]) -> None:
        """Adds the pieces that `compute` gives to those there, or the reason why it gives none."""
        try:
            pieces = compute()
            value = _value(pieces)
            if not np.isfinite(value):
                raise ValueError(f"{score} has no value on these frames: nothing varies")
        except ValueError as error:
            self.reasons.setdefault(score, {})[action] = str(error)
            return
        by_action = self.pieces.setdefault(score, {})
        by_action[action] = by_action.get(action, 0) + pieces


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
    """All scores of the validation videos.

    Args:
        train: Videos that probes are fitted on, one list a round.
        val: Videos that are scored. Videos of different rounds are never compared: they may be windows of one.
        protocol: See `Protocol`.
        features: Backbone controls: taken of each video, then z-scored (`mvf.evaluation.tasks.standardiser`).
        refit: Fit a probe for every round, on that round, and average; else one on all rounds together.
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
        full: What all training videos give; what is missing there is missing everywhere.

    Returns:
        Scores by fraction, and reasons for actions that lack one.
    """
    wanted = [(score, action) for score in ("classification", "progression") for action in full.pieces.get(score, ())]
    kept = {
        action: [part for split in (train, val) for part in kept_frames([v for v in split if v.action == action])]
        for _, action in wanted
    }
    table, skipped = {}, {}
    for fraction in FRACTIONS[:-1]:
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
        ValueError: when no action has two labelled videos, or labels have no order.
    """
    if not protocol.ordered:
        raise ValueError(UNORDERED)
    errors = []
    for action in sorted({video.action for video in references}):
        videos = [v for v in references if v.action == action and v.phases is not None]
        times = {v.name: event_times(v.phases, protocol.num_phases[action] or None) for v in videos}
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


def video_pieces(scored: Scored, videos: Sequence[EmbeddedVideo]) -> dict[str, dict[str, dict[str, list]]]:
    """Pieces of `KEPT` scores by score, action and video, for comparisons of runs over the same videos."""
    names: dict[str, list[str]] = {}
    for video in videos:
        names.setdefault(video.action, []).append(video.name)
    return {
        score: {action: dict(zip(names[action], pieces.tolist(), strict=True)) for action, pieces in by.items()}
        for score, by in scored.pieces.items()
        if score in KEPT
    }


def _score(scored: Scored, action: str, task: ActionTask, ordered: bool) -> None:
    def needs_order(compute: Callable[[], np.ndarray]) -> np.ndarray:
        if not ordered:
            raise ValueError(UNORDERED)
        return compute()

    def classification() -> np.ndarray:
        counts = task.phase_counts()
        scored.phase_counts[action] = scored.phase_counts.get(action, 0) + counts.sum(axis=0)
        return counts.sum(axis=1)

    scored.add(action, "classification", classification)
    scored.add(action, "progression", partial(needs_order, task.progression))
    scored.add(action, "kendall_tau", partial(needs_order, task.kendall_tau))
    for k in NEIGHBOURS:
        scored.add(action, f"retrieval@{k}", partial(task.retrieval, k))


def _value(pieces: np.ndarray) -> float:
    return float(combine(pieces.sum(axis=0)))


def _fraction_score(score: str, arrays: list, fraction: float, protocol: Protocol, action: str) -> float:
    if score == "classification":
        return phase_classification(*arrays, fraction, probe=protocol.probe)
    return phase_progression(*arrays, protocol.num_phases[action], fraction)
