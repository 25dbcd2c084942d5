"""Measures all that is worth knowing about a GPU in one go, in at most eight minutes.

    python bench/gpu.py                          (on a machine with a GPU)
    python bench/gpu.py --quick --device cpu     (tiny, about two minutes; checks that it works)

Prints Markdown tables as they are done: the backbone alone (ViT-B/8 at 224 pixels in the device's own precision) and
its share of the measured peak of a large matrix product; a training step of the `penn` preset on drawn videos, part by
part (the wait for the batch is what the loader costs); making a bank, embedding and attention maps; and whether two
runs of one seed, and a run killed by `kill -9` and resumed, end with the same bits. Weights are random, which changes
no time. Clocks wait for the GPU, so that a step is measured without them too.

Without a GPU it says so and exits with status 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from bench_determinism import command, compare, run
from bench_training import STEP, Clock, instrument, make_videos, operations, peak_rate, summarise

import mvf
from mvf.attention import attention_maps
from mvf.bank import build_bank
from mvf.config import Config
from mvf.device import autocast
from mvf.embedding import backbone_of
from mvf.models.engine import resolve_compute
from mvf.training.run import read_history
from mvf.training.trainer import Trainer

VIDEOS, LENGTH = 12, 90  # drawn videos and their frames: 1,080 frames
REPEATS = 10  # batches of the backbone that are timed
QUICK = {"backbone": "vit_tiny_patch16_224", "image_size": 32, "num_frames": 8}
QUICK_VIDEOS, QUICK_LENGTH = 4, 20


def backbone_table(config: Config, device: torch.device) -> str:
    """Returns Markdown of the backbone's rate by frames at once, and its share of the peak."""
    backbone = backbone_of(mvf.build_model(config).to(device))
    needed, peak = operations(config), peak_rate(config.precision, device)
    lines = [
        f"**{config.backbone}, {config.image_size} px, {config.precision}; measured peak {peak / 1e12:.3g} Tflop/s**",
        "",
        "| frames at once | frames/s | Tflop/s | share of the peak |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for count in (16, 64, 256):
        frames, clock = torch.rand(count, 3, config.image_size, config.image_size, device=device), Clock(device)
        forward = clock.timed("forward", backbone)
        with torch.inference_mode(), autocast(config.precision, device):
            forward(frames)  # warms up
            clock.seconds.clear()
            for _ in range(REPEATS):
                forward(frames)
        rate = REPEATS * count / clock.seconds["forward"]
        lines.append(f"| {count} | {rate:,.0f} | {rate * needed / 1e12:.3g} | {rate * needed / peak:.0%} |")
    return "\n".join(lines)


def step_table(config: Config, device: torch.device, folder: Path) -> str:
    """Returns Markdown of the parts of a training step; the first epoch warms up and is not counted."""
    mixed = "no" if config.precision == "fp32" else config.precision
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    plain, trainer = (Trainer(config, folder / name, accelerator) for name in ("plain", "timed"))
    plain.fit()
    clock = Clock(device)
    instrument(trainer, clock)
    trainer.fit(lambda row: clock.seconds.clear() if row["epoch"] == 1 else None)
    found = summarise(trainer, clock, config)
    freely = sum(row["seconds"] for row in plain.history[1:]) / (plain.steps - plain.history[0]["step"])
    lines = [
        f"**A step of `{config.preset}`, `online`: {config.batch_size} videos x {trainer.loss.views} views x "
        f"{config.num_frames} frames, {config.precision}**",
        "",
        "| part | s | share |",
        "| --- | ---: | ---: |",
    ]
    lines += [_row(name, found["seconds"][name], found["step"]) for name in STEP]
    lines += [_row("**step**", found["step"], found["step"])]
    lines += [_row("step without clocks", freely, found["step"]), ""]
    rates = f"{found['frames'] / freely:,.0f} frames/s, {found['memory'] / 2**30:.1f} GiB at most; backbone "
    return "\n".join([*lines, f"{rates}{found['rate'] / found['peak']:.0%} of the measured peak."])


def _row(name: str, seconds: float, step: float) -> str:
    return f"| {name} | {seconds:.4f} | {seconds / step:.1%} |"


def video_table(config: Config, device: torch.device) -> str:
    """Returns Markdown of the times of a bank, embeddings and maps of all training videos."""
    records = mvf.data.find_config_videos(config, "train")
    model = mvf.build_model(config).to(device).eval()
    bank = build_bank(config, backbone_of(model), records)
    works: dict[str, Callable[[], Any]] = {
        f"bank, {config.bank_views} views": lambda: bank.ensure(records, config.bank_views),
        "embedding": lambda: mvf.embed(model, records, precision=config.precision, bank=False),
        "attention maps": lambda: [attention_maps(model, record) for record in records],
    }
    frames = sum(record.num_frames for record in records)
    lines = [f"**Videos: {len(records)} of {frames} frames in all**", "", "| work | s | frames of video/s |"]
    lines.append("| --- | ---: | ---: |")
    mvf.embed(model, records[:1], precision=config.precision, bank=False)  # warms up
    for name, work in works.items():
        clock = Clock(device)
        clock.timed(name, work)()
        lines.append(f"| {name} | {clock.seconds[name]:.2f} | {frames / clock.seconds[name]:,.0f} |")
    return "\n".join(lines)


def same_bits_table(device: torch.device, folder: Path) -> tuple[str, bool]:
    """Returns Markdown that compares runs of one seed, and whether all that have to be equal are."""
    lines = [
        "**Runs of one seed**",
        "",
        "| runs compared | switches | bits equal | largest difference of a loss | of a weight |",
        "| --- | --- | --- | --- | --- |",
    ]
    fine = True
    fixed = "deterministic algorithms"
    for number, mode in enumerate(("as it is", fixed) if device.type == "cuda" else ("as it is",)):
        one, two, killed = (folder / f"{name}{number}" for name in ("one", "two", "killed"))
        run(one, device.type, mode)
        run(two, device.type, mode)
        after = kill(killed, device.type, mode)
        run(killed, device.type, mode)
        for name, other in (("twice", two), (f"killed after epoch {after} and resumed, and never killed", killed)):
            text, equal = compare(one, other)
            lines.append(f"| {name} | {mode} | {text} |")
            fine &= equal or (device.type == "cuda" and mode != fixed)  # as it is, a GPU adds in any order
    return "\n".join(lines), fine


def kill(folder: Path, device: str, mode: str) -> int:
    """Trains, and kills the process when an epoch is stored; returns the number of the last stored one."""
    words, environment = command(device, mode, folder)
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    history = folder / "history.csv"
    while process.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 1):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(read_history(folder))


def show(text: str) -> None:
    """Prints a table at once, so that an interrupted benchmark has shown what it knows."""
    sys.stdout.write(f"{text}\n\n")
    sys.stdout.flush()


def main() -> int:
    """Prints all tables; returns 1 without a device, or if runs differ that have to be equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA GPU here: nothing to measure\n")
        return 1
    started, device = time.perf_counter(), torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    show(f"{name}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["MVF_CACHE"] = str(folder / "cache")  # an empty bank
        (folder / "videos").mkdir()
        make_videos(folder / "videos", *((QUICK_VIDEOS, QUICK_LENGTH) if options.quick else (VIDEOS, LENGTH)))
        settings = {"dataset": "folder", "data_root": str(folder / "videos"), "device": options.device, "epochs": 3}
        settings |= {"precision": resolve_compute("torch", "auto", device).precision, "backbone_weights": "random"}
        settings |= QUICK if options.quick else {}
        config = mvf.load_config("penn", **settings, features="online")
        show(backbone_table(config, device))
        show(step_table(config, device, folder / "step"))
        show(video_table(mvf.load_config("penn", **settings, features="banked"), device))
        text, fine = same_bits_table(device, folder)
        show(text)
    show(f"{(time.perf_counter() - started) / 60:.1f} min in all")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
