"""Encodes videos and attention maps as a few compact buffers, which are sent to the page once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

SHEET_SIDE = 2048  # pixels: every browser decodes it, and the first sheet is shown while the others are decoded
BLOCK = 16  # pixels: a JPEG block with halved colour; cells of whole blocks do not bleed into one another


def encode_strip(frames: NDArray[np.uint8], height: int = 280, quality: int = 80) -> tuple[dict, list[bytes]]:
    """Encodes a video as JPEG sprite sheets, each a grid of frames.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        height: Height of a stored frame, in pixels; smaller frames are not enlarged. The aspect ratio is kept.
        quality: JPEG quality, 0 to 100.

    Returns:
        The layout of the sheets ("count" frames of "width" x "height" pixels in cells of "cell_width" x
        "cell_height", "columns" in a row and "per_sheet" on a sheet), and the sheets.

    Raises:
        ValueError: if frames are not (T, H, W, 3) uint8 with at least one frame, or the height is below 1.

    Example:
        >>> meta, sheets = encode_strip(np.zeros((3, 40, 80, 3), np.uint8), height=20)
        >>> meta["count"], meta["width"], meta["height"], len(sheets)
        (3, 40, 20, 1)
    """
    check_frames("frames", frames)
    if height < 1:
        raise ValueError(f"height must be at least 1 pixel, got {height}")
    height = min(height, frames.shape[1])
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    cell_height, cell_width = (-(-side // BLOCK) * BLOCK for side in (height, width))
    columns, rows = (max(1, min(SHEET_SIDE // side, len(frames))) for side in (cell_width, cell_height))
    per_sheet = columns * rows
    starts = range(0, len(frames), per_sheet)
    pad = ((0, 0), (0, cell_height - height), (0, cell_width - width), (0, 0))
    sheets: list[bytes] = []
    for start in starts:
        cells = np.stack([resize(frame, width, height) for frame in frames[start : start + per_sheet]])
        sheets.append(encode_jpeg(_grid(np.pad(cells, pad, mode="edge"), columns), quality))
    meta = {"count": len(frames), "width": width, "height": height, "columns": columns, "per_sheet": per_sheet}
    return meta | {"cell_width": cell_width, "cell_height": cell_height}, sheets


def encode_strips(
    videos: Mapping[str, NDArray[np.uint8]], height: int = 280, quality: int = 80
) -> tuple[list[dict], list[bytes]]:
    """Encodes several videos in one list of sheets; each `meta` adds the "name" and "sheets": [first, stop].

    Raises:
        ValueError: if there is no video, the height is below 1, or a video is not (T, H, W, 3) uint8 with at least
            one frame; the message names it.

    Example:
        >>> metas, sheets = encode_strips({"squat": np.zeros((2, 8, 8, 3), np.uint8)})
        >>> metas[0]["name"], metas[0]["sheets"], len(sheets)
        ('squat', [0, 1], 1)
    """
    check_named("videos", videos)
    if not videos:
        raise ValueError("videos must contain at least one video, got none: pass {name: frames}")
    metas: list[dict] = []
    sheets: list[bytes] = []
    for name, frames in videos.items():
        check_frames(name, frames)
        meta, new = encode_strip(frames, height, quality)
        metas.append(meta | {"name": name, "sheets": [len(sheets), len(sheets) + len(new)]})
        sheets += new
    return metas, sheets


def encode_maps(maps: ArrayLike, mass: float = 0.6) -> tuple[dict, bytes]:
    """Encodes attention maps in 8 bits, each divided by its own maximum.

    The buffer also holds the maxima, so that the page can normalise exactly per frame or per video, and the number of
    strongest patches that hold `mass` of a map, which cannot be computed from rounded values.

    Args:
        maps: (..., h, w), non-negative.
        mass: Share of the attention that the strongest patches hold.

    Returns:
        {"shape", "maximum"} of `maps`, and the buffer: float32 maxima, uint16 patch counts, uint8 maps.

    Raises:
        ValueError: if a value is negative or not finite.

    Example:
        >>> meta, buffer = encode_maps(np.ones((5, 2, 4, 4)))
        >>> meta["shape"], len(buffer) == 5 * 2 * (4 + 2 + 16)
        ([5, 2, 4, 4], True)
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.ndim < 2 or not maps.size or not maps.min() >= 0 or not np.isfinite(maps.max()):
        found = f" from {maps.min()} to {maps.max()}" if maps.size else ""
        raise ValueError(f"maps must be (..., h, w), finite and non-negative, got {maps.shape}{found}")
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1])
    maxima = flat.max(1)
    levels = np.rint(flat * (255 / np.maximum(maxima, 1e-12))[:, None]).astype(np.uint8)
    ordered = -np.sort(-flat.astype(float), axis=1)
    held = np.cumsum(ordered, axis=1)
    # Like `plotting.strongest_patches`: a patch is kept while the stronger ones hold less than `mass`.
    strongest = (held - ordered < mass * held[:, -1:]).sum(1)
    buffer = maxima.astype("<f4").tobytes() + strongest.astype("<u2").tobytes() + levels.tobytes()
    return {"shape": list(maps.shape), "maximum": float(maxima.max())}, buffer


def check_frames(name: str, frames: NDArray) -> None:
    """Raises ValueError with the video's name unless `frames` are (T, H, W, 3) uint8 with at least one frame."""
    shape, kind = np.shape(frames), getattr(frames, "dtype", type(frames).__name__)
    if len(shape) != 4 or shape[-1] != 3 or kind != np.uint8 or 0 in shape:
        raise ValueError(f"{name}: frames must be (T, H, W, 3) uint8 with at least one frame, got {shape} {kind}")


def check_named(kind: str, values: object, videos: Mapping[str, object] | None = None) -> None:
    """Raises ValueError unless `values` is a mapping whose keys are names of `videos` (any names if None)."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind} must be a mapping from the names of videos, got {type(values).__name__}")
    for name in values:
        if videos is not None and name not in videos:
            raise ValueError(f'{kind} has "{name}", which is not among the videos: {", ".join(videos)}')


def resize(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resizes a picture; shrinking averages pixels, so that fine texture does not flicker between frames."""
    smaller = height < frame.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), np.uint8)


def encode_jpeg(picture: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encodes an RGB picture as JPEG."""
    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()  # OpenCV: BGR


def _grid(cells: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Arranges (T, H, W, 3) cells in reading order as one picture; the last row is filled with black."""
    count, height, width, _ = cells.shape
    rows = -(-count // columns)
    filled = np.pad(cells, ((0, rows * columns - count), (0, 0), (0, 0), (0, 0)))
    return filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


# ----------------------------------------------------------------------------------------------------------------------
# Videos of the attention browser.


Arrays = tuple[ArrayLike, ArrayLike | None, ArrayLike | None]  # frames, entities, heads


@dataclass(frozen=True)
class ShownVideo:
    """The stored frames of one video and their attention maps.

    Attributes:
        frames: (T, H, W, 3) uint8.
        entities: (1, T, N, h, w), with an axis for a single layer; or None.
        heads: (layers, T, K, h, w), or None.
        numbers: (T,) positions of the frames in the source video.
        total: Number of frames before thinning; T are kept.
        step: Every how many of them one is kept.
    """

    frames: NDArray[np.uint8]
    entities: NDArray | None
    heads: NDArray | None
    numbers: NDArray[np.int64]
    total: int
    step: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of entities, layers and heads."""
        entities = 0 if self.entities is None else self.entities.shape[2]
        return (entities, 0, 0) if self.heads is None else (entities, self.heads.shape[0], self.heads.shape[2])

    def size(self, height: int) -> tuple[int, int]:
        """Width and height, in pixels, of a frame shown at most `height` pixels high."""
        return max(1, round(self.frames.shape[2] * height / self.frames.shape[1])), height


def shown_videos(
    videos: Mapping[str, Arrays], numbers: Mapping[str, ArrayLike] | None, max_frames: int
) -> dict[str, ShownVideo]:
    """Applies `shown_video` to every video's (frames, entities, heads).

    Raises:
        ValueError: if a video is not three arrays, `numbers` has an unknown name, or `shown_video` raises it.
    """
    numbers = {} if numbers is None else numbers
    check_named("videos", videos)
    check_named("numbers", numbers, videos)
    for name, arrays in videos.items():
        if not isinstance(arrays, (tuple, list)) or len(arrays) != 3:
            found = f"{len(arrays)} of them" if isinstance(arrays, (tuple, list)) else type(arrays).__name__
            raise ValueError(f"{name}: give (frames, entities, heads), with None for what is missing; got {found}")
    return {
        name: shown_video(name, frames, entities, heads, numbers.get(name), max_frames)
        for name, (frames, entities, heads) in videos.items()
    }


def shown_video(
    name: str,
    frames: ArrayLike,
    entities: ArrayLike | None,
    heads: ArrayLike | None,
    numbers: ArrayLike | None = None,
    max_frames: int = 120,
) -> ShownVideo:
    """Checks the arrays of a video; if it is longer than `max_frames`, keeps every second (third, ...) frame.

    Raises:
        ValueError: if shapes do not fit, or there is nothing to show; the message names the video.

    Example:
        >>> video = shown_video("squat", np.zeros((300, 8, 8, 3), np.uint8), np.ones((300, 2, 4, 4)), None)
        >>> len(video.frames), video.numbers[:3], video.counts
        (100, array([0, 3, 6]), (2, 0, 0))
    """
    frames = np.asarray(frames)
    check_frames(name, frames)
    if entities is None and heads is None:
        raise ValueError(f"{name}: nothing to show, both entities and heads are None")
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    numbers = np.arange(len(frames)) if numbers is None else np.asarray(numbers, dtype=np.int64)
    if numbers.shape != (len(frames),):
        raise ValueError(f"{name}: numbers must be ({len(frames)},), one per frame, got {numbers.shape}")
    step = -(-len(frames) // max_frames)
    kept = slice(None, None, step)
    layered = (_layered(name, kind, maps, len(frames)) for kind, maps in (("entities", entities), ("heads", heads)))
    entities, heads = (None if maps is None else maps[:, kept] for maps in layered)
    return ShownVideo(frames[kept], entities, heads, numbers[kept], len(frames), step)


def _layered(name: str, kind: str, maps: ArrayLike | None, num_frames: int) -> NDArray | None:
    """Returns maps as (layers, T, count, h, w)."""
    if maps is None:
        return None
    maps = np.asarray(maps)
    layered = maps[None] if maps.ndim == 4 else maps
    several = kind == "heads" or maps.ndim == 4
    if layered.ndim != 5 or layered.shape[1] != num_frames or not maps.size or not several:
        wanted = f"({num_frames}, count, h, w)" + " or (layers, T, count, h, w)" * (kind == "heads")
        raise ValueError(f"{name}: {kind} must be {wanted}, one map per frame, got {maps.shape}")
    return layered


def common_counts(videos: Mapping[str, ShownVideo]) -> tuple[int, int, int]:
    """Returns the numbers of entities, layers and heads that all videos share.

    Raises:
        ValueError: if they differ.
    """
    counts = {name: video.counts for name, video in videos.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"all videos must have equal numbers of entities, layers and heads, got {counts}")
    return next(iter(counts.values()), (0, 0, 0))


# ----------------------------------------------------------------------------------------------------------------------
# Stills: ordinary pictures, for pages that show no widgets.

CAPTION, GAP, ACROSS = 20, 10, 4  # pixels, the same as in attention.js, and pictures in a row


def captioned_rows(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Image:
    """Draws pictures side by side on white, at most four in a row, each below its caption, as a JPEG output.

    Args:
        pictures: (H, W, 3) uint8 each, of one size.
        captions: One per picture, cut at the width of the picture.

    Example:
        >>> captioned_rows([np.zeros((8, 60, 3), np.uint8)], ["frame 3"]).format
        'jpeg'
    """
    height, width, _ = pictures[0].shape
    columns, rows = min(len(pictures), ACROSS), -(-len(pictures) // ACROSS)
    size = columns * (width + GAP) - GAP, rows * (height + CAPTION + GAP) - GAP
    page = Picture.new("RGB", size, "white")
    font = ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 12)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = i % ACROSS * (width + GAP), i // ACROSS * (height + CAPTION + GAP)
        cell = Picture.new("RGB", (width, CAPTION), "white")
        ImageDraw.Draw(cell).text((0, 2), caption, "black", font)
        page.paste(cell, (left, top))
        page.paste(Picture.fromarray(picture), (left, top + CAPTION))
    return jpeg_output(encode_jpeg(np.asarray(page)), ", ".join(captions))


def jpeg_output(data: bytes, alt: str) -> Image:
    """A JPEG as an image output of a notebook, with its description in words."""
    image = Image(data, format="jpeg")
    image.alt = alt  # not as an argument, which IPython 7 does not have, the one of Colab
    return image


# ----------------------------------------------------------------------------------------------------------------------
# Scripts and styles of the widgets, which are files in this folder.

FOLDER = Path(__file__).parent


def javascript(*names: str) -> str:
    """Joins a widget's module: common.js, then its own files; the last ends in `export default widget(View)`.

    Example:
        >>> "class Strip" in javascript("overlay.js", "attention.js")
        True
    """
    return "\n".join((FOLDER / file).read_text("utf-8") for file in ("common.js", *names))


def stylesheet() -> str:
    """Returns the stylesheet that all widgets share."""
    return (FOLDER / "common.css").read_text("utf-8")
