"""A browser of the nearest frames of other videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.widgets.encoding import javascript
from mvf.workbench.widgets.frames import Browser, Videos, check_every, check_videos, grid_picture


class RetrievalBrowser(Browser):
    """Shows the nearest frame of each other video for any query frame, nearest first; a click changes the query.

    The neighbours of all frames are computed here and sent as small arrays, so the page needs no kernel.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3); at least two.
        embeddings: Name -> (T, E), one row for each of these frames.
        k: Number of neighbours shown, at most the number of other videos.
        phases: Name -> (T,) phases, -1 = unlabelled; a neighbour is marked right or wrong if both are labelled.
        phase_names: Names of the phases.
        numbers: Name -> (T,) positions of the frames in the source video, shown instead of 0 to T - 1.
        times: Name -> (T,) seconds of the frames, shown beside the numbers; None where they are unknown.
        height: Height of a stored frame, in pixels.

    Attributes:
        video, frame: The query video and the index of the query frame.

    Raises:
        ValueError: if there are fewer than two videos, `k` is below 1, or an array does not fit; the message names it.

    Example:
        >>> videos = {name: np.zeros((3, 8, 8, 3), np.uint8) for name in ("squat", "lunge")}
        >>> browser = RetrievalBrowser(videos, {"squat": np.eye(3), "lunge": np.eye(3)[::-1]})
        >>> browser.neighbours("squat", 0)
        [('lunge', 2, 0.0)]
    """

    _esm = javascript("frames.js", "retrieval.js")
    _around = 310
    # (frames of all videos, k), in the order of the videos: uint16 video, uint32 frame, float32 distance.
    neighbour_videos = traitlets.Bytes().tag(sync=True)
    neighbour_frames = traitlets.Bytes().tag(sync=True)
    neighbour_distances = traitlets.Bytes().tag(sync=True)
    k = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        videos: Videos,
        embeddings: Mapping[str, ArrayLike],
        *,
        k: int = 5,
        phases: Mapping[str, ArrayLike | None] | None = None,
        phase_names: Sequence[str] | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        times: Mapping[str, ArrayLike | None] | None = None,
        height: int = 160,
    ) -> None:
        check_videos(videos, 2)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        super().__init__(videos, numbers, phases, phase_names, height, times)
        found = check_every("embeddings", videos, embeddings, 2)
        widths = {name: values.shape[1] for name, values in found.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"embeddings must all have the same width, got {widths}")
        self.k = min(k, len(videos) - 1)
        self._found = nearest_frames([found[name] for name in videos], self.k)
        kinds = ("neighbour_videos", "<u2"), ("neighbour_frames", "<u4"), ("neighbour_distances", "<f4")
        for (trait, kind), parts in zip(kinds, zip(*self._found)):
            setattr(self, trait, np.concatenate(parts).astype(kind).tobytes())

    def neighbours(self, video: str, frame: int) -> list[tuple[str, int, float]]:
        """Returns (video, frame index, distance) of the neighbours of a frame, nearest first."""
        names = list(self._videos)
        videos, frames, distances = (part[frame] for part in self._found[names.index(video)])
        return [(names[v], int(f), float(d)) for v, f, d in zip(videos, frames, distances)]

    @property
    def _pictures(self) -> int:
        return 1 + self.k

    def still(self) -> Image:
        """Returns the query and its neighbours as an image."""
        query = self._word(self.video, self.frame)
        place = f"frame {self._numbers[self.video][self.frame]}"
        shots = [self._shot(self.video, self.frame, f"query: {self.video}\n" + ", ".join(filter(None, (place, query))))]
        for rank, (name, index, distance) in enumerate(self.neighbours(self.video, self.frame), start=1):
            word = self._word(name, index)
            known = "unlabelled" not in (query or "unlabelled", word or "unlabelled")
            sign = ("✓ " if word == query else "✗ ") if known else ""
            parts = f"frame {self._numbers[name][index]}", f"distance {distance:.3f}", sign + word
            shots.append(self._shot(name, index, f"{rank}. {name}\n" + ", ".join(filter(None, parts))))
        return grid_picture(shots, self.palette["colours"])


def nearest_frames(
    videos: Sequence[NDArray], k: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Finds, for every frame, the k other videos whose best frame is nearest by Euclidean distance.

    Args:
        videos: Embeddings (T, E), one array per video.
        k: Number of neighbours, at most the number of other videos.

    Returns:
        For each video three (T, k) arrays, nearest first: indices of videos, of their frames, and distances.

    Example:
        >>> videos, frames, distances = nearest_frames([np.array([[0.0]]), np.array([[5.0], [3.0]])], 1)[0]
        >>> videos.tolist(), frames.tolist(), distances.tolist()
        ([[1]], [[1]], [[3.0]])
    """
    videos = [np.asarray(video, np.float64) for video in videos]
    found = []
    for q, query in enumerate(videos):
        others = np.array([r for r in range(len(videos)) if r != q])
        frames = np.stack([_nearest(query, videos[r]) for r in others], axis=1)
        distances = np.stack([np.linalg.norm(query - videos[r][f], axis=1) for r, f in zip(others, frames.T)], axis=1)
        order = distances.argsort(axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(frames, order, axis=1), np.take_along_axis(distances, order, axis=1)
        found.append((others[order], *nearest))
    return found


def _nearest(query: NDArray, reference: NDArray) -> NDArray[np.int64]:
    """Finds the (Tq,) frames of `reference` nearest to each of `query`; |q|^2 is constant and left out."""
    return (np.square(reference).sum(1) - 2 * query @ reference.T).argmin(1)
