"""Times the four tasks at Penn Action's size, or exact retrieval over a million frames.

    python bench/bench_metrics.py                                     the four tasks
    python bench/bench_metrics.py --frames 1000000                    retrieval: 10,000 queries timed
    python bench/bench_metrics.py --frames 50000 --queries 1000       retrieval, quick

(Prefix `OMP_NUM_THREADS=1` to measure a single thread.)

The four tasks: 13 actions, 1,140 + 966 videos of about 70 frames, 128 channels. Target: at most 6 s in total on two
cores, with full labels, retrieval at 5, 10, 15 and Kendall's tau on validation, stride 2 (the published evaluators take
56 s). Embeddings are random, of unit norm and smooth in time, and hard enough (accuracy about 0.97, R^2 about 0.74)
that the logistic solver takes about 30 steps (25 on the golden file).

Retrieval: the nearest frames of other videos, in bounded memory. The queries are evenly spaced over the frames. The
time of all frames is extrapolated, because every query costs the same. A hundred queries are checked against float64
distances.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from mvf import metrics
from mvf.metrics.neighbours import nearest_in_others

ACTIONS = {  # phases, training videos, validation videos: docs/design.md, section 10
    "baseball_pitch": (4, 103, 63),
    "baseball_swing": (3, 113, 57),
    "bench_press": (2, 69, 71),
    "bowl": (3, 134, 85),
    "clean_and_jerk": (6, 40, 42),
    "golf_swing": (3, 87, 77),
    "jumping_jacks": (4, 56, 56),
    "pullup": (2, 98, 101),
    "pushup": (2, 102, 106),
    "situp": (2, 50, 50),
    "squat": (4, 111, 115),
    "tennis_forehand": (3, 79, 74),
    "tennis_serve": (4, 98, 69),
}
CHANNELS, STRIDE, NOISE = 128, 2, 4.0
LENGTH, K = 240, 15  # frames of a video, nearest frames: of the retrieval
LIMIT = 4.0  # GiB
log = logging.getLogger("bench")


def draw_videos(phases: int, videos: int, path: np.ndarray, generator: np.random.Generator) -> tuple[list, list]:
    """Draws videos that follow a smooth `path` (1000, E), each at its own pace and with its own smooth noise."""
    embeddings, labels = [], []
    for length in generator.integers(40, 101, videos):
        bounds = np.sort(generator.choice(np.arange(3, length - 3, 3), phases - 1, replace=False))
        label = np.searchsorted(bounds, np.arange(length), side="right")
        clock = np.interp(np.arange(length), [0, *bounds, length], np.linspace(0, 999, phases + 1))
        noise = gaussian_filter1d(generator.normal(size=(length, CHANNELS)), 2, axis=0) * NOISE
        frames = path[clock.astype(int)] + noise + generator.normal(size=CHANNELS) * 0.5
        embeddings.append((frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32))
        labels.append(label)
    return embeddings, labels


def draw_action(phases: int, train: int, val: int, seed: int) -> tuple[list, list, list, list]:
    """Draws the training and validation videos of one action."""
    generator = np.random.default_rng(seed)
    path = gaussian_filter1d(generator.normal(size=(1000, CHANNELS)), 60, axis=0)
    path /= path.std()
    return *draw_videos(phases, train, path, generator), *draw_videos(phases, val, path, generator)


@contextmanager
def timed(seconds: dict[str, np.ndarray], task: str) -> Iterator[None]:
    """Adds wall-clock and processor seconds to `seconds[task]`."""
    start = np.array([time.perf_counter(), time.process_time()])
    yield
    seconds[task] += np.array([time.perf_counter(), time.process_time()]) - start


def time_tasks() -> None:
    """Runs all tasks on all actions and logs the table."""
    seconds, scores = defaultdict(lambda: np.zeros(2)), defaultdict(list)
    for seed, (phases, train_videos, val_videos) in enumerate(ACTIONS.values()):
        data = draw_action(phases, train_videos, val_videos, seed)
        val = data[2:]
        with timed(seconds, "classification"):
            scores["classification"].append(metrics.phase_classification(*data))
        with timed(seconds, "progression"):
            scores["progression"].append(metrics.phase_progression(*data, num_phases=phases))
        with timed(seconds, "kendall_tau"):
            scores["kendall_tau"].append(metrics.kendall_tau(val[0], stride=STRIDE))
        with timed(seconds, "retrieval"):
            scores["retrieval"].append(list(metrics.retrieval_precisions(*val, stride=STRIDE).values()))
    for task, (wall, processor) in seconds.items():
        score = np.mean(scores[task], 0).round(3)
        log.info("%-15s %6.2f s  (%.2f s processor)  score %s", task, wall, processor, score)
    log.info("%-15s %6.2f s  (%.2f s processor)  target 6 s", "all four", *sum(seconds.values()))


def draw_frames(frames: int, channels: int, seed: int = 0) -> list[np.ndarray]:
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


def time_retrieval(frames: int, queries: int) -> int:
    """Logs the table as Markdown; returns 1 if the target is missed or a distance is wrong."""
    videos = draw_frames(frames, CHANNELS)
    places = np.linspace(0, frames - 1, queries).astype(np.intp)
    begun = time.perf_counter()
    blocks = nearest_in_others(videos, K, places)
    parts = [next(blocks)]
    first = time.perf_counter() - begun  # including the copies in float32
    parts += blocks
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    asked, found = map(np.concatenate, zip(*parts))
    rate = (len(asked) - len(parts[0][0])) / (seconds - first) if len(parts) > 1 else len(asked) / seconds
    right = agrees(videos, asked[:: max(1, len(asked) // 100)], found[:: max(1, len(asked) // 100)])
    lines = [
        f"## Retrieval@{K} over {frames:,} frames of {CHANNELS} channels in {len(videos):,} videos, "
        f"{torch.get_num_threads()} threads\n",
        "| what | measured |",
        "| --- | --- |",
        f"| {len(asked):,} queries, with preparing | {seconds:.1f} s |",
        f"| queries a second | {rate:.0f} |",
        f"| all {frames:,} queries, extrapolated | {frames / rate / 3600:.2f} h |",
        f"| arithmetic | {rate * frames * CHANNELS * 2 / 1e9:.0f} GFLOP/s |",
        f"| peak resident memory, embeddings included (target below {LIMIT:.0f} GiB) | {peak:.2f} GiB |",
        f"| distances of 100 queries as in float64 | {'yes' if right else 'NO'} |",
    ]
    log.info("\n".join(lines))
    return int(not right or peak >= LIMIT)


def main() -> int:
    """Runs the four tasks or the retrieval; returns 1 if the retrieval misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="measure retrieval over so many frames instead of the four tasks")
    parser.add_argument("--queries", type=int, default=10**4)
    options = parser.parse_args()
    if options.frames:
        return time_retrieval(options.frames, options.queries)
    time_tasks()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    sys.exit(main())
