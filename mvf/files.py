"""Files: folders, writing that is complete or absent, NumPy arrays, and locks."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import math
import os
import platform
import re
import resource
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
OTHER_OPEN_FILES = 512  # that a process has open besides its videos
PROBE = 2**16  # bytes; a disc that is not full takes them


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
    """A hidden name beside `path` for this process to write to; makes the folder and clears leftovers there."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent, os.getpid())
    return path.with_name(f".{path.stem}.mvf-{_host()}-{os.getpid()}{path.suffix}")


@contextmanager
def explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Replaces errors while writing `path` by ones that say what to do.

    Args:
        path: What is written.
        temporary: The file that the block actually writes.
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


@contextmanager
def locked(path: Path, patience: float = -1) -> Iterator[int | None]:
    """Holds the lock file `path` inside the block; the system frees it when the process ends, however it ends.

    On a disc without locks it logs a warning and goes on.

    Args:
        path: The lock file; its folder must be there.
        patience: Seconds to wait for another holder; -1 waits without end.

    Yields:
        The descriptor of the lock file: a child process that inherits it holds the lock too. None without a lock.

    Raises:
        filelock.Timeout: when another still holds it after `patience` seconds.
    """
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks, so see that no other process works there", path)
    try:
        yield lock._context.lock_file_fd  # filelock has no public name for it
    finally:
        lock.release()


def allow_open_files(count: int) -> None:
    """Raises the limit of open files by `count`; every memory map that is kept counts as one.

    Raises:
        OSError: when the machine does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_OPEN_FILES
    if resource.RLIM_INFINITY not in (soft, hard) and wanted > hard:
        raise OSError(
            errno.EMFILE,
            f"{count} videos need {wanted} files open at once and this machine allows {hard} (ulimit -Hn): raise that, "
            "or embed fewer videos at a time",
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def save_array(path: Path, array: np.ndarray) -> None:
    """Saves an array like `np.save`, but raises when the disc is full, which `np.save` ignores."""
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
    """Deletes temporary files of dead processes of this machine; once per folder in the life of `process`."""
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
    """A short name of this machine; on a shared disc, processes of other machines cannot be asked if they run."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


# ----------------------------------------------------------------------------------------------------------------------
# Arrays of `.npy` and `.npz` files. `np.load` allocates what a header asks for, so the header is compared with the size
# of the file first.

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NUMBERS = "biuf"  # truth values, whole and decimal numbers


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a `.npy`.

    Raises:
        ValueError: when it is not such a file, holds other than numbers (objects could run code) or is cut short.
        OSError: when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            _check_header(file, os.fstat(file.fileno()).st_size)
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is no whole .npy of plain values ({error}); save it with numpy.save") from None


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in an `.npz`, by name; raises what `read_npy` raises, and the errors of `zipfile` and `zlib`."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                try:
                    _check_header(file, member.file_size)
                except ValueError as error:
                    raise ValueError(f'"{member.filename}": {error}') from None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuses a header that asks for more than the `size` bytes of the file, or for other than numbers."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"unknown format {version}")
        shape, _, dtype = HEADERS[version](file)
        needed = math.prod(shape) * dtype.itemsize
    except (ValueError, TypeError, OverflowError, RecursionError, TokenError, SyntaxError) as error:
        raise ValueError(f"its header is damaged: {error}") from None
    if dtype.kind not in NUMBERS:
        raise ValueError(f"it holds {dtype}, not numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    if needed > size - file.tell():
        raise ValueError(f"{dtype} {shape} are {needed} bytes, {size - file.tell()} follow")


# ----------------------------------------------------------------------------------------------------------------------
# Locks of run folders: one process trains in a folder.

LOCK = ".lock"  # there while a process trains, and after a kill, when nothing holds it
HOLDER = ".lock.holder"  # names the process that trains
ORPHANS = 20.0  # seconds after which the workers of a killed process have noticed and ended


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Reserves `folder` for this process, so that no other trains there; anyone may still read it.

    The system drops the lock when the process ends, however it ends. A folder made only for the lock is removed.

    Raises:
        OSError: naming the folder, when another process holds it (and which) or it cannot be written.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    with explained(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _take(folder)
    try:
        with lock:
            with explained(folder / HOLDER):
                (folder / HOLDER).write_text(f"{os.getpid()} {platform.node()}", encoding="utf-8")
            try:
                yield
            finally:
                for name in (HOLDER, LOCK):  # while the lock is held, so that they are this process's own
                    with suppress(OSError):
                        (folder / name).unlink()
    finally:
        for part in missing:
            with suppress(OSError):  # it holds a run now
                part.rmdir()


def _take(folder: Path) -> ExitStack:
    patience = 0.0
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder / LOCK, patience))
                return stack.pop_all()
            except Timeout:
                holder = _holder(folder)
                if patience or _is_running(holder):
                    process, _, machine = holder.partition(" ")
                    raise BlockingIOError(
                        f"{folder} is being trained by process {process or 'unknown'} on {machine or 'this machine'}: "
                        "wait until it ends, stop it, or choose another run_dir"
                    ) from None
                patience = ORPHANS  # the workers of a killed process outlive it by seconds and share its lock


def _holder(folder: Path) -> str:
    with suppress(OSError):
        return (folder / HOLDER).read_text(encoding="utf-8", errors="replace")[:300]
    return ""


def _is_running(holder: str) -> bool:
    """Whether the holder may still run; False only for a process of this machine that has ended."""
    process, _, machine = holder.partition(" ")
    return not process.isdigit() or machine != platform.node() or is_alive(int(process))
