"""The files of a bank: each is complete or absent, has a checksum beside it, and holds one row of bytes per frame."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvf.files import atomic, explained, hidden_beside

logger = logging.getLogger(__name__)

ROOM_LEFT = 2**30  # bytes of disk that a bank never takes


def bfloat16(bits: np.ndarray) -> Tensor:
    """Views int16 bits as bfloat16 numbers."""
    return torch.from_numpy(bits).view(torch.bfloat16)


@contextmanager
def growing(paths: Collection[Path]) -> Iterator[Callable[[Path, np.ndarray], None]]:
    """Yields `append(path, array)`; the files and their sha256 files get their names after the block.

    Until then they grow under hidden names, and are deleted if the block fails. No array is kept in memory.
    """
    hidden, sums = {path: hidden_beside(path) for path in paths}, {path: hashlib.sha256() for path in paths}

    def append(path: Path, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        with explained(path, hidden[path]), open(hidden[path], "ab") as file:
            file.write(data.data)  # tofile does not report a full disc
        sums[path].update(data.data)  # of what was written, not of what is on the disc

    try:
        for file in hidden.values():  # left by a killed process with the same number
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
    """Writes the bytes of an array, and their sha256 into a file beside it."""
    with growing([path]) as append:
        append(path, array)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def check_room(folder: Path, size: int) -> None:
    """Raises OSError if the disk has no room for the `size` bytes of a bank."""
    free = free_bytes(folder)
    if size > free - ROOM_LEFT:
        raise OSError(
            f"the feature bank needs {size / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB are free, of which "
            f"{ROOM_LEFT / 1e9:.2f} GB are reserved for other files: "
            'use features="online", fewer bank_views, bank_dtype="int8", bank_channels, or set $MVF_CACHE to a folder '
            "on a larger disk"
        )


def needs_writing(path: Path, video: str) -> bool:
    """Whether a file must be written: it is missing, has no checksum, or is damaged, which is logged."""
    mark = path.with_name(path.name + ".sha256")
    if mark.exists() and not is_whole(path):
        logger.warning("%s does not match its checksum: it is made again from %s", path, video)
        mark.unlink(missing_ok=True)
    return not mark.exists()


def is_whole(path: Path) -> bool:
    """Whether a file matches the checksum beside it."""
    with suppress(FileNotFoundError), open(path, "rb") as file:  # another process may delete it at any moment
        return path.with_name(path.name + ".sha256").read_text() == hashlib.file_digest(file, "sha256").hexdigest()
    return False


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


# Rows: the features of a frame as bytes. All rows are equally long, so that single frames can be read.

LARGEST = 127  # largest int8 whose negative is an int8 too


def row_bytes(dtype: str, patches: int, channels: int) -> int:
    """Number of bytes of a frame of (patches, channels) numbers.

    Example:
        >>> row_bytes("bf16", 64, 384), row_bytes("int8", 64, 384)
        (49152, 26112)
    """
    return 2 * patches * channels if dtype == "bf16" else 4 * channels + patches * channels


def encode(dtype: str, features: Tensor) -> NDArray[np.uint8]:
    """(n, P, C) features -> (n, bytes) rows.

    `int8` has one float32 scale per frame and channel, in front of the numbers. Channels of a vision transformer differ
    in size by far more than patches do (a few carry most of the norm): on DINOv2 a scale per patch loses three times as
    much, 1.6 % of the norm against 0.5 %.
    """
    if dtype == "bf16":
        return _bytes(features.to("cpu", torch.bfloat16).view(torch.int16))
    features = features.to("cpu", torch.float32)
    scale = features.abs().amax(dim=1, keepdim=True) / LARGEST
    whole = (features / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    return np.concatenate([_bytes(scale), _bytes(whole)], axis=1)


def decode(dtype: str, rows: NDArray[np.uint8], pick: Sequence[int], out: NDArray[np.int16]) -> None:
    """Decodes frames `pick` of (frames, bytes) rows into `out`, the bits of bfloat16 (len(pick), P, C)."""
    _, patches, channels = out.shape
    for place, frame in enumerate(pick):
        row = rows[frame]
        if dtype == "bf16":
            out[place] = row.view(np.int16).reshape(patches, channels)
        else:
            scale, whole = row[: 4 * channels].view(np.float32), row[4 * channels :].view(np.int8)
            values = torch.from_numpy(whole.reshape(patches, channels) * scale)
            out[place] = values.bfloat16().view(torch.int16).numpy()


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return values.contiguous().numpy().reshape(len(values), -1).view(np.uint8)
