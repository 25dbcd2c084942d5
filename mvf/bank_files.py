"""The files of a bank: whole or not there, with a checksum each; and videos piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvf.data.records import VideoRecord
from mvf.files import atomic


def in_chunks(record: VideoRecord, size: int) -> Iterator[Tensor]:
    """uint8 (n, 3, H, W) frames of a video, `size` at a time."""
    frames: list[np.ndarray] = []
    for frame in record.frames():
        frames.append(frame)
        if len(frames) == size:
            yield _to_tensor(frames)
            frames = []
    if frames:
        yield _to_tensor(frames)


def _to_tensor(frames: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def bfloat16(bits: np.ndarray) -> Tensor:
    """int16 bits as numbers."""
    return torch.from_numpy(bits).view(torch.bfloat16)


def write_checked(path: Path, array: np.ndarray) -> None:
    """Writes the bytes of an array, and their sha256 in a file beside."""
    with atomic(path) as temporary:
        array.tofile(temporary)
    with atomic(path.with_name(path.name + ".sha256")) as temporary:
        temporary.write_text(_checksum(path))


def check_file(path: Path) -> None:
    """Raises OSError where a file is not what `write_checked` wrote."""
    if _checksum(path) != path.with_name(path.name + ".sha256").read_text():
        raise OSError(f"{path} does not match its checksum: delete it and run again")


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
