"""Settings that came with stored tensors, checked before anything is built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

LARGEST = {"fusion_blocks": 1000, "image_size": 8192}  # what else would take minutes or all memory
LARGEST_ELSE = 2**20
MAY_BE_0 = ("projection_width", "trainable_blocks", "dropout", "token_merge")

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class StoredBackbone:
    """What a model folder says of its backbone."""

    name: str
    weights: str
    source: str
    sha256: str
    image_size: int
    layers: list
    trainable_blocks: int = 0


def checked(kind: type[Settings], values: Any, where: str | Path) -> Settings:
    """A settings dataclass from stored values.

    Args:
        kind: The dataclass.
        values: By name of the field.
        where: The file, for messages.

    Raises:
        ValueError: for an unknown or missing name, a value of another kind, or a number that no model has.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: wanted settings by name, got {type(values).__name__}")
    kinds = get_type_hints(kind)
    unknown = sorted(str(name) for name in values if name not in kinds)
    if unknown:
        raise ValueError(f"{where} has settings unknown to this version: {', '.join(unknown)}")
    for name, value in values.items():
        _check(name, value, kinds[name], where)
        for item in value if kinds[name] is list else ():
            _check(name, item, int, where)
    try:
        return kind(**values)
    except TypeError as error:  # a name without a default is missing
        raise ValueError(f"{where}: {error}; save the model again") from None


def check_shapes(
    build: Callable[[], nn.Module], given: Mapping[str, Tensor], check: Callable, where: str | Path
) -> None:
    """Compares tensors with those of the model that `build` makes, before memory is taken for it.

    Args:
        build: Makes the model, here without its numbers.
        given: The stored tensors.
        check: Compares `(own, given)`, both by name.
        where: The file, for messages.

    Raises:
        ValueError: when they differ, or no such model can be.
    """
    try:
        with torch.device("meta"):
            check(build().state_dict(), given)
    except (ValueError, RuntimeError, OverflowError) as error:  # torch: sizes beyond 64 bits
        raise ValueError(f"{where}, its model_config.json and model.safetensors: {error}") from error


def _check(name: str, value: Any, kind: Any, where: str | Path) -> None:
    wanted = int | float if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: {name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
    low, high = 0 if name in MAY_BE_0 else 1, LARGEST.get(name, LARGEST_ELSE)
    if isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
        raise ValueError(f"{where}: {name} must be from {low} to {high}, got {value!r}")
