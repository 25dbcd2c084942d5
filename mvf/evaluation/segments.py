"""Phases proposed for unlabelled videos by labelled ones, and how good they are where labels exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvf.alignment import METHODS, phase_confidence, transfer_phases
from mvf.config import nearest
from mvf.embedding import EmbeddedVideo
from mvf.metrics import boundary_errors, edit_score, predict_phases, segment_f1

PROPOSED_BY = (*METHODS, "probe")
OVERLAPS = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Proposal:
    """Phases proposed for one video.

    Attributes:
        video: The video.
        phases: (T,) phases, -1 where the labelled videos have no label either.
        confidence: (T,) see `mvf.alignment.phase_confidence`.
    """

    video: EmbeddedVideo
    phases: np.ndarray
    confidence: np.ndarray


def propose(labelled: Sequence[EmbeddedVideo], videos: Sequence[EmbeddedVideo], method: str = "dtw") -> list[Proposal]:
    """Proposes phases for videos from labelled ones of the same action.

    Args:
        labelled: Videos with labelled frames.
        videos: Videos to label.
        method: `dtw` or `nearest` carry phases over (`mvf.transfer_phases`); `probe` fits the linear classifier of the
            evaluation to the labelled frames, which needs frames of two phases.

    Returns:
        A proposal for each video, in their order.

    Raises:
        ValueError: for an unknown method, or if no labelled video shows a video's action.
    """
    if method not in PROPOSED_BY:
        raise ValueError(f'unknown method "{method}" to label videos; {nearest(method, PROPOSED_BY)}')
    known: dict[str, list[EmbeddedVideo]] = {}
    for clip in labelled:
        if clip.phases is not None and (clip.phases >= 0).any():
            known.setdefault(clip.action, []).append(clip)
    proposals = []
    for video in videos:
        if video.action not in known:
            actions = ", ".join(known) or "none: label a clip first"
            raise ValueError(f'{video.name} shows "{video.action}"; labelled videos show {actions}')
        phases = _phases(known[video.action], video, method)
        proposals.append(Proposal(video, phases, phase_confidence(known[video.action], video, phases)))
    return proposals


def _phases(labelled: Sequence[EmbeddedVideo], video: EmbeddedVideo, method: str) -> np.ndarray:
    if method != "probe":
        return transfer_phases(labelled, video, method)[0]
    true = [clip.phases for clip in labelled if clip.phases is not None]
    return predict_phases([clip.embeddings for clip in labelled], true, [video.embeddings])[0]


def segment_scores(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None
) -> dict[str, float]:
    """Scores proposed phases: share of frames, edit score, F1 at three overlaps, and error of boundaries.

    Args:
        predicted: (T,) phases of each video.
        true: (T,) true phases, -1 where unlabelled; such frames are left out.
        times: (T,) seconds of each video's frames, if all have time stamps.

    Returns:
        `accuracy`, `edit`, `f1@10`, `f1@25`, `f1@50` from 0 to 1; `boundary error` in frames and, with times,
        `boundary error, s`: the mean over boundaries whose phase is proposed; `missed boundaries`: the share of others.

    Raises:
        ValueError: if no frame is labelled.
    """
    right = [guess[truth >= 0] == truth[truth >= 0] for guess, truth in zip(predicted, true)]
    scores = {"edit": edit_score(predicted, true)}
    scores = {"accuracy": float(np.concatenate(right).mean())} | scores
    scores |= {f"f1@{round(100 * overlap)}": segment_f1(predicted, true, overlap) for overlap in OVERLAPS}
    found, missed = boundary_errors(predicted, true)
    if len(found):
        scores["boundary error"] = float(found.mean())
    if len(found) + missed:
        scores["missed boundaries"] = missed / (len(found) + missed)
    if len(found) and times is not None:
        scores["boundary error, s"] = float(boundary_errors(predicted, true, times)[0].mean())
    return scores
