"""Compares LSTP's cheap form with the plain form: equality, time and extra memory, forward and backward.

    python bench/bench_lstp.py

The input is one clip of the paper's size: 80 frames of 784 patches with 2304 channels, three queries of width 384. Time
and memory are measured in a fresh process for each form. Extra memory is the growth of the process beyond the patches:
its peak resident size during forward and backward minus the peak before.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor, nn

from mvf.models.lstp import LearnableSpatialTokenPooling

FRAMES, PATCHES, CHANNELS, WIDTH, ENTITIES = 80, 784, 2304, 384, 3
TARGETS = {"float32": 1e-5, "float64": 1e-10, "speed": 8.0, "memory": 0.1}
REPEATS = {"cheap": 10, "plain": 2}  # number of repeats; the fastest counts


class PlainSpatialTokenPooling(nn.Module):
    """Cross-attention as in the paper, with a key and a value for every patch."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(ENTITIES, WIDTH))
        self.key, self.value = nn.Linear(CHANNELS, WIDTH), nn.Linear(CHANNELS, WIDTH)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """patches (B, T, P, C) -> entities (B, T, N, D), attention (B, T, N, P)."""
        keys, values = self.key(patches), self.value(patches)
        attention = (self.query @ keys.transpose(-1, -2) * WIDTH**-0.5).softmax(-1)
        return attention @ values, attention


def make(form: str) -> nn.Module:
    """Makes either form with the same weights."""
    torch.manual_seed(0)
    cheap = LearnableSpatialTokenPooling(CHANNELS, WIDTH, ENTITIES)
    if form == "cheap":
        return cheap
    plain = PlainSpatialTokenPooling()
    plain.load_state_dict(cheap.state_dict(), strict=False)
    return plain


def draw(frames: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draws random patches (1, frames, P, C) in place."""
    generator = torch.Generator().manual_seed(1)
    return torch.empty(1, frames, PATCHES, CHANNELS, dtype=dtype).normal_(generator=generator)


def step(module: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Runs one forward and backward."""
    module.zero_grad()
    entities, attention = module(patches)
    (entities.square().sum() + attention.square().sum()).backward()
    return entities.detach(), attention.detach()


def largest_error(dtype: torch.dtype) -> float:
    """Largest relative error (by norm) of entities, attention and gradients between the forms."""
    patches, forms = draw(FRAMES, dtype), [make(form).to(dtype) for form in ("cheap", "plain")]
    results = []
    for form in forms:
        entities, attention = step(form, patches)
        gradients = [form.get_parameter(name).grad for name, _ in forms[0].named_parameters()]
        results.append([entities, attention, *gradients])
    return max(((found - wanted).norm() / wanted.norm()).item() for found, wanted in zip(*results))


def measure(form: str) -> dict[str, float]:
    """Measures the seconds of a step (the fastest of a few) and the extra bytes in this process."""
    patches, module = draw(FRAMES), make(form)
    step(module, patches[:, :1, :64])  # libraries allocate their own memory on first use
    before = peak_bytes()
    step(module, patches)
    extra, seconds = peak_bytes() - before, []
    for _ in range(REPEATS[form]):
        start = time.perf_counter()
        step(module, patches)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "bytes": extra}


def peak_bytes() -> int:
    """Peak resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_apart(form: str) -> dict[str, float]:
    """Runs `measure` in a fresh process."""
    found = subprocess.run([sys.executable, __file__, form], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def main() -> int:
    """Prints the table; returns 1 if a target is missed."""
    plain, cheap = measure_apart("plain"), measure_apart("cheap")
    speed, memory = plain["seconds"] / cheap["seconds"], cheap["bytes"] / plain["bytes"]
    errors = {name: largest_error(getattr(torch, name)) for name in ("float32", "float64")}
    rows = [("", "plain", "cheap", "ratio", "target")]
    rows += [("seconds", f"{plain['seconds']:.3f}", f"{cheap['seconds']:.3f}", f"{speed:.1f} x", "at least 8 x")]
    megabytes = [f"{form['bytes'] / 2**20:.1f}" for form in (plain, cheap)]
    rows += [("extra memory, MiB", *megabytes, f"{memory:.4f}", "at most 0.1")]
    rows += [
        (f"error, {name}", "", "", f"{error:.1e}", f"at most {TARGETS[name]:.0e}") for name, error in errors.items()
    ]
    print(f"LSTP, {FRAMES} frames x {PATCHES} patches x {CHANNELS} channels, forward and backward,")
    print(f"{torch.get_num_threads()} threads, patches of {draw(1).nbytes * FRAMES / 2**20:.0f} MiB")
    for row in rows:
        print("{:<20}{:>10}{:>10}{:>12}   {}".format(*row))
    met = [speed >= TARGETS["speed"], memory <= TARGETS["memory"], *(e <= TARGETS[n] for n, e in errors.items())]
    return 0 if all(met) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        sys.exit(main())
