"""Measures the rates of this machine on which figures/sizes.md is based; writes figures/rates.toml.

    python bench/rates.py            (about four minutes, alone on the machine)
    python bench/rates.py --quick    (under a minute; into a temporary file unless --out is given)

The rates are frames per second of the frozen backbones (random weights, fused attention, all cores), frames per second
of the video decoder on one core (a synthetic clip of 320 x 240, H.264), and bytes per second read from the disk of the
banks, with its cache dropped before. Each has the load average; above 0.5 other processes were running.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import av
import timm
import torch

from mvf.data import find_videos
from mvf.data.video import VideoFile
from mvf.device import autocast
from mvf.files import atomic, cache_folder
from mvf.models.backbone import Backbone

FIGURES = Path(__file__).resolve().parents[1] / "figures"
BACKBONES = {"vits14_112": ("dinov2_vits14", 112), "vitb8_224": ("dino_vitb8", 224)}
BLOCK = 2**24


def per_second(count: int, work: Callable[[], object], seconds: float) -> float:
    """Returns the best rate of repeated timings for `seconds`, without the first."""
    work()
    times: list[float] = []
    while sum(times) < seconds or not times:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return count / min(times)


@torch.inference_mode()
def backbone_rate(name: str, size: int, precision: str, seconds: float) -> float:
    """Measures frames per second of a frozen backbone."""
    backbone = Backbone(name, "random", size, (12,)).eval()
    frames = torch.rand(8 if size < 200 else 2, 3, size, size)

    def work() -> None:
        with autocast(precision, torch.device("cpu")):
            backbone(frames)

    return per_second(len(frames), work, seconds)


def decode_rate(seconds: float) -> float:
    """Measures frames per second of decoding a clip of 320 x 240 on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        record = find_videos("synthetic", "val", train_videos=6, val_videos=2, width=320, height=240)[0]
        frames = record.load()
        path = Path(folder, "clip.mp4")
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=30, options={"crf": "23"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
        return per_second(len(frames), lambda: sum(1 for _ in VideoFile(path).frames()), seconds)


def read_rate(gigabytes: float) -> float:
    """Measures megabytes per second of sequential reads from the disk of the banks."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(int(gigabytes * 1e9 / BLOCK)):
            file.write(os.urandom(BLOCK))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size, started = file.seek(0), time.perf_counter()
        while block := file.read(BLOCK):
            size += len(block)
        return size / 1e6 / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = 1.0 if options.quick else 20.0
    out = options.out or (Path(tempfile.mkdtemp()) if options.quick else FIGURES) / "rates.toml"
    measures: dict[str, tuple[str, Callable[[], float]]] = {
        f"backbone_{key}_{precision}": ("frames", lambda a=arguments, p=precision: backbone_rate(*a, p, seconds))
        for key, arguments in BACKBONES.items()
        for precision in ("fp32", "bf16")
    }
    measures["decode_320x240"] = ("frames", lambda: decode_rate(seconds))
    measures["disk_read"] = ("MB", lambda: read_rate(0.2 if options.quick else 4.0))
    common = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": f"torch {torch.__version__}, timm {timm.__version__}, av {av.__version__}",
        "date": date.today().isoformat(),
        "command": "python bench/rates.py" + (" --quick" if options.quick else ""),
    }
    text = ["# Written by bench/rates.py; read by python -m mvf sizes.\n"]
    load = os.getloadavg()[0]  # of other processes: measured before this program adds its own
    for name, (unit, measure) in measures.items():
        rate = measure()
        sys.stdout.write(f"{name:26s} {rate:10.2f} {unit}/s\n")
        values = {"per_second": round(rate, 4), "unit": unit, "load": round(load, 2), **common}
        lines = [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()
        ]
        text.append("\n".join([f"[{name}]", *lines]) + "\n")
    with atomic(out) as path:
        path.write_text("\n".join(text))
    sys.stdout.write(f"{out} (load before: {load:.1f})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
