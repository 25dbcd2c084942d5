"""Single images, and the error that every unreadable video raises."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())


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
        VideoError: when the file is not an image, naming it.
    """
    picture = cv2.imread(str(path), flag)
    if picture is None:
        raise VideoError(f"cannot read {path}: not an image, or damaged")
    return picture
