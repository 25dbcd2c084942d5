"""A browser of attention maps: frames overlaid with the maps of entities and backbone heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.files import atomic
from mvf.workbench.plotting import overlay
from mvf.workbench.widgets.encoding import (
    Arrays,
    captioned_rows,
    common_counts,
    encode_maps,
    javascript,
    resize,
    shown_videos,
)
from mvf.workbench.widgets.frames import Browser, check_rows, middle

COLORMAP = "magma"
OUTLINED = 0.6  # share of the attention that the outlined patches hold
EVEN = 1.5  # a map whose largest value is below this multiple of its mean is called nearly even, as in attention.js


class AttentionBrowser(Browser):
    """Shows a frame of a video beside, or under, the maps of entities and of backbone heads.

    Frames and maps are sent to the page once; scrubbing, playing and switching then need no kernel. It opens in the
    middle of the labelled phases, or of a video without labels. Inside another widget, as in
    `ipywidgets.VBox([browser])`, setting an attribute changes the page, and a change in the page reaches the attributes
    a quarter of a second later.

    Args:
        videos: Video name -> (frames, entities, heads): uint8 (T, H, W, 3); (T, N, h, w); and (layers, T, K, h, w)
            as `attention_maps` returns them, or (T, K, h, w). Entities or heads may be None. All videos must have
            equal numbers of entities, layers and heads.
        numbers: Video name -> (T,) positions of the frames in the source video; by default 0, 1, ...
        times: Video name -> (T,) seconds of the frames, shown beside the numbers; None where they are unknown.
        phases: Video name -> (T,) phases, -1 = unlabelled; drawn on the timeline.
        phase_names: Names of the phases; or those of each video, by name, which may show different actions.
        layer_names: Names of the heads' layers, such as "layer 12".
        head_names: K names; by default "CLS head 1" and so on.
        layer: Index of the layer shown first, from 0.
        head: Index of the head shown first, from 0; or one for each video, by name.
        height: Height of a stored frame, in pixels.
        export: Folder to which pictures saved in the page are also written, inside another widget; by default they are
            only downloaded.
        max_frames: A longer video keeps every second (third, ...) frame, with its number, so that a notebook that
            stores the widget stays small; the page says so.

    Attributes:
        video, frame, entity, layer, head: What is shown. The four indices count from 0; `frame` counts stored frames.
        opacity: Opacity of the maps in the blended view, 0 to 1.
        normalise: Whether the brightest colour is the maximum over the "frame" or over the whole "video".
        view: "side by side", "blended", "all entities" or "all heads", which are those of the layer.
        outline: Whether the strongest patches that hold 60 % of the attention are outlined.

    Raises:
        ValueError: if there is no video, nothing to show, or shapes do not fit; the message names the video.

    Example:
        >>> browser = AttentionBrowser({"squat": (np.zeros((4, 8, 8, 3), np.uint8), np.ones((4, 2, 2, 2)), None)})
        >>> browser.frame = 9
        >>> browser.frame, browser.number, browser.still().alt
        (3, 3, 'squat, frame 3, entity 1 (nearly even)')
    """

    _esm = javascript("frames.js", "overlay.js", "attention.js")
    _around = 300
    maps = traitlets.List(traitlets.Bytes()).tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)
    entity_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layer_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    head_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    writes = traitlets.Bool(False).tag(sync=True)
    entity = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    opacity = traitlets.Float(0.6, min=0, max=1).tag(sync=True)
    normalise = traitlets.Enum(("frame", "video"), "frame").tag(sync=True)
    view = traitlets.Enum(("side by side", "blended", "all entities", "all heads"), "side by side").tag(sync=True)
    outline = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        videos: Mapping[str, Arrays],
        *,
        numbers: Mapping[str, ArrayLike] | None = None,
        times: Mapping[str, ArrayLike | None] | None = None,
        phases: Mapping[str, ArrayLike | None] | None = None,
        phase_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        layer_names: Sequence[str] | None = None,
        head_names: Sequence[str] | None = None,
        layer: int = 0,
        head: int | Mapping[str, int] = 0,
        height: int = 280,
        export: str | Path = "",
        max_frames: int = 120,
    ) -> None:
        self._export = Path(export) if export else None
        self._shown = shown_videos(videos, numbers, max_frames)
        entities, layers, heads = common_counts(self._shown)
        super().__init__(
            {name: video.frames for name, video in self._shown.items()},
            {name: video.numbers for name, video in self._shown.items()},
            self._kept("phases", phases),
            None if isinstance(phase_names, Mapping) else phase_names,
            height,
            self._kept("times", times),
            colours=(mpl.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes(),
            entity_names=[f"entity {i + 1}" for i in range(entities)],
            layer_names=_names("layer_names", layer_names, layers, "given layer"),
            head_names=_names("head_names", head_names, heads, "CLS head"),
            writes=bool(export),
        )
        buffers: list[bytes] = []
        chosen = head if isinstance(head, Mapping) else dict.fromkeys(videos, head)
        words = phase_names if isinstance(phase_names, Mapping) else {}
        missing = [name for name in videos if name not in chosen]
        if missing:
            raise ValueError(f'head must be one for all videos or name every video, but "{missing[0]}" is missing')
        self.strips = [
            strip | self._described(name, buffers) | {"head": chosen[name], "names": words.get(name)}
            for name, strip in zip(videos, self.strips)
        ]
        self.maps, self.layer = buffers, layer
        self.head, self.frame = self.strips[0]["head"], self.strips[0]["start"]
        self.on_msg(self._write)

    def _kept(self, kind: str, arrays: Mapping[str, ArrayLike | None] | None) -> dict[str, NDArray]:
        """Thins arrays as the frames are thinned."""
        whole: Any = {name: range(video.total) for name, video in self._shown.items()}
        return {name: a[:: self._shown[name].step] for name, a in check_rows(kind, whole, arrays or {}, 1).items()}

    def _described(self, name: str, buffers: list[bytes]) -> dict[str, Any]:
        """Describes a video to the page beyond its frames, and appends its maps to `buffers`."""
        video, stored = self._shown[name], f"{len(self._videos[name])} of {self._shown[name].total} frames are stored."
        note = stored if len(video.frames) < video.total else ""
        start = middle(self._phases.get(name), len(video.frames))
        found: dict[str, Any] = {"note": note, "start": start, "shown": list(video.size(self.height))}
        for kind, maps in (("entities", video.entities), ("heads", video.heads)):
            found[kind] = None if maps is None else _store(name, maps, buffers)
        return found

    @property
    def _pictures(self) -> int:
        return 1 + bool(self.entity_names) + bool(self.head_names)

    @property
    def number(self) -> int:
        """Position of the current frame in the source video."""
        return int(self._numbers[self.video][self.frame])

    def still(self) -> Image:
        """Returns what the browser shows as an ordinary image."""
        video = self._shown[self.video]
        frame = resize(video.frames[self.frame], *video.size(self.height))
        place = f"{self.video}, frame {self.number}"
        panels = [(place, frame)] if self.view != "blended" else []
        if video.entities is not None and self.view != "all heads":
            chosen = range(len(self.entity_names)) if self.view == "all entities" else [self.entity]
            panels += [self._panel(self.entity_names[i], frame, video.entities[0, :, i]) for i in chosen]
        if video.heads is not None and self.view != "all entities":
            chosen = range(len(self.head_names)) if self.view == "all heads" else [self.head]
            layer = self.layer_names[self.layer]
            panels += [
                self._panel(f"{self.head_names[i]}, {layer}", frame, video.heads[self.layer, :, i]) for i in chosen
            ]
        captions = [caption for caption, _ in panels]
        if self.view == "blended":
            captions[0] = f"{place}: {captions[0]}"
        return captioned_rows([picture for _, picture in panels], captions)

    def _panel(self, name: str, frame: NDArray[np.uint8], maps: NDArray) -> tuple[str, NDArray[np.uint8]]:
        """Returns the caption and the picture of `frame` under its map of `maps` (T, h, w)."""
        even = maps[self.frame].max() < EVEN * maps[self.frame].mean()
        return name + " (nearly even)" * bool(even), self._overlay(frame, maps)

    def _overlay(self, frame: NDArray[np.uint8], maps: NDArray) -> NDArray[np.uint8]:
        """Overlays `frame` with its map of `maps` (T, h, w), as the controls are set."""
        opacity = self.opacity if self.view == "blended" else 1.0
        maximum = float(maps.max()) if self.normalise == "video" else None
        return overlay(frame, maps[self.frame], opacity, COLORMAP, OUTLINED if self.outline else None, maximum)

    @traitlets.validate("entity", "layer", "head")
    def _existing(self, proposal: traitlets.Bunch) -> int:
        names = getattr(self, f"{proposal.trait.name}_names")
        if not 0 <= proposal.value < max(1, len(names)):
            raise traitlets.TraitError(
                f"{proposal.trait.name} must be from 0 to {len(names) - 1}, got {proposal.value}"
            )
        return proposal.value

    def _write(self, widget: AttentionBrowser, content: dict, buffers: Sequence[bytes]) -> None:
        """Writes a picture from the page to the folder `export`; the page cannot choose another folder."""
        if self._export is not None and "save" in content:
            self._export.mkdir(parents=True, exist_ok=True)
            with atomic(self._export / Path(content["save"]).name) as path:
                path.write_bytes(bytes(buffers[0]))


def _store(name: str, maps: NDArray, buffers: list[bytes]) -> dict:
    try:
        meta, buffer = encode_maps(maps, OUTLINED)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    buffers.append(buffer)
    return meta | {"buffer": len(buffers) - 1}


def _names(argument: str, names: Sequence[str] | None, count: int, default: str) -> list[str]:
    if names is None:
        return [f"{default} {i + 1}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{argument} must have {count} names, got {len(names)}: {list(names)}")
    return list(map(str, names))
