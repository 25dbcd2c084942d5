"""`VideoRecord` and `VideoList`, which every data set returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")


class FrameSource(Protocol):
    """The source of a video's pixels: a file, a folder of images, a renderer.

    A source that can read single frames without those in between also has `frames_at(positions)`; see `pick_frames`.
    """

    @property
    def identity(self) -> str:
        """A string that changes whenever the pixels may have changed."""

    def count(self) -> int:
        """Number of frames that can be decoded."""

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """Yields uint8 (H, W, 3) RGB frames; memory does not grow with the video."""


def source_frames(source: FrameSource) -> np.ndarray:
    """Returns the (count(),) number in the file of each frame of a source, which may resample another one."""
    index = getattr(source, "source_index", None)
    numbers = np.arange(source.count()) if index is None else np.asarray(index)
    inner = getattr(source, "source", None)
    return numbers if inner is None else source_frames(inner)[numbers]


def pick_frames(source: FrameSource, positions: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the frames at ascending distinct positions, with `source.frames_at` if it exists."""
    if hasattr(source, "frames_at"):
        return source.frames_at(positions)
    if not len(positions):
        return iter(())
    wanted, passed = set(positions), enumerate(source.frames(positions[0], positions[-1] + 1), start=positions[0])
    return (frame for position, frame in passed if position in wanted)


def frame_slice(start: int, stop: int | None, step: int) -> slice:
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    return slice(start, stop, step)


@dataclass(frozen=True)
class VideoRecord:
    """One video and its annotations; nothing is decoded until it is needed.

    Attributes:
        name: Name, unique within its split.
        action: The class of the whole video.
        source: Source of the frames.
        annotations: Functions without arguments, by name, for those of `phases`, `actor_mask`, `object_mask`,
            `actor_box`, `joints` that exist.
        phase_names: Names of the phases 0, 1, ... of this action; empty if there are none.
        phase_kinds: For each phase `pose` or `direction` (synthetic); empty if unknown.
        note: The numbers of labels and frames if they differed and one was resampled; else empty.
        marks: Function that returns marks of its content and labels by kind (`manifest`), if it has any.
    """

    name: str
    action: str
    source: FrameSource
    annotations: Mapping[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    phase_names: tuple[str, ...] = ()
    phase_kinds: tuple[str, ...] = ()
    note: str = ""
    marks: Callable[[], Mapping[str, str]] = dict

    def __repr__(self) -> str:
        labels = f", phases {', '.join(self.phase_names)}" if self.phase_names else ""
        labels = labels or (", with phases" if "phases" in self.annotations else "")
        return f"VideoRecord({self.name!r}: {self.action or 'no action'}, {self.num_frames} frames{labels})"

    @cached_property
    def num_frames(self) -> int:
        """Number of frames that can be decoded, which may differ from the header."""
        return self.source.count()

    @cached_property
    def phases(self) -> np.ndarray | None:
        """(num_frames,) integer phase of every frame, -1 where unlabelled; None without labels."""
        phases = self._annotation("phases")
        return None if phases is None else np.asarray(phases, dtype=np.int64)

    @cached_property
    def frame_numbers(self) -> np.ndarray:
        """(num_frames,) number of every frame in its file; others than 0, 1, ... if the video is resampled."""
        return source_frames(self.source)

    @property
    def num_source_frames(self) -> int:
        """Number of frames in the file."""
        return int(getattr(self.source, "num_source_frames", self.num_frames))

    @property
    def file_source(self) -> object:
        """The source of the file's frames, which `source` may thin out or resample."""
        source: object = self.source
        while hasattr(source, "source"):
            source = source.source
        return source

    @property
    def file_times(self) -> np.ndarray | None:
        """(num_source_frames,) seconds at which the file shows its frames; None if it has no time stamps, as images."""
        source = self.file_source
        times = getattr(source, "times", None)
        if times is None or not np.isfinite(times).all():
            return None
        return np.asarray(times) + getattr(source, "start", 0.0)  # of a part of a file

    @property
    def frame_times(self) -> np.ndarray | None:
        """(num_frames,) seconds at which the file shows each frame; None if it has no time stamps, as images."""
        times = self.file_times
        return None if times is None else times[self.frame_numbers]

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """Yields uint8 (H, W, 3) RGB frames with bounded memory."""
        return self.source.frames(start, stop, step)

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames at ascending distinct positions; others are not converted, and images are not read."""
        return pick_frames(self.source, positions)

    def load(self) -> np.ndarray:
        """All frames: uint8 (num_frames, H, W, 3) RGB."""
        return np.stack(list(self.frames()))

    def actor_mask(self) -> np.ndarray | None:
        """(num_frames, H, W) bool, True on the actor; or None."""
        return self._annotation("actor_mask")

    def object_mask(self) -> np.ndarray | None:
        """(num_frames, H, W) bool, True on the task object; or None."""
        return self._annotation("object_mask")

    def actor_box(self) -> np.ndarray | None:
        """(num_frames, 4) float x0 y0 x1 y1 in pixels, x1 and y1 exclusive; or None."""
        return self._annotation("actor_box")

    def joints(self) -> np.ndarray | None:
        """(num_frames, J, 2) float x y in pixels; or None."""
        return self._annotation("joints")

    def _annotation(self, name: str) -> np.ndarray | None:
        return self.annotations[name]() if name in self.annotations else None


@dataclass(frozen=True)
class Coverage:
    """Which videos of a split were found and which were left out.

    Attributes:
        found: Number of usable videos.
        expected: Number of videos that should be there.
        unreadable: For every omitted video the reason, by name.
        ignored: For files and folders that were not taken for videos of the data the reason, by name.
        damaged: For videos that are used as far as they decode what is wrong with them, by name.
    """

    found: int
    expected: int
    unreadable: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        counts = {"found": self.found, "expected": self.expected, "unreadable": dict(self.unreadable)}
        others = {"ignored": dict(self.ignored), "damaged": dict(self.damaged)}
        return counts | {name: reasons for name, reasons in others.items() if reasons}


class VideoList(list[VideoRecord]):
    """A list of `VideoRecord` with the coverage of its split.

    Attributes:
        coverage: How much of the split was found.
        action_assumed: True if no action is given, so that all videos are assumed to show the same one.
    """

    def __init__(
        self, records: Iterable[VideoRecord], coverage: Coverage | None = None, action_assumed: bool = False
    ) -> None:
        super().__init__(records)
        self.coverage = coverage or Coverage(found=len(self), expected=len(self))
        self.action_assumed = action_assumed

    def only(self, keep: Callable[[VideoRecord], bool]) -> VideoList:
        """Selects videos; the coverage counts and names those that are kept, beside all that were left out before."""
        kept = [record for record in self if keep(record)]
        damaged = {r.name: self.coverage.damaged[r.name] for r in kept if r.name in self.coverage.damaged}
        return VideoList(kept, replace(self.coverage, found=len(kept), damaged=damaged), self.action_assumed)


# Batches of frames, whose memory depends neither on the video's length nor on the size of its frames.

BATCH_BYTES = 192 * 2**20  # pixels in memory: 32 frames of 1920 x 1080, 8 of 3840 x 2160, 2 of 7680 x 4320


def frame_batches(frames: Iterable[np.ndarray], size: int) -> Iterator[Tensor]:
    """Batches (H, W, 3) frames as uint8 (n, 3, H, W), n = `size`, which is halved until a batch is small enough.

    A batch takes at most `BATCH_BYTES` or is a single frame. If `size` is a power of two, batches never cross its
    multiples. A batch is a view of an (n, H, W, 3) array, the layout that resizes fastest.
    """
    frames = iter(frames)
    for first in frames:
        while size > 1 and size * first.nbytes > BATCH_BYTES:
            size //= 2
        batch = np.empty((size, *first.shape), first.dtype)
        filled = 0
        for filled, frame in enumerate(chain([first], islice(frames, size - 1)), 1):
            batch[filled - 1] = frame
        del first, frame  # no other frame is in memory while the batch is used
        yield torch.from_numpy(batch[:filled]).permute(0, 3, 1, 2)
        del batch


def joined(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Joins smaller batches to batches of `size` rows; only the last may be smaller.

    Example:
        >>> [len(rows) for rows in joined(torch.zeros(7, 2).split(2), 4)]
        [4, 3]
    """
    held: list[Tensor] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= size:
            yield torch.cat(held)
            held.clear()
    if held:
        yield torch.cat(held)


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yields items, each made in a thread while the previous one is used, so at most two are in memory at once.

    An error in the thread is raised when the item is requested. Torch uses a single thread there, because otherwise two
    thread pools would compete for the same cores.
    """
    source, threads = iter(items), torch.get_num_threads()
    with ThreadPoolExecutor(1, "read_ahead", initializer=_use_one_thread) as pool:
        pool.submit(int).result()
        torch.set_num_threads(threads)  # otherwise threads started later would inherit the pool thread's setting
        ahead = pool.submit(list, islice(source, 1))
        while made := ahead.result():
            ahead = pool.submit(list, islice(source, 1))
            yield made.pop()  # no reference remains here while waiting for the next one


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # applies the setting to this thread before the old number is restored


# ----------------------------------------------------------------------------------------------------------------------
# Manifests: the clips that a training or a report saw, with marks of their content and labels, and how two differ.

Manifest = dict[str, dict[str, dict[str, Any]]]  # split -> name -> what is known of the clip

LABELS = {"action": "the action", "phases": "labels", "boxes": "boxes", "masks": "masks"}
NAMED = 5  # clips named in a sentence


def manifest(**splits: Sequence[VideoRecord]) -> Manifest:
    """Lists the clips of each split: number of frames, action, and the marks that the data set gives (see `marks`).

    Only a folder of one's own clips gives marks of content and labels, because it is edited by hand; of published and
    drawn data names, lengths and actions are enough, and cost nothing.
    """
    return {
        split: {r.name: {"frames": r.num_frames, "action": r.action, **r.marks()} for r in records}
        for split, records in splits.items()
    }


def digest(clips: Manifest) -> str:
    """A text that is equal for equal lists."""
    return hashlib.sha256(repr(sorted(_flat(clips).items())).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def changed_clips(before: Manifest, now: Manifest) -> list[str]:
    """Says which clips were added, removed, replaced by other footage, or moved to the other split.

    Example:
        >>> changed_clips({"train": {"a": {"frames": 9}}}, {"train": {"a": {"frames": 7}, "b": {"frames": 9}}})
        ['1 clip added (b)', '1 clip replaced by other footage (a)']
    """
    old, new = _flat(before), _flat(now)
    both = [name for name in new if name in old]
    replaced = [name for name in both if any(_differ(old[name], new[name], key) for key in ("frames", "content"))]
    found = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "replaced by other footage": replaced,
        "moved to the other split": [name for name in both if old[name]["split"] != new[name]["split"]],
    }
    return [f"{_count(len(names))} {what} ({some_of(names)})" for what, names in found.items() if names]


def changed_labels(before: Manifest, now: Manifest, kinds: Sequence[str] = tuple(LABELS)) -> list[str]:
    """Says of how many clips the action, phases, boxes or masks changed; `kinds` are keys of `LABELS`.

    Example:
        >>> changed_labels({"val": {"a": {"action": "squat"}}}, {"val": {"a": {"action": "squat", "phases": "0b"}}})
        ['labels of 1 clip changed (a)']
    """
    old, new = _flat(before), _flat(now)
    both = [name for name in new if name in old]
    found = {key: [name for name in both if _differ(old[name], new[name], key)] for key in kinds}
    return [
        f"{LABELS[key]} of {_count(len(names))} changed ({some_of(names)})" for key, names in found.items() if names
    ]


def sides(clips: Manifest) -> dict[str, str]:
    """The split of every clip, by name."""
    return {name: entry["split"] for name, entry in _flat(clips).items()}


def _flat(clips: Manifest) -> dict[str, dict[str, Any]]:
    return {name: {**entry, "split": split} for split, entries in clips.items() for name, entry in entries.items()}


def _differ(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> bool:
    return bool(old.get(key) != new.get(key))


def _count(number: int) -> str:
    return f"{number} clip{'s' * (number != 1)}"


def some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
