"""One run folder, one process that trains in it."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mvf.files import explained, is_alive, lock_file

LOCK = ".lock"  # there while a process trains, and after a kill, when it holds nothing
ORPHANS = 20.0  # seconds after which workers of a killed process have noticed and ended


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps `folder` for this process, so that no other trains there; reading it stays free.

    The system drops the lock when the process ends, however it ends. A folder made only for the lock goes with it.

    Raises:
        OSError: naming the folder, when another process holds it (and which) or it cannot be written.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    with explained(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(folder)
        file.write(f"{os.getpid()} {platform.node()}")
        file.flush()
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # also of the copies that forked workers have
        file.close()
        for part in missing:
            with suppress(OSError):  # it holds a run now
                part.rmdir()


def _take(folder: Path) -> IO[str]:
    patience = time.monotonic() + ORPHANS
    while True:
        file = open(folder / LOCK, "a+", encoding="utf-8")
        if not lock_file(file, wait=False):
            holder = _holder(file)
            file.close()
            if _is_running(holder) or time.monotonic() > patience:
                process, _, machine = holder.partition(" ")
                raise BlockingIOError(
                    f"{folder} is being trained by process {process or 'unknown'} on {machine or 'this machine'}: "
                    "wait until it ends, stop it, or choose another run_dir"
                )
            time.sleep(0.1)  # its workers outlive it by seconds and share its lock
        elif os.fstat(file.fileno()).st_nlink:
            file.truncate(0)
            return file
        else:
            file.close()  # the holder before deleted it while we waited: nobody else would see this lock


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read(300)


def _is_running(holder: str) -> bool:
    """False only for a process of this machine that is gone."""
    process, _, machine = holder.partition(" ")
    return not process.isdigit() or machine != platform.node() or is_alive(int(process))
