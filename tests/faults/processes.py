"""Starting, killing and judging jobs."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import psutil
import torch
from safetensors.torch import load_file

from mvf.training.run import read_history, read_state
from tests.faults import jobs

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.jobs"])
CLOCKS = ("seconds", "frames_per_second")  # columns that differ from run to run


def warm_up() -> None:
    """Waits until the fork server has imported what jobs need."""
    child = CONTEXT.Process(target=time.sleep, args=(0,))
    child.start()
    child.join()


def start(name: str, home: Path, log: Path | None = None, **overrides) -> multiprocessing.Process:
    child = CONTEXT.Process(target=jobs.run, args=(name, home, log or log_of(home)), kwargs=overrides)
    child.start()
    return child


def log_of(home: Path) -> Path:
    return home.with_name(f"{home.name}.log")


def finish(name: str, home: Path, log: Path | None = None, **overrides) -> float:
    """Runs a job to its end; the seconds that it took."""
    started = time.monotonic()
    child = start(name, home, log, **overrides)
    child.join()
    assert child.exitcode == 0, (log or log_of(home)).read_text()
    return time.monotonic() - started


def fail(name: str, home: Path, log: Path | None = None, **overrides) -> str:
    """Runs a job that must end with an error that it names; the error."""
    child = start(name, home, log, **overrides)
    child.join()
    said = (log or log_of(home)).read_text()
    assert child.exitcode == 1, said
    return [line for line in said.splitlines() if "Error: " in line][-1]


def kill_within(name: str, home: Path, life: float, draw: Random, attempts: int = 20) -> float:
    """Starts a job and kills it at a random moment of a life of `life` seconds; the moment.

    One that ended before the moment that was drawn had nothing left to lose: it is started afresh.
    """
    for attempt in range(attempts):
        moment = draw.uniform(0, life)
        child = start(name, home)
        child.join(moment)
        kill_tree(child.pid)
        child.join()
        if child.exitcode == -signal.SIGKILL:
            return moment
        assert child.exitcode == 0, log_of(home).read_text()
        os.rename(home, home.with_name(f"{home.name}-ended-{attempt}"))
    raise AssertionError(f"{name} ended before it could be killed, {attempts} times")


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all that it started, whatever their groups, as when a machine goes down."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        children = process.children()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for child in children:
            kill_tree(child.pid)


def check_whole(home: Path) -> None:
    """Every file of ours that is there can be read; temporary ones are not there under another name."""
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            _check_file(path)


def _check_file(path: Path) -> None:
    if path.suffix in (".json",):
        json.loads(path.read_text())
    elif path.suffix in (".npy", ".npz"):
        np.load(path, allow_pickle=False)
    elif path.name == "state.pt":
        read_state(path)
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.name == "history.csv":
        read_history(path.parent)
    elif path.suffix == ".sha256":
        data = path.with_suffix("").read_bytes()
        assert hashlib.sha256(data).hexdigest() == path.read_text(), path
    elif path.suffix in (".zip", ".zarr"):
        assert zipfile.ZipFile(path).testzip() is None


def finished_pieces(home: Path) -> dict[str, object]:
    """What must not be computed again: rows of histories with their seconds, files of banks, embedded videos."""
    rows = {f"{path} {row['epoch']}": row for path in home.rglob("history.csv") for row in read_history(path.parent)}
    files = [*home.rglob("view*.sha256"), *home.glob("out/*.np[yz]")]
    return rows | {str(path): path.stat().st_mtime_ns for path in files}


def leftovers(home: Path) -> list[Path]:
    """Temporary files."""
    return [path for path in home.rglob(".*.mvf-*") if path.is_file()]


def assert_same(one: Path, other: Path) -> None:
    """The same files with the same bits, but for what clocks wrote and locks."""
    names = [sorted(str(p.relative_to(home)) for p in _results(home)) for home in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        first, second = one / name, other / name
        if first.name == "history.csv":
            assert _timeless(read_history(first.parent)) == _timeless(read_history(second.parent))
        elif first.name == "state.pt":
            assert_equal(read_state(first), read_state(second))
        else:
            assert first.read_bytes() == second.read_bytes(), name


def _results(home: Path) -> list[Path]:
    kinds = {".png", ".ipynb", ".log", ".pdf", ".mp4", ".html"}  # pictures carry versions and dates, notebooks clocks
    files = [p for p in home.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix not in kinds]
    timed = ("logs", "frame_counts", "metrics.cost.json")  # what only clocks, or times of files, decide
    return [p for p in files if not set(p.parts) & set(timed)]


def _timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def assert_equal(one: object, other: object) -> None:
    """Nested values and tensors, bit for bit, but for clocks."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - set(CLOCKS):
            assert_equal(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_equal(a, b)
    else:
        assert one == other
