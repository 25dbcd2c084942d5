"""Two processes train as one: loss curves, and whole runs by the command line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mvf.losses import OBJECTIVES
from mvf.losses.objective import parse_objective
from mvf.training.run import read_history
from tests.conftest import TINY

BENCH = Path(__file__).parents[2] / "bench" / "bench_distributed.py"


# loss curves --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    """The program, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("bench_distributed", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_objective_is_among_the_curves(bench):
    compared = {name for case in bench.CASES.values() for name in parse_objective(case.get("objective", "scl"))}
    assert compared == set(OBJECTIVES)


def check_curves(folder: Path, *cases: str) -> None:
    """Twenty losses in float64 of one process and of two are equal to 1e-5 (in fact to rounding) and do move."""
    command = [sys.executable, str(BENCH), "--dtypes", "float64", "--json", str(folder / "curves.json")]
    done = subprocess.run([*command, *(["--cases", *cases] if cases else [])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    curves = json.loads((folder / "curves.json").read_text())
    assert cases == () or list(curves["one"]) == list(cases)
    for case, found in curves["one"].items():
        one, two = found["float64"], curves["two"][case]["float64"]
        assert len(one) == 20 and abs(one[0] - one[-1]) > 1e-3, f"{case}: nothing was learned, so nothing was compared"
        assert two == pytest.approx(one, abs=1e-9), case


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """`sal` draws for the batch's videos by their place, so it also holds the order of the gathered videos."""
    check_curves(tmp_path, "scl batch_noself", "sal")


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_for_all_objectives_one_after_another(tmp_path):
    check_curves(tmp_path)


# the command --------------------------------------------------------------------------------------------------------


def train(folder: Path, processes: int, **changed: object) -> subprocess.CompletedProcess:
    settings = {**TINY, "dropout": 0, "batch_size": 6, "device": "cpu", "overlap_penalty": 2.0, **changed}
    words = [w for k, v in settings.items() for w in ("-p", k, json.dumps(v) if isinstance(v, dict) else str(v))]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "mvf", "train", "synthetic", "--run-dir", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True)


def check_history(one: Path, two: Path) -> None:
    first, second = read_history(one), read_history(two)
    for a, b in zip(first, second, strict=True):
        # not the weights: Adam makes steps of the rounding of gradients that are zero (biases before batch norm)
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=2e-3)
    assert first[0]["loss"] != pytest.approx(first[-1]["loss"], rel=1e-3), "nothing was learned"


def files(folder: Path) -> dict[str, str]:
    """Digest of every file of a run, figures apart."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent == folder]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("features", ["online", "banked"])
def test_the_command_in_two_processes_leaves_the_run_of_one(tmp_path, features):
    for name, processes in (("one", 1), ("two", 2)):
        done = train(tmp_path / name, processes, epochs=3, features=features)
        assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("report") <= 1, "more than one process reported"
    check_history(tmp_path / "one", tmp_path / "two")
    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys()
    assert not [path for path in (tmp_path / "two").iterdir() if path.name.startswith(".")], "a half-written file"


@pytest.mark.slow
def test_a_run_of_two_processes_stopped_between_epochs_goes_on_to_the_same_bits(tmp_path):
    """Its state after two of three epochs stands for a stop; then two processes go on, and one does."""
    assert train(tmp_path / "never", 2, epochs=3).returncode == 0
    code = (
        "import sys, mvf.__main__ as m, mvf.training.trainer as t\n"
        "write = t.write_epoch\n"
        "def stop(folder, model, history, state):\n"
        "    write(folder, model, history, state)\n"
        "    if len(history) == 2: raise SystemExit(3)\n"
        "t.write_epoch = stop\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    (tmp_path / "stop.py").write_text(code)
    settings = {**TINY, "dropout": 0, "batch_size": 6, "device": "cpu", "overlap_penalty": 2.0, "epochs": 3}
    words = [w for k, v in settings.items() for w in ("-p", k, json.dumps(v) if isinstance(v, dict) else str(v))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(tmp_path / "stop.py"), "train", "synthetic", "--run-dir", str(tmp_path / "stopped")]
    stopped = subprocess.run([*command, *words], capture_output=True, text=True)
    assert stopped.returncode != 0 and len(read_history(tmp_path / "stopped")) == 2, stopped.stderr[-2000:]
    assert train(tmp_path / "stopped", 2, epochs=3).returncode == 0
    never, stopped = files(tmp_path / "never"), files(tmp_path / "stopped")
    assert never["model.safetensors"] == stopped["model.safetensors"]
    assert never["metrics.json"] == stopped["metrics.json"]
