"""Single images, and the error that every unreadable video raises."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers


class VideoError(ValueError):
    """A video that cannot be read; the message names the file and the reason."""


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts numbers inside names by value.

    Example:
        >>> sorted(["10.png", "9.png"], key=natural_key)
        ['9.png', '10.png']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def image_files(folder: Path) -> list[Path]:
    """The images with a number in their name that lie in `folder`, in natural order."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    numbered = [path for path in found if any(map(str.isdecimal, path.stem))]
    return sorted(numbered, key=lambda path: natural_key(path.name))


def read_image(path: Path, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """One image, uint8 (H, W, 3) RGB, or (H, W) for `cv2.IMREAD_GRAYSCALE`.

    Raises:
        VideoError: when the file is not an image, or is cut short, naming it.
    """
    try:
        picture = decode_image(path.read_bytes(), flag)
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}") from None
    if picture is None:
        raise VideoError(f"cannot read {path}: not an image, or damaged")
    return picture


def decode_image(data: bytes, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray | None:
    """The image in a file's bytes; None where there is none, or only a part of one."""
    cut = data.startswith(JPEG_START) and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN)  # OpenCV would fill it with grey
    return None if cut or not data else cv2.imdecode(np.frombuffer(data, np.uint8), flag)
