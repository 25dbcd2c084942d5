"""Executors of a batch: child processes, or submitit jobs on this machine or on a Slurm cluster."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mvf.files import locked

logger = logging.getLogger(__name__)

EXECUTORS = ("local", "slurm")
LOCAL_OPTIONS = ("timeout_min", "gpus_per_node")  # the options that apply on a machine without a queue
LIMITS = ("time", "timeout_min")  # names of a job's time limit in Slurm and in submitit
TIMEOUTS = 100  # how often a run that reached its time limit is requeued; preemptions do not count
MONTH = 30 * 24 * 60  # minutes; submitit's own default for a local job is two minutes
GRACE = 5.0  # seconds
PATIENCE = 30 * 60.0  # seconds; longer than clusters wait between SIGTERM and SIGKILL (GraceTime)
GPUS = "CUDA_VISIBLE_DEVICES"
WRONG_JSON = (ValueError, KeyError, TypeError, AttributeError)  # raised by JSON that is damaged or has other fields


def finished(folder: Path) -> bool:
    """Whether the notebook of a run folder ran to its end."""
    try:
        notebook = json.loads((folder / "train.ipynb").read_text(encoding="utf-8"))
        ran = notebook["metadata"]["papermill"]
        ended = bool(ran.get("end_time")) and not ran.get("exception")
    except (OSError, *WRONG_JSON):  # the notebook is missing or was cut off
        return False
    return ended and (folder / "metrics.json").exists()


@dataclass(eq=False)
class NotebookRun:
    """One run of a batch: a papermill command that writes a run folder. Submitit pickles it, so it is small.

    Args:
        folder: The run folder; a finished run is not repeated.
        command: The command line.
        log: File for the command's output; its lock is beside it.
        environment: Variables that differ from those of this process; None removes one.
        patience: Seconds to wait for the cluster to end this process if a run fails after SIGTERM.
    """

    folder: Path
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    patience: float = 0.0
    child: subprocess.Popen | None = field(default=None, init=False, repr=False)

    def __call__(self) -> bool:
        """Runs the command to its end; returns False if the run was already finished.

        Raises:
            RuntimeError: if the run fails, with the first line of its error.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # The child inherits this lock, so a second start of the run waits for a child that outlived its batch.
        with locked(self.log.with_suffix(".lock")) as lock:
            if finished(self.folder):
                return False
            try:
                status = self._run(lock)
            except BaseException:
                self.stop()
                raise
        if status:
            raise RuntimeError(f"{error_line(self.log)} (log: {self.log})")
        return True

    def _run(self, lock: int | None) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self.environment}
        told: list[int] = []
        if self.patience:  # submitit would only log this signal
            signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(
                self.command,
                env={name: value for name, value in environment.items() if value is not None},
                stdout=log, stderr=log, pass_fds=() if lock is None else (lock,), start_new_session=True,
            )  # fmt: skip
            while (status := self.child.poll()) is None:  # `wait` holds a lock that `stop` needs in a signal handler
                time.sleep(0.05)
        if status and "SUBMITIT_EXECUTOR" in os.environ:
            # Slurm signals all processes of a preempted job; the child may die before this one handles its signal.
            time.sleep(GRACE)
        if status and told:
            # papermill exits on SIGTERM; if this job then exited by itself, Slurm would count it as failed.
            logger.warning("received SIGTERM: waiting for Slurm to end this job or queue it again")
            time.sleep(self.patience)
        return status

    def stop(self) -> None:
        """Ends the command and with it the notebook's kernel."""
        if self.child is None or self.child.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.child.pid, number)
                self.child.wait(GRACE)
                return

    def checkpoint(self) -> Any:
        """Returns what submitit requeues after a preemption: the same run, which resumes from its `state.pt`."""
        self.stop()
        return submitit().helpers.DelayedSubmission(replace(self))


def error_line(log: Path) -> str:
    """Returns the first line of the error that papermill prints above the traceback; else the last line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    after = [line for before, line in zip(lines, lines[1:]) if before.startswith("Exception encountered")]
    return next((line for line in after if re.match(r"\w+: ", line)), lines[-1] if lines else "it wrote nothing")


def submitit() -> ModuleType:
    """Imports submitit, which only batches with an executor need.

    Raises:
        ValueError: if it is not installed; the message has the command that installs it.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(
            "an executor needs the package submitit, which is not installed: pip install submitit"
        ) from None
    return submitit


class LocalJobs:
    """Submits runs as submitit jobs on this machine: separate processes that are requeued when interrupted."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        unknown = [name for name in options if name not in LOCAL_OPTIONS]
        if unknown:
            raise ValueError(f"--executor local supports only {', '.join(LOCAL_OPTIONS)}, got {', '.join(unknown)}")
        self._executor = submitit().LocalExecutor(folder, max_num_timeout=TIMEOUTS)
        self._executor.update_parameters(**{**options, "timeout_min": minutes(options.get("timeout_min", MONTH))})
        # Without gpus_per_node submitit hides all GPUs.
        self._gpus = {} if "gpus_per_node" in options else {GPUS: os.environ.get(GPUS)}

    def run(self, run: NotebookRun, stops: set[Callable[[], None]]) -> bool:
        """Runs `run()` in a job and waits for it; returns False if the run was already finished."""
        if finished(run.folder):
            return False
        job = self._executor.submit(replace(run, environment={**run.environment, **self._gpus}))
        stops.add(job.cancel)
        while not job.done():
            time.sleep(0.2)
        if not finished(run.folder):
            reason = error_line(run.log) if run.log.exists() else f"see {job.paths.stderr}"
            raise RuntimeError(f"{reason} (log: {run.log})")
        return True


class SlurmJobs:
    """Submits runs as jobs of a Slurm cluster and does not wait for them.

    Args:
        folder: Folder for submitit's files, on a disk that all nodes share.
        options: Parameters of `submitit.SlurmExecutor` (partition, time, gpus_per_node, cpus_per_task, ...), `mem_gb`,
            and `timeout_min` for time. A time limit is required, in minutes or in one of sbatch's formats.

    Raises:
        ValueError: without Slurm, without a time limit, or for an unknown option.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
        if missing:
            raise ValueError(f"no {', '.join(missing)} here: run this on a login node of a Slurm cluster, or choose "
                             "--executor local")  # fmt: skip
        limits = {name: options[name] for name in LIMITS if name in options}
        if len(limits) != 1:
            raise ValueError("a Slurm job needs one time limit, after which it is queued again and resumes: --slurm "
                             f"time=MINUTES, or time=D-HH:MM:SS; got {limits or 'none'}")  # fmt: skip
        self._executor = submitit().SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        # A job whose dependency failed leaves the queue instead of waiting for ever.
        more = {"additional_parameters": {"kill-on-invalid-dep": "yes"}, "time": minutes(*limits.values())}
        if "mem_gb" in options:
            more["mem"] = f"{options['mem_gb']}GB"
        named = {name: value for name, value in options.items() if name not in ("mem_gb", *LIMITS)}
        self._executor.update_parameters(**named, **more)

    def submit(self, run: NotebookRun, after: str = "") -> str:
        """Queues a run and returns its job number; the job starts after job `after` has succeeded.

        Raises:
            OSError: if sbatch refuses the job, with its message.
        """
        dependency = f"afterok:{after}" if after else None
        self._executor.update_parameters(job_name=run.folder.name, dependency=dependency)
        try:
            with redirect_stderr(io.StringIO()):  # submitit also prints the message that it raises
                return str(self._executor.submit(replace(run, patience=PATIENCE)).job_id)
        except RuntimeError as error:
            words = " ".join(str(error).split()) or "it does not say why"
            raise OSError(f"queueing {run.folder.name} failed, says sbatch: {words}; the same command, its --slurm "
                          "options mended, queues this run and those after it") from error  # fmt: skip

    @staticmethod
    def queued() -> set[str]:
        """Returns the numbers of all waiting and running jobs of this user.

        Raises:
            OSError: if Slurm does not answer, because a job that may still run must not be queued again.
        """
        listed = subprocess.run(["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True)
        if listed.returncode:
            raise OSError(f"squeue does not say which jobs are queued: {listed.stderr.strip()}; try again later")
        return set(listed.stdout.split())


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of jobs from comma-separated `name=value` pairs; whole numbers become integers.

    Example:
        >>> parse_options(["partition=gpu,time=240", "mem_gb=32"])
        {'partition': 'gpu', 'time': 240, 'mem_gb': 32}

    Raises:
        ValueError: for text without `=`.
    """
    options = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ValueError(f'a job option must be NAME=VALUE, as in "partition=gpu,time=240", got "{pair}"')
        name = {"timeout": "timeout_min"}.get(name.strip(), name.strip())
        options[name] = int(value) if value.strip().isdecimal() else value.strip()
    return options


def minutes(limit: int | str) -> int:
    """Converts a time limit in sbatch's formats (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S) to minutes, rounded up.

    Example:
        >>> [minutes(limit) for limit in (240, "90:00", "1:30:01", "2-0", "1-0:30", "1-00:00:00")]
        [240, 90, 91, 2880, 1470, 1440]

    Raises:
        ValueError: for any other format, or a limit of zero.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", str(limit))
    days, clock = found.groups() if found else (None, "0")
    numbers = [int(number) for number in clock.split(":")]
    if days is None and len(numbers) < 3:  # the first number is minutes
        numbers.insert(0, 0)
    hours, whole, seconds = [*numbers, 0, 0][:3]
    total = (int(days or 0) * 24 + hours) * 60 + whole + -(-seconds // 60)
    if total < 1:
        raise ValueError(f'a time limit must be minutes, H:MM:SS or D-HH:MM:SS, and not zero; got "{limit}"')
    return total
