"""A player of aligned videos of one action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.widgets.encoding import check_named, javascript
from mvf.workbench.widgets.frames import FrameWidget, Videos, check_videos, grid_picture


class AlignmentPlayer(FrameWidget):
    """Plays two or more videos warped to the time of one of them.

    Every panel shows the frame that matches the reference's, with its number. "as recorded" plays all from first to
    last frame at an even pace instead, to see what the alignment corrects.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3).
        maps: Name -> (T of the reference,) integers: at reference frame t, `videos[name][maps[name][t]]` is shown,
            as `mvf.align(reference, video)` returns it. The reference needs none.
        reference: Name of the video that keeps its own time.
        phases: Name -> (T,) phases, -1 = unlabelled: a coloured ribbon below each panel.
        phase_names: Names of the phases.
        numbers: Name -> (T,) positions of the frames in the source video, shown instead of 0 to T - 1.
        height: Of a stored frame, in pixels.

    Attributes:
        frame: Position in the reference video.
        warped: False plays the videos as recorded.

    Raises:
        ValueError: if there are fewer than two videos, or an array does not fit, naming it.

    Example:
        >>> videos = {"slow": np.zeros((4, 8, 8, 3), np.uint8), "fast": np.ones((2, 8, 8, 3), np.uint8)}
        >>> AlignmentPlayer(videos, {"fast": [0, 0, 1, 1]}, "slow").shown(2)
        {'slow': 2, 'fast': 1}
    """

    _esm = javascript("frames.js", "alignment.js")
    warped = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        videos: Videos,
        maps: Mapping[str, ArrayLike],
        reference: str,
        *,
        phases: Mapping[str, ArrayLike | None] | None = None,
        phase_names: Sequence[str] | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        height: int = 240,
    ) -> None:
        self._maps = _check_maps(videos, maps, reference)
        super().__init__(videos, numbers, phases, phase_names, height, video=reference)
        self.strips = [strip | {"map": self._maps[strip["name"]].tolist()} for strip in self.strips]

    def shown(self, frame: int) -> dict[str, int]:
        """Position of the frame that each panel shows at reference frame `frame`."""
        if self.warped:
            return {name: int(index[frame]) for name, index in self._maps.items()}
        last = max(len(self._videos[self.video]) - 1, 1)
        # Halves go up, as in the page.
        return {name: int(frame * (len(v) - 1) / last + 0.5) for name, v in self._videos.items()}

    def still(self) -> Image:
        """What the player shows, as an ordinary picture, which stays when a notebook is reopened."""
        shots = [self._shot(name, index) for name, index in self.shown(self.frame).items()]
        return grid_picture(shots, len(self._names))


def _check_maps(videos: Videos, maps: Mapping[str, ArrayLike], reference: str) -> dict[str, NDArray[np.int64]]:
    """The frame of every video at every reference frame."""
    check_videos(videos, 2)
    check_named("maps", maps)
    if reference not in videos:
        raise ValueError(f'reference must be one of {", ".join(videos)}, got "{reference}"')
    length = len(videos[reference])
    maps = {reference: np.arange(length), **maps}
    checked = {}
    for name, frames in videos.items():
        if name not in maps:
            raise ValueError(f'maps must have every video, "{name}" is missing: add mvf.align(reference, video)')
        index = np.asarray(maps[name])
        if index.shape != (length,) or index.dtype.kind not in "iu":
            found = f"{index.dtype} {index.shape}"
            raise ValueError(f"{name}: maps must be ({length},) integers, one a frame of {reference}, got {found}")
        if index.size and (index.min() < 0 or index.max() >= len(frames)):
            found = f"{index.min()} to {index.max()}"
            raise ValueError(f"{name}: maps must be frames 0 to {len(frames) - 1}, got {found}")
        checked[name] = index.astype(np.int64)
    return checked
