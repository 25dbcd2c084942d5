"""Compares what can compute a frozen backbone on a CPU: torch, onnxruntime and OpenVINO, in float32 and bfloat16.

    python bench/bench_engine.py                    (about six minutes on two cores, alone on the machine)
    python bench/bench_engine.py --quick            (ViT-S/14 at 112 pixels alone)
    python bench/bench_engine.py --difference ../shared/real/clips      (real weights on 64 real frames)
    python bench/bench_engine.py --commands         (whole commands with torch float32 and with `auto`; 15 minutes)

Everything that is compared takes turns in one run. The share of the peak is the rate of the backbone's operations
divided by that of a large matrix product in the same precision, measured in between. onnxruntime is measured where it
is installed. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from bench_training import make_videos

import mvf
from mvf.cost import backbone_operations
from mvf.data.augment import evaluation_view
from mvf.device import DTYPES, autocast
from mvf.files import cache_folder
from mvf.models import engine
from mvf.models.backbone import Backbone
from mvf.models.engine import Compute

NETWORKS = {"ViT-S/14 at 112": ("dinov2_vits14", 112), "ViT-S/14 at 224": ("dinov2_vits14", 224),
            "ViT-B/8 at 224": ("dino_vitb8", 224)}  # fmt: skip
LAYERS, BATCH, SECONDS, SIZE = (4, 8, 12), 16, 20.0, 1536
FASTER = {"fp32": 1.3, "bf16": 2.0}  # than torch float32, for the first network
DIFFERENCE, OF_AUTOCAST = 1e-4, 1.3  # float32: norm over norm; bf16: times that of torch's autocast
WHOLE = 1.6  # whole commands, where the processor has bf16
CPU = torch.device("cpu")


def variants(backbone: Backbone) -> dict[str, Callable[[torch.Tensor], object]]:
    """Everything that computes the features here, by name."""
    found: dict[str, Callable[[torch.Tensor], object]] = {}
    pairs = [Compute("torch", p) for p in ("fp32", "bf16")]
    pairs += [Compute("openvino", p) for p in engine.openvino_precisions()]
    for compute in pairs:
        found[f"{compute.engine} {compute.precision}"] = lambda frames, c=compute: features(backbone, frames, c)
    if find_spec("onnxruntime"):
        found["onnxruntime fp32"] = by_onnxruntime(backbone)
    return found


@torch.inference_mode()
def features(backbone: Backbone, frames: torch.Tensor, compute: Compute) -> list[torch.Tensor]:
    """Patches of each layer."""
    backbone.engine = compute.engine
    with autocast(compute.precision, CPU):
        return backbone.intermediates(frames, LAYERS)[0]


def by_onnxruntime(backbone: Backbone) -> Callable[[torch.Tensor], object]:
    import onnxruntime

    size, file = backbone.image_size, io.BytesIO()
    outputs = engine.AllOutputs(backbone.at_fixed_size(size))
    torch.onnx.export(outputs, (torch.rand(2, 3, size, size),), file, dynamo=False, input_names=["x"],
                      output_names=outputs.names, dynamic_axes={"x": {0: "n"}})  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    wanted, at_once = [f"patches{layer}" for layer in LAYERS], max(1, 16 * 112**2 // size**2)
    return lambda frames: [session.run(wanted, {"x": part.numpy()}) for part in frames.split(at_once)]


def interleaved(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median seconds of each, after one call that warms up; they take turns, at least three, for `seconds` each."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    while min(map(len, found.values())) < 3 or sum(map(sum, found.values())) < seconds * len(runs):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in found.items()}


def product(precision: str) -> Callable[[], object]:
    left, right = (torch.randn(SIZE, SIZE, dtype=DTYPES[precision]) for _ in range(2))
    return lambda: left @ right


def compare_networks(names: Sequence[str]) -> list[str]:
    """Prints a table of times and returns the targets that were missed."""
    missed, notes = [], []
    print("| network | engine | ms a frame | times torch fp32 | share of the peak |\n| --- | --- | --: | --: | --: |")
    for label in names:
        name, size = NETWORKS[label]
        backbone = Backbone(name, "random", size, LAYERS)
        backbone.use_engine("openvino")
        operations = backbone_operations(Backbone(name, "random", size, LAYERS).to("meta"))
        frames = torch.rand(BATCH if size < 200 else 4, 3, size, size)
        runs: dict[str, Callable[[], object]] = {what: partial(run, frames) for what, run in variants(backbone).items()}
        runs |= {f"product {precision}": product(precision) for precision in ("fp32", "bf16")}
        found = interleaved(runs, SECONDS / 4 if label.startswith("ViT-S/14 at 112") else SECONDS)
        peaks = {precision: 2 * SIZE**3 / found.pop(f"product {precision}") for precision in ("fp32", "bf16")}
        base = found["torch fp32"]
        for what, seconds in found.items():
            share = operations * len(frames) / seconds / peaks[what.split()[1]]
            print(f"| {label} | {what} | {1000 * seconds / len(frames):.1f} | {base / seconds:.2f} | {share:.0%} |")
        chosen = engine.resolve_compute("auto", "auto", CPU)
        taken = found[f"{chosen.engine} {chosen.precision}"]
        print(f"| {label} | `auto` takes {chosen.engine} {chosen.precision} | {1000 * taken / len(frames):.1f} | | |")
        if taken > 1.1 * min(found.values()):
            missed.append(f"{label}: auto takes {taken / min(found.values()):.2f} times the best")
        wanted = FASTER["bf16" if "bf16" in engine.openvino_precisions() else "fp32"]
        if label == next(iter(NETWORKS)) and base / taken < wanted:
            missed.append(f"{label}: {base / taken:.2f} times faster, wanted {wanted}")
        rates = ", ".join(f"{precision} {peak / 1e9:.0f}" for precision, peak in peaks.items())
        notes.append(f"{label}: products of {SIZE} x {SIZE} matrices, GFLOP/s: {rates}")
    print("\n" + "\n".join(notes))
    return missed


def compare_numbers(clips: Path) -> list[str]:
    """Prints the relative differences per layer on 64 real frames and returns the targets that were missed."""
    records = [record for split in ("train", "val") for record in mvf.data.find_videos("folder", split, clips)]
    each = 64 // len(records)
    pictures = [
        torch.from_numpy(np.stack([*r.frames_at(np.linspace(0, r.num_frames - 1, each).astype(int).tolist())]))
        for r in records
    ]
    frames = torch.cat([evaluation_view(part.permute(0, 3, 1, 2), 112) for part in pictures])
    backbone = Backbone("dinov2_vits14", "", 112, LAYERS)
    backbone.use_engine("openvino")
    exact, worst = features(backbone, frames, Compute("torch", "fp32")), {}
    print(
        f"| {len(frames)} frames, {backbone.weights_source} weights | "
        + " | ".join(f"layer {n}" for n in LAYERS)
        + " |"
    )
    print("| --- |" + " --: |" * len(LAYERS))
    for compute in [Compute("torch", "bf16"), *(Compute("openvino", p) for p in engine.openvino_precisions())]:
        apart = [float((a.float() - b).norm() / b.norm()) for a, b in zip(features(backbone, frames, compute), exact)]
        print(f"| {compute.engine} {compute.precision} | " + " | ".join(f"{value:.1e}" for value in apart) + " |")
        worst[compute] = apart
    missed = [
        f"float32 differs by {max(a):.1e}" for c, a in worst.items() if c.precision == "fp32" and max(a) > DIFFERENCE
    ]
    if Compute("openvino", "bf16") in worst:
        pairs = zip(worst[Compute("openvino", "bf16")], worst[Compute("torch", "bf16")])
        missed += [f"bf16 differs {a / b:.2f} times as much as autocast" for a, b in pairs if a > OF_AUTOCAST * b]
    return missed


BANK = """
import mvf
from mvf.bank import build_bank
config = mvf.load_config("demo", features="banked")
records = mvf.data.find_config_videos(config, "train")
build_bank(config, mvf.build_model(config).backbone, records).ensure(records, config.bank_views)
"""


def compare_commands(repeats: int) -> list[str]:
    """Times whole commands with torch float32 and with `auto`, in turns; prints a table, returns targets missed."""
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        make_videos(Path(work, "videos"), 10, 125)  # 1,000 frames of 8 videos, and 2 for validation
        settings = {"torch fp32": {"MVF_ENGINE": "torch", "MVF_PRECISION": "fp32"}, "auto": {}}
        for repeat in range(repeats):
            for name in list(settings)[:: 1 if repeat % 2 == 0 else -1]:
                for command, seconds in run_commands(
                    Path(work, f"{name}-{repeat}"), Path(work, "videos"), settings[name]
                ):
                    found.setdefault(command, {}).setdefault(name, []).append(seconds)
    print("| command | torch fp32, s | auto, s | times faster |\n| --- | --: | --: | --: |")
    missed = []
    for command, times in found.items():
        before, after = (statistics.mean(times[name]) for name in ("torch fp32", "auto"))
        print(f"| {command} | {before:.1f} | {after:.1f} | {before / after:.2f} |")
        if "bf16" in engine.openvino_precisions() and before / after < WHOLE:
            missed.append(f"{command}: {before / after:.2f} times faster, wanted {WHOLE}")
    return missed


def run_commands(folder: Path, videos: Path, settings: dict[str, str]) -> list[tuple[str, float]]:
    """Seconds of each command, with an empty cache but for the weights, the export and what `auto` measured."""
    cache, run = folder / "cache", folder / "run"
    cache.mkdir(parents=True)
    for kept in ("weights", "engines"):
        (cache / kept).symlink_to(cache_folder() / kept)
    shell = [sys.executable, "-m", "mvf"]
    commands = {
        "bank of `demo`": [sys.executable, "-c", BANK],
        "`mvf train demo` with its report": [*shell, "train", "demo", "--run-dir", str(run)],
        "`mvf evaluate` with controls": [*shell, "evaluate", str(run), "--out", str(folder / "again.json")],
        "`mvf embed`, 1,250 frames": [*shell, "embed", str(run), str(videos), "--out", str(folder / "out.npz")],
    }
    found = []
    for name, command in commands.items():
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"MVF_CACHE": str(cache)} | settings)
        found.append((name, time.perf_counter() - started))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--difference", type=Path, metavar="CLIPS")
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    engine.measured_rates()
    if options.commands:
        missed = compare_commands(options.repeats)
    elif options.difference:
        missed = compare_numbers(options.difference)
    else:
        missed = compare_networks(list(NETWORKS)[:1] if options.quick else list(NETWORKS))
    for miss in missed:
        print(f"MISSED: {miss}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
