"""Arrays of `.npy` and `.npz` files; `np.load` takes the memory that a header asks for, which here must be there.

A compressed member of an `.npz` may unfold to a thousand times its size, as zeros do: what is refused is not a ratio,
but what the memory of the machine does not hold.
"""

from __future__ import annotations

import io
import math
import os
import re
import resource
import zipfile
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np

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
