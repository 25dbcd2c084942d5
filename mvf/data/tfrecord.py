"""Records of TFRecord shards, with their sums checked, read without TensorFlow.

A record is its length (8 bytes), the masked CRC-32C of that length (4), the data, and its masked CRC-32C (4);
https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mvf.data.video import file_identity, remembered

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
