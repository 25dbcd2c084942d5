"""Videos stored as tf.train.SequenceExample with JPEG frames, parsed without TensorFlow; frames are decoded lazily.

Context: `name`. Lists: `video` (a JPEG a frame) and, optionally, `frame_labels` (an integer a frame). Format:
https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mvf.data.images import VideoError, decode_image
from mvf.data.records import frame_slice
from mvf.data.tfrecord import Record, contents, read_records
from mvf.data.video import file_identity, remembered

Span = tuple[int, int]  # first byte, and the one after the last
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
CONTEXT, LISTS = 1, 2  # of SequenceExample
KEY, VALUE = 1, 2  # of a map's entry
BYTES_LIST, INT_LIST = 1, 3  # of Feature


class JpegSpans:
    """Frames that lie as image files within a larger file, all of one size.

    Args:
        path: The larger file.
        spans: First byte of every image, and the one after its last.

    Raises:
        VideoError: from every method that reads, naming the file and the frame.
    """

    def __init__(self, path: Path, spans: list[Span]) -> None:
        self.path, self.spans = path.absolute(), spans

    @property
    def identity(self) -> str:
        return f"{file_identity(self.path)}|{len(self.spans)} frames, the first at bytes {self.spans[:1]}"

    @cached_property
    def num_frames(self) -> int:
        """Number of images; all of them decode."""
        return len(remembered(self.identity, lambda: np.arange(sum(1 for _ in self.frames()), dtype=float)))

    def count(self) -> int:
        return self.num_frames

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return self._read(self.spans[frame_slice(start, stop, step)])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Images at these positions; no others are read."""
        return self._read(self.spans[position] for position in positions)

    def _read(self, spans: Iterable[Span]) -> Iterator[np.ndarray]:
        size = None
        with self.path.open("rb") as file:
            for first, end in spans:
                file.seek(first)
                picture = decode_image(file.read(end - first))
                if picture is None:
                    raise VideoError(f"cannot read {self.path}: no image, or a damaged one, at byte {first}")
                size = size or picture.shape
                if picture.shape != size:
                    raise VideoError(
                        f"cannot use {self.path}: the image at byte {first} is {picture.shape}, not {size}"
                    )
                yield picture


@dataclass(frozen=True, eq=False)
class SequenceExample:
    """One video of a shard.

    Attributes:
        name: Its name; of a record too damaged to tell, that of the shard and the place in it.
        labels: (n,) an integer a frame; None without labels.
        frames: The source of the frames; None where `problem` says why it cannot be used.
        problem: Empty where all is well.
    """

    name: str
    labels: np.ndarray | None = None
    frames: JpegSpans | None = None
    problem: str = ""


def read_examples(path: Path) -> list[SequenceExample]:
    """The videos of a TFRecord shard, in order; a damaged record, and the place where the shard is cut, say so."""
    data = memoryview(contents(path))
    return [_example(path, data, number, record) for number, record in enumerate(read_records(path))]


def _example(path: Path, data: memoryview, number: int, record: Record) -> SequenceExample:
    where = f"{path.name}, record {number}"
    name, problem = where, record.problem and f"{where}: the shard is {record.problem} there"
    try:
        message = (record.start, record.stop)
        name = _name(data, _find(data, message, CONTEXT)) or where
        if problem:
            return SequenceExample(name, problem=problem)
        lists = _map(data, _find(data, message, LISTS))
        spans = [_find(data, _find(data, frame, BYTES_LIST), 1) for frame in _all(data, lists["video"], 1)]
        return SequenceExample(name, _labels(data, lists.get("frame_labels")), JpegSpans(path, spans))
    except (ValueError, KeyError, StopIteration) as error:
        return SequenceExample(name, problem=problem or f"{where} is no SequenceExample with name and video: {error!r}")


def _name(data: memoryview, context: Span) -> str:
    first, end = _find(data, _find(data, _map(data, context)["name"], BYTES_LIST), 1)
    return bytes(data[first:end]).decode()


def _labels(data: memoryview, listed: Span | None) -> np.ndarray | None:
    if listed is None:
        return None
    values = []
    for feature in _all(data, listed, 1):
        for first, end in _all(data, _find(data, feature, INT_LIST), 1):  # packed or single: the same bytes
            while first < end:
                value, first = _varint(data, first, end)
                values.append(value - (value >> 63 << 64))
    return np.array(values, dtype=np.int64) if values else None


# protocol buffers ---------------------------------------------------------------------------------------------------


def _map(data: memoryview, message: Span) -> dict[str, Span]:
    """The values of a message whose field 1 is a map from text."""
    found = {}
    for entry in _all(data, message, 1):
        first, end = _find(data, entry, KEY)
        found[bytes(data[first:end]).decode()] = _find(data, entry, VALUE)
    return found


def _find(data: memoryview, message: Span, number: int) -> Span:
    return next(_all(data, message, number))


def _all(data: memoryview, message: Span, number: int) -> Iterator[Span]:
    return (span for field, span in _fields(data, message) if field == number)


def _fields(data: memoryview, message: Span) -> Iterator[tuple[int, Span]]:
    """The number and the place of every field of a message."""
    start, stop = message
    while start < stop:
        key, start = _varint(data, start, stop)
        kind = key & 7
        if kind == BYTES:
            length, start = _varint(data, start, stop)
            end = start + length
        elif kind == VARINT:
            end = _varint(data, start, stop)[1]
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            end = start + (8 if kind == EIGHT_BYTES else 4)
        else:
            raise ValueError(f"unknown wire type {kind} at byte {start}")
        if end > stop:
            raise ValueError(f"a field at byte {start} reaches beyond its message")
        yield key >> 3, (start, end)
        start = end


def _varint(data: memoryview, start: int, stop: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, of which 64 bits count, and the byte after it."""
    value = 0
    for place, byte in enumerate(data[start : min(start + 10, stop)]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value & (1 << 64) - 1, start + place + 1
    raise ValueError(f"a number at byte {start} has no end")
