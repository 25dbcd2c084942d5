"""Times every objective, forward and backward, at the size of a training step.

    python bench/bench_losses.py

The input is 4 videos of one action, 80 frames of 128 channels (two views if the objective compares views), on two
threads. The fastest of five repeats counts.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from mvf.clip import Clip
from mvf.losses import OBJECTIVES, build_loss

VIDEOS, FRAMES, WIDTH, REPEATS = 4, 80, 128, 5
TARGET = 0.5  # seconds


def example(loss: nn.Module) -> tuple[torch.Tensor, Clip]:
    """Makes unit-norm embeddings with gradient, and a clip with actions, phases and padding in one video."""
    generator = torch.Generator().manual_seed(0)
    shape = (VIDEOS, loss.views, FRAMES)
    z = F.normalize(torch.randn(*shape, WIDTH, generator=generator), dim=-1).requires_grad_()
    valid = torch.ones(shape, dtype=torch.bool)
    valid[-1, :, -FRAMES // 4 :] = False
    clip = Clip(
        frame_index=2 * torch.arange(FRAMES).expand(shape),
        num_frames=torch.full((VIDEOS,), 2 * FRAMES),
        valid=valid,
        phase=(torch.arange(FRAMES) // (FRAMES // 4)).expand(shape),
        action=torch.zeros(VIDEOS, dtype=torch.long),
    )
    return z, clip


def seconds(name: str) -> float:
    """Measures one forward and backward, the fastest of several."""
    loss = build_loss(name, embedding_size=WIDTH)
    z, clip = example(loss)
    times = []
    for _ in range(REPEATS + 1):  # the first repeat warms up
        started = time.perf_counter()
        loss(z, clip, generator=torch.Generator().manual_seed(1)).backward()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def main() -> int:
    torch.set_num_threads(2)
    times = {name: seconds(name) for name in OBJECTIVES}
    for name, value in times.items():
        sys.stdout.write(f"{name:8s} {1000 * value:7.1f} ms   {'ok' if value <= TARGET else 'TOO SLOW'}\n")
    sys.stdout.write(f"target: at most {1000 * TARGET:.0f} ms each\n")
    return int(max(times.values()) > TARGET)


if __name__ == "__main__":
    sys.exit(main())
