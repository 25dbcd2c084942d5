"""Compares time and peak memory of attention maps with those of the backbone alone.

    python bench/bench_maps.py

The input is a video of 100 frames, ViT-S/14 at 224 pixels, three entities and the heads of the last block. Time is the
median of interleaved repeats; memory is the difference of the peak resident sizes of two fresh processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from bench_lstp import peak_bytes

import mvf
from mvf.bank import FRAMES_AT_ONCE
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord, frame_batches
from mvf.models.mvformer import MVFormer

FRAMES, REPEATS = 100, 3
TARGETS = {"time": 1.3, "megabytes": 200.0}


class Noise:
    """Frames of noise that are made when they are read, so that the video takes no memory in either process."""

    identity = "noise"

    def count(self) -> int:
        return FRAMES

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        for number in range(*slice(start, stop, step).indices(FRAMES)):
            yield np.random.default_rng(number).integers(0, 256, (240, 320, 3), dtype=np.uint8)


def make() -> tuple[MVFormer, VideoRecord]:
    """Makes the model and the video."""
    config = mvf.load_config("synthetic", backbone="dinov2_vits14", image_size=224, entities=3)
    return mvf.build_model(config).eval(), VideoRecord("noise", "none", Noise())


@torch.inference_mode()
def run_backbone(model: MVFormer, record: VideoRecord) -> None:
    """Computes the features of all frames as `mvf.embed` does, and discards them."""
    for frames in frame_batches(record.frames(), FRAMES_AT_ONCE):
        model.backbone(evaluation_view(frames, model.backbone.image_size))


def run_maps(model: MVFormer, record: VideoRecord) -> None:
    """Computes the entity maps and head maps of all frames."""
    mvf.attention_maps(model, record)


RUNS: dict[str, Callable[[MVFormer, VideoRecord], None]] = {"backbone": run_backbone, "maps": run_maps}


def measure_times() -> dict[str, float]:
    """Measures the median seconds of each."""
    model, record = make()
    seconds: dict[str, list[float]] = {name: [] for name in RUNS}
    for repeat in range(REPEATS):
        order = list(RUNS) if repeat % 2 else list(RUNS)[::-1]
        for name in order:
            start = time.perf_counter()
            RUNS[name](model, record)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def measure_memory(name: str) -> float:
    """Measures the peak megabytes of a fresh process that runs one of them."""
    found = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def main() -> int:
    """Prints the table; returns 1 if a target is missed."""
    memory = {name: measure_memory(name) for name in RUNS}
    seconds = measure_times()
    ratio, growth = seconds["maps"] / seconds["backbone"], memory["maps"] - memory["backbone"]
    print(f"{FRAMES} frames, ViT-S/14 at 224, {torch.get_num_threads()} threads, median of {REPEATS}")
    print("{:<12}{:>10}{:>10}{:>14}   {}".format("", *RUNS, "", "target"))
    times = (f"{found:.2f}" for found in seconds.values())
    print("{:<12}{:>10}{:>10}{:>14}   {}".format("seconds", *times, f"{ratio:.2f} x", f"at most {TARGETS['time']} x"))
    sizes = (f"{found:.0f}" for found in memory.values())
    limit = f"less than {TARGETS['megabytes']:.0f} MB more"
    print("{:<12}{:>10}{:>10}{:>14}   {}".format("peak, MB", *sizes, f"{growth:+.0f} MB", limit))
    return 0 if ratio <= TARGETS["time"] and growth < TARGETS["megabytes"] else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        RUNS[sys.argv[1]](*make())
        print(json.dumps(peak_bytes() / 1e6))
    else:
        sys.exit(main())
