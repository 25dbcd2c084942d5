"""Profiles an `online` training step: the trainer's own code on real video files.

    python bench/bench_training.py                                                    (about 3 minutes on two cores)
    python bench/bench_training.py --quick                                            (tiny; checks that it works)
    python bench/bench_training.py --in-turn                (no loading ahead; --at-once 256: no blocks of frames)
    python bench/bench_training.py --device cuda --backbone dino_vitb8 --image-size 224 --frames 80   (on a GPU)

Writes a Markdown table with columns for each device and precision, each measured in a separate process. Decoding and
augmentation run in parallel with the step (on a GPU the augmentation is part of it), so the step contains only the
wait for the batch. The first epoch warms up and is not counted. Peak is the best rate of a large matrix product in
the same precision.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

import mvf
from mvf.config import Config
from mvf.cost import backbone_operations
from mvf.data import loading
from mvf.data.records import FrameSource, pick_frames
from mvf.device import DTYPES
from mvf.models import backbone
from mvf.models.engine import resolve_compute
from mvf.training.trainer import Trainer
from mvf.workbench.plotting.movies import save_animation

BESIDE = ("decoding", "augmentation")
STEP = ("waiting for the batch", "backbone", "pooling", "fusion", "loss", "backward", "optimiser")
TARGETS = {"cpu": {"fp32": 0.85, "bf16": 0.75}, "cuda": {}}  # share of the step that is the backbone's forward
PEAK_TARGET = 0.45  # of the measured peak, on a GPU
QUICK = {"backbone": "vit_tiny_patch16_224", "image_size": 32, "frames": 8, "videos": 4, "length": 16}


class Clock:
    """Adds up the seconds of functions; on a GPU those in which it computes."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.on_gpu = device.type == "cuda"

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function so that its time counts as `name`."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += self._now() - started

        return run

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


class TimedSource:
    """A source of frames whose decoding is timed."""

    def __init__(self, source: FrameSource, clock: Clock) -> None:
        self.source, self.clock, self.identity = source, clock, source.identity

    def count(self) -> int:
        """Number of frames of the video."""
        return self.source.count()

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator:
        """Yields frames of the video."""
        return self._timed(self.source.frames(start, stop, step))

    def frames_at(self, positions: Sequence[int]) -> Iterator:
        """Yields the frames at these positions."""
        return self._timed(pick_frames(self.source, positions))

    def _timed(self, frames: Iterator) -> Iterator:
        """Times the decoding; does not synchronise a GPU, because decoding runs in parallel."""
        while True:
            started = time.perf_counter()
            frame = next(frames, None)
            self.clock.seconds["decoding"] += time.perf_counter() - started
            if frame is None:
                return
            yield frame


def instrument(trainer: Trainer, clock: Clock) -> None:
    """Times the parts of a trainer without changing what they compute."""
    model, accelerator = trainer.model, trainer.accelerator
    for name, module in (("backbone", model.backbone), ("pooling", model.pooling), ("loss", trainer.loss)):
        module.forward = clock.timed(name, module.forward)
    model.fuse_tokens = clock.timed("fusion", model.fuse_tokens)
    accelerator.backward = clock.timed("backward", accelerator.backward)
    accelerator.clip_grad_norm_ = clock.timed("optimiser", accelerator.clip_grad_norm_)
    trainer.optimizer.step = clock.timed("optimiser", trainer.optimizer.step)
    make_dataset, make_batches = trainer._dataset, trainer._batches

    def dataset() -> Any:
        made = make_dataset()
        made.augmentation = clock.timed("augmentation", made.augmentation)
        made.records = [replace(record, source=TimedSource(record.source, clock)) for record in made.records]
        return made

    def waited(source: Iterator) -> Iterator:
        take = clock.timed("waiting for the batch", source.__next__)
        with closing(source), suppress(StopIteration):
            while True:
                yield take()

    trainer._dataset, trainer._batches = dataset, lambda made: waited(make_batches(made))


def peak_rate(precision: str, device: torch.device, seconds: float = 1.0) -> float:
    """Measures operations per second of a large matrix product, the best of many."""
    size = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    clock, best, spent = Clock(device), float("inf"), 0.0
    product = clock.timed("product", torch.matmul)
    while spent < seconds:
        product(left, right)
        taken = clock.seconds.pop("product")
        best, spent = min(best, taken), spent + taken
    return 2 * size**3 / best


def operations(config: Config) -> float:
    """Counts the backbone's floating-point operations per frame."""
    network = backbone.Backbone(config.backbone, "random", config.image_size, config.layers).to("meta")
    return backbone_operations(network)


def make_videos(folder: Path, count: int, length: int) -> None:
    """Writes video files of the synthetic data set; every fifth is for validation."""
    for record in mvf.data.find_videos("synthetic", "train", train_videos=count * 5 // 4):
        save_animation(np.stack(list(record.frames(0, length))), folder / f"{record.name}.mp4")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns the seconds per step of each part, and rates."""
    if options.in_turn:
        loading.read_ahead = lambda items: (item for item in items)
    if options.at_once:
        backbone.PIXELS_AT_ONCE = options.at_once * options.image_size**2
    with tempfile.TemporaryDirectory() as name:
        videos, folder = Path(name, "videos"), Path(name, "run")
        videos.mkdir()
        make_videos(videos, options.videos, options.length)
        settings = {"dataset": "folder", "data_root": str(videos), "features": "online", "epochs": options.epochs}
        settings |= {"num_frames": options.frames, "backbone": options.backbone, "image_size": options.image_size}
        settings |= {"backbone_weights": options.weights, "precision": options.precision, "device": options.device}
        config = mvf.load_config("synthetic", **settings, compile=options.compile, workers=options.workers)
        mixed = "no" if options.precision == "fp32" else options.precision
        trainer = Trainer(config, folder, Accelerator(cpu=options.device == "cpu", mixed_precision=mixed))
        clock = Clock(trainer.accelerator.device)
        instrument(trainer, clock)
        trainer.fit(lambda row: clock.seconds.clear() if row["epoch"] == 1 else None)
        return summarise(trainer, clock, config)


def summarise(trainer: Trainer, clock: Clock, config: Config) -> dict[str, Any]:
    """Computes the numbers of the table."""
    rows, device = trainer.history[1:], trainer.accelerator.device
    steps = rows[-1]["step"] - trainer.history[0]["step"]
    seconds = {name: clock.seconds[name] / steps for name in (*BESIDE, *STEP)}
    frames = sum(row["frames_per_second"] * row["seconds"] for row in rows) / steps
    drawn = config.batch_size * trainer.loss.views * config.num_frames  # padding also passes through the backbone
    peak = peak_rate(config.precision, device)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    started = time.perf_counter()
    embedded = mvf.embed(trainer.model, trainer.records, precision=config.precision, bank=False)
    evaluation = (time.perf_counter() - started) / sum(len(video.embeddings) for video in embedded)
    return {
        "seconds": seconds,
        "step": sum(row["seconds"] for row in rows) / steps,
        "frames": frames,
        "evaluation": evaluation,
        "memory": memory,
        "peak": peak,
        "rate": operations(config) * drawn / seconds["backbone"],
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
    }


def table(measured: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Formats all measurements by device and precision as Markdown: seconds per step, shares, rates, targets."""
    weights = options.weights or "pretrained"
    sizes = f"{options.backbone} at {options.image_size} px, {weights} weights, batches of 4 videos x 2 views"
    lines = [f"**`online`, {sizes} x {options.frames} frames, {next(iter(measured.values()))['threads']} threads**", ""]
    lines += ["| part of the step | " + " | ".join(f"{name}, s | share" for name in measured) + " |"]
    lines += ["| --- |" + " ---: | ---: |" * len(measured)]
    beside = {key: BESIDE if key.startswith("cpu") else BESIDE[:1] for key in measured}
    for part in (*STEP[:1], *BESIDE, *STEP[1:], "rest", "**step**"):
        cells = [" | ".join(_cells(part, found, part in beside[key])) for key, found in measured.items()]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines += [
        f"| {name} | " + " | ".join(f"{text(found)} | " for found in measured.values()) + " |" for name, text in RATES
    ]
    lines += [
        "",
        "In brackets: in parallel with the step, on the same cores; the slowdown that it causes is in the other rows.",
    ]
    return "\n".join([*lines, *(line for key, found in measured.items() for line, _ in targets(key, found))])


def targets(key: str, found: dict[str, Any]) -> list[tuple[str, bool]]:
    """Returns a line about each target of a measurement, and whether it is met."""
    device, precision = key.split()
    reached = {"Share of the step in the backbone's forward": found["seconds"]["backbone"] / found["step"]}
    wanted = {"Share of the step in the backbone's forward": TARGETS[device].get(precision, 0.0)}
    if device == "cuda":
        reached["Backbone's share of the measured peak"] = found["rate"] / found["peak"]
        wanted["Backbone's share of the measured peak"] = PEAK_TARGET
    lines = []
    for name, share in reached.items():
        met = share >= wanted[name]
        aim = f", target {wanted[name]:.0%}: {'met' if met else 'MISSED'}" if wanted[name] else ""
        lines.append((f"{name}, {key}: {share:.1%}{aim}.", met))
    return lines


RATES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("frames a second", lambda found: f"{found['frames'] / found['step']:.1f}"),
    ("peak memory, GiB", lambda found: f"{found['memory'] / 2**30:.2f}"),
    ("evaluation (embedding), ms a frame", lambda found: f"{1000 * found['evaluation']:.2f}"),
    ("backbone, Gflop/s", lambda found: f"{found['rate'] / 1e9:.0f}"),
    ("measured peak (a large matrix product), Gflop/s", lambda found: f"{found['peak'] / 1e9:.0f}"),
    ("backbone's share of the peak", lambda found: f"{found['rate'] / found['peak']:.0%}"),
)


def _cells(part: str, found: dict[str, Any], beside: bool) -> tuple[str, str]:
    """Formats seconds and share; in brackets if it runs in parallel with the step."""
    seconds, step = found["seconds"], found["step"]
    if part == "**step**":
        value = step
    elif part == "rest":
        inside = STEP if found["machine"] == "CPU" else (*STEP, BESIDE[1])
        value = step - sum(seconds[name] for name in inside)
    else:
        value = seconds[part]
    texts = f"{value:.4f}", f"{value / step:.1%}"
    return tuple(f"({text})" for text in texts) if beside else texts


def main() -> int:
    """Prints the table; returns 1 if a target is missed."""
    options = parse()
    if options.one:
        logging.disable()
        print(json.dumps(measure(options)))
        return 0
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    measured = {}
    for device in devices:
        natural = (
            ["fp32", "bf16"] if device == "cpu" else [resolve_compute("torch", "auto", torch.device(device)).precision]
        )
        for precision in [options.precision] if options.precision else natural:
            options.device, options.precision, options.one = device, precision, True
            words = [w for k, v in vars(options).items() for w in word(k, v)]
            made = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
            measured[f"{device} {precision}"] = json.loads(made.stdout.splitlines()[-1])
    print(table(measured, options))
    return int(not all(met for key, found in measured.items() for _, met in targets(key, found)) and not options.quick)


def word(name: str, value: Any) -> list[str]:
    """Formats an option for the shell."""
    flag = "--" + name.replace("_", "-")
    return ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]


def parse() -> argparse.Namespace:
    """Parses the options; `--quick` sets small sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_vits14")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--precision", default="", choices=("", "fp32", "bf16", "fp16"), help="default: all that apply")
    parser.add_argument("--device", default="", choices=("", "cpu", "cuda"), help="default: all available")
    parser.add_argument("--frames", type=int, default=32, help="number of frames of a clip")
    parser.add_argument("--weights", default="random", help="value of backbone_weights, which does not affect speed")
    parser.add_argument("--videos", type=int, default=8, help="number of training videos, 4 per step")
    parser.add_argument("--length", type=int, default=90, help="frames of a video")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--in-turn", action="store_true", help="make batches between the steps, not in parallel")
    parser.add_argument("--at-once", type=int, default=0, help="number of frames per call of the backbone on a CPU")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


if __name__ == "__main__":
    sys.exit(main())
