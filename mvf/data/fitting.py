"""Labels and frames of published data, which can differ in number: the longer of the two is resampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mvf.data.labels import check_phases, fit_length
from mvf.data.records import FrameSource, VideoRecord, frame_slice, pick_frames


class ThinnedSource:
    """Fewer frames of a longer video: frame j is its frame floor(j * n / count).

    Args:
        source: The video, of n frames.
        count: Number of frames to keep, at most n.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        self.source = source
        self.source_index = fit_length(np.arange(source.count()), count)

    @property
    def identity(self) -> str:
        return f"{self.source.identity}|{self.count()} frames of it"

    def count(self) -> int:
        return len(self.source_index)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return pick_frames(self.source, self.source_index[frame_slice(start, stop, step)].tolist())

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames at ascending distinct positions."""
        return pick_frames(self.source, self.source_index[list(positions)].tolist())


def labelled_record(
    name: str, action: str, phase_names: tuple[str, ...], labels: Any, source: FrameSource, **others: np.ndarray
) -> VideoRecord:
    """A record with the labels that a dataset holds for it, if any.

    Of more labels than frames as many are used as there are frames, of more frames than labels as many as there are
    labels: number j of the L2 is number floor(j * L1 / L2) of the L1. `note` of the record then says so.

    Args:
        name: The video.
        action: Its action.
        phase_names: Words for its phases, as many as there are; empty: any number of phases.
        labels: An integer a frame, -1 where unlabelled: an array, a tensor or a list; None without labels.
        source: The frames that decode.
        **others: Further annotations of (n, ...) rows, brought to the frames that are used.

    Raises:
        VideoError: when the labels are none.
    """
    annotations, note = {}, ""
    if labels is not None:
        phases, frames = check_phases(name, labels, len(phase_names)), source.count()
        if len(phases) != frames:
            note = f"{len(phases)} labels for {frames} frames"
        if len(phases) < frames:
            source = ThinnedSource(source, len(phases))
        annotations["phases"] = partial(np.copy, fit_length(phases, source.count()))
    annotations |= {key: partial(fit_length, values, source.count()) for key, values in others.items()}
    return VideoRecord(name, action, source, annotations, phase_names, note=note)
