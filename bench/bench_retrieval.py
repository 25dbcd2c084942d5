"""Times exact retrieval over a million frames: the nearest frames of other videos, in bounded memory.

    python bench/bench_retrieval.py                                  10^6 frames of 128 channels, 10,000 queries timed
    python bench/bench_retrieval.py --frames 50000 --queries 1000    quick

The queries are evenly spaced over the frames. The time of all frames is extrapolated, because every query costs the
same. A hundred queries are checked against float64 distances. Writes Markdown to stdout.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

from mvf.metrics.neighbours import nearest_in_others

LENGTH, K = 240, 15
LIMIT = 4.0  # GiB


def draw_videos(frames: int, channels: int, seed: int = 0) -> list[np.ndarray]:
    """Draws unit-norm videos that move smoothly between eight random points near one of 300 shared points."""
    generator = np.random.default_rng(seed)
    places = generator.normal(size=(300, channels)).astype(np.float32)
    share = np.stack([np.interp(np.linspace(0, 7, LENGTH), np.arange(8), row) for row in np.eye(8)], 1)
    videos = []
    for start in range(0, frames, LENGTH):
        chosen = generator.integers(len(places), size=8)
        anchors = places[chosen] + 0.5 * generator.normal(size=(8, channels))
        video = share @ anchors + 0.2 * generator.normal(size=(LENGTH, channels))
        video /= np.linalg.norm(video, axis=1, keepdims=True)
        videos.append(video[: frames - start].astype(np.float32))
    return videos


def agrees(videos: list[np.ndarray], asked: np.ndarray, found: np.ndarray) -> bool:
    """Whether the retrieved frames have the k smallest float64 distances, in order."""
    frames = np.concatenate(videos)
    edges = np.cumsum([0, *map(len, videos)])
    for query, nearest in zip(asked, found):
        parts = (frames[start : start + 2**16] for start in range(0, len(frames), 2**16))
        distances = np.concatenate([np.square(part.astype(np.float64) - frames[query]).sum(1) for part in parts])
        video = np.searchsorted(edges, query, side="right") - 1
        distances[edges[video] : edges[video + 1]] = np.inf
        smallest = np.sort(np.partition(distances, K - 1)[:K])
        if not np.allclose(distances[nearest], smallest, rtol=0, atol=1e-8):
            return False
    return True


def main() -> int:
    """Prints the table; returns 1 if the target is missed or a distance is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10**6)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--queries", type=int, default=10**4)
    options = parser.parse_args()
    videos = draw_videos(options.frames, options.channels)
    queries = np.linspace(0, options.frames - 1, options.queries).astype(np.intp)
    begun = time.perf_counter()
    blocks = nearest_in_others(videos, K, queries)
    parts = [next(blocks)]
    first = time.perf_counter() - begun  # including the copies in float32
    parts += blocks
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    asked, found = map(np.concatenate, zip(*parts))
    rate = (len(asked) - len(parts[0][0])) / (seconds - first) if len(parts) > 1 else len(asked) / seconds
    right = agrees(videos, asked[:: max(1, len(asked) // 100)], found[:: max(1, len(asked) // 100)])
    lines = [
        f"## Retrieval@{K} over {options.frames:,} frames of {options.channels} channels in {len(videos):,} videos, "
        f"{torch.get_num_threads()} threads\n",
        "| what | measured |",
        "| --- | --- |",
        f"| {len(asked):,} queries, with preparing | {seconds:.1f} s |",
        f"| queries a second | {rate:.0f} |",
        f"| all {options.frames:,} queries, extrapolated | {options.frames / rate / 3600:.2f} h |",
        f"| arithmetic | {rate * options.frames * options.channels * 2 / 1e9:.0f} GFLOP/s |",
        f"| peak resident memory, embeddings included (target below {LIMIT:.0f} GiB) | {peak:.2f} GiB |",
        f"| distances of 100 queries as in float64 | {'yes' if right else 'NO'} |",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(not right or peak >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
