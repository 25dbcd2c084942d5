"""A widget to label phases by keyboard, which writes `videos.csv`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.workbench.plotting.style import COLUMN
from mvf.workbench.plotting.style import phase_names as name_phases
from mvf.workbench.widgets.encoding import javascript
from mvf.workbench.widgets.frames import FrameWidget, Videos, check_every, check_numbers, check_videos, grid_picture
from mvf.workbench.widgets.phase_table import PhaseTable, Segments, phases_of, segments_of

Propose = Callable[[dict[str, NDArray[np.int64]], str], ArrayLike]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Clip:
    embeddings: NDArray
    phases: NDArray[np.int64]


class PhaseLabeler(FrameWidget):
    """Labels phases by keyboard and writes each accepted clip to `videos.csv` at once.

    A digit (or P for the next phase) starts a phase at the current frame, 0 starts unlabelled frames, backspace removes
    the boundary at or before the frame, and enter accepts the label and goes to the next clip. A clip without a label
    gets a proposal from those labelled so far, drawn dashed until it is accepted. Existing labels in the table are
    shown and kept; only accepted labels are written.

    Args:
        videos: Name -> frames, uint8 (T, H, W, 3), named as the folder dataset names them.
        path: `videos.csv`; if it does not exist, it is created with all videos of its folder. Other cells stay.
        embeddings: Name -> (T, E), one row for each frame; `mvf.transfer_phases` makes proposals from them.
        phase_names: Names of the phases; by default two, or as many as the table has.
        propose: Replaces the transfer: (labelled: name -> (T,) phases, name of a clip) -> its (T,) phases.
        numbers: Name -> (T,) positions of the frames in the source video; boundaries are stored in source frames.
        lengths: Name -> number of frames of the source video, if `numbers` skips some. Needed only for labels other
            than phases 0, 1, 2, ... in order.
        height: Height of a stored frame, in pixels.

    Attributes:
        labels: Name -> [[first source frame, phase], ...] of every labelled clip in the table.
        video, frame: The current clip and the index of its current frame.

    Raises:
        ValueError: if there is no video, or the table, one of its labels or an array is invalid; the message names it.
    """

    _esm = javascript("frames.js", "labeler.js")
    labels = traitlets.Dict().tag(sync=True)
    proposes = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        videos: Videos,
        path: str | Path,
        *,
        embeddings: Mapping[str, ArrayLike] | None = None,
        phase_names: Sequence[str] | None = None,
        propose: Propose | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        lengths: Mapping[str, int] | None = None,
        height: int = 320,
    ) -> None:
        check_videos(videos, 1)
        self._table = PhaseTable(path)
        positions = check_numbers(videos, numbers)
        read = {name: self._table.read(name) for name in videos}
        known = {name: label.length for name, label in read.items() if label is not None and label.length is not None}
        all_frames = {} if numbers is not None else {name: len(frames) for name, frames in videos.items()}
        self._lengths = known | all_frames | dict(lengths or {})
        labels = {name: label.segments for name, label in read.items() if label is not None}
        for name, length in self._lengths.items():
            _check_length(name, length, known.get(name, length), labels.get(name, ()), positions[name])
        names = name_phases(phase_names, *([p for _, p in segments] for segments in labels.values()))
        if phase_names is None and len(names) < 2:
            names = ["phase 0", "phase 1"]
        super().__init__(videos, numbers, None, names, height)
        checked = None if embeddings is None else check_every("embeddings", videos, embeddings, 2)
        self._propose = propose or (None if checked is None else partial(_transfer, checked))
        ends = {name: self._lengths.get(name, int(index[-1]) + 1) for name, index in positions.items()}
        self.strips = [strip | {"length": ends[strip["name"]]} for strip in self.strips]
        self.proposes = self._propose is not None
        self.labels = {name: [list(pair) for pair in segments] for name, segments in labels.items()}
        self.on_msg(self._receive)

    @property
    def labelled(self) -> dict[str, NDArray[np.int64]]:
        """Returns the (T,) phases of every labelled clip, -1 = unlabelled."""
        return {name: phases_of(segments, self._numbers[name]) for name, segments in self.labels.items()}

    def accept(self, name: str, segments: Sequence[Sequence[int]]) -> None:
        """Writes the label of a clip, [[first source frame, phase], ...], to the table.

        Raises:
            ValueError: if it is not a valid label of this clip.
        """
        checked = self._checked(name, segments)
        self._table.write(name, checked, self._lengths.get(name), self._videos)
        self.labels = {**self.labels, name: [list(pair) for pair in checked]}

    def propose(self, name: str) -> Segments:
        """Proposes a label for a clip from the other labelled clips; empty if there are none.

        Raises:
            ValueError: if `propose` does not return valid phases of this clip.
        """
        others = {other: p for other, p in self.labelled.items() if other != name and p.max() >= 0}
        if self._propose is None or not others:
            return ()
        phases = np.asarray(self._propose(others, name))
        wanted = self._numbers[name].shape
        if phases.shape != wanted or phases.dtype.kind not in "iu" or phases.min() < -1:
            raise ValueError(f"{name}: propose must return {wanted} integers, got {phases.dtype} {phases.shape}")
        segments = segments_of(phases, self._numbers[name])
        # Source frames before the first stored one get its phase.
        return ((0, segments[0][1]), *segments[1:]) if phases[0] >= 0 else segments

    def still(self) -> Image:
        """Returns the current frame above its label as an image, which stays when the notebook is reopened."""
        phases = self.labelled.get(self.video)
        word = "unlabelled" if phases is None or phases[self.frame] < 0 else self._names[phases[self.frame]]
        shot = self._shot(self.video, self.frame)
        shot = replace(shot, caption=f"{shot.caption}, {word}", phases=phases)
        return grid_picture([shot], len(self._names), COLUMN)

    def _checked(self, name: str, segments: Sequence[Sequence[int]]) -> Segments:
        if name not in self._videos:
            raise ValueError(f'"{name}" is not among the videos: {", ".join(self._videos)}')
        pairs = tuple((int(start), int(phase)) for start, phase in segments)
        if not pairs:
            raise ValueError(f"{name}: nothing to save: mark where a phase begins")
        starts, phases = zip(*pairs)
        length = self._lengths.get(name, int(self._numbers[name][-1]) + 1)
        if starts[0] < 0 or starts[-1] >= length or any(b <= a for a, b in zip(starts, starts[1:])):
            raise ValueError(f"{name}: phases must begin at increasing frames 0 to {length - 1}, got {list(starts)}")
        if min(phases) < -1 or max(phases) >= len(self._names) or any(a == b for a, b in zip((-1, *phases), phases)):
            wanted = f"-1 to {len(self._names) - 1}, each different from the one before"
            raise ValueError(f"{name}: phases must be {wanted}, got {list(phases)}")
        return pairs

    def _receive(self, _: object, message: dict[str, Any], __: object) -> None:
        """Answers a message from the page; errors are sent to the page, which shows them."""
        name = str(message.get("video", ""))
        try:
            if message.get("kind") == "accept":
                self.accept(name, message["segments"])
                text = f"saved {name} in {self._table.path.name}: {len(self.labels)} of {len(self._videos)} labelled"
                self.send({"kind": "saved", "video": name, "segments": self.labels[name], "text": text})
            elif message.get("kind") == "propose":
                self.send({"kind": "proposal", "video": name, "segments": self.propose(name)})
        except Exception as error:  # `propose` is the caller's function and may raise anything
            logger.exception("%s of %s failed", message.get("kind"), name)
            failed = "not saved" if message.get("kind") == "accept" else "no proposal"
            self.send({"kind": "problem", "video": name, "text": f"{failed}: {error}"})


def _transfer(embeddings: Mapping[str, NDArray], labelled: Mapping[str, NDArray[np.int64]], name: str) -> ArrayLike:
    from mvf.alignment import transfer_phases  # only where somebody labels

    clips = [_Clip(embeddings[other], phases) for other, phases in labelled.items()]
    return transfer_phases(clips, [embeddings[name]])[0]


def _check_length(name: str, length: int, labelled: int, segments: Segments, numbers: NDArray[np.int64]) -> None:
    if labelled != length:
        raise ValueError(f"{name}: {labelled} frames are labelled, but the video has {length}; set numbers=")
    if numbers[-1] >= length:
        raise ValueError(f"{name}: lengths must exceed the last frame number, {numbers[-1]}, got {length}")
    if segments and segments[-1][0] >= length:
        raise ValueError(f"{name}: a phase begins at frame {segments[-1][0]}, but there are only {length} frames")
