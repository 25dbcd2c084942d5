"""Nearest neighbours are exact, and the first one on ties."""

import numpy as np
import pytest

from mvf.metrics import neighbours
from mvf.metrics.neighbours import DistanceKeys, nearest_in_videos


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


def test_the_size_of_a_block_changes_nothing(rng, monkeypatch):
    videos = [rng.normal(size=(10, 4)) for _ in range(3)]
    whole = nearest_in_videos(videos, videos)
    monkeypatch.setattr(neighbours, "_BLOCK", 1)
    np.testing.assert_array_equal(nearest_in_videos(videos, videos), whole)


def test_equal_frames_everywhere_give_the_first_position():
    assert nearest_in_videos([np.ones((3, 2))], [np.ones((4, 2))])[0].tolist() == [[0]] * 3


def test_a_video_without_frames_has_no_neighbour():
    assert nearest_in_videos([np.ones((2, 1))], [np.ones((0, 1)), np.ones((1, 1))])[0].tolist() == [[-1, 0], [-1, 0]]
