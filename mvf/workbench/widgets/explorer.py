"""An explorer of embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike

from mvf.workbench.plotting.probe import has_unlabelled, phase_legend
from mvf.workbench.plotting.style import PAGE, UNLABELLED, paper_figure, show_image
from mvf.workbench.widgets.encoding import javascript
from mvf.workbench.widgets.frames import Browser, Videos, as_jpeg, check_every


class EmbeddingExplorer(Browser):
    """Shows frames as points coloured by phase; hovering shows a frame and its video's trajectory, a click pins it.

    Args:
        points: Name -> (T, 2), one point for each frame.
        videos: Name -> frames, uint8 (T, H, W, 3).
        phases: Name -> (T,) phases, -1 = unlabelled.
        phase_names: Names of the phases.
        numbers: Name -> (T,) positions of the frames in the source video, shown instead of 0 to T - 1.
        times: Name -> (T,) seconds of the frames, shown beside the numbers; None where they are unknown.
        height: Height of a stored frame, in pixels.
        axes: Names of the two dimensions.

    Attributes:
        video, frame: The pinned frame.

    Raises:
        ValueError: if there is no video, or an array does not fit; the message names it.

    Example:
        >>> videos = {"squat": np.zeros((3, 8, 8, 3), np.uint8)}
        >>> explorer = EmbeddingExplorer({"squat": np.eye(3)[:, :2]}, videos, phases={"squat": [0, 0, 1]})
        >>> explorer.palette["names"]
        ['phase 0', 'phase 1']
    """

    _esm = javascript("frames.js", "explorer.js")
    axes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    points = traitlets.Bytes().tag(sync=True)  # float32 (frames of all videos, 2), in the order of the videos

    def __init__(
        self,
        points: Mapping[str, ArrayLike],
        videos: Videos,
        *,
        phases: Mapping[str, ArrayLike | None] | None = None,
        phase_names: Sequence[str] | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        times: Mapping[str, ArrayLike | None] | None = None,
        height: int = 200,
        axes: Sequence[str] = ("dimension 1", "dimension 2"),
    ) -> None:
        if len(axes) != 2:
            raise ValueError(f"axes must be two names, got {list(axes)}")
        super().__init__(videos, numbers, phases, phase_names, height, times, axes=list(axes))
        found = check_every("points", videos, points, 2)
        for name, values in found.items():
            if values.shape[1] != 2:
                raise ValueError(f"{name}: points must be ({len(values)}, 2), got {values.shape}")
        self._points = [found[name] for name in videos]
        self.points = np.concatenate(self._points).astype("<f4").tobytes()

    def still(self) -> Image:
        """Returns the points and the pinned frame as an image."""
        place = list(self._videos).index(self.video)
        shot = self._shot(self.video, self.frame)
        labels = [self._phases.get(name, np.full(len(frames), -1)) for name, frames in self._videos.items()]
        with paper_figure(PAGE, 3.2, layout="compressed") as figure:  # other layouts cut the caption of a wide frame
            points, picture = figure.subplots(1, 2)
            for phases, values in zip(labels, self._points):
                points.scatter(*values.T, s=6, c=[(*self.palette["colours"], UNLABELLED)[p] for p in phases])
            points.plot(*self._points[place].T, color="black", linewidth=0.9, zorder=0)
            points.plot(*self._points[place][self.frame], "o", markersize=9, fillstyle="none", color="black")
            points.set(xticks=[], yticks=[], aspect="equal", xlabel=self.axes[0], ylabel=self.axes[1])
            show_image(picture, shot.frame, shot.caption)
            if self._names:
                phase_legend(figure, self._names, has_unlabelled(*labels))
        return as_jpeg(figure, shot.caption.replace("\n", " "))
