"""A player of aligned videos of one action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

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
        height: int = 240,
    ) -> None:
        self._maps = _check_maps(videos, maps, reference)
        super().__init__(videos, numbers, phases, phase_names, height, times, video=reference)
        self.strips = [strip | {"map": self._maps[strip["name"]].tolist()} for strip in self.strips]

    def shown(self, frame: int) -> dict[str, int]:
        """Returns the position of the frame that each panel shows at reference frame `frame`."""
        if self.warped:
            return {name: int(index[frame]) for name, index in self._maps.items()}
        last = max(len(self._videos[self.video]) - 1, 1)
        # Halves are rounded up, as the page does.
        return {name: int(frame * (len(v) - 1) / last + 0.5) for name, v in self._videos.items()}

    def still(self) -> Image:
        """Returns what the player shows as an ordinary image."""
        shots = [self._shot(name, index) for name, index in self.shown(self.frame).items()]
        return grid_picture(shots, self.palette["colours"])


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
