"""Where files lie, files that are never half-written, and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import math
import os
import platform
import re
import resource
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import IO, BinaryIO

import numpy as np

logger = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
OPEN_ANYWAY = 512  # files that a process has open besides
PROBE = 2**16  # bytes that a disc with room takes


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


# ----------------------------------------------------------------------------------------------------------------------
# Arrays of `.npy` and `.npz` files; `np.load` takes the memory that a header asks for, which here must be there.
#
# A compressed member of an `.npz` may unfold to a thousand times its size, as zeros do: what is refused is not a ratio,
# but what the memory of the machine does not hold.

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NUMBERS = "biuf"  # truth values, whole and decimal numbers
HEAD, BLOCK = 2**16, 2**20  # bytes read for the header, and at once
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of members; others unfold without bound, numpy writes none


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a `.npy`.

    Raises:
        ValueError: when it is not such a file, holds other than numbers (objects could run code), is cut short, or is
            larger than the memory.
        OSError: when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_memory("it", size, free_memory())
            return _array(file, size)
    except ValueError as error:
        raise ValueError(f"{path} is no whole .npy of plain values ({error}); save it with numpy.save") from None


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in an `.npz`, by name; raises what `read_npy` raises, and the errors of `zipfile` and `zlib`."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total, free = 0, free_memory()
        for member in members:
            total += member.file_size  # as declared: no more of it is read
            _check_memory(f'"{member.filename}" (and what comes before it)', total, free)
        return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, of its group (a job, a container), of its own limit."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = [page * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, TypeError):  # files of Linux
        found.append(1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]))
    with suppress(OSError, TypeError, ValueError):  # "max": no limit
        group = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)[1]
        found.append(int(Path("/sys/fs/cgroup", group, "memory.max").read_text()))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError):
            found.append(limit - page * int(Path("/proc/self/statm").read_text().split()[0]))
    return min(found)


def _check_memory(what: str, size: int, free: int) -> None:
    if size > free:
        raise ValueError(f"{what} takes {size / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} GB are free")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in KINDS:
        raise ValueError(f'"{member.filename}" is compressed by method {member.compress_type}: use savez_compressed')
    with archive.open(member) as file:
        try:
            values = _array(file, member.file_size)
        except ValueError as error:
            raise ValueError(f'"{member.filename}": {error}') from None
        while file.read(BLOCK):  # its sum is compared at its end
            pass
    return values


def _array(file: BinaryIO, size: int) -> np.ndarray:
    """The array in a file of `size` bytes, of which no more than its header asks for are kept."""
    head = io.BytesIO(file.read(HEAD))
    try:
        version = np.lib.format.read_magic(head)
        if version not in HEADERS:
            raise ValueError(f"unknown format {version}")
        shape, in_columns, kind = HEADERS[version](head)
        if kind.hasobject:
            raise ValueError(f"it holds objects ({kind}), which are not read")
        if kind.kind not in NUMBERS:  # text of damaged characters fails wherever it is looked at
            raise ValueError(f"it holds {kind}, not numbers")
        if min(shape, default=0) < 0:
            raise ValueError(f"its shape is {shape}")
        count = math.prod(shape)
        if count * kind.itemsize > size - head.tell():
            raise ValueError(f"{kind} {shape} are {count * kind.itemsize} bytes, {size - head.tell()} follow")
        data = _filled(bytearray(count * kind.itemsize), head, file)
        values = np.frombuffer(data, kind, count) if count else np.zeros(0, kind)
        values = values.reshape(shape, order="F" if in_columns else "C")
        return values.copy() if in_columns else values
    except (TypeError, OverflowError, RecursionError, TokenError, SyntaxError) as error:
        raise ValueError(f"its header is damaged: {error}") from None


def _filled(data: bytearray, *files: BinaryIO) -> bytearray:
    """The buffer with what one file after the other gives, a block at a time."""
    view, place = memoryview(data), 0
    for file in files:
        while place < len(data) and (count := file.readinto(view[place : place + BLOCK])):
            place += count
    if place < len(data):
        raise ValueError(f"it ends after {place} of {len(data)} bytes")
    return data


# ----------------------------------------------------------------------------------------------------------------------
# One run folder, one process that trains in it.

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
