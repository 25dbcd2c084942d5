"""Retrieval counts the nearest frames of other videos that have the query's phase."""

import numpy as np
import pytest

from mvf.metrics import neighbours, retrieval_precision, retrieval_precisions, retrieval_video_precisions


def naive_precision(videos, phases, k, stride):
    kept = [(v[p >= 0][::stride], p[p >= 0][::stride]) for v, p in zip(videos, phases)]
    scores = []
    for i, (query, label) in enumerate(kept):
        others = np.concatenate([v for j, (v, _) in enumerate(kept) if j != i])
        other_labels = np.concatenate([p for j, (_, p) in enumerate(kept) if j != i])
        order = np.square(query[:, None] - others).sum(-1).argsort(1, kind="stable")[:, :k]
        if len(query):
            scores.append((other_labels[order] == label[:, None]).mean(1).mean())
    return np.mean(scores)


@pytest.mark.parametrize("k, stride", [(1, 1), (5, 1), (5, 2), (15, 1), (7, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_a_naive_loop(labelled, k, stride, ties):
    videos = [np.round(video) if ties else video for video in labelled[2]]
    wanted = naive_precision(videos, labelled[3], k, stride)
    assert retrieval_precision(videos, labelled[3], k, stride) == pytest.approx(wanted, abs=1e-12)


def test_one_search_serves_several_k(labelled):
    together = retrieval_precisions(*labelled[2:], ks=(10, 1, 5))
    assert together == {k: retrieval_precision(*labelled[2:], k=k) for k in (10, 1, 5)}


@pytest.mark.parametrize("queries, references", [(1, 1), (7, 3), (1000, 5), (3, 1000)])
def test_the_size_of_a_block_changes_nothing(labelled, monkeypatch, queries, references):
    whole = retrieval_precisions(*labelled[2:])
    monkeypatch.setattr(neighbours, "_QUERIES", queries)
    monkeypatch.setattr(neighbours, "_REFERENCES", references)
    assert retrieval_precisions(*labelled[2:]) == whole


def test_a_video_without_labels_has_no_value_and_changes_nothing(labelled):
    videos, phases = [*labelled[2], labelled[2][0]], [*labelled[3], 0 * labelled[3][0] - 1]
    values = retrieval_video_precisions(videos, phases)[5]
    assert np.isnan(values).tolist() == [False] * 5 + [True]
    assert np.nanmean(values) == retrieval_precision(*labelled[2:])


def test_random_labels_score_their_squared_frequencies(rng):
    videos, phases = rng.normal(size=(10, 60, 4)), rng.choice(2, (10, 60), p=[0.3, 0.7])
    assert retrieval_precision(list(videos), list(phases)) == pytest.approx(0.3**2 + 0.7**2, abs=0.05)


def test_what_cannot_be_scored_says_why(labelled):
    video, phase = np.zeros((3, 2)), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="at least 2 videos with labelled frames, got 1"):
        retrieval_precision([video, video], [phase, 0 * phase - 1], k=1)
    with pytest.raises(ValueError, match="retrieval@5 needs 5 candidate frames in the other videos, got 3"):
        retrieval_precision([video, video], [phase, phase])
    with pytest.raises(ValueError, match=r"k must be at least 1, got \[0\]"):
        retrieval_precision([video, video], [phase, phase], k=0)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        retrieval_precision([video, video], [phase, phase], stride=0)
