"""A browser of attention for notebooks: it shows arrays that are already computed, one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import ipywidgets
import numpy as np
from IPython.display import Image
from numpy.typing import NDArray

from mvf.plotting import overlay

Maps = tuple[NDArray[np.uint8], NDArray | None, NDArray | None]


class AttentionBrowser(ipywidgets.VBox):
    """Shows one frame of one video under the map of an entity, and beside it under that of a backbone head.

    Only the picture on display is kept in the widget's state, so an executed notebook stays small. Saved notebooks
    lose their widgets when reopened: `still()` is the same picture as an ordinary output.

    Attributes:
        video, entity, head: Dropdowns; disabled where there is nothing to choose.
        frame: Slider over the chosen video's frames, which `play` moves.
        opacity: Slider of the maps' opacity.
        contour: Checkbox: outline the strongest patches that hold 60 % of the attention.
        picture: The JPEG on display.
        text: Video and frame number.
    """

    def __init__(self, frames_by_video: Mapping[str, Maps], head_names: Sequence[str], height: int) -> None:
        self._videos = frames_by_video
        self._height = height
        _, entities, heads = next(iter(frames_by_video.values()))
        entity_names = [] if entities is None else [f"entity {i + 1}" for i in range(entities.shape[1])]
        style = {"description_width": "60px"}
        self.video = ipywidgets.Dropdown(options=list(frames_by_video), description="Video", style=style)
        self.entity = ipywidgets.Dropdown(**_choice(entity_names), description="Entity", style=style)
        self.head = ipywidgets.Dropdown(**_choice(head_names), description="Head", style=style)
        self.frame = ipywidgets.IntSlider(min=0, max=0, description="Frame", style=style)
        self.play = ipywidgets.Play(min=0, max=0, interval=100)
        self.opacity = ipywidgets.FloatSlider(0.6, min=0, max=1, step=0.05, description="Opacity", style=style)
        self.contour = ipywidgets.Checkbox(False, description="outline 60 % of the attention", indent=False)
        self.picture = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "object_fit": "contain"})
        self.text = ipywidgets.Label()
        ipywidgets.jslink((self.play, "value"), (self.frame, "value"))
        rows = ((self.video, self.play, self.frame), (self.entity, self.head), (self.opacity, self.contour))
        super().__init__([*map(ipywidgets.HBox, rows), self.text, self.picture])
        self.video.observe(self._change_video, "value")
        for control in (self.frame, self.entity, self.head, self.opacity, self.contour):
            control.observe(lambda change: self._render(), "value")
        self._change_video()

    def still(self) -> Image:
        """The picture on display as an ordinary notebook output, which stays when the notebook is reopened."""
        return Image(bytes(self.picture.value), format="jpeg")

    def _change_video(self, change: object = None) -> None:
        last = len(self._videos[self.video.value][0]) - 1
        self.frame.max = self.play.max = last  # a value beyond it moves to it
        self._render()

    def _render(self) -> None:
        frames, *maps = self._videos[self.video.value]
        t, mass = self.frame.value, 0.6 if self.contour.value else None
        frame = _enlarge(frames[t], self._height)
        shown = [(kind, m) for kind, m in zip((self.entity, self.head), maps) if m is not None]
        panels = [overlay(frame, m[t, kind.value], self.opacity.value, contour_mass=mass) for kind, m in shown]
        picture = np.hstack(panels)[..., ::-1]  # OpenCV writes BGR
        self.picture.value = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        names = " | ".join(kind.label for kind, _ in shown)
        self.text.value = f"{self.video.value}: frame {t} of 0 to {len(frames) - 1} ({names})"


def attention_browser(
    frames_by_video: Mapping[str, Maps], head_names: Sequence[str] | None = None, height: int = 280
) -> AttentionBrowser:
    """A notebook widget: video, frame slider with play, entity, head, opacity; over arrays already computed.

    Args:
        frames_by_video: Video name -> (frames, entities, heads): uint8 (T, H, W, 3); (T, N, h, w); and (T, K, h, w),
            or (layers, T, K, h, w) as `attention_maps` returns them. Entities or heads may be None; N and K are the
            same for all videos.
        head_names: Names of the K heads (of every layer); by default "CLS head 1" or "layer 1 of 2, CLS head 1".
        height: Of the picture, in pixels.

    Raises:
        ValueError: if there is no video, or shapes do not fit.

    Example:
        >>> arrays = np.zeros((4, 8, 8, 3), np.uint8), np.ones((4, 2, 2, 2)), None
        >>> browser = attention_browser({"squat": arrays})
        >>> browser.frame.value = 3
        >>> browser.text.value
        'squat: frame 3 of 0 to 3 (entity 1)'
    """
    if not frames_by_video:
        raise ValueError("frames_by_video must name at least one video, got none: compute attention maps first")
    checked = {name: _check(name, *maps) for name, maps in frames_by_video.items()}
    counts = {name: tuple(0 if m is None else m.shape[1] for m in maps) for name, (_, *maps) in checked.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"all videos must have as many entities and heads, got (entities, heads) {counts}")
    heads = next(iter(counts.values()))[1]
    if head_names is None:
        head_names = _head_names(heads, next(iter(frames_by_video.values()))[2])
    if len(head_names) != heads:
        raise ValueError(f"head_names must have {heads} names, got {len(head_names)}: {list(head_names)}")
    return AttentionBrowser(checked, head_names, height)


def _check(name: str, frames: NDArray, entities: NDArray | None, heads: NDArray | None) -> Maps:
    """The arrays of one video, with the layers of the heads joined: (T, K, h, w)."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"{name}: frames must be (T, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    if entities is None and heads is None:
        raise ValueError(f"{name}: nothing to show, both entities and heads are None")
    if heads is not None and heads.ndim == 5:
        heads = np.moveaxis(heads, 0, 1).reshape(heads.shape[1], -1, *heads.shape[3:])
    for kind, maps in (("entities", entities), ("heads", heads)):
        if maps is not None and (maps.ndim != 4 or len(maps) != len(frames)):
            raise ValueError(f"{name}: {kind} must be ({len(frames)}, number, h, w), one a frame, got {maps.shape}")
    return frames, entities, heads


def _head_names(count: int, heads: NDArray | None) -> list[str]:
    if heads is None or heads.ndim == 4 or len(heads) == 1:
        return [f"CLS head {i + 1}" for i in range(count)]
    layers, per_layer = len(heads), heads.shape[2]
    return [f"layer {i // per_layer + 1} of {layers}, CLS head {i % per_layer + 1}" for i in range(count)]


def _choice(names: Sequence[str]) -> dict:
    """Options of a dropdown, which is disabled where there is nothing to choose."""
    return {"options": [(name, i) for i, name in enumerate(names)] or [("none", 0)], "disabled": not names}


def _enlarge(frame: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
