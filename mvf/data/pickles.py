"""Pickled indexes, read without running code from the file."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch

# what plain containers, numpy arrays and torch tensors are made of, in every pickle protocol
ALLOWED = frozenset(
    """
    __builtin__.set __builtin__.frozenset __builtin__.bytearray __builtin__.complex
    builtins.set builtins.frozenset builtins.bytearray builtins.complex
    _codecs.encode collections.OrderedDict
    numpy.ndarray numpy.dtype
    numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar numpy.core.numeric._frombuffer
    numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy._core.numeric._frombuffer
    torch.Size torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter
    """.split()
)


def read_pickle(path: str | Path) -> Any:
    """The contents of a pickle of plain containers, numpy arrays and torch tensors.

    Raises:
        ValueError: naming the file, when it would call anything else (which is named, and not run), or is missing,
            damaged or cut short.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # damaged pickles raise many kinds
        raise ValueError(f"cannot read {path}: {_reason(error)}") from None


class _Refused(pickle.UnpicklingError):
    """The pickle would call what is not allowed; the message is its name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch.storage._load_from_bytes":
            return _load_from_bytes
        if full not in ALLOWED:
            raise _Refused(full)
        return super().find_class(module, name)


def _load_from_bytes(data: bytes) -> Any:
    """Stands in for torch's reader of plainly pickled tensors, which runs a full, unsafe load."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(found[1] if found else "what torch refuses") from None


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return f"it would call {error}, which was refused and not run"
    return f"damaged, cut short, or no pickle ({error or type(error).__name__})"
