"""Embeds a long video in bounded memory: resident memory over time, speed, seams, and resuming after kill -9.

    python bench/bench_long.py                                            2 minutes of video, in about a minute
    python bench/bench_long.py --minutes 120 --features random            two hours of video in less than ten minutes
    python bench/bench_long.py --minutes 120 --model runs/synthetic-1     the whole model of a run, at its own speed

A synthetic clip is encoded once, repeated by copying its packets, and embedded in a separate process whose memory is
sampled. `--features random` replaces the backbone by a fixed random map of 8x8 averaged patches: decoding, resizing,
pooling, fusion, seams and files are real; only the backbone's time and meaning are missing.
Writes Markdown to stdout and progress to stderr.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mvf
from mvf.chunks import ChunkBoundary, Chunking, boundary_changes
from mvf.data.records import VideoRecord
from mvf.data.video import VideoFile
from mvf.models import build_model
from mvf.workbench.notebook.session import open_model

FPS, EVERY = 30, 0.25  # frames per second of the video; seconds between memory samples
LIMIT = 3072  # MiB


class RandomPatches(nn.Module):
    """A fixed random map of averaged pixel patches, with the interface of `mvf.models.backbone.Backbone`."""

    def __init__(self, image_size: int = 112, channels: int = 384) -> None:
        super().__init__()
        self.image_size, self.channels, self.cls_channels, self.layers = image_size, channels, None, (1,)
        self.timm_name = self.weights_sha256 = "random patches"
        generator = torch.Generator().manual_seed(0)
        self.map = nn.Parameter(torch.randn(3 * 4 * 4, channels, generator=generator), requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, None]:
        """(n, 3, S, S) -> (n, 64, channels)."""
        cells = F.unfold(F.adaptive_avg_pool2d(pixels, 32) - 0.5, 4, stride=4)  # (n, 48, 64)
        return cells.transpose(1, 2) @ self.map, None


def make_model(options: argparse.Namespace) -> mvf.MVFormer:
    """Opens the model of a run, or makes an untrained one of the default preset."""
    if options.model:
        return open_model(options.model)[0]
    config = mvf.load_config("synthetic")
    torch.manual_seed(0)
    return build_model(config, backbone=RandomPatches() if options.features == "random" else None).eval()


def make_video(path: Path, frames: int) -> Path:
    """Writes a video of `frames` frames, rounded up to whole clips, by repeating the packets of one encoded clip."""
    record = mvf.data.find_videos("synthetic", "val", val_videos=1)[0]
    clip = path.with_name("clip.mp4")
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(record.frames()):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    loops = -(-frames // record.num_frames)
    with av.open(str(path), "w") as container:
        for loop in range(loops):
            with av.open(str(clip)) as source:
                old = source.streams.video[0]
                if loop == 0:
                    new = container.add_stream_from_template(old)
                    step = round(record.num_frames / FPS / old.time_base)
                for packet in source.demux(old):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + loop * step, packet.dts + loop * step, new
                        container.mux(packet)
    return path


def work(options: argparse.Namespace) -> None:
    """Runs in the process that is measured."""
    record = VideoRecord(Path(options.work[0]).stem, "video", VideoFile(options.work[0]))
    mvf.embed(
        make_model(options), [record], out=options.work[1], precision=options.precision, **asdict(chunking(options))
    )


def chunking(options: argparse.Namespace) -> Chunking:
    return Chunking(options.chunk, options.overlap, options.fade, options.one_clock)


def start(options: argparse.Namespace, video: Path, out: Path) -> subprocess.Popen:
    own = [__file__, "--work", str(video), str(out), "--chunk", str(options.chunk), "--overlap", str(options.overlap)]
    own += ["--features", options.features, "--model", options.model, "--precision", options.precision]
    own += ["--fade" if options.fade else "--no-fade", "--one-clock" if options.one_clock else "--no-one-clock"]
    return subprocess.Popen([sys.executable, *own])


def memory(process: subprocess.Popen) -> tuple[float, float, float]:
    """Returns resident MiB, those not backed by a file, and the peak of resident MiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon", "VmHWM"))}
    return tuple(int(fields.get(name, 0)) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM"))


def watch(process: subprocess.Popen, out: Path) -> np.ndarray:
    """Samples (samples, 4) seconds and `memory` from the first written chunk until the process ends."""
    begun, samples = time.perf_counter(), []
    while process.poll() is None:
        samples.append((time.perf_counter() - begun, *memory(process)))
        if not any(out.glob(".*.progress.json")) and not any(out.glob("*.npy")):
            begun, samples = time.perf_counter(), []
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"embedding failed with status {process.returncode}")
    return np.array([sample for sample in samples if sample[1]])


def kill_and_resume(options: argparse.Namespace, folder: Path) -> tuple[int, bool]:
    """Returns the frames stored when the process was killed, and whether resuming gave bitwise equal results."""
    video = make_video(folder / "short.mp4", 4 * options.chunk)
    for name in ("undisturbed", "killed"):
        process = start(options, video, folder / name)
        while name == "killed" and process.poll() is None and not any((folder / name).glob(".*.progress.json")):
            time.sleep(0.02)
        if name == "killed" and process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    notes = [path.read_text() for path in (folder / "killed").glob(".*.progress.json")]
    kept = int(notes[0].split('"frames": ')[1].split(",")[0]) if notes else 0
    start(options, video, folder / "killed").wait()
    files = [next((folder / name).glob("*.npy")).read_bytes() for name in ("undisturbed", "killed")]
    return kept, files[0] == files[1]


def seam_rows(seams: list[ChunkBoundary], overlap: int) -> list[str]:
    """Formats the seams as Markdown."""
    low = [seam.jump / seam.ordinary for seam in seams]
    peak = [seam.peak / seam.ordinary_peak for seam in seams]
    apart = np.nanmean([s.disagreement for s in seams]) if overlap else np.nan
    jumps = [np.mean([getattr(s, name) for s in seams]) for name in ("jump", "ordinary", "peak", "ordinary_peak")]
    return [
        f"| seams | {len(seams)} |",
        f"| the two embeddings of a shared frame, mean distance | {apart:.4f} |",
        f"| change from frame to frame across seams / beside them, mean | {jumps[0]:.4f} / {jumps[1]:.4f} |",
        f"| largest change across a seam / beside it, mean over seams | {jumps[2]:.4f} / {jumps[3]:.4f} |",
        f"| mean change across / beside: median and largest over seams | {np.median(low):.2f}, {max(low):.2f} |",
        f"| largest change across / beside: median and largest over seams | {np.median(peak):.2f}, {max(peak):.2f} |",
    ]


def report(options: argparse.Namespace, folder: Path) -> tuple[list[str], bool]:
    """Runs everything; returns lines of Markdown, and whether memory and resuming meet the targets."""
    begun = time.perf_counter()
    video = make_video(folder / "long.mp4", int(options.minutes * 60 * FPS))
    made = time.perf_counter() - begun
    frames = VideoFile(video).count()
    counted = time.perf_counter() - begun - made
    samples = watch(start(options, video, folder / "out"), folder / "out")
    embeddings = np.load(next((folder / "out").glob("*.npy")), mmap_mode="r")
    late = samples[len(samples) // 2 :]
    rate = (frames - options.chunk) / samples[-1, 0]
    growth = [np.polyfit(late[:, 0], late[:, column], 1)[0] * late[-1, 0] for column in (1, 2)]
    kept, same = kill_and_resume(options, folder)
    notes = np.loadtxt(next((folder / "out").glob("*.seams.csv")), delimiter=",", skiprows=1, ndmin=2)
    seams = boundary_changes(embeddings, chunking(options), notes[:, 2])
    who = options.model or f"untrained model, features: {options.features}"
    peak = samples[:, 3].max()
    lines = [
        f"## Long video: {frames:,} frames ({frames / FPS / 60:.0f} minutes), {who}, chunk {options.chunk}, "
        f"overlap {options.overlap}{', faded' if options.fade else ''}, "
        f"{'one clock' if options.one_clock else 'a clock in every chunk'}, {torch.get_num_threads()} threads\n",
        *(["The backbone is replaced by a random map of patches (`--features random`).\n"] * (not options.model)
          * (options.features == "random")),
        "| what | measured |",
        "| --- | --- |",
        f"| making the video by copying packets | {made:.0f} s, {video.stat().st_size / 2**20:.0f} MiB |",
        f"| counting its frames (once, remembered) | {counted:.0f} s |",
        f"| embedding | {samples[-1, 0]:.0f} s, {rate:.0f} frames/s, from the first chunk on |",
        f"| peak resident memory (target below {LIMIT} MiB), from the start | {peak:.0f} MiB |",
        f"| growth over a run as long as this, line through its second half | {growth[0]:+.1f} MiB resident, "
        f"{growth[1]:+.1f} MiB of it not file pages |",
        *seam_rows(seams, options.overlap),
        f"| killed with {kept} frames kept, then gone on with: equal to the bit | {'yes' if same else 'NO'} |",
    ]  # fmt: skip
    return lines, same and peak < LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--features", choices=("backbone", "random"), default="random")
    parser.add_argument("--model", default="", help="run folder")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--chunk", type=int, default=1000)
    parser.add_argument("--overlap", type=int, default=200)
    parser.add_argument("--fade", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--one-clock", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--work", nargs=2, metavar=("VIDEO", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        lines, met = report(options, Path(folder))
    sys.stdout.write("\n".join(lines) + "\n")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
