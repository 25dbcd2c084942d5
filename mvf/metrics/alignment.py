"""Alignment error: how far in event time is a frame from its nearest neighbour in another video?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvf.metrics.neighbours import check_embeddings, check_same_width, check_stride, nearest_in_videos


def alignment_error(
    queries: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    query_times: Sequence[np.ndarray],
    reference_times: Sequence[np.ndarray],
    stride: int = 1,
    *,
    sources: Sequence[int] | None = None,
) -> float:
    """Mean distance between the event time of a frame and that of its nearest neighbour in another video.

    Averaged over a query's frames, then over all ordered pairs of a query and a reference of *different* videos.
    Kendall's tau cannot detect frame counting, as a wrong clock is still monotone; this can: embed windows of the
    videos as queries and whole videos as references, and give each window the event times of the frames it shows.

    Range: [0, 1], a fraction of the action; lower is better, uniform guessing gives 1/3.

    Reference: docs/design.md, section 7 (not in the paper).

    Args:
        queries: Videos or windows of videos (T, E).
        references: Videos (T, E).
        query_times: Event time (T,) of every query frame (`event_times`); frames with NaN are dropped first.
        reference_times: The same for the references.
        stride: Every stride-th frame is taken, of both.
        sources: For each query the index of the reference of the same video, which it is not compared with
            (several windows may share one; -1: none). By default queries[i] belongs to references[i] if the lists
            are equally long, and to none if they are not.

    Raises:
        ValueError: if shapes do not fit, or no pair of different videos has frames with event times.

    Example:
        >>> clock = np.linspace(0, 1, 5)
        >>> alignment_error([clock[:, None]] * 2, [clock[:, None]] * 2, [clock] * 2, [clock ** 2] * 2)
        0.125
    """
    pairs = alignment_error_pairs(queries, references, query_times, reference_times, stride, sources=sources)
    if np.isnan(pairs).all():
        raise ValueError("alignment error needs two different videos that have frames with an event time")
    return float(np.nanmean(pairs))


def alignment_error_pairs(
    queries: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    query_times: Sequence[np.ndarray],
    reference_times: Sequence[np.ndarray],
    stride: int = 1,
    *,
    sources: Sequence[int] | None = None,
) -> np.ndarray:
    """Alignment error of every pair, (queries, references); NaN for a video with itself or without event times.

    Example:
        >>> alignment_error_pairs([np.zeros((1, 1))], [np.zeros((1, 1))], [[0.25]], [[1.0]], sources=[-1])
        array([[0.75]])
    """
    check_stride(stride)
    sources = _check_sources(sources, queries, references)
    queries, query_times = _timed_frames(queries, query_times, stride, "queries")
    references, reference_times = _timed_frames(references, reference_times, stride, "references")
    check_same_width(queries[0], references[0], "queries and references")
    errors = np.full((len(queries), len(references)), np.nan)
    for i, nearest in enumerate(nearest_in_videos(queries, references)):
        for j, times in enumerate(reference_times):
            if j != sources[i] and len(times) and len(nearest):
                errors[i, j] = np.abs(query_times[i] - times[nearest[:, j]]).mean()
    return errors


def event_times(phases: np.ndarray, num_phases: int | None = None) -> np.ndarray:
    """Time of every frame in units of the action: k / num_phases where phase k begins, linear in between.

    Within a run of one phase the labelled frames are evenly spaced, and the start of the next phase is not reached. A
    repeated action starts again at each repetition, because every run of a phase is measured alone.

    Args:
        phases: (T,) integers; below 0 is unlabelled.
        num_phases: Phases of the action; by default the largest label + 1, wrong for a video that lacks the last
            phase. For a window, slice the event times of the whole video.

    Returns:
        (T,) in [0, 1), NaN where unlabelled.

    Example:
        >>> event_times(np.array([-1, 0, 0, 1, 1, 1, 1]))
        array([  nan, 0.   , 0.25 , 0.5  , 0.625, 0.75 , 0.875])
    """
    phases = np.asarray(phases)
    num_phases = num_phases or int(phases.max(initial=-1)) + 1
    if phases.max(initial=-1) >= num_phases:
        raise ValueError(f"phases must be below num_phases = {num_phases}, got {phases.max()}")
    times = np.full(len(phases), np.nan)
    kept = phases[phases >= 0]
    runs = np.split(kept, np.flatnonzero(np.diff(kept)) + 1) if len(kept) else []
    times[phases >= 0] = [(run[0] + t / len(run)) / num_phases for run in runs for t in range(len(run))]
    return times


def _timed_frames(
    videos: Sequence[np.ndarray], times: Sequence[np.ndarray], stride: int, name: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    videos, times = check_embeddings(videos, name), [np.asarray(time, dtype=np.float64) for time in times]
    if [time.shape for time in times] != [video.shape[:1] for video in videos]:
        raise ValueError(
            f"event times of {name} must be one per frame, {[len(v) for v in videos]}, got {[t.shape for t in times]}"
        )
    known = [np.flatnonzero(~np.isnan(time))[::stride] for time in times]
    return [v[keep] for v, keep in zip(videos, known)], [t[keep] for t, keep in zip(times, known)]


def _check_sources(sources: Sequence[int] | None, queries: Sequence, references: Sequence) -> Sequence[int]:
    """The reference that each query belongs to, -1 for none.

    By default lists of equal length are the same videos in the same order, and lists of different lengths are different
    videos; a single pair counts as different videos too, unless the two are equal.
    """
    if sources is None:
        paired = len(queries) == len(references)
        if paired and len(queries) == 1:
            paired = np.array_equal(queries[0], references[0])
        sources = range(len(queries)) if paired else [-1] * len(queries)
    if len(sources) != len(queries):
        raise ValueError(f"sources must name a reference for each of the {len(queries)} queries, got {len(sources)}")
    return sources
