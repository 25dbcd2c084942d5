"""Pickled indexes, read without running code from the file.

Everything that a pickle calls is a stand-in of this module. The functions of numpy and torch would believe what a file
says about the memory of an array, which is enough to take over the process.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from mvf.data.records import frame_slice
from mvf.data.video import VideoError, decode_image, file_identity, remembered

ARRAYS = "biufcSU"  # kinds of dtype: numbers and text
EXPANDED = 1 << 20  # numbers that a tensor may show although fewer are stored (`torch.Tensor.expand`)


def read_pickle(path: str | Path) -> Any:
    """The contents of a pickle of plain containers, numpy arrays of numbers or text, and torch tensors.

    Raises:
        ValueError: naming the file, when it would call anything else (which is named, and not run), or is missing,
            damaged or cut short.
    """
    try:
        data = Path(path).read_bytes()
        _check_lengths(data)
        return _Unpickler(io.BytesIO(data)).load()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # damaged pickles raise many kinds
        raise ValueError(f"cannot read {path}: {_reason(error)}") from None


def _check_lengths(data: bytes) -> None:
    """Refuses what would make the unpickler take more memory than the file has: lengths, and places in its memo."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= len(data):
            raise ValueError(f"it stores a value at place {argument}")


class _Refused(pickle.UnpicklingError):
    """The pickle would call what is not allowed; the message is its name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        for older, newer in OLDER_NAMES.items():
            full = f"{newer}{full.removeprefix(older)}" if full.startswith(f"{older}.") else full
        if full not in STAND_INS:
            raise _Refused(f"{module}.{name}")
        return partial(STAND_INS[full])  # a new one every time, because a pickle can set attributes of what it calls


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return f"it would call {error}, which was refused and not run"
    return f"damaged, cut short, or no pickle ({str(error).partition(chr(10))[0] or type(error).__name__})"


# plain values -------------------------------------------------------------------------------------------------------


def _encode(text: str = "", encoding: str = "latin1") -> bytes:
    """How protocols before 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes are written as latin1, found {encoding}")
    return text.encode("latin1")


# numpy --------------------------------------------------------------------------------------------------------------


class _Kind:
    """Stands in for a dtype; of its stored state only the byte order is taken."""

    def __init__(self, code: str, *_: Any) -> None:
        self._dtype = np.dtype(str(code))

    def __setstate__(self, state: Sequence[Any]) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    @property
    def dtype(self) -> np.dtype:
        """Looked at when an array is filled, so that objects inside it that would run code are named first."""
        if self._dtype.kind not in ARRAYS:
            raise ValueError(f"a numpy array of {self._dtype}, wanted numbers or text")
        return self._dtype


class _Array(np.ndarray):
    """An array that is filled from the bytes of a pickle."""

    def __setstate__(self, state: Sequence[Any]) -> None:
        *_, shape, kind, in_columns, data = state
        super().__setstate__((1, shape, kind.dtype, in_columns, data))


def _empty_array(*_: Any) -> _Array:
    return _Array(0)


def _array(data: bytes, kind: _Kind, shape: Sequence[int], order: str = "C", axes: Any = None) -> np.ndarray:
    values = np.frombuffer(data, kind.dtype)
    return values.reshape(shape, order=order) if axes is None else values.reshape(shape).transpose(axes)


def _scalar(kind: _Kind, data: bytes) -> np.generic:
    return _array(data, kind, ())[()]


# torch --------------------------------------------------------------------------------------------------------------


def _storage(data: bytes) -> torch.TypedStorage | torch.UntypedStorage:
    """Stands in for torch's reader of plainly pickled tensors, which runs a full, unsafe load."""
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(name[1]) if name else ValueError("a tensor in it is damaged") from None
    if not isinstance(found, (torch.TypedStorage, torch.UntypedStorage)):
        raise ValueError(f"the numbers of a tensor are {type(found).__name__}")
    return found


def _tensor(storage: torch.TypedStorage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Any:
    """A tensor that lies within its storage: torch's own function would make the storage larger."""
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    values = flat.as_strided(size, stride, offset)
    if values.numel() > max(flat.numel(), EXPANDED):
        raise ValueError(f"a tensor {tuple(size)} of only {flat.numel()} stored numbers")
    return values


# what plain containers, arrays and tensors are made of in every protocol, and what is called instead
STAND_INS = MappingProxyType(
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
# Records of TFRecord shards, with their sums checked, read without TensorFlow.
#
# A record is its length (8 bytes), the masked CRC-32C of that length (4), the data, and its masked CRC-32C (4);
# https://www.tensorflow.org/tutorials/load_data/tfrecord.

HEADER, FOOTER = 12, 4
PROBLEMS = ("", "damaged", "cut short")
WHOLE, DAMAGED, CUT = range(3)
POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
BEFORE = np.frombuffer(b"Td\x1fd", np.uint8)  # brings the register from 0 to all ones, where the sum starts
LANE = 1024  # bytes


@dataclass(frozen=True)
class Record:
    """Where the data of a record lie: bytes `start` to `stop` of its file; `problem` is empty where they are whole."""

    start: int
    stop: int
    problem: str


def read_records(path: Path) -> list[Record]:
    """The records of a shard, in order; the sums are checked once, which `$MVF_CACHE` remembers.

    A shard that is cut short ends in a record that says so, and so does one with a damaged length, behind which nothing
    can be found.

    Raises:
        VideoError: when the file is not there.
    """
    found = remembered(
        f"{file_identity(path)}|records", lambda: np.array(list(_records(contents(path))), float).reshape(-1, 3)
    )
    return [Record(start, stop, PROBLEMS[state]) for start, stop, state in found.astype(int).tolist()]


def contents(path: Path) -> np.ndarray:
    """The bytes of a file; they stay on disk until they are looked at."""
    return np.memmap(path, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C of some bytes, at about 100 MB a second.

    The bytes are cut into lanes whose remainders are found side by side, two bytes a step, and joined in pairs:
    the remainder of A followed by B is that of A followed by zeros, xor that of B.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    data = np.frombuffer(data, np.uint8)
    lanes = np.zeros((-(-(len(data) + len(BEFORE)) // LANE), LANE), np.uint8)
    lanes.reshape(-1)[len(lanes) * LANE - len(data) :] = data
    lanes.reshape(-1)[-len(data) - len(BEFORE) :][: len(BEFORE)] = BEFORE
    remainders = np.zeros(len(lanes), np.uint32)
    for pair in np.ascontiguousarray(lanes.view("<u2").T):
        remainders = _step(remainders ^ pair)
    zeros = _lane_of_zeros()
    while len(remainders) > 1:
        if len(remainders) % 2:
            remainders = np.append(np.uint32(0), remainders)
        remainders = _apply(zeros, remainders[::2]) ^ remainders[1::2]
        zeros = _apply(zeros, zeros)
    return int(remainders[0]) ^ 0xFFFFFFFF


def _records(data: np.ndarray) -> Iterator[tuple[int, int, int]]:
    size, start = len(data), 0
    while start < size or not size:
        header = data[start : start + HEADER].tobytes()
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
        whole = _matches(data[start:stop], data[stop : stop + FOOTER].tobytes())
        yield start, stop, WHOLE if whole else DAMAGED
        start = stop + FOOTER


def _matches(data: bytes | np.ndarray, stored: bytes) -> bool:
    """Whether the stored sum, which is rotated and shifted, is that of the data."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == int.from_bytes(stored, "little")


def _step(registers: np.ndarray) -> np.ndarray:
    """Two bytes further."""
    return _table()[registers & 0xFFFF] ^ registers >> 16


@cache
def _table() -> np.ndarray:
    """(65536,) what the lowest two bytes of a register become."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 1, table >> 1 ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


@cache
def _lane_of_zeros() -> np.ndarray:
    """(32,) what each bit of a register becomes over a lane of zeros; a linear map."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(LANE // 2):
        bits = _step(bits)
    return bits


def _apply(linear: np.ndarray, registers: np.ndarray) -> np.ndarray:
    chosen = registers[:, None] >> np.arange(32, dtype=np.uint32) & 1
    return np.bitwise_xor.reduce(chosen * linear, axis=1)


# ----------------------------------------------------------------------------------------------------------------------
# Videos stored as tf.train.SequenceExample with JPEG frames, parsed without TensorFlow; frames are decoded lazily.
#
# Context: `name`. Lists: `video` (a JPEG a frame) and, optionally, `frame_labels` (an integer a frame). Format:
# https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/{example,feature}.proto.

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
