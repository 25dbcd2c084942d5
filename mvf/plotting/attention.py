"""Attention over frames: overlays, the layout of the paper's Figure 3, animations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from mvf.files import atomic
from mvf.plotting.style import COLUMN, PAGE, as_images, paper_figure, set_caption, show_image


@lru_cache(maxsize=8)
def _lookup(colormap: str) -> NDArray[np.uint8]:
    """The 256 colours of a map, (256, 3) uint8."""
    return (mpl.colormaps[colormap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def strongest_patches(attention: ArrayLike, mass: float) -> NDArray[np.bool_]:
    """The fewest patches of an (h, w) map that together hold `mass` of its attention.

    Example:
        >>> strongest_patches(np.array([[0.5, 0.3], [0.15, 0.05]]), 0.6)
        array([[ True,  True],
               [False, False]])
    """
    attention = np.asarray(attention, dtype=float)
    order = np.argsort(-attention, axis=None, kind="stable")
    before = np.concatenate(([0.0], np.cumsum(attention.ravel()[order])[:-1]))
    kept = np.zeros(attention.size, dtype=bool)
    kept[order] = before < mass * attention.sum()
    return kept.reshape(attention.shape)


def overlay(
    frame: ArrayLike,
    attention: ArrayLike,
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
    maximum: float | None = None,
) -> NDArray[np.uint8]:
    """Lays a map of attention over a frame, enlarged to it without changing its aspect.

    Colours run from 0, the dark end, to `maximum`: a map that is equal everywhere is bright everywhere, and is not
    stretched until its noise looks like structure.

    Args:
        frame: (H, W, 3) uint8.
        attention: (h, w), non-negative.
        opacity: 0 shows the frame alone, 1 the map alone.
        colormap: A name of matplotlib's.
        contour_mass: Outlines the strongest patches that hold this share of the attention.
        maximum: What gets the brightest colour; by default the largest value of this map.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> overlay(np.zeros((8, 8, 3), np.uint8), np.eye(2)).shape
        (8, 8, 3)
    """
    frame, attention = np.asarray(frame), np.asarray(attention, dtype=np.float32)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    if attention.ndim != 2 or not attention.size or not attention.min() >= 0 or not np.isfinite(attention.max()):
        found = f" from {attention.min()} to {attention.max()}" if attention.size else ""
        raise ValueError(f"attention must be (h, w), finite and non-negative, got {attention.shape}{found}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    height, width = frame.shape[:2]
    scale = 255 / max(attention.max() if maximum is None else maximum, 1e-12)
    level = cv2.resize(attention * np.float32(scale), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = _lookup(colormap)[np.clip(np.rint(level), 0, 255).astype(np.uint8)]
    blended = cv2.addWeighted(colours, opacity, frame, 1 - opacity, 0)
    return blended if contour_mass is None else _outline(blended, strongest_patches(attention, contour_mass))


def _outline(image: NDArray[np.uint8], patches: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draws the border of the chosen patches, white on a dark edge so that it shows on any ground."""
    height, width = image.shape[:2]
    mask = cv2.resize(patches.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thin = max(1, round(min(height, width) / 200))
    for colour, thickness in (((0, 0, 0), thin + 2), ((255, 255, 255), thin)):
        image = cv2.drawContours(image, contours, -1, colour, thickness)
    return image


def plot_attention(
    frames: ArrayLike,
    entities: ArrayLike | None,
    heads: ArrayLike | None = None,
    head_names: Sequence[str] = ("CLS head",),
    *,
    frame_numbers: Sequence[int] | None = None,
    normalise: str = "frame",
    layer: str = "",
    opacity: float = 0.6,
    colormap: str = "magma",
    contour_mass: float | None = None,
    title: str = "",
) -> Figure:
    """Entity maps beside the backbone's head maps, a row a frame: the layout of the paper's Figure 3.

    Args:
        frames: (T, H, W, 3) uint8 or float in [0, 1]: the rows.
        entities: (T, N, h, w), non-negative; or None for a pooling without attention.
        heads: (T, h, w), or (K, T, h, w) for K heads; or None.
        head_names: K headings, such as "CLS head 4".
        frame_numbers: T numbers for the rows; by default 0, 1, ...
        normalise: "frame" divides each map by its own maximum, "video" by its column's, over all frames given.
        layer: Which layers the maps come from, for the caption, such as "entities: layers 4, 8, 12; heads: 12".
        opacity: Of the maps over the frames.
        colormap: A name of matplotlib's.
        contour_mass: Outlines the strongest patches that hold this share of the attention.
        title: Name of the video.
    """
    frames = as_images(frames)
    columns = _columns(len(frames), entities, heads, head_names)
    if normalise not in ("frame", "video"):
        raise ValueError(f"normalise must be 'frame' or 'video', got {normalise!r}")
    over = {"frame": "frame", "video": "frames shown"}[normalise]
    numbers = range(len(frames)) if frame_numbers is None else frame_numbers
    with paper_figure(*_page(frames, 1 + len(columns), bool(title)), layout="compressed") as figure:
        figure.suptitle(title)
        figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015)
        grid = figure.subplots(len(frames), 1 + len(columns), squeeze=False)
        for t, (axes, number) in enumerate(zip(grid, numbers, strict=True)):
            show_image(axes[0], frames[t], "input" if t == 0 else "")
            axes[0].set_ylabel(f"frame {number}", fontsize=7)
            for ax, (name, maps) in zip(axes[1:], columns.items()):
                maximum = float(maps.max()) if normalise == "video" else None
                picture = overlay(_enlarge(frames[t]), maps[t], opacity, colormap, contour_mass, maximum)
                show_image(ax, picture, name if t == 0 else "")
        mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colormap)
        figure.colorbar(mappable, ax=grid, label=f"attention / maximum of the {over}", pad=0.02, aspect=40)
        contour = f" Line: strongest patches holding {contour_mass:.0%} of the attention." if contour_mass else ""
        set_caption(figure, f"Each map divided by its maximum over the {over}.{contour} {layer}".replace("%", " %"))
    return figure


def _page(frames: NDArray[np.uint8], columns: int, has_title: bool) -> tuple[float, float]:
    """Width and height in inches of a grid of pictures that fits a page, beside its colour bar and captions."""
    ratio = frames.shape[1] / frames.shape[2]
    width = min((PAGE - 0.85) / columns, 1.5, 7.8 / (len(frames) * ratio))
    return max(columns * width + 0.85, COLUMN), len(frames) * (width * ratio + 0.03) + 0.55 + 0.2 * has_title


def _enlarge(frame: NDArray[np.uint8], shortest: int = 300) -> NDArray[np.uint8]:
    """Small frames get enough pixels for smooth maps and thin lines in print."""
    scale = max(1.0, shortest / min(frame.shape[:2]))
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _columns(
    num_frames: int, entities: ArrayLike | None, heads: ArrayLike | None, head_names: Sequence[str]
) -> Mapping[str, NDArray]:
    """Heading -> (T, h, w) for every entity and head, after checking the shapes."""
    columns = {}
    if entities is not None:
        entities = np.asarray(entities)
        if entities.ndim != 4 or len(entities) != num_frames:
            raise ValueError(f"entities must be ({num_frames}, N, h, w), one map a frame, got {entities.shape}")
        columns = {f"entity {i + 1}": entities[:, i] for i in range(entities.shape[1])}
    if entities is None and heads is None:
        raise ValueError("nothing to show: both entities and heads are None")
    if heads is None:
        return columns
    heads = np.asarray(heads)
    heads = heads[None] if heads.ndim == 3 else heads
    if heads.ndim != 4 or heads.shape[1] != num_frames or len(heads) != len(head_names):
        raise ValueError(
            f"heads must be ({num_frames}, h, w) or ({len(head_names)}, {num_frames}, h, w), "
            f"one a name of {list(head_names)}, got {heads.shape}"
        )
    return columns | dict(zip(head_names, heads))


def save_animation(frames: ArrayLike, path: str | Path, fps: float = 12) -> Path:
    """Writes pictures as a looping GIF or an H.264 MP4 that browsers play, chosen by the suffix, in one step.

    Args:
        frames: (T, H, W, 3) uint8 or float in [0, 1].
        path: Ends in .gif or .mp4.
        fps: Frames per second.

    Raises:
        ValueError: for another suffix or shape.
    """
    frames, path = as_images(frames), Path(path)
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise ValueError(f"path must end in .gif or .mp4, got {path.name!r}")
    with atomic(path) as temporary:
        writers[path.suffix](frames, temporary, fps)
    return path


def _write_gif(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)


def _write_mp4(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    # H.264 in yuv420p, the form all players know, halves the colour in both directions: sizes must be even.
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
