"""Arrays of `.npy` and `.npz` files; `np.load` takes the memory that a header asks for, which here must be there."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from tokenize import TokenError

import numpy as np

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a `.npy`.

    Raises:
        ValueError: when it is not such a file, holds objects (which could run code), or is cut short.
        OSError: when it cannot be read.
    """
    try:
        return _array(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no whole .npy of plain values ({error}); save it with numpy.save") from None


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in an `.npz`, by name; raises what `read_npy` raises, and the errors of `zipfile` and `zlib`."""
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}


def _array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"unknown format {version}")
        shape, in_columns, kind = HEADERS[version](file)
        if kind.hasobject:
            raise ValueError(f"it holds objects ({kind}), which are not read")
        if min(shape, default=0) < 0:
            raise ValueError(f"its shape is {shape}")
        count, place = math.prod(shape), file.tell()
        values = np.frombuffer(data, kind, count, place) if count else np.zeros(0, kind)
        return values.reshape(shape, order="F" if in_columns else "C").copy()
    except (TypeError, OverflowError, RecursionError, TokenError, SyntaxError) as error:
        raise ValueError(f"its header is damaged: {error}") from None
