"""A player of aligned videos of one action, with a curve of how far one is from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from IPython.display import Image
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from mvf.evaluation.deviation import Deviation
from mvf.workbench.plotting import draw_deviation
from mvf.workbench.widgets.encoding import check_named, javascript
from mvf.workbench.widgets.frames import Browser, Videos, check_videos, grid_picture


class AlignmentPlayer(Browser):
    """Plays two or more videos warped to the time of one of them.

    Every panel shows the frame that is aligned with the reference frame, and its number. With "as recorded" every video
    plays from its first to its last frame at an even pace, which shows what the alignment corrects.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3).
        maps: Name -> (T of the reference,) integers: at reference frame t, `videos[name][maps[name][t]]` is shown,
            as `mvf.align(reference, video)` returns it. The reference needs none.
        reference: Name of the video whose time is used; the others are warped to it.
        phases: Name -> (T,) phases, -1 = unlabelled; drawn as a coloured ribbon below each panel.
        phase_names: Names of the phases.
        numbers: Name -> (T,) positions of the frames in the source video, shown instead of 0 to T - 1.
        times: Name -> (T,) seconds of the frames, shown beside the numbers; None where they are unknown.
        deviation: How far the reference's performance is from others, frame by frame; drawn as a curve above the
            timeline, whose moments outside the band are reached by buttons and by the keys B and N.
        note: A sentence shown below.
        height: Height of a stored frame, in pixels.

    Attributes:
        frame: Position in the reference video.
        warped: False plays the videos as recorded.

    Raises:
        ValueError: if there are fewer than two videos, or an array does not fit; the message names it.

    Example:
        >>> videos = {"slow": np.zeros((4, 8, 8, 3), np.uint8), "fast": np.ones((2, 8, 8, 3), np.uint8)}
        >>> AlignmentPlayer(videos, {"fast": [0, 0, 1, 1]}, "slow").shown(2)
        {'slow': 2, 'fast': 1}
    """

    _esm = javascript("frames.js", "alignment.js")
    _around = 240
    warped = traitlets.Bool(True).tag(sync=True)
    curve = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        videos: Videos,
        maps: Mapping[str, ArrayLike],
        reference: str,
        *,
        phases: Mapping[str, ArrayLike | None] | None = None,
        phase_names: Sequence[str] | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        times: Mapping[str, ArrayLike | None] | None = None,
        deviation: Deviation | None = None,
        note: str = "",
        height: int = 240,
    ) -> None:
        self._maps = _check_maps(videos, maps, reference)
        self._deviation = deviation
        if deviation is not None and len(deviation.distance) != len(videos[reference]):
            found, wanted = len(deviation.distance), len(videos[reference])
            raise ValueError(f"deviation must be of the {wanted} frames of {reference}, got {found}")
        curve = {} if deviation is None else _curve(deviation)
        if curve:
            self._around = 430  # the curve, its buttons and legend, too
        super().__init__(videos, numbers, phases, phase_names, height, times, video=reference, curve=curve, note=note)
        self.strips = [strip | {"map": self._maps[strip["name"]].tolist()} for strip in self.strips]

    def shown(self, frame: int) -> dict[str, int]:
        """Returns the position of the frame that each panel shows at reference frame `frame`."""
        if self.warped:
            return {name: int(index[frame]) for name, index in self._maps.items()}
        last = max(len(self._videos[self.video]) - 1, 1)
        # Halves are rounded up, as the page does.
        return {name: int(frame * (len(v) - 1) / last + 0.5) for name, v in self._videos.items()}

    @property
    def title(self) -> str:
        return "Deviation player" if self.curve else super().title

    def still(self) -> Image:
        """Returns what the player shows as an ordinary image."""
        shots = [self._shot(name, index) for name, index in self.shown(self.frame).items()]
        return grid_picture(shots, self.palette["colours"], below=self._draw_curve if self.curve else None)

    def _draw_curve(self, axes: Axes) -> None:
        assert self._deviation is not None
        times, numbers = self._seconds.get(self.video), self._numbers[self.video]
        draw_deviation(axes, self._deviation, times, numbers, cursor=self.frame)


def _curve(deviation: Deviation) -> dict[str, object]:
    """What the page draws of a deviation."""
    curves = {"distance": deviation.distance.round(4).tolist(), "band": deviation.band.round(4).tolist()}
    moments = [[moment.start, moment.end, moment.peak] for moment in deviation.moments]
    note = deviation.note and f"{deviation.note[0].upper()}{deviation.note[1:]}."
    return curves | {"moments": moments, "note": note}


def _check_maps(videos: Videos, maps: Mapping[str, ArrayLike], reference: str) -> dict[str, NDArray[np.int64]]:
    """Checks the maps and returns them for every video, including the reference."""
    check_videos(videos, 2)
    check_named("maps", maps)
    if reference not in videos:
        raise ValueError(f'reference must be one of {", ".join(videos)}, got "{reference}"')
    length = len(videos[reference])
    maps = {reference: np.arange(length), **maps}
    checked = {}
    for name, frames in videos.items():
        if name not in maps:
            raise ValueError(f'maps must contain every video, but "{name}" is missing: add mvf.align(reference, video)')
        index = np.asarray(maps[name])
        if index.shape != (length,) or index.dtype.kind not in "iu":
            found = f"{index.dtype} {index.shape}"
            raise ValueError(f"{name}: maps must be ({length},) integers, one per frame of {reference}, got {found}")
        if index.size and (index.min() < 0 or index.max() >= len(frames)):
            found = f"{index.min()} to {index.max()}"
            raise ValueError(f"{name}: maps must be frames 0 to {len(frames) - 1}, got {found}")
        checked[name] = index.astype(np.int64)
    return checked
