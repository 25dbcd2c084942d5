"""Runs benchmarks and writes their results to figures/benchmarks.md, with machine, versions, date and command.

    python bench/page.py                  those of `make bench` (about fifteen minutes on two cores)
    python bench/page.py --list           lists all benchmarks, with their duration
    python bench/page.py bank long        runs these
    python bench/page.py --quick training fusion      runs these at a small size and only prints

A benchmark replaces its own section when it ends, so sections may have different dates. The text before the first
section is written by hand and kept. A benchmark that fails or misses a target is marked in its section and by the exit
status. Timings mean little on a machine that does other work, so the load of other processes is noted.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from mvf.files import atomic

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "figures" / "benchmarks.md"
ALONE, LISTEN = 0.1, 2.0  # share of busy processors that means other work; seconds of measuring it
PACKAGES = ("torch", "torchvision", "timm", "openvino", "av", "numpy")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, which makes one section of the page.

    Attributes:
        title: Title of the section.
        command: Script in this folder and its options.
        takes: Approximate duration on two cores.
        always: Whether `make bench` runs it.
        quick: Options of a small run; None if it is always short.
    """

    title: str
    command: str
    takes: str
    always: bool = True
    quick: str | None = None


DRAWN = (
    '--out runs/bank -p data_options \'{"train_videos": 24, "val_videos": 24}\' '
    "-p epochs 20 -p localization false -p precision fp32"
)
# in the order of the page
BENCHMARKS = {
    "training": Benchmark("A training step", "bench_training.py", "3 min", quick="--quick"),
    "engines": Benchmark("Engines: the frozen backbone on a CPU", "bench_engine.py", "6 min", quick="--quick"),
    "engines-difference": Benchmark(
        "Engines: difference of features, real weights and frames",
        "bench_engine.py --difference ../shared/real/clips",
        "30 s",
        False,
    ),
    "engines-commands": Benchmark("Engines: whole commands", "bench_engine.py --commands", "15 min", False),
    "lstp": Benchmark("Pooling", "bench_lstp.py", "1 min"),
    "losses": Benchmark("Objectives", "bench_losses.py", "10 s"),
    "metrics": Benchmark("The four tasks", "bench_metrics.py", "30 s"),
    "maps": Benchmark("Attention maps", "bench_maps.py", "2 min"),
    "widgets": Benchmark("Attention browser", "bench_widgets.py", "30 s"),
    "distributed": Benchmark("Two processes against one", "bench_distributed.py", "3 min"),
    "determinism": Benchmark("The same seed twice", "bench_determinism.py", "1 min"),
    "bank": Benchmark("Feature bank: time and size", "bench_bank.py", "25 min", False, "--quick"),
    "bank-quality": Benchmark(
        "Feature bank: quality, five seeds of drawn videos",
        f"bench_bank.py --quality 5 --ways 'banked, V = 4' {DRAWN}",
        "2 h",
        False,
    ),
    "bank-options": Benchmark(
        "Feature bank: quality of its options, three seeds", f"bench_bank.py --quality 3 {DRAWN}", "1 h more", False
    ),
    "bank-views": Benchmark(
        "Feature bank: quality at the preset's length, three seeds",
        "bench_bank.py --quality 3 --out runs/bank_long --against 'banked, V = 4' "
        "--ways 'banked, V = 2;banked, V = 8;PCA 256, int8' -p localization false",
        "2 h",
        False,
    ),
    "bank-quality-real": Benchmark(
        "Feature bank: quality, pull-ups",
        "bench_bank.py --quality 3 --ways 'banked, V = 4' --out runs/bank_pullups --clips ../shared/real/pullups "
        "--train 12 -p epochs 20 -p localization false -p precision fp32",
        "40 min",
        False,
    ),
    "fusion": Benchmark("Fusion, with and without merged tokens", "bench_fusion.py", "20 min", False, "--quick"),
    "merge-quality": Benchmark(
        "Merged tokens: quality, drawn videos", "merge_quality.py -p localization false", "50 min", False
    ),
    "merge-240": Benchmark(
        "Merged tokens: quality at 240 frames and 6 entities",
        "merge_quality.py --out runs/merge_240 -p num_frames 240 -p entities 6 "
        '-p data_options \'{"train_videos": 12, "val_videos": 10, "repeats": [6, 9]}\' -p localization false',
        "90 min",
        False,
    ),
    "merge-sizes": Benchmark(
        "Merged tokens: quality by frames and entities",
        "long_quality.py merge",  # needs runs of merge_quality.py, which it names
        "30 min",
        False,
    ),
    "clocks": Benchmark("Long videos: quality by clock", "long_quality.py clock", "30 min", False),
    "long": Benchmark(
        "A two-hour video", "bench_long.py --minutes 120 --features random", "10 min", False, "--minutes 2"
    ),
    "seams": Benchmark(
        "Seams of a trained model, one clock for the video",
        "bench_long.py --minutes 2 --features backbone --model runs/merge/plain-1 --one-clock",  # of merge-quality
        "5 min",
        False,
    ),
    "seams-clocks": Benchmark(
        "Seams of a trained model, a clock in every chunk",
        "bench_long.py --minutes 2 --features backbone --model runs/merge/plain-1",
        "5 min",
        False,
    ),
    "retrieval": Benchmark(
        "Retrieval over a million frames",
        "bench_metrics.py --frames 1000000",
        "15 min",
        False,
        "--frames 50000 --queries 1000",
    ),
    "finegym": Benchmark(
        "FineGym288's size", "bench_finegym.py", "6 min", False, "--train 60 --val 30 --tau-videos 30"
    ),
    "gpu": Benchmark("A GPU, all at once", "gpu.py", "8 min on a GPU", False, "--quick --device cpu"),
    "fuzz": Benchmark("Damaged files", "fuzz.py --seconds 600", "10 min", False, "--seconds 20"),
}


def run(benchmark: Benchmark, quick: bool) -> tuple[str, int]:
    """Runs a benchmark; returns its section, with title, origin and output, and its exit status."""
    command = benchmark.command
    if quick and benchmark.quick is not None:
        command = f"{command.split()[0]} {benchmark.quick}"
    before = ticks()
    time.sleep(LISTEN)
    busy, before, started = share("busy", before, LISTEN), ticks(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *shlex.split(f"bench/{command}")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    where = origin(busy, share("stolen", before, seconds), seconds)
    lines = [f"## {benchmark.title}", "", f"`python bench/{command}`: {where}"]
    status = done.returncode or int(not done.stdout.strip())  # a benchmark without output has failed too
    if status:
        lines += ["", f"**Failed, or missed a target** (exit status {status})."]
    return "\n".join([*lines, "", body(done.stdout), ""]), status


def environment() -> dict[str, str]:
    """Returns this process's environment with the package of this checkout first."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def ticks() -> dict[str, float]:
    """Returns total busy and stolen (by other virtual machines) seconds of all processors; zeros if unknown."""
    found = Path("/proc/stat")
    if not found.exists():
        return {"busy": 0.0, "stolen": 0.0}
    user, nice, system, _, _, interrupts, soft, stolen = (int(word) for word in found.read_text().split()[1:9])
    rate = os.sysconf("SC_CLK_TCK")
    return {"busy": (user + nice + system + interrupts + soft) / rate, "stolen": stolen / rate}


def share(what: str, before: dict[str, float], seconds: float) -> float:
    """Returns the share of the processors' time since `before`."""
    return (ticks()[what] - before[what]) / seconds / (os.cpu_count() or 1)


def origin(busy: float, stolen: float, seconds: float) -> str:
    """Describes machine, versions, date, commit, load before, time stolen meanwhile, and duration."""
    commit = _output("git", "describe", "--always", "--dirty", "--exclude", "*") or "no commit"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    alone = "" if busy <= ALONE else " (NOT ALONE on the machine)"
    return (
        f"{machine()}; Python {platform.python_version()}, {packages}; {date.today()}, {commit}; "
        f"processors {busy:.0%} busy before{alone}, {stolen:.1%} stolen by other guests; {seconds / 60:.1f} min"
    )


def machine() -> str:
    """Describes the processor, cores, memory, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").replace("\n", ", ")
    parts = (found[1] if found else platform.machine(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", gpu)
    return ", ".join(filter(None, parts))


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def body(text: str) -> str:
    """Converts a benchmark's output to Markdown: headings become bold lines, plain lines a verbatim block."""
    text = re.sub(r"^#+ (.*)$", r"**\1**", text.strip(), flags=re.MULTILINE)
    return text if "| ---" in text or "| :--" in text or "|---" in text else f"```text\n{text}\n```"


def placed(page: str, section: str) -> str:
    """Returns the page with a section that replaces the one of the same title, or is inserted in order."""
    head, *old = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    sections = {_title(text): text for text in (*old, section)}
    order = [benchmark.title for benchmark in BENCHMARKS.values()]
    known = [sections.pop(title) for title in order if title in sections]
    return "\n\n".join(text.strip() for text in (head, *sections.values(), *known)) + "\n"


def _title(section: str) -> str:
    return section.splitlines()[0].removeprefix("## ").strip()


def main() -> int:
    """Runs, prints and stores benchmarks; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help="default: make bench's")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small runs that are only printed")
    options = parser.parse_args()
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            always = ", make bench" if benchmark.always else ""
            sys.stdout.write(f"{name:12s} {benchmark.title} ({benchmark.takes}{always}): {benchmark.command}\n")
        return 0
    failed = []
    for name in options.names or [name for name, benchmark in BENCHMARKS.items() if benchmark.always]:
        section, status = run(BENCHMARKS[name], options.quick)
        sys.stdout.write(section + "\n")
        sys.stdout.flush()
        if status:
            failed.append(name)
        if not options.quick:
            page = PAGE.read_text() if PAGE.exists() else "# Benchmark results\n"
            with atomic(PAGE) as path:
                path.write_text(placed(page, section))
    if failed:
        sys.stderr.write(f"failed, or missed a target: {', '.join(failed)}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
