"""The files of a bank: whole or not there, with a checksum each; and videos piece by piece."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvf.files import atomic, explained, hidden_beside

logger = logging.getLogger(__name__)
ROOM_LEFT = 2**30  # bytes of disk that a bank never takes


def bfloat16(bits: np.ndarray) -> Tensor:
    """int16 bits as numbers."""
    return torch.from_numpy(bits).view(torch.bfloat16)


@contextmanager
def growing(paths: Collection[Path]) -> Iterator[Callable[[Path, np.ndarray], None]]:
    """Yields `append(path, array)`; after the block each file is there, then its sha256 in a file beside.

    Until then they grow out of sight, and none is there if the block fails. Nothing of an array is kept in memory.
    """
    hidden, sums = {path: hidden_beside(path) for path in paths}, {path: hashlib.sha256() for path in paths}

    def append(path: Path, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        with explained(path, hidden[path]), open(hidden[path], "ab") as file:
            file.write(data)  # tofile says nothing of a full disc
        sums[path].update(data)  # what was meant, not what is on the disc

    try:
        for file in hidden.values():  # of a killed process that had this one's number
            file.unlink(missing_ok=True)
        yield append
        for path in paths:
            with explained(path):
                os.replace(hidden[path], path)
            with atomic(path.with_name(path.name + ".sha256")) as temporary:
                temporary.write_text(sums[path].hexdigest())
    finally:
        for file in hidden.values():
            with suppress(OSError):
                file.unlink()


def write_checked(path: Path, array: np.ndarray) -> None:
    """Writes the bytes of an array, and their sha256 in a file beside."""
    with growing([path]) as append:
        append(path, array)


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not be there."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def check_room(folder: Path, size: int) -> None:
    """Raises OSError where a disk has no room for the `size` bytes of a bank."""
    free = free_bytes(folder)
    if size > free - ROOM_LEFT:
        raise OSError(
            f"the feature bank needs {size / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB are free, of which "
            f"{ROOM_LEFT / 1e9:.2f} GB stay free for all else: "
            'use features="online", fewer bank_views, bank_dtype="int8", bank_channels, or a larger disk by '
            "$MVF_CACHE"
        )


def is_to_be_made(path: Path, video: str) -> bool:
    """Whether a file is missing, or damaged, which is said; what has no checksum then counts as missing."""
    mark = path.with_name(path.name + ".sha256")
    if mark.exists() and not is_whole(path):
        logger.warning("%s does not match its checksum: it is made again from %s", path, video)
        mark.unlink(missing_ok=True)
    return not mark.exists()


def is_whole(path: Path) -> bool:
    """Whether a file is what `write_checked` wrote."""
    with suppress(FileNotFoundError), open(path, "rb") as file:  # another process may delete it at any moment
        return path.with_name(path.name + ".sha256").read_text() == hashlib.file_digest(file, "sha256").hexdigest()
    return False


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
