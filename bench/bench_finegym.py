"""Time and memory of the evaluation at FineGym288's size: 3,000 videos of 240 frames, 288 classes.

    python bench/bench_finegym.py                                      2,000 training and 1,000 validation videos
    python bench/bench_finegym.py --train 60 --val 30 --tau-videos 30  quick

Embeddings are random: each video shows one to three of the 288 elements at its own pace; the rest is unlabelled. They
are evaluated with the protocol of the preset `finegym288`: linear probe by SGD, and retrieval. Progression and
Kendall's tau are not scores there, because its classes have no order, and their rows say so. Kendall's tau is timed
nevertheless, over all videos together: `--tau-videos` query videos (0: all) are matched with every video, from which
the time of all ordered pairs is extrapolated; its value is given only if all were used. Writes Markdown to stdout.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from mvf.config import load_config
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.protocol import grouped
from mvf.evaluation.scoring import NEIGHBOURS, UNORDERED, action_task
from mvf.metrics.kendall import order_agreement
from mvf.metrics.neighbours import nearest_by_video

CLASSES, LENGTH = 288, 240


def draw_videos(count: int, channels: int, seed: int) -> list[EmbeddedVideo]:
    """Draws videos that pass through elements, each a short path in embedding space."""
    paths = np.random.default_rng(0).normal(size=(CLASSES, 4, channels))
    generator = np.random.default_rng([1, seed])
    videos = []
    for number in range(count):
        frames, phases = 1.5 * generator.normal(size=(LENGTH, channels)), np.full(LENGTH, -1)
        for first in range(0, LENGTH, 80)[: generator.integers(1, 4)]:
            element, length = generator.integers(CLASSES), generator.integers(40, 80)
            clock = np.linspace(0, 3, length)
            path = np.stack([np.interp(clock, np.arange(4), row) for row in paths[element].T], 1)
            frames[first : first + length] += path
            phases[first : first + length] = element
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        videos.append(EmbeddedVideo(f"{seed}_{number}", "gym", frames.astype(np.float32), phases))
    return videos


def timed(lines: list[str], name: str, compute: Callable[[], str]) -> None:
    """Adds a row with the result of `compute`, its seconds and the peak memory so far."""
    begun = time.perf_counter()
    said = compute()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines.append(f"| {name} | {said} | {seconds:.1f} s | {peak:.2f} GiB |")
    sys.stderr.write(lines[-1] + "\n")


def time_tau(videos: list[np.ndarray], asked: int) -> str:
    """Times Kendall's tau of `asked` query videos with all others."""
    asked = asked or len(videos)
    chosen = np.linspace(0, len(videos) - 1, asked).astype(int)
    begun = time.perf_counter()
    found = nearest_by_video([videos[i] for i in chosen], videos)
    taus = np.stack([order_agreement(nearest) for nearest in tqdm(found, "Kendall's tau", asked, unit="video")])
    seconds = time.perf_counter() - begun
    taus[np.arange(asked), chosen] = np.nan
    pairs, every = asked * (len(videos) - 1), len(videos) * (len(videos) - 1)
    value = f"{np.nanmean(taus):.4f} over all pairs; " if asked == len(videos) else ""
    return f"{value}{seconds / pairs * 1e6:.0f} us a pair, all {every:,} pairs {seconds / pairs * every / 3600:.2f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--tau-videos", type=int, default=34, help="query videos of Kendall's tau; 0: all")
    options = parser.parse_args()
    config = load_config("finegym288")
    split = [draw_videos(count, options.channels, seed) for seed, count in enumerate((options.train, options.val))]
    train, val, protocol = grouped(*split, config)
    (action,) = {video.action for video in val}
    settings = (action, protocol.num_phases[action], protocol.stride, protocol.probe)
    lines: list[str] = []

    def classify() -> str:
        counts = task.phase_counts().sum((0, 1))
        return f"{counts[0] / counts[1]:.3f} of {int(counts[1]):,} frames"

    def retrieve() -> str:
        sums = [task.retrieval(k).sum(0) for k in NEIGHBOURS]
        return ", ".join(f"@{k} {right / videos:.3f}" for k, (right, videos) in zip(NEIGHBOURS, sums))

    task = action_task([train], [val], *settings)
    timed(lines, f"classification, {protocol.probe}, all training videos", classify)
    timed(lines, f"retrieval, stride {protocol.stride}", retrieve)
    for name in ("progression", "Kendall's tau"):
        lines.append(f"| {name} | {'computed by the protocol' if protocol.ordered else UNORDERED} | | |")
    arrays = [video.embeddings[:: config.stride] for video in (*train, *val)]
    name = f"Kendall's tau outside the protocol, stride {config.stride}, {options.tau_videos or 'all'} query videos"
    timed(lines, name, lambda: time_tau(arrays, options.tau_videos))
    head = f"{options.train:,} training and {options.val:,} validation videos of {LENGTH} frames"
    sys.stdout.write(f"## FineGym288: {head}, {options.channels} channels, {torch.get_num_threads()} threads\n\n")
    sys.stdout.write("\n".join(["| task | result | time | peak memory |", "| --- | --- | --- | --- |", *lines]) + "\n")


if __name__ == "__main__":
    main()
