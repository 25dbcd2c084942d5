"""The files of a bank: whole or not there, with a checksum each; and videos piece by piece."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvf.data.records import VideoRecord
from mvf.files import atomic

logger = logging.getLogger(__name__)


def in_chunks(record: VideoRecord, size: int, start: int = 0) -> Iterator[Tensor]:
    """uint8 (n, 3, H, W) frames of a video from frame `start` on, `size` at a time."""
    frames: list[np.ndarray] = []
    for frame in record.frames(start):
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
    data = np.ascontiguousarray(array)
    with atomic(path) as temporary:
        temporary.write_bytes(data)  # tofile says nothing of a full disc
    with atomic(path.with_name(path.name + ".sha256")) as temporary:
        temporary.write_text(hashlib.sha256(data).hexdigest())  # of what was meant, not of what is on the disc


def check_file(path: Path) -> None:
    """Raises OSError where a file is not what `write_checked` wrote."""
    if not is_whole(path):
        raise OSError(f"{path} does not match its checksum: delete it and run again")


def is_to_be_made(path: Path, video: str) -> bool:
    """Whether a file is missing, or damaged, which is said; what has no checksum then counts as missing."""
    mark = path.with_name(path.name + ".sha256")
    if mark.exists() and not is_whole(path):
        logger.warning("%s does not match its checksum: it is made again from %s", path, video)
        mark.unlink(missing_ok=True)
    return not mark.exists()


def is_whole(path: Path) -> bool:
    """Whether a file is what `write_checked` wrote."""
    mark = path.with_name(path.name + ".sha256")
    if not (path.exists() and mark.exists()):
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == mark.read_text()


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
