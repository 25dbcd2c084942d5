"""Which number format a device computes in."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str = "auto") -> torch.device:
    """The device named, or the best one there is for `auto`.

    Raises:
        ValueError: when the device named is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f'device is "{device}" but this machine has no CUDA GPU: use device="cpu" or "auto"')
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is bf16 where the machine computes it faster than fp32.

    Raises:
        ValueError: for any other name.

    On a CPU that takes tile units (AMX): with AVX-512's bf16 instructions alone a ViT is slower than in fp32.
    """
    known = ("auto", *DTYPES)
    if precision not in known:
        raise ValueError(f'precision must be one of {", ".join(known)}, got "{precision}"')
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast for a resolved precision; does nothing for fp32."""
    dtype = DTYPES[resolve_precision(precision, device)]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def check_finite(what: str, value: float, where: str) -> None:
    """Stops a training before a bad step changes the model.

    Raises:
        FloatingPointError: when `value` is not finite.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f'the {what} is {value} at {where}. Try a lower learning_rate or precision="fp32"; if it stays, '
            "leave these videos out"
        )
