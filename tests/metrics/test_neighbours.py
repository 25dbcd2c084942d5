"""Nearest neighbours are exact, and the first one on ties."""

import numpy as np
import pytest

from mvf.metrics import neighbours
from mvf.metrics.neighbours import DistanceKeys, nearest_by_video, nearest_in_videos


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
