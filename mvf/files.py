"""Where files lie, files that are never half-written, and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
OPEN_ANYWAY = 512  # files that a process has open besides
PROBE = 2**16  # bytes that a disc with room takes

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$MVF_CACHE`, else `~/.cache/mvf`: weights, banks, frame counts."""
    return Path(os.environ.get("MVF_CACHE") or Path.home() / ".cache" / "mvf")


def data_folder(root: str | Path | None = None) -> Path:
    """`root`, else `$MVF_DATA`, else `~/mvf_data`."""
    return Path(root or os.environ.get("MVF_DATA") or Path.home() / "mvf_data").expanduser()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` only when the block succeeds.

    The temporary file names its process, so that what a killed one left is deleted by the next that writes there.

    Raises:
        PermissionError: naming the folder, when it cannot be written.
        OSError: naming the file, when the disc is full.
    """
    path = Path(path)
    temporary = hidden_beside(path)
    try:
        with explained(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def hidden_beside(path: Path) -> Path:
    """A name for what this process will rename to `path`, in a folder made and rid of what killed ones left."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent, os.getpid())
    return path.with_name(f".{path.stem}.mvf-{_host()}-{os.getpid()}{path.suffix}")


@contextmanager
def explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turns the errors of writing `path` into ones that say what to do.

    Args:
        path: What is written.
        temporary: The file that the block really writes.
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            f"cannot write {path}: give write permission to {path.parent} or choose another folder"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"cannot write {path}: {error.filename} is a file, not a folder") from error
    except (OSError, RuntimeError) as error:  # torch and numpy hide what the system said
        if getattr(error, "errno", None) == errno.EROFS:
            raise PermissionError(f"cannot write {path}: its disc is read-only; choose another folder") from error
        if getattr(error, "errno", None) in FULL or (temporary is not None and _takes_no_more(temporary)):
            raise OSError(
                f"cannot write {path}: the disc (or a limit on it) is full; make room there or choose another folder "
                "and run the same again: what was complete before is kept"
            ) from error
        raise


def lock_file(file: IO, wait: bool = True) -> bool:
    """Keeps an open file for this process and those that inherit it, until all of them have closed it.

    On a disc without locks it says so and goes on.

    Args:
        file: Empty or not, its content does not matter.
        wait: Until whoever holds it has closed it.

    Returns:
        False when another holds it and this one does not wait.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks, so see that no other process works there", file.name)
    return True


def allow_open_files(count: int) -> None:
    """Lets this process have `count` more files open: a memory map that is kept is one.

    Raises:
        OSError: when the machine does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OPEN_ANYWAY
    if resource.RLIM_INFINITY not in (soft, hard) and wanted > hard:
        raise OSError(
            errno.EMFILE,
            f"{count} videos need {wanted} files open at once and this machine allows {hard} (ulimit -Hn): raise that, "
            "or embed fewer videos at a time",
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def save_array(path: Path, array: np.ndarray) -> None:
    """`np.save`, but a full disc is an error: numpy hands the data to a buffer of C and drops what that says."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    path.write_bytes(buffer.getbuffer())


def _takes_no_more(path: Path) -> bool:
    try:
        with open(path, "ab") as file:
            file.write(bytes(PROBE))
    except OSError as error:
        return error.errno in FULL
    return False


@cache
def clear_leftovers(folder: Path, process: int) -> None:
    """Deletes temporary files and folders of this machine's dead processes; once a folder in the life of `process`."""
    for path in folder.glob(".*.mvf-*"):
        written_by = re.search(rf"\.mvf-{_host()}-(\d+)(\.|$)", path.name)
        if written_by and not is_alive(int(written_by[1])):
            with suppress(OSError):  # gone already, or another user's
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs.

    Example:
        >>> is_alive(os.getpid())
        True
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


@cache
def _host() -> str:
    """A short mark of this machine: processes of other machines on a shared disc cannot be asked whether they live."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]
