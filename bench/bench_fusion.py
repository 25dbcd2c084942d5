"""Time and memory of the fusion, forward and backward, with and without merged tokens.

    python bench/bench_fusion.py [--merge 0.5] [--quick] [--memory 6]

Multi-entity Temporal Fusion of the paper's size (three blocks of width 256, dropout as in training) on clips of 80 to
2,000 frames with 1 to 6 entities: batches of 4, as in training, up to 500 frames, single clips above. Every setting is
measured in a fresh process, with the fastest of a few steps. Memory is the growth of the process beyond tokens and
weights. A setting whose estimate exceeds `--memory` (GiB) is skipped, and the table says so. Prints Markdown; exits
with 1 if 240 frames of 6 entities are not at least twice as fast when merged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import product

import torch
from bench_lstp import peak_bytes

from mvf.models.fusion import MultiEntityTemporalFusion
from mvf.workbench.plotting import Table

FRAMES, ENTITIES = (80, 160, 240, 500, 1000, 2000), (1, 3, 6)
QUICK = ((80, 1), (80, 6), (240, 6))
TARGET, TIMES = (240, 6), 2.0
LONGEST_OF_TRAINING, BATCH = 500, 4
REPEATS, SECONDS = 5, 20.0  # maximum number of steps, and seconds after which no further step starts
WIDTH, BLOCKS, FEEDFORWARD = 256, 3, 1024


def batch_of(frames: int) -> int:
    """Number of clips per batch."""
    return BATCH if frames <= LONGEST_OF_TRAINING else 1


def expected_gib(frames: int, entities: int, share: float) -> float:
    """Estimates a step's GiB for backward: about 16 rows of the width and 3 of the feed-forward per token and block."""
    tokens = batch_of(frames) * frames * entities * (1 - share)
    return 4 * tokens * BLOCKS * (16 * WIDTH + 3 * FEEDFORWARD) / 2**30


def step(fusion: MultiEntityTemporalFusion, tokens: torch.Tensor, valid: torch.Tensor) -> tuple[float, float]:
    """Measures the seconds of one forward and one backward."""
    fusion.zero_grad()
    started = time.perf_counter()
    out = fusion(tokens, valid).square().mean()
    forward = time.perf_counter() - started
    out.backward()
    return forward, time.perf_counter() - started - forward


def measure(frames: int, entities: int, share: float) -> dict[str, float]:
    """Measures the seconds of the fastest step and the extra bytes in this process."""
    torch.manual_seed(0)
    fusion = MultiEntityTemporalFusion(WIDTH, BLOCKS, 8, FEEDFORWARD, num_frames=frames, token_merge=share)
    batch = batch_of(frames)
    tokens = torch.randn(batch, frames, entities, WIDTH).cumsum_(1).requires_grad_()  # neighbouring frames are similar
    valid = torch.ones(batch, frames, dtype=torch.bool)
    step(fusion, tokens[:1, :8], valid[:1, :8])  # libraries allocate their own memory on first use
    before, started, found = peak_bytes(), time.perf_counter(), []
    while len(found) < REPEATS and (not found or time.perf_counter() - started < SECONDS):
        found.append(step(fusion, tokens, valid))
    forward, backward = min(found, key=sum)
    return {"forward": forward, "backward": backward, "bytes": peak_bytes() - before}


def measure_apart(frames: int, entities: int, share: float, bound: float) -> dict[str, float] | None:
    """Runs `measure` in a fresh process; returns None if it would take more than `bound` GiB."""
    if expected_gib(frames, entities, share) > bound:
        return None
    command = [sys.executable, __file__, "--only", str(frames), str(entities), str(share)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def cells(found: dict[str, float] | None) -> tuple[str, str, str]:
    """Formats forward, backward and memory."""
    if found is None:
        return ("skipped",) * 3
    return f"{found['forward']:.3f}", f"{found['backward']:.3f}", f"{found['bytes'] / 2**20:.0f}"


def times_faster(off: dict[str, float] | None, on: dict[str, float] | None) -> float | None:
    """Speed-up of forward and backward together."""
    if off is None or on is None:
        return None
    return (off["forward"] + off["backward"]) / (on["forward"] + on["backward"])


def main(options: argparse.Namespace) -> int:
    """Prints the table; returns 1 if the target is missed."""
    rows, faster = [], {}
    for setting in QUICK if options.quick else product(FRAMES, ENTITIES):
        off, on = (measure_apart(*setting, share, options.memory) for share in (0.0, options.merge))
        ratio = faster[setting] = times_faster(off, on)
        shown = "–" if ratio is None else f"{ratio:.2f}"
        rows.append((*map(str, setting), str(batch_of(setting[0])), *cells(off), *cells(on), shown))
        sys.stderr.write(f"{len(rows)}: {setting[0]} frames, {setting[1]} entities\n")
    names = ("forward, s", "backward, s", "extra MiB")
    columns = ("frames", "entities", "batch", *names, *(f"merged: {name}" for name in names), "times faster")
    notes = (f"Skipped: expected to take more than {options.memory:g} GiB.",) if None in faster.values() else ()
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    caption = f"Fusion of width {WIDTH}, {BLOCKS} blocks, float32, {threads}; merged: token_merge = {options.merge:g}"
    print(Table(tuple(rows), columns, caption, notes))
    met = (faster[TARGET] or 0) >= TIMES
    reached = "skipped" if faster[TARGET] is None else f"{faster[TARGET]:.2f} times"
    print("\nTarget, {} frames, {} entities:".format(*TARGET), f"forward and backward at least {TIMES:g} times faster.")
    print(f"Measured: {reached}. {'Met.' if met else 'MISSED.'}")
    return 0 if met else 1


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merge", type=float, default=0.5, help="token_merge of the merged runs")
    parser.add_argument("--memory", type=float, default=6.0, help="GiB above which a setting is skipped")
    parser.add_argument("--quick", action="store_true", help="three settings only")
    parser.add_argument("--only", nargs=3, metavar=("FRAMES", "ENTITIES", "SHARE"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    if options.only:
        print(json.dumps(measure(int(options.only[0]), int(options.only[1]), float(options.only[2]))))
    else:
        sys.exit(main(options))
