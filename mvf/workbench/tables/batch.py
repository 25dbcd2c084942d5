"""Batches: papermill runs `train.ipynb` for every row and seed of the paper's tables."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mvf.config import cast, make_config, stored_config
from mvf.files import atomic, locked
from mvf.training.run import REPOSITORY
from mvf.workbench.tables.executors import EXECUTORS, LocalJobs, NotebookRun, SlurmJobs
from mvf.workbench.tables.plan import (
    ANYWHERE,
    MANIFEST,
    METHOD,
    Job,
    notebook_parameters,
    plan,
    read_manifest,
    same_run,
    unique_jobs,
)

NOTEBOOK = REPOSITORY / "notebooks" / "train.ipynb"
KERNELS = NOTEBOOK.parent / "jupyter"  # its kernel does not warn in every log that a local port is not encrypted
LOGS = "logs"
PROGRESS = 10.0  # seconds between two lines about one run
Launch = Callable[[NotebookRun], bool]

logger = logging.getLogger(__name__)


def run_batch(
    tables: Sequence[str],
    trials: int,
    out: str | Path,
    parameters: Mapping[str, Any] | None = None,
    workers: int = 1,
    report: Callable[[str], None] = logger.info,
    executor: str = "",
    options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Runs everything that is not finished, `workers` runs at a time, and continues if a run fails.

    With `executor="slurm"` it queues everything that is neither finished nor queued, and returns.

    Args:
        tables, trials, out, parameters: See `plan`.
        workers: Number of runs at a time; with more than one, each has a single CPU thread.
        report: Function that is called with a line when a run begins, every few seconds with its newest epoch or the
            progress of its feature bank, and when it has ended.
        executor: `local` or `slurm` submits the runs as submitit jobs; by default they are child processes.
        options: Options of the jobs; see `mvf.workbench.tables.executors`.

    Returns:
        Names of the failed runs; the results of queued runs are not known yet.

    Raises:
        ValueError: for bad settings, a folder with a batch of other settings, or an executor that is not available.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if executor not in ("", *EXECUTORS):
        raise ValueError(f"executor must be one of {', '.join(EXECUTORS)}, or empty; got {executor}")
    jobs = plan(tables, trials, out, parameters or {})
    submitted = Path(out).resolve() / LOGS / "submitit"
    place = _place_of(executor, submitted, options or {})
    write_manifest(Path(out), tables, trials, parameters or {}, jobs)
    unique = unique_jobs(jobs)
    if isinstance(place, SlurmJobs):
        submit_all(unique, place, report)
        return []
    with _pool(workers) as (pool, stops):

        def launch(run: NotebookRun) -> bool:
            if place:
                return place.run(run, stops)
            stops.add(run.stop)
            return run()

        running: dict[str, Future] = {}
        lines = {job.name: f"[{number}/{len(unique)}] {job.name}" for number, job in enumerate(unique, start=1)}
        for job in unique:
            _progress_file(job).unlink(missing_ok=True)  # of an earlier batch
            before = running.get(f"{job.needs}-{job.config.seed}")
            running[job.name] = pool.submit(_work, job, before, launch, workers > 1)
            running[job.name].add_done_callback(partial(_say, report, lines[job.name]))
        shown: dict[str, str] = {}
        while left := [job for job in unique if not running[job.name].done()]:
            for job in left:
                newest = _newest_line(_progress_file(job))
                if newest != shown.get(job.name, "") and not running[job.name].done():
                    shown[job.name] = newest
                    report(f"{lines[job.name]}: {newest}")
            wait([running[job.name] for job in left], PROGRESS, FIRST_COMPLETED)
        return [name for name, done in running.items() if not done.result()[0]]


def _progress_file(job: Job) -> Path:
    return job.folder.parent / LOGS / f"{job.name}.progress"


def _newest_line(path: Path) -> str:
    """The last complete line of a file; empty if there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text.rpartition("\n")[0].rpartition("\n")[2]


def _place_of(executor: str, folder: Path, options: Mapping[str, Any]) -> LocalJobs | SlurmJobs | None:
    if executor == "slurm":
        return SlurmJobs(folder, options)
    return LocalJobs(folder, options) if executor else None


def _say(report: Callable[[str], None], line: str, done: Future) -> None:
    if not done.cancelled():
        report(f"{line}: {done.result()[1]}")


def submit_all(jobs: Sequence[Job], place: SlurmJobs, report: Callable[[str], None]) -> None:
    """Queues every run that is neither finished nor queued; a run that starts from another one waits for it."""
    logs = jobs[0].folder.parent / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    with locked(logs / "submit.lock"):  # two batches at once must not queue the same run
        queued, numbers = place.queued(), {}
        for number, job in enumerate(jobs, start=1):
            note = logs / f"{job.name}.job"  # holds the number of the run's job
            before = note.read_text().strip() if note.exists() else ""
            if job.finished:
                said = "done before"
            elif before in queued:
                numbers[job.name], said = before, f"queued before as job {before}"
            else:
                after = numbers.get(f"{job.needs}-{job.config.seed}", "")
                numbers[job.name] = place.submit(_notebook_run(job, crowded=False), after)
                with atomic(note) as path:
                    path.write_text(numbers[job.name])
                said = f"queued as job {numbers[job.name]}" + (f", after job {after}" if after else "")
            report(f"[{number}/{len(jobs)}] {job.name}: {said}")


def write_manifest(
    out: Path, tables: Sequence[str], trials: int, parameters: Mapping[str, Any], jobs: Mapping[str, list[Job]]
) -> None:
    """Writes which run folder belongs to which row and seed, and keeps the entries of an existing manifest."""
    path = out / MANIFEST
    runs = {preset: {str(job.config.seed): job.name for job in seeds} for preset, seeds in jobs.items()}
    shown = _shown(parameters)
    before = read_manifest(path) if path.exists() else {"tables": [], "trials": 0, "runs": {}, "parameters": None}
    if before["parameters"] not in (None, shown):
        raise ValueError(f"{out} holds a batch with settings {before['parameters']}, not {shown}: choose another --out")
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
    """Returns the settings for the manifest: cast to their types, without those that only say where to run."""
    default = make_config({})
    shown = {"preset": parameters["preset"]} if parameters.get("preset") else {}
    for name in sorted(parameters.keys() - {*METHOD, *ANYWHERE}):
        shown[name] = cast(name, parameters[name], getattr(default, name, ""))
    return json.loads(json.dumps(shown))


def _notebook_run(job: Job, crowded: bool) -> NotebookRun:
    """Makes the papermill run of a job, and writes its parameters file."""
    logs = job.folder.parent / LOGS
    with atomic(logs / f"{job.name}.json") as path:
        path.write_text(json.dumps(notebook_parameters(job)))
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(job.folder / "train.ipynb")]
    command += ["-f", str(logs / f"{job.name}.json"), "--no-progress-bar"]
    environment = {"JUPYTER_PATH": os.pathsep.join(filter(None, (str(KERNELS), os.environ.get("JUPYTER_PATH"))))}
    environment["MVF_PROGRESS"] = str(_progress_file(job).resolve())
    if crowded:  # runs whose threads compete for the cores are slow
        environment["OMP_NUM_THREADS"] = "1"
    return NotebookRun(job.folder, command, logs / f"{job.name}.log", environment)


def _work(job: Job, before: Future | None, launch: Launch, crowded: bool) -> tuple[bool, str]:
    """Runs a job; returns whether it succeeded, and the line to report."""
    if before is not None and not before.result()[0]:
        return False, f"FAILED: it starts from {job.needs}-{job.config.seed}, which failed"
    started = time.monotonic()
    try:
        run = _notebook_run(job, crowded)
        _progress_file(job).write_text("started\n", encoding="utf-8")
        ran = launch(run)
    except (OSError, RuntimeError) as error:
        return False, f"FAILED: {error}"
    return True, f"done in {time.monotonic() - started:.0f} s" if ran else "done before"


@contextmanager
def _pool(workers: int) -> Iterator[tuple[ThreadPoolExecutor, set[Callable[[], None]]]]:
    """Yields threads that wait for runs, and the functions that stop the runs if this process is terminated."""
    stops: set[Callable[[], None]] = set()
    pool = ThreadPoolExecutor(workers)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        yield pool, stops
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for stop in stops:
            stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_same(job: Job) -> None:
    if not (job.folder / "config.json").exists():
        return
    stored = stored_config(job.folder / "config.json")
    auto = job.config.precision == "auto"  # a run stores the precision that was chosen
    wanted = replace(job.config, precision=stored.precision) if auto else job.config
    if same_run(stored) != same_run(wanted):
        raise ValueError(f"{job.folder} holds a run of another configuration: choose another --out, or delete it")
