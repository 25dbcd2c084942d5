"""The base class of widgets that show several videos, the checks of their arrays, and their still images."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anywidget
import numpy as np
import traitlets
from IPython.display import Image
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.plotting.style import (
    PAGE,
    UNLABELLED,
    draw_ribbon,
    paper_figure,
    phase_colours,
    phase_names,
    show_image,
)
from mvf.workbench.widgets.encoding import FOLDER, check_frames, check_named, encode_strips, stylesheet

Videos = Mapping[str, NDArray[np.uint8]]


class FrameWidget(anywidget.AnyWidget):
    """Base class of widgets that show several videos; frames, numbers and phases are sent to the page once.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3).
        numbers: Name -> (T,) positions of these frames in the source video; by default 0 to T - 1.
        phases: Name -> (T,) phases, -1 = unlabelled; videos without labels may be absent or None.
        names: Names of the phases.
        height: Height of a stored frame, in pixels; smaller frames are not enlarged.

    Attributes:
        video, frame: The current video's name and the index of its current frame. Setting them changes the page.

    Raises:
        ValueError: if there is no video, or an array does not fit its video; the message names it.
    """

    _css = f"{stylesheet()}\n{(FOLDER / 'frames.css').read_text('utf-8')}"
    strips: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    sheets = traitlets.List(traitlets.Bytes()).tag(sync=True)
    palette = traitlets.Dict().tag(sync=True)
    video = traitlets.Unicode().tag(sync=True)
    frame = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        videos: Videos,
        numbers: Mapping[str, ArrayLike] | None,
        phases: Mapping[str, ArrayLike | None] | None,
        names: Sequence[str] | None,
        height: int,
        **traits: object,
    ) -> None:
        strips, sheets = self._encoded(videos, height)
        self._videos = dict(videos)
        self._numbers = check_numbers(videos, numbers)
        self._phases = check_phases(videos, phases)
        self._names = phase_names(names, *self._phases.values())
        for strip in strips:
            labels = self._phases.get(strip["name"])
            strip["numbers"] = self._numbers[strip["name"]].tolist()
            strip["phases"] = None if labels is None else labels.tolist()
        palette = {"names": self._names, "colours": phase_colours(len(self._names)), "unlabelled": UNLABELLED}
        shown = {"video": next(iter(videos)), "height": height, **traits}
        super().__init__(strips=strips, sheets=sheets, palette=palette, **shown)

    def _encoded(self, videos: Videos, height: int) -> tuple[list[dict], list[bytes]]:
        return encode_strips(videos, height)

    @property
    def nbytes(self) -> int:
        """Number of bytes sent to the page: frames, arrays, their descriptions and the script."""
        state = self.get_state()
        buffers = [*state.pop("sheets"), *(state.pop(key) for key in list(state) if isinstance(state[key], bytes))]
        return sum(map(len, buffers)) + len(json.dumps(state).encode())

    @traitlets.validate("video")
    def _known(self, proposal: dict) -> str:
        if proposal["value"] not in self._videos:
            raise traitlets.TraitError(f'video must be one of {", ".join(self._videos)}, got "{proposal["value"]}"')
        return proposal["value"]

    @traitlets.validate("frame")
    def _inside(self, proposal: dict) -> int:
        return min(max(proposal["value"], 0), len(self._videos[self.video]) - 1)

    @traitlets.observe("video")
    def _stay_inside(self, _: object) -> None:
        self.frame = self.frame

    def _word(self, name: str, index: int) -> str:
        """Returns the name of a frame's phase; empty if its video has no labels."""
        if name not in self._phases:
            return ""
        phase = self._phases[name][index]
        return self._names[phase] if phase >= 0 else "unlabelled"

    def _shot(self, name: str, index: int, caption: str = "") -> StillFrame:
        """Returns a frame for a still, by default captioned with its video, source number and phase."""
        place = f"{name}\nframe {self._numbers[name][index]}"
        caption = caption or ", ".join(filter(None, (place, self._word(name, index))))
        return StillFrame(self._videos[name][index], caption, self._phases.get(name), index)


def check_videos(videos: Videos, least: int) -> None:
    """Raises ValueError unless there are at least `least` videos, each with frames."""
    check_named("videos", videos)
    if len(videos) < least:
        raise ValueError(
            f"videos must contain at least {least} video{'s' * (least > 1)}, got {len(videos)}: {list(videos)}"
        )
    for name, frames in videos.items():
        check_frames(name, frames)


def check_rows(kind: str, videos: Videos, arrays: Mapping[str, ArrayLike | None], ndim: int) -> dict[str, NDArray]:
    """Checks arrays of `ndim` dimensions by video name, with one row for each frame; drops those that are None.

    Raises:
        ValueError: if an array does not fit; the message names it and its video.
    """
    check_named(kind, arrays, videos)
    found = {name: np.asarray(values) for name, values in arrays.items() if values is not None}
    for name, values in found.items():
        if values.ndim != ndim or len(values) != len(videos[name]):
            wanted = ", ".join([str(len(videos[name])), "E"][:ndim]) + ("," if ndim == 1 else "")
            raise ValueError(f"{name}: {kind} must be ({wanted}), one row for each frame, got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {kind} must be finite, got NaN or infinity")
    return found


def check_every(kind: str, videos: Videos, arrays: Mapping[str, ArrayLike], ndim: int) -> dict[str, NDArray]:
    """Like `check_rows`, but every video must have an array."""
    found = check_rows(kind, videos, arrays, ndim)
    missing = [name for name in videos if name not in found]
    if missing:
        raise ValueError(f'{kind} must contain every video, but "{missing[0]}" is missing ({len(missing)} in all)')
    return found


def check_numbers(videos: Videos, numbers: Mapping[str, ArrayLike] | None) -> dict[str, NDArray[np.int64]]:
    """Checks the source positions of every video's frames; by default 0 to T - 1."""
    if numbers is None:
        return {name: np.arange(len(frames)) for name, frames in videos.items()}
    found = check_every("numbers", videos, numbers, 1)
    for name, values in found.items():
        if values.dtype.kind not in "iu" or values[0] < 0 or (np.diff(values.astype(np.int64)) <= 0).any():
            raise ValueError(f"{name}: numbers must be increasing non-negative integers, got {values}")
    return found


def check_phases(videos: Videos, phases: Mapping[str, ArrayLike | None] | None) -> dict[str, NDArray[np.int64]]:
    """Checks and returns the phases of the videos that have labels."""
    found = check_rows("phases", videos, phases or {}, 1)
    for name, values in found.items():
        if values.dtype.kind not in "iu" or values.min() < -1:
            raise ValueError(f"{name}: phases must be integers, -1 = unlabelled, got {values.dtype} {values}")
    return {name: values.astype(np.int64) for name, values in found.items()}


@dataclass(frozen=True)
class StillFrame:
    """A frame in a still picture, with a ribbon of its video's phases if it has labels."""

    frame: NDArray[np.uint8]
    caption: str
    phases: NDArray[np.int64] | None
    index: int


def grid_picture(shots: Sequence[StillFrame], colours: Sequence[str], width: float = PAGE) -> Image:
    """Draws frames with captions and ribbons, at most three per row, as an image output `width` inches wide."""
    rows = -(-len(shots) // 3)
    columns = -(-len(shots) // rows)
    ratio = max(shot.frame.shape[0] / shot.frame.shape[1] for shot in shots)
    with paper_figure(width, rows * (width / columns * min(ratio, 2) + 0.7)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(shots) :]:
            axes.set_axis_off()
        for axes, shot in zip(grid, shots):
            show_image(axes, shot.frame, shot.caption)
            if shot.phases is not None:
                ribbon = axes.inset_axes((0, -0.09, 1, 0.07))
                draw_ribbon(ribbon, shot.phases, colours)
                ribbon.axvline(shot.index, color="white", linewidth=3)
                ribbon.axvline(shot.index, color="black", linewidth=1.5)
    return as_jpeg(figure, ", ".join(shot.caption.replace("\n", " ") for shot in shots))


def as_jpeg(figure: Figure, alt: str) -> Image:
    """Renders a figure as an image output of a notebook."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=130)
    return Image(buffer.getvalue(), format="jpeg", alt=alt)
