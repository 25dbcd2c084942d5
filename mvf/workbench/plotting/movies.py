"""Movies of attention maps, written as GIF or MP4."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import matplotlib as mpl
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from mvf.files import atomic
from mvf.workbench.plotting.overlays import map_limits, named_maps, overlay, resized
from mvf.workbench.plotting.style import as_images

BAND, EDGE = 18, 2  # pixels: height of a text band, gap between panels
UNSEEN = 6  # of 255: smaller changes of a pixel are noise, which would fill most of a GIF


def attention_movie(
    frames: ArrayLike,
    entities: ArrayLike | None,
    heads: ArrayLike | None = None,
    head_names: Sequence[str] = ("CLS head",),
    *,
    numbers: Sequence[int] | None = None,
    shown: Sequence[int] | None = None,
    title: str = "",
    height: int = 140,
    normalise: str = "video",
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
) -> NDArray[np.uint8]:
    """Makes a movie of a video beside its attention maps, with a band of text above and below.

    Args:
        frames: (T, H, W, 3) uint8 or float in [0, 1].
        entities: (T, N, h, w), non-negative; or None for a pooling without attention.
        heads: (T, h, w), or (K, T, h, w) for K heads; or None.
        head_names: Headings of the K heads.
        numbers: T positions of the frames in the video; by default 0, 1, ...
        shown: Numbers of the entities drawn, from 1; by default all.
        title: Name of the video, printed in the lower band.
        height: Height of a panel, in pixels; the aspect ratio is kept.
        normalise: "frame" divides each map by its own maximum; "video" by the median of these over the film, without
            flicker: stronger attention is drawn as the maximum.
        opacity: Opacity of the maps over the frames.
        colormap: Name of a matplotlib colormap.
        contour_mass: Outlines the strongest patches that hold this share of the attention.

    Returns:
        (T, height + two bands, width of all panels, 3) uint8, for `save_animation`.

    Raises:
        ValueError: if there are no frames, maps or numbers differ in length, or panels are below 32 pixels.

    Example:
        >>> attention_movie(np.zeros((2, 8, 12, 3)), np.ones((2, 3, 4, 4)), height=40).shape
        (2, 76, 246, 3)
    """
    frames = as_images(frames)
    maps = named_maps(len(frames), entities, heads, head_names, shown)
    numbers = range(len(frames)) if numbers is None else numbers
    if len(numbers) != len(frames):
        raise ValueError(f"numbers must be {len(frames)}, one per frame, got {len(numbers)}")
    if height < 32:
        raise ValueError(f"height must be at least 32 pixels, got {height}")
    limits = {name: map_limits(one, normalise) for name, one in maps.items()}
    if normalise == "video":  # the largest of all would darken a film with one peak
        limits = {name: np.full(len(one), np.median(map_limits(one, "frame"))) for name, one in maps.items()}
    of = "the frame's maximum" if normalise == "frame" else "the median frame's maximum"
    below = " · ".join(filter(None, (title, f"attention / {of}")))
    pictures = []
    for t, frame in enumerate(frames):
        frame = resized(frame, height)
        panels = [frame] + [
            overlay(frame, one[t], opacity, colormap, contour_mass, limits[name][t]) for name, one in maps.items()
        ]
        pictures.append(_with_bands(panels, [f"frame {numbers[t]}", *maps], below))
    return np.stack(pictures)


def _with_bands(panels: Sequence[NDArray[np.uint8]], headings: Sequence[str], below: str) -> NDArray[np.uint8]:
    """Puts panels side by side on white, with a heading above each and one line of text below."""
    height, width = panels[0].shape[:2]
    total = len(panels) * (width + EDGE) - EDGE
    page = np.full((height + 2 * BAND, total, 3), 255, dtype=np.uint8)
    for i, (panel, heading) in enumerate(zip(panels, headings, strict=True)):
        left = i * (width + EDGE)
        page[BAND:-BAND, left : left + width] = panel
        page[:BAND, left : left + width] = _text_band(heading, width)
    page[-BAND:] = _text_band(below, total)
    return page


@lru_cache(maxsize=512)
def _text_band(text: str, width: int) -> NDArray[np.uint8]:
    """Renders dark text on a white band, as large as it fits."""
    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for size in range(12, 6, -1):
        font = ImageFont.truetype(file, size)
        if font.getlength(text) <= width:
            break
    page = Image.new("RGB", (width, BAND), "white")
    ImageDraw.Draw(page).text((width / 2, BAND / 2), text, "#202020", font, anchor="mm")
    return np.asarray(page)


def save_animation(frames: ArrayLike, path: str | Path, fps: float = 12) -> Path:
    """Writes pictures atomically as a looping GIF or an H.264 MP4 that browsers play, chosen by the suffix.

    Args:
        frames: (T, H, W, 3) uint8 or float in [0, 1].
        path: The file, ending in .gif or .mp4.
        fps: Frames per second, at most 50 for a GIF, which counts time in hundredths of a second.

    Raises:
        ValueError: for another suffix or shape, no frames, or an `fps` that the format does not allow.
    """
    frames, path = as_images(frames), Path(path)
    writers = {".gif": (_write_gif, 50), ".mp4": (_write_mp4, 1000)}
    if path.suffix not in writers:
        raise ValueError(f"path must end in .gif or .mp4, got {path.name!r}")
    write, fastest = writers[path.suffix]
    if not 0 < fps <= fastest:
        raise ValueError(f"fps of a {path.suffix} must be above 0 and at most {fastest}, got {fps}")
    with atomic(path) as temporary:
        write(frames, temporary, fps)
    return path


def _write_gif(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    # With one palette and no dithering, unchanged pixels keep their colour, which compresses well. The octree keeps
    # rare bright colours, which median cut loses; Pillow uses the 256th index for unchanged pixels.
    sampled = np.concatenate(frames[:: max(1, len(frames) // 16)])
    palette = Image.fromarray(sampled).quantize(255, Image.Quantize.FASTOCTREE)
    pictures = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in _steadied(frames)]
    ends = np.round(np.arange(len(frames) + 1) * 100 / fps)  # so that rounding errors do not add up
    durations = (10 * np.diff(ends)).astype(int).tolist()
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def _steadied(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Replaces every pixel that hardly changes by the pixel of the previous frame."""
    kept = [frames[0]]
    for frame in frames[1:]:
        still = np.abs(frame.astype(np.int16) - kept[-1]).max(axis=2, keepdims=True) <= UNSEEN
        kept.append(np.where(still, kept[-1], frame))
    return kept


def _write_mp4(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    # All players support H.264 in yuv420p. It halves the colour resolution in both directions, so sizes must be even.
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    # The index goes first, so that a page can play the movie while it is loading.
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
