"""Readers of two file formats: pickled indexes, without running code from the file, and TFRecord shards.

Every function that a pickle calls is replaced by one of this module, because numpy's and torch's functions trust what
the file says about an array's memory, which would let a file run code.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import google_crc32c
import numpy as np
import torch
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.proto import parse_length_prefixed

from mvf.data.records import frame_slice
from mvf.data.video import VideoError, decode_image, file_identity, remembered

Order = Literal["A", "C", "F"]  # memory order of an array
ARRAYS = "biufcSU"  # dtype kinds that are read: numbers and text
EXPANDED = 1 << 20  # elements that a tensor may have although fewer are stored (`torch.Tensor.expand`)


def read_pickle(path: str | Path) -> Any:
    """Reads a pickle of plain containers, numpy arrays of numbers or text, and torch tensors.

    Raises:
        ValueError: if the file is missing, damaged or cut short, or would call any other function; the message names
            the file and the function, which is not run.
    """
    try:
        data = Path(path).read_bytes()
        _check_memo(data)
        return _Unpickler(io.BytesIO(data)).load()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # damaged pickles raise many kinds
        raise ValueError(f"cannot read {path}: {_reason(error)}") from None


def _check_memo(data: bytes) -> None:
    """Refuses memo indices that would make the unpickler allocate more memory than the file has bytes."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument not in range(len(data) + 1):
            raise ValueError(f"it stores a value at index {argument} of its memo")


class _Refused(pickle.UnpicklingError):
    """Raised if the pickle would call a function that is not allowed; the message is the function's name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        for older, newer in OLDER_NAMES.items():
            full = f"{newer}{full.removeprefix(older)}" if full.startswith(f"{older}.") else full
        if full not in STAND_INS:
            raise _Refused(f"{module}.{name}")
        return partial(STAND_INS[full])  # a new object every time, because a pickle can set its attributes


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return f"it would call {error}, which was refused and not run"
    return f"damaged, cut short, or not a pickle ({str(error).partition(chr(10))[0] or type(error).__name__})"


# plain values -------------------------------------------------------------------------------------------------------


def _encode(text: str = "", encoding: str = "latin1") -> bytes:
    """Decodes bytes as pickle protocols before 3 write them."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes are written as latin1, found {encoding}")
    return text.encode("latin1")


# numpy --------------------------------------------------------------------------------------------------------------


class _Kind:
    """Replaces a dtype; only the byte order is read from its stored state."""

    def __init__(self, code: str, *_: Any) -> None:
        self._dtype = np.dtype(str(code))

    def __setstate__(self, state: Sequence[Any]) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    @property
    def dtype(self) -> np.dtype:
        """The dtype, checked when an array is filled, so that a function call inside the array is refused first."""
        if self._dtype.kind not in ARRAYS:
            raise ValueError(f"it has a numpy array of {self._dtype}, expected numbers or text")
        return self._dtype


class _Array(np.ndarray):
    """An array that is filled with bytes from a pickle."""

    def __setstate__(self, state: Sequence[Any]) -> None:
        *_, shape, kind, in_columns, data = state
        super().__setstate__((1, shape, kind.dtype, in_columns, data))


def _empty_array(*_: Any) -> _Array:
    return _Array(0)


def _array(data: bytes, kind: _Kind, shape: Sequence[int], order: Order = "C", axes: Any = None) -> np.ndarray:
    values = np.frombuffer(data, kind.dtype)
    return values.reshape(shape, order=order) if axes is None else values.reshape(shape).transpose(axes)


def _scalar(kind: _Kind, data: bytes) -> np.generic:
    return _array(data, kind, ()).flat[0]


# torch --------------------------------------------------------------------------------------------------------------


def _storage(data: bytes) -> torch.TypedStorage | torch.UntypedStorage:
    """Replaces torch's reader of plainly pickled tensors, which runs a full, unsafe load."""
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(name[1]) if name else ValueError("a tensor in it is damaged") from None
    if not isinstance(found, (torch.TypedStorage, torch.UntypedStorage)):
        raise ValueError(f"the numbers of a tensor are {type(found).__name__}")
    return found


def _tensor(storage: torch.TypedStorage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Any:
    """Makes a tensor only within its storage; torch's own function would enlarge the storage."""
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    values = flat.as_strided(size, stride, offset)
    if values.numel() > max(flat.numel(), EXPANDED):
        raise ValueError(f"a tensor {tuple(size)} of only {flat.numel()} stored numbers")
    return values


# The functions that pickles of plain containers, arrays and tensors call, and their replacements.
STAND_INS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "builtins.set": set,
        "builtins.frozenset": frozenset,
        "builtins.complex": complex,
        "builtins.bytes": _encode,
        "_codecs.encode": _encode,
        "collections.OrderedDict": OrderedDict,
        "numpy.dtype": _Kind,
        "numpy.ndarray": _empty_array,
        "numpy._core.multiarray._reconstruct": _empty_array,
        "numpy._core.multiarray.scalar": _scalar,
        "numpy._core.numeric._frombuffer": _array,
        "torch.Size": tuple,
        "torch.storage._load_from_bytes": _storage,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda values, *_: values,
    }
)
OLDER_NAMES = MappingProxyType({"__builtin__": "builtins", "numpy.core": "numpy._core"})


# ----------------------------------------------------------------------------------------------------------------------
# Videos in TFRecord shards, each a tf.train.SequenceExample with JPEG frames, read without TensorFlow.
#
# The framing is read here because only TensorFlow reads it and checks its sums. A record is its length (8 bytes), the
# masked CRC-32C of the length (4), the data, and the masked CRC-32C of the data (4);
# https://www.tensorflow.org/tutorials/load_data/tfrecord.

HEADER, FOOTER = 12, 4  # bytes before and after the data of a record
PROBLEMS = ("", "damaged", "cut short")
WHOLE, DAMAGED, CUT = range(3)


@dataclass(frozen=True)
class Record:
    """Location of a record's data: bytes `start` to `stop` of its file; `problem` is empty if they are intact."""

    start: int
    stop: int
    problem: str


def read_records(path: Path) -> list[Record]:
    """Reads the records of a shard in order; the sums are checked once, and the result is kept in `$MVF_CACHE`.

    A shard that is cut short ends in a record that says so. So does a shard with a damaged length, because the records
    after it cannot be found.

    Raises:
        VideoError: if the file does not exist.
    """
    found = remembered(f"{file_identity(path)}|records", lambda: np.array(list(_records(path)), float).reshape(-1, 3))
    return [Record(start, stop, PROBLEMS[state]) for start, stop, state in found.astype(int).tolist()]


def _records(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yields first byte, end and state of every record; one record at a time is in memory."""
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start < size or not size:
            header = file.read(HEADER)
            start = min(start + HEADER, size)
            if len(header) < HEADER:
                yield start, size, CUT
                return
            if not _matches(header[:8], header[8:]):
                yield start, size, DAMAGED
                return
            stop = start + int.from_bytes(header[:8], "little")
            if stop + FOOTER > size:
                yield start, size, CUT
                return
            whole = _matches(file.read(stop - start), file.read(FOOTER))
            yield start, stop, WHOLE if whole else DAMAGED
            start = stop + FOOTER


def _matches(data: bytes, stored: bytes) -> bool:
    """Whether the stored sum, which is rotated and shifted, matches the data."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == int.from_bytes(stored, "little")


class RecordFrames:
    """The JPEG frames of one record of a shard, all of the same size; the record is read when frames are requested.

    Args:
        path: The shard.
        record: Location of its SequenceExample.
        images: Number of images in it.
        first: Bytes of the first image in the shard, as (start, stop); empty without images.

    Raises:
        VideoError: from every method that reads; the message names the file and the frame.
    """

    def __init__(self, path: Path, record: Record, images: int, first: Sequence[tuple[int, int]]) -> None:
        self.path, self.record, self.images, self._first = path.absolute(), record, images, list(first)

    @property
    def identity(self) -> str:
        return f"{file_identity(self.path)}|{self.images} frames, the first at bytes {self._first}"

    @cached_property
    def num_frames(self) -> int:
        """Number of images, all of which decode."""
        return len(remembered(self.identity, lambda: np.arange(sum(1 for _ in self.frames()), dtype=float)))

    def count(self) -> int:
        return self.num_frames

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return self._read(range(self.images)[frame_slice(start, stop, step)])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames at these positions; no others are decoded."""
        return self._read(positions)

    def _read(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        size = None
        features = self._features()
        for position in positions:
            picture = decode_image(features[position].bytes_list.value[0])
            where = f"image {position} of the record at byte {self.record.start}"
            if picture is None:
                raise VideoError(f"cannot read {self.path}: {where} is not an image, or is damaged")
            size = size or picture.shape
            if picture.shape != size:
                raise VideoError(f"cannot use {self.path}: {where} is {picture.shape}, not {size}")
            yield picture

    def _features(self) -> Sequence[Any]:
        try:
            return _video(_feature_lists(_parse(_read_bytes(self.path, self.record))))
        except (DecodeError, ValueError, OSError) as error:
            raise VideoError(f"cannot read {self.path}: it changed while it was in use ({error})") from None


@dataclass(frozen=True, eq=False)
class SequenceExample:
    """One video of a shard.

    Attributes:
        name: Its name; if damage makes it unreadable, the shard's name and the record's number.
        labels: (n,) one integer per frame; None without labels.
        frames: The source of the frames; None if they cannot be used.
        problem: Why the record cannot be used; empty if it can.
    """

    name: str
    labels: np.ndarray | None = None
    frames: RecordFrames | None = None
    problem: str = ""


def read_examples(path: Path) -> list[SequenceExample]:
    """Reads the videos of a TFRecord shard in order; `problem` marks a record that is damaged or cut short."""
    return [_example(path, number, record) for number, record in enumerate(read_records(path))]


def _example(path: Path, number: int, record: Record) -> SequenceExample:
    where, data = f"{path.name}, record {number}", _read_bytes(path, record)
    if record.problem:
        return SequenceExample(_start_name(data) or where, problem=f"{where}: the shard is {record.problem} there")
    name = where
    try:
        example = _parse(data)
        name = _name(example.context) or where
        lists = _feature_lists(example)
        images, labels = _video(lists), _labels(lists.get("frame_labels", ()))
    except (ValueError, KeyError, IndexError, DecodeError) as error:
        return SequenceExample(name, problem=f"{where} is no SequenceExample with name and video: {error!r}")
    first = [feature.bytes_list.value[0] for feature in images[:1]]
    starts = [record.start + data.index(image) for image in first]
    spans = [(start, start + len(image)) for start, image in zip(starts, first)]
    return SequenceExample(name, labels, RecordFrames(path, record, len(images), spans))


def _read_bytes(path: Path, record: Record) -> bytes:
    with path.open("rb") as file:
        file.seek(record.start)
        return file.read(record.stop - record.start)


# tf.train.SequenceExample ---------------------------------------------------------------------------------------------

# The part of tensorflow/core/example/{example,feature}.proto that is read: for each message its fields, with number,
# type and whether they repeat. A map is a list of entries with key and value. The context has `name`; the lists are
# `video` (one JPEG per frame) and, optionally, `frame_labels` (one integer per frame).
MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "BytesList": {"value": (1, "bytes", True)},
    "Int64List": {"value": (1, "int64", True)},
    "Feature": {"bytes_list": (1, "BytesList", False), "int64_list": (3, "Int64List", False)},
    "FeatureEntry": {"key": (1, "string", False), "value": (2, "Feature", False)},
    "Features": {"feature": (1, "FeatureEntry", True)},
    "FeatureList": {"feature": (1, "Feature", True)},
    "FeatureListEntry": {"key": (1, "string", False), "value": (2, "FeatureList", False)},
    "FeatureLists": {"feature_list": (1, "FeatureListEntry", True)},
    "SequenceExample": {"context": (1, "Features", False), "feature_lists": (2, "FeatureLists", False)},
}


@cache
def _message(name: str) -> Any:
    """Returns the class of a message, from a separate pool, so that TensorFlow can be loaded too."""
    file = FileDescriptorProto(name="sequence_example.proto", package="mvf", syntax="proto3")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, (number, kind, repeats) in fields.items():
            label = FieldDescriptorProto.LABEL_REPEATED if repeats else FieldDescriptorProto.LABEL_OPTIONAL
            if kind in MESSAGES:
                described.field.add(name=field, number=number, label=label, type_name=f".mvf.{kind}")
            else:
                plain = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
                described.field.add(name=field, number=number, label=label, type=plain)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"mvf.{name}"))


def _parse(data: bytes) -> Any:
    return _message("SequenceExample").FromString(data)


def _start_name(data: bytes) -> str:
    """Reads the name in the context, the start of an example, even if it is damaged; empty if there is none."""
    try:
        return _name(parse_length_prefixed(_message("Features"), io.BytesIO(data[1:]))) if data[:1] == b"\n" else ""
    except (ValueError, KeyError, IndexError, DecodeError):
        return ""


def _name(context: Any) -> str:
    return {entry.key: entry.value for entry in context.feature}["name"].bytes_list.value[0].decode()


def _feature_lists(example: Any) -> dict[str, Any]:
    return {entry.key: entry.value.feature for entry in example.feature_lists.feature_list}


def _video(lists: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Returns the features of the list `video`; an image's bytes are copied only when it is requested."""
    if "video" not in lists or not all(feature.bytes_list.value for feature in lists["video"]):
        raise ValueError("video must be a list with one image a frame")
    return lists["video"]


def _labels(features: Iterable[Any]) -> np.ndarray | None:
    values: list[int] = []
    for feature in features:
        if not feature.HasField("int64_list"):
            raise ValueError("frame_labels must be integers")
        values += feature.int64_list.value
    return np.array(values, dtype=np.int64) if values else None
