"""A range of time of a longer video file, read as if it were a video of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from mvf.data.video import DecodedFrame, VideoError, VideoFile

SLACK = 1.0  # seconds that a range may reach beyond the end of its file: annotated times are rounded
RUN_UP = 1.0  # seconds before the range to seek to: seeks land late by a few frames where frames are reordered
ROUNDING = 1e-6  # seconds: a frame shown at `start` belongs to the range however its time was rounded


class Excerpt(VideoFile):
    """The frames of a video file that are shown from `start` until before `stop`.

    Frames are numbered from 0 by what decodes. Only the range is decoded, wherever in the file it lies, and damage
    elsewhere in the file does not matter.

    Args:
        path: A file in any format that FFmpeg reads.
        start: Seconds from the start of the file.
        stop: Likewise.

    Raises:
        ValueError: if the range is empty.
        VideoError: from every method that reads; also where the file ends more than a second before `stop`.
    """

    def __init__(self, path: str | Path, start: float, stop: float) -> None:
        if not 0 <= start < stop < float("inf"):
            raise ValueError(f"an excerpt needs seconds 0 <= start < stop, got {start} and {stop}")
        super().__init__(path)
        self.start, self.stop = float(start), float(stop)

    @cached_property
    def times(self) -> np.ndarray:
        """(count(),) seconds from `start` at which each frame is shown in the file."""
        return self._times - self.start

    @property
    def _source_identity(self) -> str:
        return f"{super()._source_identity}|{self.start!r} to {self.stop!r} s"

    def _decoded(self) -> Iterator[DecodedFrame]:
        last = 0.0
        for frame, aspect, last in self._from_before():
            if last >= self.stop - ROUNDING:
                return
            if last >= self.start - ROUNDING:
                yield frame, aspect, last
        if last < self.stop - SLACK:
            raise VideoError(f"cannot cut {self._range}: the video ends at {last:g} s, is it complete?")

    def _from_before(self) -> Iterator[DecodedFrame]:
        """Frames from somewhere before the range on; from the start of the file where seeking fails."""
        for begin in (self.start - RUN_UP, 0.0):
            frames = super()._decoded(begin)
            first = next(frames, None)
            if first is None or begin > 0 and not first[2] <= self.start:
                continue
            if np.isnan(first[2]):
                raise VideoError(f"cannot cut {self._range}: its frames carry no time stamps")
            return chain([first], frames)
        return iter(())

    @property
    def _range(self) -> str:
        return f"{self.path} from {self.start:g} to {self.stop:g} s"
