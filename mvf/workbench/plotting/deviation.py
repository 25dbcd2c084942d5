"""Figures of deviation: how far a performance is from its references, moment by moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.evaluation.deviation import Deviation
from mvf.workbench.plotting.probe import number_frames
from mvf.workbench.plotting.style import PAGE, WRONG, paper_figure, set_caption, show_image

BAND = "#D0D0D0"
CURVE, PANEL = 1.75, 1.2  # inches: heights of the curve, and of the panel of a control
HIGHEST = 1.15  # inches: a picture
NUMBERED = 8  # moments
FROM_ZERO = 0.4  # share of the largest value below which the axis begins at zero


@dataclass(frozen=True)
class FramePair:
    """A frame of the video and the frame of a reference that it is aligned with.

    Attributes:
        frame, partner: (H, W, 3) pictures.
        title: Printed above the video's frame.
        words: Printed below the reference's frame.
    """

    frame: NDArray
    partner: NDArray
    title: str
    words: str = ""


def plot_deviation(
    deviation: Deviation,
    pairs: Sequence[FramePair] = (),
    controls: Mapping[str, Deviation] = MappingProxyType({}),
    times: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draws the distance of a video from its references over its band, frames at some moments, and the controls.

    Args:
        deviation: What `mvf.evaluation.deviation.deviation` finds for the embeddings.
        pairs: Frames of the video, each above the frame of a reference.
        controls: The same for other features of the same videos, by their names.
        times: (T,) seconds of the frames; None where they are unknown.
        numbers: (T,) numbers of the frames, for the axis where there are no seconds; None: 0, 1, ..., T - 1.
        title: Printed above the figure.
        caption: Printed below it, such as the names of the references.

    Raises:
        ValueError: if the times, the numbers or a control are not of the video's frames.
    """
    length = len(deviation.distance)
    for name, control in controls.items():
        if len(control.distance) != length:
            raise ValueError(f"{name} must be of the {length} frames of the video, got {len(control.distance)}")
    shown = [[pair.frame for pair in pairs], [pair.partner for pair in pairs]]
    ratios = [max(picture.shape[0] / picture.shape[1] for picture in row) for row in shown if row]
    pictures = [min(ratio * 0.9 * PAGE / len(pairs), HIGHEST) + 0.22 for ratio in ratios]
    heights = [CURVE, *pictures, *([PANEL] if controls else [])]
    with paper_figure(PAGE, sum(heights) + 0.2 + 0.2 * bool(title) + 0.45 * bool(caption)) as figure:
        figure.suptitle(title, x=0.01, ha="left")
        rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        axes = figure.add_subplot(rows[0])
        draw_deviation(axes, deviation, times, numbers)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
        for row, images in enumerate(filter(None, shown), start=1):
            cells = rows[row].subgridspec(1, len(pairs)).subplots(squeeze=False)[0]
            for axes, pair, image in zip(cells, pairs, images):
                show_image(axes, image, pair.title if row == 1 else pair.words)
        panels = rows[-1].subgridspec(1, len(controls)).subplots(squeeze=False)[0] if controls else []
        for axes, (name, control) in zip(panels, controls.items()):
            draw_deviation(axes, control, times, numbers, numbered=0)
            axes.set_title(name, fontsize=7)
            axes.set_ylabel("" if axes is not panels[0] else "distance")
            axes.locator_params(axis="y", nbins=3)
        set_caption(figure, caption)
    return figure


def draw_deviation(
    axes: Axes,
    deviation: Deviation,
    times: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
    numbered: int = NUMBERED,
    cursor: int | None = None,
) -> None:
    """Draws the distance, the band below it, and the moments outside; `numbered` of these have their rank above them.

    A line stands at frame `cursor`. See `plot_deviation`.
    """
    length = len(deviation.distance)
    places = next((np.asarray(values, float) for values in (times, numbers) if values is not None), np.arange(length))
    if places.shape != (length,):
        raise ValueError(f"times and numbers must be ({length},), one for each frame, got {places.shape}")
    steps = np.diff(places) / 2 if length > 1 else np.array([0.5])
    edges = np.concatenate([[places[0] - steps[0]], places[:-1] + steps[: length - 1], [places[-1] + steps[-1]]])
    axes.fill_between(places, deviation.band, color=BAND, linewidth=0, label="band")
    for rank, moment in enumerate(deviation.moments):
        left, right = edges[moment.start], edges[moment.end]
        axes.axvspan(left, right, color=WRONG, alpha=0.2, linewidth=0, label="" if rank else "outside the band")
        if rank < numbered:
            axes.text(
                (left + right) / 2, 1.01, f"{rank + 1}", fontsize=7, ha="center", transform=axes.get_xaxis_transform()
            )
    axes.plot(places, deviation.distance, color="black", label="distance to the references")
    for moment in deviation.moments:
        inside = slice(moment.start, moment.end)
        axes.plot(places[inside], deviation.distance[inside], color=WRONG, linewidth=2)
    if cursor is not None:
        axes.axvline(places[cursor], color="black", linewidth=1)
    curves = np.concatenate([deviation.distance, deviation.band])
    bottom, high = axis_bottom(curves), float(curves.max())
    axes.set(xlim=(edges[0], edges[-1]), ylim=(bottom, high + (high - bottom) / 20 + 1e-9), ylabel="distance")
    axes.set_xlabel("frame" if times is None else "time (s)")
    if times is None:
        number_frames(axes.xaxis)


def axis_bottom(values: NDArray) -> float:
    """Where the axis of a curve begins: at zero, or a little below its values where these are far from it."""
    low, high = float(values.min()), float(values.max())
    return 0.0 if low < FROM_ZERO * high else low - (high - low) / 4
