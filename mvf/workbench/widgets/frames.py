"""The base classes of the widgets, which show several videos; the checks of their arrays, still images and pages."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from numpy.typing import ArrayLike, NDArray

from mvf.files import atomic
from mvf.workbench.plotting.style import (
    PAGE,
    UNLABELLED,
    draw_ribbon,
    paper_figure,
    phase_colours,
    phase_names,
    show_image,
)
from mvf.workbench.widgets.encoding import FOLDER, check_frames, check_named, encode_strips, jpeg_output, stylesheet

Videos = Mapping[str, NDArray[np.uint8]]
BELOW = 1.7  # inches: what stands below the pictures of a still


class FrameWidget(anywidget.AnyWidget):
    """Base class of widgets that show several videos; frames, numbers and phases are sent to the page once.

    A notebook shows the widget. What shows no widgets, as GitHub and a notebook that is not trusted, shows its picture.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3).
        numbers: Name -> (T,) positions of these frames in the source video; by default 0 to T - 1.
        phases: Name -> (T,) phases, -1 = unlabelled; videos without labels may be absent or None.
        names: Names of the phases.
        height: Height of a stored frame, in pixels; smaller frames are not enlarged.
        times: Name -> (T,) seconds of these frames; videos without time stamps may be absent or None.

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
    height = traitlets.Int()

    def __init__(
        self,
        videos: Videos,
        numbers: Mapping[str, ArrayLike] | None,
        phases: Mapping[str, ArrayLike | None] | None,
        names: Sequence[str] | None,
        height: int,
        times: Mapping[str, ArrayLike | None] | None = None,
        **traits: object,
    ) -> None:
        strips, sheets = self._encoded(videos, height)
        self._videos = dict(videos)
        self._numbers = check_numbers(videos, numbers)
        self._phases = check_phases(videos, phases)
        self._names = phase_names(names, *self._phases.values())
        self._seconds = seconds = check_rows("times", videos, times or {}, 1)
        for strip in strips:
            name = strip["name"]
            labels = self._phases.get(name)
            strip["numbers"] = self._numbers[name].tolist()
            strip["phases"] = None if labels is None else labels.tolist()
            strip["times"] = seconds[name].round(3).tolist() if name in seconds else None
            strip["rate"] = frame_rate(seconds.get(name))
        palette = {"names": self._names, "colours": phase_colours(len(self._names)), "unlabelled": UNLABELLED}
        shown = {"video": next(iter(videos)), "height": height, **traits}
        super().__init__(strips=strips, sheets=sheets, palette=palette, **shown)

    def _encoded(self, videos: Videos, height: int) -> tuple[list[dict], list[bytes]]:
        return encode_strips(videos, height)

    def still(self) -> Image:
        """Returns what the widget shows as an ordinary image."""
        raise NotImplementedError

    def __repr__(self) -> str:
        count = len(self._videos)
        return f"{self.title} of {count} video{'s' * (count > 1)}"

    @property
    def title(self) -> str:
        """What the widget is, in words."""
        words = re.findall("[A-Z][a-z]+", type(self).__name__)
        return " ".join(words).capitalize()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        data["image/jpeg"], metadata["image/jpeg"] = self._picture()
        return data, metadata

    def _picture(self) -> tuple[str, dict[str, str]]:
        """The still in base64, and what it shows in words."""
        still = self.still()
        return base64.b64encode(still.data).decode(), {"alt": still.alt}

    @property
    def nbytes(self) -> int:
        """Number of bytes sent to the page, with frames, arrays, their descriptions and the script."""
        buffers: list[bytes] = []
        text = json.dumps(self.get_state(), default=buffers.append)
        return len(text.encode()) + sum(map(len, buffers))

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


class Browser(FrameWidget):
    """Base class of widgets that need no kernel once they are shown, and can be kept as one HTML file.

    A notebook gets the page itself, not a widget, whose view would wait for a kernel for ever where there is none. So a
    saved notebook scrubs with any kernel, or none; one that is not trusted, and GitHub, show the picture. Inside
    another widget, as in `ipywidgets.VBox([browser])`, page and attributes follow one another.
    """

    _page: Path | None = None
    _around = 0  # pixels of its page above and below the pictures; 0 where it is not laid out around pictures

    def open(self) -> None:
        """Does nothing: a browser is sent as a widget only when another widget, which contains it, is shown."""

    @property
    def model_id(self) -> str:
        """The widget's name in the page, to which it is sent now."""
        super().open()
        return super().model_id

    def __repr__(self) -> str:
        kept = "" if self._page is None else f"; {self._page} shows it without a kernel"
        return super().__repr__() + kept

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        picture, metadata = self._picture()
        place = f"mvf-{secrets.token_hex(8)}"
        still = f'<img src="data:image/jpeg;base64,{picture}" alt="{escape(metadata["alt"])}" style="max-width: 100%">'
        start = f'document.querySelectorAll("#{place}:not(:has(.mvf))").forEach(startPage);'
        html = (
            f'<div id="{place}" class="mvf-shown">{still}{self._stored()}</div>\n<style>{self._css}</style>\n'
            f'<script type="module">{self._script(start)}</script>'
        )
        return {"text/plain": repr(self), "text/html": html, "image/jpeg": picture}, {"image/jpeg": metadata}

    @property
    def middle(self) -> int:
        """The frame in the middle of the current video's labelled phases, or of a video without labels."""
        return middle(self._phases.get(self.video), len(self._videos[self.video]))

    def save_html(self, path: str | Path) -> Path:
        """Writes the widget, as it is now, as one HTML file, which needs neither a kernel nor a network.

        Returns:
            The path.
        """
        start = 'startPage(document.querySelector("main")).querySelector("[data-mvf]").focus();'  # keys work at once
        script = self._script(start)
        rules = f"default-src 'none'; style-src {_hash(self._css)}; script-src {_hash(script)}"
        self._page = Path(path)
        self._page.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self._page) as temporary:
            temporary.write_text(
                f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{self.title}</title>\n'
                f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n'
                f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{self._css}</style>\n'
                f'<body class="mvf-page" data-fit="{self._fit}">\n<main>{self._stored()}</main>\n'
                f'<script type="module">{script}</script>\n</html>\n',
                encoding="utf-8",
            )
        return self._page

    @property
    def _pictures(self) -> int:
        """Number of pictures that the page shows at once."""
        return len(self._videos)

    @property
    def _fit(self) -> str:
        """Height in CSS at which the page has room for its pictures and no more, in a frame that is 100cqw wide."""
        if not self._around:
            return ""
        rows = 1 if self._pictures <= 3 else 2
        ratio = self.strips[0]["height"] / self.strips[0]["width"]
        share = rows * ratio / -(-self._pictures // rows)
        return f"calc({share:.3f} * (100cqw - 48px) + {self._around}px)"

    def _stored(self) -> str:
        """The state of the page as an element, which is not shown."""
        names = [name for name in self.keys if name[0] != "_" and name != "layout"]
        encode = lambda value: {"$bytes": base64.b64encode(value).decode()}  # noqa: E731
        data = json.dumps(self.get_state(names), default=encode)
        # Names of videos come from outside: without "<" they cannot end the script.
        return f'<script type="application/json">{data.replace("<", chr(92) + "u003c")}</script>'

    def _script(self, start: str) -> str:
        """The page's module, which ends with `start`."""
        shown = self._esm.replace("export default ", "const shown = ")
        return f"{shown}{(FOLDER / 'page.js').read_text('utf-8')}\n{start}\n"


def _hash(text: str) -> str:
    """The source expression of a content security policy that allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def frame_rate(times: NDArray | None) -> float | None:
    """Mean number of frames per second, from their times; None if unknown."""
    if times is None or len(times) < 2 or times[-1] <= times[0]:
        return None
    return float((len(times) - 1) / (times[-1] - times[0]))


def middle(phases: NDArray[np.int64] | None, count: int) -> int:
    """Returns the frame in the middle of the labelled phases, or of a video without labels.

    Example:
        >>> middle(np.array([-1, -1, 0, 0, 1, -1]), 6), middle(None, 6)
        (3, 3)
    """
    labelled = np.arange(count) if phases is None or phases.max() < 0 else np.flatnonzero(phases >= 0)
    return int(labelled[len(labelled) // 2])


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


def grid_picture(
    shots: Sequence[StillFrame],
    colours: Sequence[str],
    width: float = PAGE,
    below: Callable[[Axes], None] | None = None,
) -> Image:
    """Draws frames with captions and ribbons, at most three per row, as an image output `width` inches wide.

    `below` draws what stands below them.
    """
    rows = -(-len(shots) // 3)
    columns = -(-len(shots) // rows)
    ratio = max(shot.frame.shape[0] / shot.frame.shape[1] for shot in shots)
    high = rows * (width / columns * min(ratio, 2) + 0.7)
    with paper_figure(width, high + (BELOW if below else 0)) as figure:
        upper: FigureBase = figure
        if below:
            parts = figure.subfigures(2, 1, height_ratios=(high, BELOW), squeeze=False)
            upper = parts[0, 0]
            below(parts[1, 0].subplots())
        grid = upper.subplots(rows, columns, squeeze=False).ravel()
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
    return jpeg_output(buffer.getvalue(), alt)
