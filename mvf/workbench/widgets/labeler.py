"""A widget to label phases by keyboard and mouse, which writes `videos.csv`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from IPython.display import Image
from numpy.typing import ArrayLike, NDArray

from mvf.data.labels import check_phase_names
from mvf.data.records import VideoRecord
from mvf.workbench.plotting.style import COLUMN, UNLABELLED, phase_colours
from mvf.workbench.plotting.style import phase_names as name_phases
from mvf.workbench.widgets.encoding import check_named, encode_jpeg, javascript, resize
from mvf.workbench.widgets.frames import FrameWidget, check_every, check_numbers, check_videos, grid_picture
from mvf.workbench.widgets.phase_table import PhaseTable, Segments, phases_of, segments_of

Propose = Callable[[dict[str, NDArray[np.int64]], str], ArrayLike]

MOST_FRAMES = 64  # of one message
MOST_READERS = 3  # places in videos from which reading goes on without seeking
FAILED = {"accept": "not saved", "accept all": "not saved", "save as": "not saved", "names": "not named",
    "segments": "segments not written",
}  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Labelled:
    embeddings: NDArray
    phases: NDArray[np.int64]


@dataclass(frozen=True)
class _Clip:
    """The frames of a video, which are read when they are asked for.

    Attributes:
        numbers: (T,) number of each frame in the file, ascending.
        rows: (T,) its place among all frames of the video, which may repeat a frame of the file.
        count: Number of those.
        read: Places in ascending order -> (H, W, 3) uint8 frames.
        length: Number of frames in the file; None if unknown.
        times: (T,) seconds of each frame; None if unknown.
    """

    numbers: NDArray[np.int64]
    rows: NDArray[np.int64]
    count: int
    read: Callable[[Sequence[int]], Iterator[NDArray[np.uint8]]]
    length: int | None = None
    times: NDArray | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return next(self.frames(index, index + 1))

    def frames(self, first: int, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        return self.read(self.rows[first:stop].tolist())


class PhaseLabeler(FrameWidget):
    """Labels phases by keyboard and mouse and writes each accepted clip to `videos.csv` at once.

    A digit (or P for the next phase) starts a phase at the current frame, 0 starts unlabelled frames, backspace removes
    the boundary at or before the frame, boundaries are dragged on the timeline, and enter accepts the label and goes to
    the next clip. Everything can be undone, saved labels too. Existing labels in the table are shown and kept; only
    accepted labels and names of phases are written. Colours are kept as long as the widget.

    Every frame can be shown: pictures are decoded when the page asks for them, which holds about 60 around the current
    one, so the widget needs its kernel.

    A clip without a label gets a proposal from those labelled so far, drawn dashed until it is accepted. With two or
    more of them it says how well they agree: each labelled clip alone proposes phases, too, and the agreement of a
    frame is the share of clips that propose the phase shown; that of a clip is the mean over its frames. It is not the
    probability that the proposal is right: clips may agree on an error.

    Args:
        videos: Name -> video, named as the folder dataset names them: a `VideoRecord`, or frames in memory, uint8
            (T, H, W, 3).
        path: `videos.csv`; if it does not exist, it is created with all videos of its folder. Other cells stay.
        embeddings: Name -> (T, E), one row for each frame; `mvf.transfer_phases` makes proposals from them.
        phase_names: Names of the phases where the table has none; by default two, or as many as the table uses.
        propose: Replaces the transfer: (labelled: name -> (T,) phases, name of a clip) -> its (T,) phases.
        numbers: Name -> (T,) positions of frames in memory in the source video; boundaries are stored in source frames.
        lengths: Name -> number of frames of the source video, if `numbers` skips some. Needed only for labels other
            than phases 0, 1, 2, ... in order.
        height: Height of a shown frame, in pixels.
        write_segments: Writes the segments of all clips, and returns a line that says where and how many; by default
            the page offers no button for it.

    Attributes:
        labels: Name -> [[first source frame, phase], ...] of every labelled clip in the table.
        unsaved: Name -> the same, of accepted labels that could not be written; they are tried again with the next.
        video, frame: The current clip and the index of its current frame.

    Raises:
        ValueError: if there is no video, or the table, one of its labels or an array is invalid; the message names it.
    """

    _esm = javascript("frames.js", "labeler.js")
    labels = traitlets.Dict().tag(sync=True)
    unsaved = traitlets.Dict().tag(sync=True)
    proposes = traitlets.Bool().tag(sync=True)
    segments = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        videos: Mapping[str, NDArray[np.uint8] | VideoRecord],
        path: str | Path,
        *,
        embeddings: Mapping[str, ArrayLike] | None = None,
        phase_names: Sequence[str] | None = None,
        propose: Propose | None = None,
        numbers: Mapping[str, ArrayLike] | None = None,
        lengths: Mapping[str, int] | None = None,
        height: int = 320,
        write_segments: Callable[[PhaseLabeler], str] | None = None,
    ) -> None:
        clips: Any = _clips(videos, numbers)
        self._sources = {name: video.source for name, video in videos.items() if isinstance(video, VideoRecord)}
        self._table = PhaseTable(path, self._sources)
        read = self._table.read_all(clips)
        known = {name: label.length for name, label in read.items() if label is not None and label.length is not None}
        counted = {name: clip.length for name, clip in clips.items() if clip.length is not None}
        self._lengths: dict[str, int] = known | counted | dict(lengths or {})
        labels = {name: label.segments for name, label in read.items() if label is not None}
        for name, length in self._lengths.items():
            _check_length(name, length, known.get(name, length), labels.get(name, ()), clips[name].numbers)
        self._named = self._table.read_names(clips)
        names = name_phases(self._named or phase_names, *([p for _, p in segments] for segments in labels.values()))
        if not self._named and phase_names is None and len(names) < 2:
            names = ["phase 0", "phase 1"]
        self._clips: dict[str, _Clip] = clips
        times = {name: clip.times for name, clip in clips.items()}
        super().__init__(clips, {name: clip.numbers for name, clip in clips.items()}, None, names, height, times)
        frames: Any = {name: range(clip.count) for name, clip in clips.items()}
        found = {} if embeddings is None else check_every("embeddings", frames, embeddings, 2)
        rows = {name: values[clips[name].rows] for name, values in found.items()}
        self._propose = propose or (None if embeddings is None else partial(_transfer, rows))
        ends = {name: self._lengths.get(name, int(clip.numbers[-1]) + 1) for name, clip in clips.items()}
        self.strips = [strip | {"length": ends[strip["name"]]} for strip in self.strips]
        self.proposes = self._propose is not None
        self._write_segments = write_segments
        self.segments = write_segments is not None
        self.labels = {name: _lists(segments) for name, segments in labels.items()}
        self._colours: dict[int, str] = {}
        self._names_wait = False
        self._readers: dict[tuple[str, int], Iterator[NDArray[np.uint8]]] = {}
        self.on_msg(self._receive)

    def _encoded(self, videos: Any, height: int) -> tuple[list[dict], list[bytes]]:
        if height < 1:
            raise ValueError(f"height must be at least 1 pixel, got {height}")
        return [{"name": name, "count": len(clip)} for name, clip in videos.items()], []

    @property
    def labelled(self) -> dict[str, NDArray[np.int64]]:
        """Returns the (T,) phases of every labelled clip, -1 = unlabelled."""
        return {name: phases_of(segments, self._numbers[name]) for name, segments in self.labels.items()}

    def accept(self, name: str, segments: Sequence[Sequence[int]]) -> None:
        """Writes the label of a clip, [[first source frame, phase], ...], to the table.

        Raises:
            ValueError: if it is not a valid label of this clip.
            OSError: if the table cannot be written; the label is kept in `unsaved`.
        """
        self._write({name: self._checked(name, segments)})

    def accept_proposals(self, but: Sequence[str] = ()) -> dict[str, Segments]:
        """Accepts the proposals for all clips without a label, except those in `but`, and returns them.

        All are made from the clips that are labelled before; no proposal becomes the source of another.

        Raises:
            ValueError: if there is nothing to propose.
            OSError: if the table cannot be written; the labels are kept in `unsaved`.
        """
        waiting = [name for name in self._videos if name not in (*self.labels, *self.unsaved, *but)]
        proposed = {name: segments for name in waiting if (segments := self.propose(name))}
        if not proposed:
            raise ValueError("there is no proposal: label a clip first" if waiting else "every clip has a label")
        self._write(proposed)
        return proposed

    def propose(self, name: str) -> Segments:
        """Proposes a label for a clip from the other labelled clips; empty if there are none.

        Raises:
            ValueError: if `propose` does not return valid phases of this clip.
        """
        others = self._others(name)
        return self._segments(name, self._proposed(others, name)) if others else ()

    def agreement(self, name: str) -> NDArray[np.float64] | None:
        """Returns how well the other labelled clips agree with the proposal for a clip; see the class.

        Returns:
            (T,) share of the labelled clips that propose, each alone, the phase that all propose together; 1 where all
            agree. None with less than two labelled clips.
        """
        others = self._others(name)
        return None if len(others) < 2 else self._agreement(others, name, self._proposed(others, name))

    def set_phase_names(self, names: Sequence[str]) -> None:
        """Names the phases, any number of them, and writes the names to the table.

        Raises:
            ValueError: if a name is empty, occurs twice or has a semicolon, if a label uses a phase that would be left
                without a name, or if other names were written meanwhile, which are shown instead.
            OSError: if the table cannot be written; the names are used, and are written with the next label.
        """
        checked = check_phase_names(names)
        for name, segments in {**self.labels, **self.unsaved}.items():
            used = max((phase for _, phase in segments), default=-1)
            if used >= len(checked):
                raise ValueError(f"{name} has the phase {self._names[used]}, which would have no name")
        there = self._table.read_names(self._videos)
        if there not in ((), self._named, checked):
            self._named = there
            self._show(list(there))
            raise ValueError(f"{self._table.path.name} was given other names meanwhile, shown now: {', '.join(there)}")
        self._show(list(checked))
        self._names_wait = True
        self._write_names()

    def save_as(self, path: str | Path) -> None:
        """Writes all labels, `unsaved` too, and names to another table, to which later labels go, too.

        Raises:
            ValueError: if the path is not that of a table.
            OSError: if it cannot be written.
        """
        before, labels = self._table, {name: _tuples(pairs) for name, pairs in {**self.labels, **self.unsaved}.items()}
        self._table = PhaseTable(Path(path).expanduser(), self._sources)
        try:
            self._names_wait = self._names_wait or bool(self._named)
            self._write(labels)
        except (OSError, ValueError):
            self._table = before
            raise

    def still(self) -> Image:
        """Returns the current frame above its label as an image."""
        phases = self.labelled.get(self.video)
        word = "unlabelled" if phases is None or phases[self.frame] < 0 else self._names[phases[self.frame]]
        shot = self._shot(self.video, self.frame)
        shot = replace(shot, caption=f"{shot.caption}, {word}", phases=phases)
        return grid_picture([shot], self.palette["colours"], COLUMN)

    def _others(self, name: str) -> dict[str, NDArray[np.int64]]:
        labelled = {} if self._propose is None else self.labelled
        return {other: phases for other, phases in labelled.items() if other != name and phases.max() >= 0}

    def _proposed(self, others: dict[str, NDArray[np.int64]], name: str) -> NDArray[np.int64]:
        assert self._propose is not None
        phases = np.asarray(self._propose(others, name))
        wanted = self._numbers[name].shape
        if phases.shape != wanted or phases.dtype.kind not in "iu" or phases.min() < -1:
            raise ValueError(f"{name}: propose must return {wanted} integers, got {phases.dtype} {phases.shape}")
        return phases

    def _agreement(
        self, others: Mapping[str, NDArray[np.int64]], name: str, proposed: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        votes = [self._proposed({other: phases}, name) for other, phases in others.items()]
        return np.mean(np.stack(votes) == proposed, axis=0)

    def _segments(self, name: str, phases: NDArray[np.int64]) -> Segments:
        segments = segments_of(phases, self._numbers[name])
        # Source frames before the first stored one get its phase.
        return ((0, segments[0][1]), *segments[1:]) if phases[0] >= 0 else segments

    def _checked(self, name: str, segments: Sequence[Sequence[int]]) -> Segments:
        self._check_name(name)
        pairs = _tuples(segments)
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

    def _check_name(self, name: str) -> None:
        if name not in self._videos:
            raise ValueError(f'"{name}" is not among the videos: {", ".join(self._videos)}')

    def _write(self, labels: dict[str, Segments]) -> list[str]:
        """Writes labels, those of `unsaved` too; an empty one removes a label.

        Returns:
            For every clip whose label in the table is not the one that this widget showed a line that says so.
        """
        waiting = {name: _tuples(pairs) for name, pairs in self.unsaved.items()} | labels
        saved, lines = dict(self.labels), []
        try:
            self._write_names()
            for name in list(waiting):
                found = self._table.read(name)
                there = () if found is None else found.segments
                if there not in (_tuples(self.labels.get(name, ())), waiting[name]):
                    words = self._words(there) or "no label"
                    lines.append(f"{name} was changed meanwhile in {self._table.path.name} ({words}): this replaces it")
                self._table.write(name, waiting[name], self._lengths.get(name), self._videos)
                saved[name] = _lists(waiting.pop(name))
        except OSError:
            self.unsaved = {name: _lists(segments) for name, segments in waiting.items()}
            raise
        finally:
            self.labels = {name: segments for name, segments in saved.items() if segments}
        self.unsaved = {}
        return lines

    def _write_names(self) -> None:
        if self._names_wait:
            self._table.write_names(self._videos, self._names)
            self._named, self._names_wait = tuple(self._names), False

    def _show(self, names: list[str]) -> None:
        """Shows names, and the colours that were chosen or else the package's."""
        self._names = names
        colours = [self._colours.get(i, colour) for i, colour in enumerate(phase_colours(len(names)))]
        self.palette = {"names": names, "colours": colours, "unlabelled": UNLABELLED}

    def _words(self, segments: Segments) -> str:
        words = [*self._names, "unlabelled"]  # -1 is the last
        return ", ".join(f"{words[p] if p < len(self._names) else f'phase {p}'} from {first}" for first, p in segments)

    def _receive(self, _: object, message: dict[str, Any], __: object) -> None:
        """Answers a message from the page; errors are sent to the page, which shows them."""
        kind = str(message.get("kind"))
        answers = {
            "frames": self._send_frames, "propose": self._send_proposal, "accept": self._accept_message,
            "accept all": self._accept_all_message, "names": self._names_message, "colour": self._colour_message,
            "save as": self._save_as_message, "segments": self._segments_message,
        }  # fmt: skip
        try:
            answers[kind](message)
        except Exception as error:  # `propose` is the caller's function and may raise anything
            logger.exception("%s of %s failed", kind, message.get("video", "the labels"))
            text = f"{FAILED.get(kind, 'no proposal')}: {error}"
            if self.unsaved or self._names_wait:
                text += (
                    "; nothing is lost: it is kept here and written with the next label, or to the table named below"
                )
            self.send({"kind": "problem", "of": kind, "id": message.get("id"), "text": text})

    def _send_frames(self, message: dict[str, Any]) -> None:
        name, first, count = message["video"], int(message["first"]), min(int(message["count"]), MOST_FRAMES)
        clip, place = self._clips[name], {"video": name, "first": first}
        try:
            frames = self._readers.pop((name, first), None) or clip.frames(first)
            pictures = [_jpeg(frame, self.height) for frame in islice(frames, count)]
        except (OSError, ValueError) as error:
            self.send({"kind": "unreadable", **place, "text": f"{name} cannot be shown: {error}"})
            return
        self._readers[name, first + count] = frames
        while len(self._readers) > MOST_READERS:
            self._readers.pop(next(iter(self._readers)))
        self.send({"kind": "frames", **place}, pictures)

    def _send_proposal(self, message: dict[str, Any]) -> None:
        name = message["video"]
        others = self._others(name)
        phases = self._proposed(others, name) if others else None
        segments = () if phases is None else self._segments(name, phases)
        shares = None if phases is None or len(others) < 2 else self._agreement(others, name, phases).round(3).tolist()
        answer = {"kind": "proposal", "video": name, "segments": segments, "agreement": shares, "clips": len(others)}
        self.send(answer)

    def _accept_message(self, message: dict[str, Any]) -> None:
        labels: dict[str, Segments] = {}
        for name, segments in message["labels"].items():
            self._check_name(name)
            labels[name] = self._checked(name, segments) if segments else ()
        names = [*labels, *(name for name in self.unsaved if name not in labels)]
        self._send_saved(message, names, self._write(labels))

    def _accept_all_message(self, message: dict[str, Any]) -> None:
        names = [*self.unsaved, *self.accept_proposals(message["but"])]
        self._send_saved(message, names, [])

    def _send_saved(self, message: dict[str, Any], names: Sequence[str], lines: Sequence[str]) -> None:
        labels = {name: self.labels.get(name, []) for name in names}
        done = "saved" if any(labels.values()) else "removed the label of"
        what = names[0] if len(names) == 1 else f"{len(names)} clips"
        counts = f"{len(self.labels)} of {len(self._videos)} labelled"
        text = "; ".join([f"{done} {what} in {self._table.path.name}: {counts}", *lines])
        self.send({"kind": "saved", "id": message.get("id"), "labels": labels, "text": text})

    def _names_message(self, message: dict[str, Any]) -> None:
        self.set_phase_names(message["names"])
        self.send({"kind": "note", "text": f"names saved in {self._table.path.name}: {', '.join(self._names)}"})

    def _colour_message(self, message: dict[str, Any]) -> None:
        phase, colour = int(message["phase"]), str(message["colour"])
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise ValueError(f'a colour must be like #0072b2, got "{colour}"')
        self._colours[phase] = colour
        self._show(self._names)

    def _segments_message(self, _: dict[str, Any]) -> None:
        assert self._write_segments is not None  # else there is no button
        self.send({"kind": "note", "text": self._write_segments(self)})

    def _save_as_message(self, message: dict[str, Any]) -> None:
        names = [*self.labels, *(name for name in self.unsaved if name not in self.labels)]
        self.save_as(message["path"])
        text = f"{len(self.labels)} labels are in {self._table.path}, to which later ones go, too"
        self.send({"kind": "copied", "labels": {name: self.labels[name] for name in names}, "text": text})


def _clips(
    videos: Mapping[str, NDArray[np.uint8] | VideoRecord], numbers: Mapping[str, ArrayLike] | None
) -> dict[str, _Clip]:
    check_named("videos", videos)
    arrays: Any = {name: video for name, video in videos.items() if not isinstance(video, VideoRecord)}
    check_videos(arrays, 0 if len(arrays) < len(videos) else 1)
    positions = check_numbers(arrays, numbers)
    return {
        name: _of_record(video)
        if isinstance(video, VideoRecord)
        else _of_frames(video, positions[name], len(video) if numbers is None else None)
        for name, video in videos.items()
    }


def _of_record(record: VideoRecord) -> _Clip:
    numbers, rows = np.unique(record.frame_numbers, return_index=True)  # a higher fps repeats frames
    times = None if record.frame_times is None else record.frame_times[rows]
    return _Clip(numbers, rows, record.num_frames, record.frames_at, record.num_source_frames, times)


def _of_frames(frames: NDArray[np.uint8], numbers: NDArray[np.int64], length: int | None) -> _Clip:
    return _Clip(numbers, np.arange(len(frames)), len(frames), lambda rows: (frames[row] for row in rows), length)


def _jpeg(frame: NDArray[np.uint8], height: int) -> bytes:
    height = min(height, frame.shape[0])
    return encode_jpeg(resize(frame, max(1, round(frame.shape[1] * height / frame.shape[0])), height), 85)


def _tuples(segments: Sequence[Sequence[int]]) -> Segments:
    return tuple((int(start), int(phase)) for start, phase in segments)


def _lists(segments: Segments) -> list[list[int]]:
    return [list(pair) for pair in segments]


def _transfer(embeddings: Mapping[str, NDArray], labelled: Mapping[str, NDArray[np.int64]], name: str) -> ArrayLike:
    from mvf.alignment import transfer_phases  # only where somebody labels

    clips = [_Labelled(embeddings[other], phases) for other, phases in labelled.items()]
    return transfer_phases(clips, [embeddings[name]])[0]


def _check_length(name: str, length: int, labelled: int, segments: Segments, numbers: NDArray[np.int64]) -> None:
    if labelled != length:
        raise ValueError(f"{name}: {labelled} frames are labelled, but the video has {length}; set numbers=")
    if numbers[-1] >= length:
        raise ValueError(f"{name}: lengths must exceed the last frame number, {numbers[-1]}, got {length}")
    if segments and segments[-1][0] >= length:
        raise ValueError(f"{name}: a phase begins at frame {segments[-1][0]}, but there are only {length} frames")
