"""Plain arrays of MATLAB 5 files. `scipy.io.loadmat` crashes the whole process on some damaged files; this cannot.

Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, chapter 1.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from collections.abc import Collection, Iterator
from types import MappingProxyType

import numpy as np

HEADER = 128  # bytes; the last two tell the byte order
LARGEST = 1 << 28  # bytes that a compressed element may unfold to
MATRIX, COMPRESSED, CHARACTERS = 14, 15, 4
STORED = MappingProxyType(  # kind of the numbers of an element
    {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1", 17: "u2"}
)
CLASSES = MappingProxyType(  # kind of the numbers of a matrix
    {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
)
COMPLEX = 1 << 11  # flag

Element = tuple[int, bytes]  # type and data


def read_arrays(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """The numbers and texts called `names` in the bytes of a file, as `loadmat` gives them: texts of shape (rows,).

    Raises:
        ValueError: when the file is of another format, damaged, or one of `names` is something else.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
    if order is None:
        raise ValueError("no MATLAB file of version 5 (save it with -v6 or -v7)")
    found = {}
    try:
        for kind, content in _elements(data[HEADER:], order):
            if kind == COMPRESSED:
                unfold = zlib.decompressobj()
                ((kind, content),) = _elements(unfold.decompress(content, LARGEST), order)
            if kind == MATRIX and content:
                flags, *parts = _elements(content, order)
                name = bytes(parts[1][1]).decode("latin1")
                if name in names:
                    found[name] = _matrix(name, struct.unpack(f"{order}I", flags[1][:4])[0], parts, order)
    except (struct.error, zlib.error, IndexError) as error:
        raise ValueError(f"it is damaged or cut short ({error})") from None
    return found


def _elements(data: bytes, order: str) -> Iterator[Element]:
    """The elements that lie one after the other; small ones have type and length in one word."""
    place = 0
    while place < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:
            kind, length, start = kind & 0xFFFF, kind >> 16, place + 4
        if length > (4 if start == place + 4 else len(data) - start):
            raise ValueError(f"an element at byte {place} is longer than the file")
        yield kind, data[start : start + length]
        padding = 0 if kind == COMPRESSED else -length % 8
        place = place + 8 if start == place + 4 else start + length + padding


def _matrix(name: str, flags: int, parts: list[Element], order: str) -> np.ndarray:
    """The array of dimensions, name and numbers."""
    kind, shape = flags & 0xFF, tuple(_numbers(name, *parts[0], order).tolist())
    if not all(isinstance(size, int) and size < LARGEST for size in shape):
        raise ValueError(f"{name} has the shape {shape}, wanted whole numbers below {LARGEST}")
    if kind != CHARACTERS and (kind not in CLASSES or flags & COMPLEX):
        raise ValueError(f"{name} is of class {kind}, wanted real numbers or text")
    values = _numbers(name, *parts[2], order) if len(parts) > 2 else np.zeros(0)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{name} has {len(values)} values for the shape {shape}")
    values = values.reshape(shape, order="F")
    if kind != CHARACTERS:
        return _cast(name, values, CLASSES[kind])
    if values.ndim != 2:
        raise ValueError(f"{name} is text of shape {shape}")
    if values.size and (values.dtype.kind == "f" or not 0 <= values.min() <= values.max() <= sys.maxunicode):
        raise ValueError(f"{name} is text of {values.dtype} that are no characters")
    return np.array(["".join(map(chr, row)) for row in values.tolist()] if values.size else [], dtype=str)


def _cast(name: str, values: np.ndarray, kind: str) -> np.ndarray:
    """The values in the kind of their class; they may be stored as another that holds them too, as whole doubles."""
    with np.errstate(invalid="ignore"):
        cast = values.astype(kind)
    if cast.dtype.kind != "f" and not np.array_equal(cast, values):
        raise ValueError(f"{name} holds {values[cast != values][0]!s}, which is no {cast.dtype}")
    return cast


def _numbers(name: str, kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in STORED:
        raise ValueError(f"{name} holds numbers of type {kind}")
    return np.frombuffer(data, order + STORED[kind])
