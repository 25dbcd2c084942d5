"""Same seed, same machine, same bits on the CPU: training, bank, evaluation, whatever the number of workers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mvf
from mvf.training.run import read_history, write_history
from mvf.workbench.notebook.session import embed_splits, report_on
from tests.conftest import TINY

TIMINGS = ("seconds", "frames_per_second")


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def state(folder: Path) -> list[tuple[str, object]]:
    """Everything that resume reads, timings apart, as bytes and plain values in order."""
    found: list[tuple[str, object]] = []

    def walk(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found.append((name, (str(value.dtype), value.numpy().tobytes())))
        elif isinstance(value, dict):
            for key, part in value.items():
                if key not in TIMINGS:
                    walk(f"{name}.{key}", part)
        elif isinstance(value, (list, tuple)):
            for number, part in enumerate(value):
                walk(f"{name}.{number}", part)
        else:
            found.append((name, value))

    walk("", torch.load(folder / "state.pt", weights_only=True))
    return found


def check_same(first: Path, second: Path) -> None:
    """Two runs whose every file is equal, byte for byte, but for how long epochs and frames took and where they ran."""
    a, b = digests(first), digests(second)
    assert a.keys() == b.keys()
    apart = {name for name in a if a[name] != b[name]}
    assert apart <= {"history.csv", "state.pt", "config.json", "metrics.cost.json"}, f"differ: {sorted(apart)}"
    assert state(first) == state(second)
    for one, two in zip(read_history(first), read_history(second), strict=True):
        assert {k: v for k, v in one.items() if k not in TIMINGS} == {k: v for k, v in two.items() if k not in TIMINGS}


def test_training_bank_and_evaluation_made_twice_from_nothing_are_equal_byte_for_byte(tiny, tmp_path, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setenv("MVF_CACHE", str(tmp_path / f"cache-{name}"))
        run = mvf.train(tiny(), tmp_path / name)
        report_on(run.model, run.config, embed_splits(run.model, run.config), tmp_path / name / "metrics.json")
    check_same(tmp_path / "a", tmp_path / "b")
    banks = [digests(tmp_path / f"cache-{name}" / "banks") for name in ("a", "b")]
    assert banks[0] == banks[1] and len(banks[0]) > 6
    assert (tmp_path / "a" / "metrics.json").stat().st_size > 100


def test_a_changed_bit_is_seen(tiny, tmp_path):
    """The comparison itself: one bit of one stored tensor, and one loss of the history, are told apart."""
    mvf.train(tiny(epochs=1), tmp_path / "a")
    for name in ("same", "bit", "loss"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    check_same(tmp_path / "a", tmp_path / "same")
    stored = torch.load(tmp_path / "bit" / "state.pt", weights_only=True)
    stored["model"]["embedding.bias"].view(torch.int32)[0] ^= 1
    torch.save(stored, tmp_path / "bit" / "state.pt")
    (row,) = read_history(tmp_path / "loss")
    write_history(tmp_path / "loss", [row | {"loss": row["loss"] + 1e-9}])
    for name in ("bit", "loss"):
        with pytest.raises(AssertionError):
            check_same(tmp_path / "a", tmp_path / name)


def command(folder: Path, cache: Path, threads: int, **changed: object) -> None:
    """A run and its report in a process of its own, with a cache of its own."""
    settings = {**TINY, **changed}
    words = [w for k, v in settings.items() for w in ("-p", k, json.dumps(v) if isinstance(v, dict) else str(v))]
    done = subprocess.run(
        [sys.executable, "-m", "mvf", "train", "synthetic", "--run-dir", str(folder), *words],
        env=os.environ | {"MVF_CACHE": str(cache), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("features", ["online", "banked"])
def test_fresh_processes_with_and_without_workers_leave_the_same_bytes(tmp_path, features, threads):
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        command(tmp_path / name, tmp_path / f"cache-{name}", threads, features=features, workers=workers)
    check_same(tmp_path / "a", tmp_path / "b")
    check_same(tmp_path / "a", tmp_path / "c")
    banks = [digests(tmp_path / f"cache-{name}" / "banks") for name in "abc"]
    assert banks[0] == banks[1] == banks[2]
