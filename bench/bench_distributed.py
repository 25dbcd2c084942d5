"""Compares the loss curves of two processes and one with the same global batch, in float64 and float32.

    python bench/bench_distributed.py

Every objective below is trained for 20 steps by one process and by two (gloo, CPU), with the same seed, dropout 0, the
package's own trainer and a small bank. For float64 the objective, every clip and all of the model except its frozen
backbone are converted before they are wrapped. All curves of two processes are computed one after another in the same
two processes. Fails if a float64 curve differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from accelerate import Accelerator
from torch import nn

from mvf import models
from mvf.config import load_config
from mvf.device import is_main_process
from mvf.files import atomic
from mvf.losses import build_config_loss
from mvf.training import trainer as trainer_module

TOLERANCE = 1e-5
CASES = {
    "scl single_noself": {},
    "scl batch_noself": {"objective_options": {"negatives": "batch_noself"}},
    "scl, overlap penalty": {"overlap_penalty": 2.0},
    "scl, velocity": {"velocity": True},
    "sal": {"objective": "sal"},
    "tcn": {"objective": "tcn"},
    "tcc": {"objective": "tcc"},
    "lav": {"objective": "lav"},
    "gta": {"objective": "gta"},
    "vava": {"objective": "vava"},
    "lrprop": {"objective": "lrprop"},
    "vsp": {"objective": "vsp"},
    "vsp_p": {"objective": "vsp_p"},
    "vsp_f": {"objective": "vsp_f"},
    "scl+0.1*lav": {"objective": "scl+0.1*lav"},
}
SMALL = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_weights": "random",
    "image_size": 32,
    "layers": "2,4",
    "entity_width": 16,
    "token_width": 16,
    "fusion_width": 16,
    "fusion_heads": 2,
    "fusion_feedforward": 16,
    "fusion_blocks": 1,
    "embedding_size": 8,
    "projection_width": 8,
    "num_frames": 8,
    "batch_size": 4,
    "dropout": 0.0,
    "features": "banked",  # rendering the videos again would take longer than everything else
    "bank_views": 2,
    "precision": "fp32",
    "device": "cpu",
    "learning_rate": 1e-3,
    "epochs": 100,
    "data_options": {
        "train_videos": 8,
        "val_videos": 2,
        "actions": ["squat", "jumping_jacks"],
        "idle": 4,
        "repeats": 1,
        "height": 48,
        "width": 56,
        "bystanders": 0,
    },
}


def loss_curve(case: str, dtype: torch.dtype, steps: int, folder: Path) -> list[float]:
    """Returns the losses of the first steps of a run with all processes."""
    config = load_config("synthetic", **{**SMALL, **CASES[case]})
    with mock.patch.multiple(trainer_module, **_converted(dtype)):
        trainer = trainer_module.Trainer(config, folder, Accelerator(cpu=True, mixed_precision="no"))
    trainer.step.train()
    batches = trainer._batches(trainer._dataset())
    losses = []
    for _ in range(steps):
        plan, clip = next(batches)
        clip = clip.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
        losses.append(trainer._update(plan, clip)[0])
    return losses


def _converted(dtype: torch.dtype) -> dict[str, Callable[..., nn.Module]]:
    """Returns builders of the model and the objective in `dtype`; the backbone, which makes the bank, is kept."""

    def build_model(*arguments, **options) -> nn.Module:
        model = models.build_model(*arguments, **options)
        for name, part in model.named_children():
            part.to(torch.float32 if name == "backbone" else dtype)
        return model

    return {"build_model": build_model, "build_config_loss": lambda config: build_config_loss(config).to(dtype)}


def work(cases: list[str], dtypes: list[str], steps: int, out: Path) -> None:
    """Computes all curves in this process and its group; the main process writes them."""
    curves = {
        case: {dtype: loss_curve(case, getattr(torch, dtype), steps, out.parent / "none") for dtype in dtypes}
        for case in cases
    }
    if is_main_process():
        with atomic(out) as path:
            path.write_text(json.dumps(curves))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(processes: int, options: argparse.Namespace, out: Path) -> dict[str, dict[str, list[float]]]:
    """Computes the curves of `processes` processes, started by torchrun."""
    command = [__file__, "--work", str(out), "--steps", str(options.steps)]
    command += ["--cases", *options.cases, "--dtypes", *options.dtypes]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run([*launcher, *command], check=True, env=os.environ | {"MVF_CACHE": str(out.parent / "cache")})
    return json.loads(out.read_text())


def parting(one: list[float], two: list[float]) -> float:
    """Largest difference between two curves."""
    return max(abs(a - b) if math.isfinite(a + b) else math.inf for a, b in zip(one, two, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE")
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the curves of one and of two processes here")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.cases, options.dtypes, options.steps, options.work)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        one, two = (run(count, options, Path(folder, f"{count}.json")) for count in (1, 2))
    if options.json:
        options.json.write_text(json.dumps({"one": one, "two": two}))
    sys.stdout.write(f"| objective | first and last loss | {' | '.join(options.dtypes)} |\n")
    sys.stdout.write(f"| --- | --- |{' --- |' * len(options.dtypes)}\n")
    worst = 0.0
    for case in options.cases:
        apart = {dtype: parting(one[case][dtype], two[case][dtype]) for dtype in options.dtypes}
        worst = max(worst, apart.get("float64", 0.0))
        first, *_, last = one[case][options.dtypes[0]]
        cells = " | ".join(f"{value:.1e}" for value in apart.values())
        sys.stdout.write(f"| {case} | {first:.4f}, {last:.4f} | {cells} |\n")
    sys.stdout.write(f"largest difference of a loss over {options.steps} steps; float64 must stay below {TOLERANCE}\n")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
