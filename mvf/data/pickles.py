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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

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
