"""Nearest neighbours are exact, and the first one on ties."""

import tracemalloc

import numpy as np
import pytest

from mvf.metrics import neighbours
from mvf.metrics.neighbours import (
    DistanceKeys,
    check_embeddings,
    check_labels,
    count_videos,
    labelled_frames,
    nearest_by_video,
    nearest_in_others,
    nearest_in_videos,
)


def naive_nearest(query, reference):
    return np.square(query[:, None].astype(float) - reference[None]).sum(-1).argmin(1)


@pytest.mark.parametrize("scale, offset", [(1, 0), (1e-6, 0), (1e6, 0), (1, 1e4)])
def test_equals_a_naive_search_at_any_scale_and_offset(rng, scale, offset):
    videos = [rng.normal(size=(length, 8)) * scale + offset for length in (5, 9, 1)]
    for query, nearest in zip(videos, nearest_in_videos(videos, videos)):
        np.testing.assert_array_equal(nearest, np.stack([naive_nearest(query, video) for video in videos], 1))


def test_the_first_of_equal_distances_is_nearest(rng):
    query = rng.integers(0, 3, (300, 3))
    reference = np.concatenate([query, query[::-1], query])
    np.testing.assert_array_equal(nearest_in_videos([query], [reference])[0][:, 0], naive_nearest(query, reference))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_repeated_real_valued_frame_is_found_at_its_first_place(rng, dtype):
    video = np.repeat(rng.normal(size=(40, 128)).astype(dtype), 7, axis=0)
    np.testing.assert_array_equal(nearest_in_videos([video], [video])[0][:, 0], np.repeat(np.arange(40) * 7, 7))


def test_keys_order_by_distance_and_then_by_position(rng):
    query, reference = rng.integers(0, 3, (20, 3)), rng.integers(0, 3, (50, 3))
    search = DistanceKeys(query, reference)
    keys = np.sort(search.keys(slice(0, 20)), axis=1)
    wanted = np.square(query[:, None] - reference).sum(-1).argsort(1, kind="stable")
    np.testing.assert_array_equal(search.position(keys), wanted)


@pytest.mark.parametrize("block, references", [(1, 4096), (2**18, 1), (8, 15), (100, 25)])
def test_the_size_of_a_block_changes_nothing(rng, monkeypatch, block, references):
    videos = [rng.normal(size=(length, 4)) for length in (10, 3, 0, 12, 10)]
    whole = nearest_in_videos(videos, videos)
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    monkeypatch.setattr(neighbours, "_REFERENCES", references)
    for found, wanted in zip(nearest_in_videos(videos, videos), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_pair_has_the_key_that_it_has_in_the_whole_table(rng):
    queries, references = rng.normal(size=(9, 5)), rng.normal(size=(20, 5))
    search = DistanceKeys(queries, references)
    rows, columns = np.divmod(np.arange(180), 20)
    np.testing.assert_array_equal(search.pair_keys(rows, columns).reshape(9, 20), search.keys(slice(0, 9)))


def test_query_videos_come_one_by_one(rng):
    videos = [rng.normal(size=(length, 4)) for length in (10, 0, 12)]
    assert [found.shape for found in nearest_by_video(videos, videos[:2])] == [(10, 2), (0, 2), (12, 2)]


def test_equal_frames_everywhere_give_the_first_position():
    assert nearest_in_videos([np.ones((3, 2))], [np.ones((4, 2))])[0].tolist() == [[0]] * 3


def test_a_video_without_frames_has_no_neighbour():
    assert nearest_in_videos([np.ones((2, 1))], [np.ones((0, 1)), np.ones((1, 1))])[0].tolist() == [[-1, 0], [-1, 0]]


# nearest frames of other videos


def exact(videos, k):
    """All keys at once, in float64: what retrieval did before it searched in blocks."""
    frames = np.concatenate(videos)
    source = np.repeat(np.arange(len(videos)), [len(video) for video in videos])
    found = DistanceKeys(frames, frames)
    keys = found.keys(slice(0, len(frames)))
    keys[source[:, None] == source] = np.inf
    return found.position(np.sort(keys, axis=1)[:, :k])


def draw(kind, rng):
    lengths = (40, 1, 130, 0, 77, 52)
    if kind == "ties":
        return [rng.integers(0, 2, (n, 3)).astype(np.float32) for n in lengths]
    if kind == "equal":
        return [np.ones((n, 4), np.float32) for n in lengths]
    if kind == "clocks":  # of unit norm, each frame in every longer video
        angle = [np.arange(n) / 50 for n in lengths]
        return [np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32) for a in angle]
    if kind == "crowded":  # distances that float32 cannot tell apart
        return [(1 + 1e-6 * rng.normal(size=(n, 16))).astype(np.float64) for n in lengths]
    scale = {"small": 1e-18, "large": 1e18}.get(kind, 1)
    return [(scale * rng.normal(size=(n, 16))).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("kind", ["real", "ties", "equal", "clocks", "crowded", "small", "large"])
@pytest.mark.parametrize("block", [(512, 4096), (64, 50), (3, 7), (300, 32)])
def test_the_nearest_frames_are_those_of_float64(rng, monkeypatch, kind, block):
    monkeypatch.setattr(neighbours, "_QUERIES", block[0])
    monkeypatch.setattr(neighbours, "_REFERENCES", block[1])
    videos = draw(kind, rng)
    asked, found = map(np.concatenate, zip(*nearest_in_others(videos, 15)))
    np.testing.assert_array_equal(asked, np.arange(300))
    np.testing.assert_array_equal(found, exact(videos, 15))


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_blocks_computed_whole_or_pair_by_pair_give_the_same(rng, monkeypatch, dense):
    monkeypatch.setattr(neighbours, "_DENSE", dense)
    monkeypatch.setattr(neighbours, "_REFERENCES", 40)
    for kind in ("ties", "clocks", "real"):
        videos = draw(kind, rng)
        found = np.concatenate([nearest for _, nearest in nearest_in_others(videos, 5)])
        np.testing.assert_array_equal(found, exact(videos, 5))


def test_single_frames_may_ask(rng, monkeypatch):
    monkeypatch.setattr(neighbours, "_QUERIES", 8)
    videos, queries = draw("real", rng), np.array([299, 3, 40, 41, 170, 3, 0, 1, 2, 250])
    asked, found = map(np.concatenate, zip(*nearest_in_others(videos, 4, queries)))
    np.testing.assert_array_equal(asked, queries)
    np.testing.assert_array_equal(found, exact(videos, 4)[queries])


def test_most_distances_are_left_in_float32(rng, monkeypatch):
    monkeypatch.setattr(neighbours, "_REFERENCES", 256)
    frames = rng.normal(size=(40, 100, 32)).astype(np.float32)
    checked, pair_keys = [], DistanceKeys.pair_keys
    monkeypatch.setattr(
        DistanceKeys, "pair_keys", lambda self, rows, cols: checked.append(len(rows)) or pair_keys(self, rows, cols)
    )
    blocks = list(nearest_in_others(list(frames), 10))
    np.testing.assert_array_equal(np.concatenate([found for _, found in blocks]), exact(list(frames), 10))
    assert 0 < sum(checked) < 0.05 * 4000**2


def test_memory_is_that_of_a_few_copies_of_the_frames(rng):
    videos = list(rng.normal(size=(100, 500, 64)).astype(np.float32))
    size = sum(video.nbytes for video in videos)
    tracemalloc.start()
    next(nearest_in_others(videos, 15, np.arange(0, 50000, 100)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * size + 60e6


# checks of lists of videos


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_video(bad):
    with pytest.raises(ValueError, match=r"embeddings\[1\] holds NaN"):
        check_embeddings([np.zeros((3, 2)), np.full((3, 2), bad)])


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"embeddings\[1\] must be \(T, 2\), got \(3, 4\)"):
        check_embeddings([np.zeros((3, 2)), np.zeros((3, 4))])
    with pytest.raises(ValueError, match=r"must be \(T, E\), got \(3,\)"):
        check_embeddings([np.zeros(3)])
    with pytest.raises(ValueError, match=r"must be \(3,\), one per frame, got \(4,\)"):
        check_labels([np.zeros((3, 2))], [np.zeros(4, int)])
    with pytest.raises(ValueError, match="has 1 videos, its phases 2"):
        check_labels([np.zeros((3, 2))], [np.zeros(3, int)] * 2)
    with pytest.raises(ValueError, match="must be integers, got float64"):
        check_labels([np.zeros((3, 2))], [np.zeros(3)])
    with pytest.raises(ValueError, match="at least one video"):
        check_embeddings([])


def test_unlabelled_frames_are_dropped_and_none_left_is_an_error():
    videos, labels = labelled_frames([np.arange(3.0)[:, None]] * 2, [np.array([-1, 2, -1]), np.array([-1, -1, -1])])
    assert [v.tolist() for v in videos] == [[[1.0]], []] and [p.tolist() for p in labels] == [[2], []]
    with pytest.raises(ValueError, match="no frame of embeddings is labelled"):
        labelled_frames([np.zeros((2, 1))], [np.array([-1, -1])])


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match=f"got {fraction}"):
        count_videos(fraction, 10)
