"""A browser of attention maps: frames overlaid with the maps of entities and backbone heads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import matplotlib as mpl
import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.files import atomic
from mvf.workbench.plotting import overlay
from mvf.workbench.widgets.encoding import (
    Arrays,
    ShownVideo,
    captioned_row,
    common_counts,
    encode_maps,
    encode_strips,
    javascript,
    resize,
    shown_videos,
    stylesheet,
)

COLORMAP = "magma"
OUTLINED = 0.6  # share of the attention that the outlined patches hold


class AttentionBrowser(anywidget.AnyWidget):
    """Shows one frame of a video overlaid with the map of an entity and, beside it, with that of a backbone head.

    Frames and maps are sent to the page once; scrubbing, playing and switching then need no kernel. Setting an
    attribute changes the page, and a change in the page reaches the attributes a quarter of a second later. A reopened
    notebook loses its widgets, so `still()` returns the same picture as an ordinary output.

    Args:
        videos: Video name -> (frames, entities, heads): uint8 (T, H, W, 3); (T, N, h, w); and (layers, T, K, h, w)
            as `attention_maps` returns them, or (T, K, h, w). Entities or heads may be None. All videos must have
                equal numbers of entities, layers and heads.
        numbers: Video name -> (T,) positions of the frames in the source video; by default 0, 1, ...
        layer_names: Names of the heads' layers, such as "layer 12".
        head_names: K names; by default "CLS head 1" and so on.
        head: Index of the head shown first, from 0.
        height: Height of a frame in the page, in pixels.
        export: Folder to which pictures saved in the page are also written; by default they are only downloaded.
        max_frames: A longer video keeps every second (third, ...) frame, with its number, so that a notebook that
            stores the widget stays small; the page says so.

    Attributes:
        video, frame, entity, layer, head: What is shown. The four indices count from 0; `frame` counts stored frames.
        opacity: Opacity of the maps in the blended view, 0 to 1.
        normalise: Whether the brightest colour is the maximum over the "frame" or over the whole "video".
        view: "blended" or "side by side".
        outline: Whether the strongest patches that hold 60 % of the attention are outlined.

    Raises:
        ValueError: if there is no video, nothing to show, or shapes do not fit; the message names the video.

    Example:
        >>> browser = AttentionBrowser({"squat": (np.zeros((4, 8, 8, 3), np.uint8), np.ones((4, 2, 2, 2)), None)})
        >>> browser.frame = 9
        >>> browser.frame, browser.number, browser.still().alt
        (3, 3, 'squat, frame 3: entity 1')
    """

    _esm = javascript("overlay.js", "attention.js")
    _css = stylesheet()
    videos: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    sheets = traitlets.List(traitlets.Bytes()).tag(sync=True)
    maps = traitlets.List(traitlets.Bytes()).tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)
    entity_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layer_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    head_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    height = traitlets.Int(280).tag(sync=True)
    writes = traitlets.Bool(False).tag(sync=True)
    video = traitlets.Unicode().tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    entity = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    opacity = traitlets.Float(0.6, min=0, max=1).tag(sync=True)
    normalise = traitlets.Enum(("frame", "video"), "frame").tag(sync=True)
    view = traitlets.Enum(("blended", "side by side"), "blended").tag(sync=True)
    outline = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        videos: Mapping[str, Arrays],
        *,
        numbers: Mapping[str, ArrayLike] | None = None,
        layer_names: Sequence[str] | None = None,
        head_names: Sequence[str] | None = None,
        head: int = 0,
        height: int = 280,
        export: str | Path = "",
        max_frames: int = 120,
    ) -> None:
        self._export = Path(export) if export else None
        self._shown = shown_videos(videos, numbers, max_frames)
        metas, sheets = encode_strips({name: video.frames for name, video in self._shown.items()}, height)
        buffers: list[bytes] = []
        for meta, video in zip(metas, self._shown.values()):
            meta |= _describe(video, height)
            for kind, maps in (("entities", video.entities), ("heads", video.heads)):
                meta[kind] = None if maps is None else _store(meta["name"], maps, buffers)
        entities, layers, heads = common_counts(self._shown)
        super().__init__(
            videos=metas,
            sheets=sheets,
            maps=buffers,
            colours=(mpl.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes(),
            entity_names=[f"entity {i + 1}" for i in range(entities)],
            layer_names=_names("layer_names", layer_names, layers, "given layer"),
            head_names=_names("head_names", head_names, heads, "CLS head"),
            height=height,
            writes=bool(export),
            video=metas[0]["name"],
            head=head,
        )
        self.on_msg(self._write)

    @property
    def nbytes(self) -> int:
        """Number of bytes sent to the page: frames, maps, their descriptions and the script."""
        text = json.dumps(self.videos) + self._esm + self._css
        return sum(map(len, (*self.sheets, *self.maps, self.colours))) + len(text.encode())

    @property
    def number(self) -> int:
        """Position of the current frame in the source video."""
        return self._meta["numbers"][self.frame]

    def still(self) -> Image:
        """Returns the current picture as an ordinary output, which stays when the notebook is reopened."""
        video = self._shown[self.video]
        frame = resize(video.frames[self.frame], *video.size(self.height))
        panels = {f"{self.video}, frame {self.number}": frame} if self.view != "blended" else {}
        if video.entities is not None:
            panels[self.entity_names[self.entity]] = self._overlay(frame, video.entities[0, :, self.entity])
        if video.heads is not None:
            caption = f"{self.head_names[self.head]}, {self.layer_names[self.layer]}"
            panels[caption] = self._overlay(frame, video.heads[self.layer, :, self.head])
        captions = list(panels)
        if self.view == "blended":
            captions[0] = f"{self.video}, frame {self.number}: {captions[0]}"
        return captioned_row(list(panels.values()), captions)

    def _overlay(self, frame: NDArray[np.uint8], maps: NDArray) -> NDArray[np.uint8]:
        """Overlays `frame` with its map of `maps` (T, h, w), as the controls are set."""
        opacity = self.opacity if self.view == "blended" else 1.0
        maximum = float(maps.max()) if self.normalise == "video" else None
        return overlay(frame, maps[self.frame], opacity, COLORMAP, OUTLINED if self.outline else None, maximum)

    @property
    def _meta(self) -> dict:
        return next(meta for meta in self.videos if meta["name"] == self.video)

    @traitlets.validate("video")
    def _known(self, proposal: traitlets.Bunch) -> str:
        names = [meta["name"] for meta in self.videos]
        if proposal.value not in names:
            raise traitlets.TraitError(f"video must be one of {names}, got {proposal.value!r}")
        return proposal.value

    @traitlets.validate("frame")
    def _within(self, proposal: traitlets.Bunch) -> int:
        return max(0, min(proposal.value, self._meta["count"] - 1))

    @traitlets.observe("video")
    def _shorter_video(self, change: traitlets.Bunch) -> None:
        self.frame = min(self.frame, self._meta["count"] - 1)

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


def _describe(video: ShownVideo, height: int) -> dict:
    """Describes a video to the page: everything but its frames and maps."""
    kept = f"{len(video.frames)} of {video.total} frames are stored."
    note = kept if len(video.frames) < video.total else ""
    return {"numbers": video.numbers.tolist(), "note": note, "shown": list(video.size(height))}


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
