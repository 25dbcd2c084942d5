"""Tables of runs: every row and seed of the paper's tables, each a notebook of its own, started by papermill."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvf.casting import cast
from mvf.config import make_config
from mvf.config_file import stored_config
from mvf.files import atomic
from mvf.tables.plan import ANYWHERE, MANIFEST, METHOD, Job, notebook_parameters, plan, same_run, unique_jobs

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "train.ipynb"
LOGS = "logs"

logger = logging.getLogger(__name__)


def run_batch(
    tables: Sequence[str],
    trials: int,
    out: str | Path,
    parameters: Mapping[str, Any] | None = None,
    workers: int = 1,
    report: Callable[[str], None] = logger.info,
) -> list[str]:
    """Runs what is not done yet, `workers` runs at a time, and goes on when one fails.

    Args:
        tables, trials, out, parameters: See `plan`.
        workers: Runs at a time, each with one CPU thread where there are several.
        report: Gets one line a run.

    Returns:
        Names of the runs that failed.

    Raises:
        ValueError: for bad settings, or a folder that holds a batch of others.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    out = Path(out)
    jobs = plan(tables, trials, out, parameters or {})
    write_manifest(out, tables, trials, parameters or {}, jobs)
    unique = unique_jobs(jobs)
    running: dict[str, Future] = {}
    with _pool(workers) as (pool, children):
        for number, job in enumerate(unique, start=1):
            before = running.get(f"{job.needs}-{job.config.seed}")
            running[job.name] = pool.submit(_work, job, before, children, workers > 1)
            line = f"[{number}/{len(unique)}] {job.name}"
            running[job.name].add_done_callback(
                lambda done, line=line: done.cancelled() or report(f"{line}: {done.result()[1]}")
            )
        return [name for name, done in running.items() if not done.result()[0]]


def write_manifest(
    out: Path, tables: Sequence[str], trials: int, parameters: Mapping[str, Any], jobs: Mapping[str, list[Job]]
) -> None:
    """Notes which run folder belongs to which row and seed; adds to what `out` holds of the same settings."""
    path = out / MANIFEST
    runs = {preset: {str(job.config.seed): job.name for job in seeds} for preset, seeds in jobs.items()}
    shown = _shown(parameters)
    before = json.loads(path.read_text()) if path.exists() else {"tables": [], "trials": 0, "runs": {}}
    if before.get("parameters", shown) != shown:
        raise ValueError(
            f"{out} holds a batch with settings {before['parameters']}, wanted {shown}: choose another --out"
        )
    for job in (job for seeds in jobs.values() for job in seeds):
        _check_same(job)
    merged = {preset: before["runs"].get(preset, {}) | seeds for preset, seeds in runs.items()}
    manifest = {
        "tables": sorted({*before["tables"], *tables}),
        "trials": max(before["trials"], trials),
        "parameters": shown,
        "runs": before["runs"] | merged,
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def _shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the manifest notes them: in their own type, without those that only say where to run."""
    default = make_config({})
    shown = {"preset": parameters["preset"]} if parameters.get("preset") else {}
    for name in sorted(parameters.keys() - {*METHOD, *ANYWHERE}):
        shown[name] = cast(name, parameters[name], getattr(default, name, ""))
    return json.loads(json.dumps(shown))


# one run ------------------------------------------------------------------------------------------------------------


def _work(job: Job, before: Future | None, children: set[subprocess.Popen], crowded: bool) -> tuple[bool, str]:
    """Whether it succeeded, and the line that says so."""
    if before is not None and not before.result()[0]:
        return False, f"FAILED: it starts from {job.needs}-{job.config.seed}, which failed"
    logs = job.folder.parent / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    with open(logs / f"{job.name}.lock", "w") as lock:
        # the child inherits this lock: a batch started again waits for a run that outlived the batch before
        fcntl.flock(lock, fcntl.LOCK_EX)
        if job.finished:
            return True, "done before"
        started = time.monotonic()
        try:
            status = _papermill(job, logs, lock.fileno(), children, crowded)
        except OSError as error:
            return False, f"FAILED: {error}"
    if status == 0:
        return True, f"done in {time.monotonic() - started:.0f} s"
    log = logs / f"{job.name}.log"
    return False, f"FAILED: {_error_line(log)} (log: {log})"


def _papermill(job: Job, logs: Path, lock: int, children: set[subprocess.Popen], crowded: bool) -> int:
    job.folder.mkdir(parents=True, exist_ok=True)
    parameters = logs / f"{job.name}.json"
    with atomic(parameters) as path:
        path.write_text(json.dumps(notebook_parameters(job)))
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(job.folder / "train.ipynb")]
    threads = {"OMP_NUM_THREADS": "1"} if crowded else {}  # several runs that share cores by threads crawl
    with open(logs / f"{job.name}.log", "w") as log:
        child = subprocess.Popen(
            [*command, "-f", str(parameters), "--no-progress-bar"],
            env=os.environ | threads, stdout=log, stderr=log, pass_fds=(lock,), start_new_session=True,
        )  # fmt: skip
        children.add(child)
        return child.wait()


@contextmanager
def _pool(workers: int) -> Iterator[tuple[ThreadPoolExecutor, set[subprocess.Popen]]]:
    """Threads that wait for processes, which end when this one is interrupted or told to stop."""
    children: set[subprocess.Popen] = set()
    pool = ThreadPoolExecutor(workers)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        yield pool, children
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _error_line(log: Path) -> str:
    """The first line of the error that ended a notebook, which it shows above the traceback; else the log's last."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    after = [line for before, line in zip(lines, lines[1:]) if before.startswith("Exception encountered")]
    return next((line for line in after if re.match(r"\w+: ", line)), lines[-1] if lines else "it wrote nothing")


def _check_same(job: Job) -> None:
    stored = job.folder / "config.json"
    if stored.exists() and same_run(stored_config(stored)) != same_run(job.config):
        raise ValueError(f"{job.folder} holds a run of another configuration: choose another --out, or delete it")
