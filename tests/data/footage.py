"""Small videos for tests: each frame's brightness tells its number."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "../shared"
STEP = 4  # brightness per frame
TURNED = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}  # display matrices, counterclockwise


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A flat picture of brightness STEP * number with a white upper left corner."""
    image = np.full((height, width, 3), STEP * number % 256, np.uint8)
    image[: height // 4, : width // 4] = 255
    return image


def number_of(image: np.ndarray) -> int:
    """The number of the frame that `image` shows, read at its centre."""
    height, width, _ = image.shape
    return round(float(image[height // 2, width // 2].mean()) / STEP)


def write_video(
    path: Path,
    count: int = 12,
    *,
    width: int = 64,
    height: int = 48,
    fps: int = 30,
    rotation: int = 0,
    aspect: Fraction | None = None,
    times: list[int] | None = None,
    codec: str = "libx264",
) -> Path:
    """Encodes `count` frames; `times` are presentation times in frames of `fps`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if rotation:
        set_display_matrix(path, TURNED[rotation])
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes a display matrix (a, b, c, d) into the track header of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    at = header + 4 + (32 if data[header] else 20) + 16  # behind version, times and duration, layer and volume
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def write_images(folder: Path, count: int = 12, width: int = 64, height: int = 48, name: str = "{}.png") -> Path:
    """A folder of images numbered without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / name.format(number)), picture(number, width, height))
    return folder


def damage(path: Path) -> Path:
    """Overwrites a sixth of the file in its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + len(data) // 6] = bytes(len(data) // 6)
    path.write_bytes(data)
    return path
