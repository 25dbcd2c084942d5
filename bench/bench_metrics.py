"""Times the four tasks at Penn Action's size: 13 actions, 1,140 + 966 videos of about 70 frames, 128 channels.

    python bench/bench_metrics.py

(Prefix `OMP_NUM_THREADS=1` to measure a single thread.)

Target: at most 6 s in total on two cores, with full labels, retrieval at 5, 10, 15 and Kendall's tau on validation,
stride 2 (the published evaluators take 56 s). Embeddings are random, of unit norm and smooth in time, and hard enough
(accuracy about 0.97, R^2 about 0.74) that the logistic solver takes about 30 steps (25 on the golden file).
"""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.ndimage import gaussian_filter1d

from mvf import metrics

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


def main() -> None:
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


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main()
