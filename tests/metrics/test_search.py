"""The search among many frames finds exactly what float64 finds, in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from mvf.metrics import neighbours
from mvf.metrics.neighbours import DistanceKeys, nearest_in_others


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
