"""Files: folders, all-or-nothing writing, NumPy arrays, and locks."""

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
OTHER_OPEN_FILES = 128, 512  # that a process has open besides its videos: needed, and asked for where allowed
LONGEST_NAME = 200  # bytes, of the 255 that file systems take
PROBE = 2**16  # bytes that are written to see whether a disc is full


def cache_folder() -> Path:
    """`$MVF_CACHE`, else `~/.cache/mvf`: weights, banks, frame counts."""
    return Path(os.environ.get("MVF_CACHE") or _home("MVF_CACHE") / ".cache" / "mvf")


def data_folder(root: str | Path | None = None) -> Path:
    """`root`, else `$MVF_DATA`, else `~/mvf_data`."""
    return expand_user(root or os.environ.get("MVF_DATA") or _home("MVF_DATA") / "mvf_data")


def expand_user(path: str | Path) -> Path:
    """`path` with `~` and `~user` replaced by the home folder.

    Raises:
        ValueError: if there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError):
        raise ValueError(f"{path}: {Path(path).parts[0]} has no known home folder; write ~/ or a full path") from None


def _home(variable: str) -> Path:
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        raise ValueError(f"this user has no home folder; set {variable} to a folder that can be written") from None


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` only when the block succeeds.

    The temporary file is named after its process, so that the next process to write there deletes what a killed one
    left.

    Raises:
        PermissionError: if the folder cannot be written; the message names it.
        OSError: if the disc is full; the message names the file.
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


def check_output(path: str | Path) -> None:
    """Raises OSError if a file cannot be written, so that it is not found out after long work."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    with atomic(path.with_name(f"{path.stem}.check")) as temporary:
        temporary.touch()
    path.with_name(f"{path.stem}.check").unlink()


def hidden_beside(path: Path) -> Path:
    """A hidden name beside `path` for this process to write to; makes the folder and clears leftovers there."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent, os.getpid())
    return path.with_name(f".{short_name(path.stem)}.mvf-{_host()}-{os.getpid()}{path.suffix}")


def short_name(name: str) -> str:
    """Cuts a name so that file systems take it with something added; a hash keeps cut names apart.

    Example:
        >>> short_name("squat"), len(short_name("squat" * 100))
        ('squat', 200)
    """
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[: LONGEST_NAME - len(mark) - 1].decode(errors='ignore')}-{mark}"


@contextmanager
def explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Replaces errors while writing `path` with errors that say what to do.

    Args:
        path: The file to be written.
        temporary: The file that the block actually writes.
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            f"cannot write {path}: give write permission to {path.parent} or {_elsewhere(path)}"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"cannot write {path}: {error.filename} is a file, not a folder") from error
    except (OSError, RuntimeError) as error:  # torch and numpy hide the system's error
        if getattr(error, "errno", None) == errno.EROFS:
            raise PermissionError(f"cannot write {path}: its disc is read-only; {_elsewhere(path)}") from error
        if getattr(error, "errno", None) in FULL or (temporary is not None and _takes_no_more(temporary)):
            raise OSError(
                f"cannot write {path}: the disc (or a limit on it) is full; make room there or {_elsewhere(path)} "
                "and run the same command again: completed work is kept"
            ) from error
        raise


def _elsewhere(path: Path) -> str:
    """What to do where a file cannot be written; the package's own folders are named by variables."""
    with suppress(ValueError):  # no home folder
        for folder, variable in ((cache_folder(), "MVF_CACHE"), (data_folder(), "MVF_DATA")):
            if path.absolute().is_relative_to(folder.absolute()):
                return f"set {variable} to another folder"
    return "choose another folder"


@contextmanager
def locked(path: Path, patience: float = -1) -> Iterator[int | None]:
    """Holds the lock file `path` inside the block; the system frees it when the process ends, however it ends.

    On a disc without locks it logs a warning and continues.

    Args:
        path: The lock file; its folder must exist.
        patience: Seconds to wait for another holder; -1 waits without end.

    Yields:
        The descriptor of the lock file: a child process that inherits it holds the lock too. None without a lock.

    Raises:
        filelock.Timeout: if another process still holds it after `patience` seconds.
    """
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks; make sure that no other process works there", path)
    try:
        yield lock._context.lock_file_fd  # filelock has no public name for it
    finally:
        lock.release()


def note_progress(line: str) -> None:
    """Adds a line to the file that `$MVF_PROGRESS` names, if there is one: a batch shows the last line of its runs."""
    if path := os.environ.get("MVF_PROGRESS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def allow_open_files(count: int) -> None:
    """Raises the limit of open files for `count` more; every open memory map counts as one.

    Raises:
        OSError: if the machine does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed, wanted = (count + others for others in OTHER_OPEN_FILES)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if resource.RLIM_INFINITY not in (soft, hard) and needed > hard:
        raise OSError(
            errno.EMFILE,
            f"{count} videos need {needed} files open at once and this machine allows {hard} (ulimit -Hn): raise the "
            "limit, or embed fewer videos at a time",
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
    """Deletes temporary files of dead processes of this machine; runs once per folder and process."""
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
    """A short name of this machine; on a shared disc it is unknown whether processes of other machines run."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


# ----------------------------------------------------------------------------------------------------------------------
# Arrays of `.npy` and `.npz` files. `np.load` allocates what a header asks for, so the header is compared with the size
# of the file first.

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NUMBERS = "biuf"  # kinds of dtypes: booleans, integers and floats


def read_npy(path: str | Path) -> np.ndarray:
    """Reads the array in a `.npy` file.

    Raises:
        ValueError: if it is not such a file, holds anything but numbers (objects could run code), or is truncated.
        OSError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            _check_header(file, os.fstat(file.fileno()).st_size)
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a complete .npy of plain values ({error}); save it with numpy.save") from None


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays in an `.npz`, by name; raises what `read_npy`, `zipfile` and `zlib` raise."""
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
    """Refuses a header that asks for more than the `size` bytes of the file, or for anything but numbers."""
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
        raise ValueError(f"{dtype} {shape} takes {needed} bytes, {size - file.tell()} follow")


# ----------------------------------------------------------------------------------------------------------------------
# Locks of run folders: one process trains in a folder.

LOCK = ".lock"  # exists while a process trains; after a kill it remains, but nothing holds it
HOLDER = ".lock.holder"  # names the process that trains
ORPHANS = 20.0  # seconds within which the workers of a killed process notice and end


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Reserves `folder` for this process, so that no other process trains there; anyone may still read it.

    The system drops the lock when the process ends, however it ends. A folder made only for the lock is removed.

    Raises:
        OSError: if another process holds the folder, or it cannot be written; the message names the folder and holder.
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
                for name in (HOLDER, LOCK):  # while the lock is held, so that they still belong to this process
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
                patience = ORPHANS  # the workers of a killed process share its lock and outlive it by seconds


def _holder(folder: Path) -> str:
    with suppress(OSError):
        return (folder / HOLDER).read_text(encoding="utf-8", errors="replace")[:300]
    return ""


def _is_running(holder: str) -> bool:
    """Whether the holder may still run; False only for a process of this machine that has ended."""
    process, _, machine = holder.partition(" ")
    return not process.isdigit() or machine != platform.node() or is_alive(int(process))
