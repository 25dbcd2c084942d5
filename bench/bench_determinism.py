"""Measures how far two runs of the same seed diverge, on CPU and GPU, with and without deterministic kernels.

    python bench/bench_determinism.py                 (all available devices)
    python bench/bench_determinism.py --device cpu

On the CPU two runs with the same seed, machine, versions and number of threads are bitwise equal, which the test suite
checks. They are not across machines or numbers of threads, because sums are then taken in another order. On a GPU some
kernels add in the order in which threads finish (backward of gathers, scatters, interpolation and fused attention),
and cuDNN and cuBLAS may choose another algorithm by timing or workspace. Runs therefore diverge from the first steps
on, in the end as far as rounding errors grow. GPU and CPU always diverge, in bfloat16 sooner.

Two switches, at the cost of speed, prevent this: `cudnn.deterministic` fixes the choice of convolutions;
`torch.use_deterministic_algorithms(True)` with CUBLAS_WORKSPACE_CONFIG=:4096:8 allows only kernels that add in a fixed
order, and raises an error if there is none. Each row compares two fresh processes; "bits equal" means stored weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from mvf.training.run import read_history

MODES = {
    "as it is": "",
    "cudnn.deterministic": "torch.backends.cudnn.deterministic = True",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
}
SETTINGS = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_weights": "random",
    "image_size": 32,
    "layers": "2,4",
    "num_frames": 16,
    "epochs": 3,
    "bank_views": 2,
    "precision": "fp32",
    "data_options": {"train_videos": 8, "val_videos": 2, "actions": ["squat"], "height": 48, "width": 56},
}


def command(device: str, mode: str, folder: Path) -> tuple[list[str], dict[str, str] | None]:
    """Returns the words that train a run in `folder`, and their environment."""
    code = f"import torch, mvf\n{MODES[mode]}\n"
    code += f"mvf.train(mvf.load_config('synthetic', device={device!r}, **{SETTINGS!r}), {str(folder)!r})"
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if mode == "deterministic algorithms" else None
    return [sys.executable, "-c", code], environment


def run(folder: Path, device: str, mode: str) -> None:
    """Trains a run in a separate process."""
    words, environment = command(device, mode, folder)
    subprocess.run(words, check=True, env=environment, stderr=subprocess.DEVNULL)


def compare(a: Path, b: Path) -> tuple[str, bool]:
    """Compares two runs: text (bits equal, largest difference of a loss and a weight), and whether bits are equal."""
    losses = [[row["loss"] for row in read_history(folder)] for folder in (a, b)]
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    weights = max((first[name].double() - second[name].double()).abs().max().item() for name in first)
    equal = (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    return f"{'yes' if equal else 'no':3s} | {max(abs(x - y) for x, y in zip(*losses)):.1e} | {weights:.1e}", equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"])
    options = parser.parse_args()
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices = [options.device] if options.device else there
    if not set(devices) <= set(there):
        sys.stderr.write("no CUDA GPU here: nothing to measure\n")
        return 1
    sys.stdout.write(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n\n")
    sys.stdout.write("| runs compared | switches | bits equal | largest difference of a loss | of a weight |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- |\n")
    broken = False  # whether CPU runs differ
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MVF_CACHE"] = str(Path(folder, "cache"))
        for device in devices:
            for number, mode in enumerate(MODES if device == "cuda" else ["as it is"]):
                pair = [Path(folder, f"{device}{number}{twin}") for twin in "ab"]
                for path in pair:
                    run(path, device, mode)
                text, equal = compare(*pair)
                sys.stdout.write(f"| {device}, twice | {mode} | {text} |\n")
                broken |= device == "cpu" and not equal
        if len(devices) == 2:
            sys.stdout.write(
                f"| cpu and cuda | as it is | {compare(*(Path(folder, f'{d}0a') for d in devices))[0]} |\n"
            )
    if "cuda" not in there:
        sys.stdout.write("\nno GPU at hand: its rows are missing\n")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
