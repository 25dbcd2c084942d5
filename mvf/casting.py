"""Settings given as text, in the type that they have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def cast(name: str, value: Any, wanted: Any) -> Any:
    """`value`, possibly text from papermill or a shell, in the type of `wanted`, the default of setting `name`.

    Raises:
        ValueError: naming the setting, when it does not fit.

    Example:
        >>> cast("layers", "4,8", (12,)), cast("flip", "1", 0.5)
        ((4, 8), 1.0)
    """
    try:
        if isinstance(wanted, tuple):
            return _cast_tuple(value, float if any(isinstance(item, float) for item in wanted) else int)
        if isinstance(wanted, dict):
            return _cast_dict(value)
        if isinstance(wanted, bool):
            return _cast_bool(value)
        if isinstance(wanted, int):
            return _whole(value)
        return type(wanted)(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} must be like {wanted!r}, got {value!r}: {error}") from None


def _cast_tuple(value: Any, item: type) -> tuple:
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").split(",") if part.strip()]
    elif not isinstance(value, Iterable):
        value = [value]
    return tuple(_whole(part) if item is int else float(part) for part in value)


def _whole(value: Any) -> int:
    number = value if isinstance(value, int) else float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError("a whole number is needed")
    return int(number)


def _cast_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError("true or false is needed")
    return text in ("true", "1")


def _cast_dict(value: Any) -> dict:
    value = json.loads(value or "{}") if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise ValueError('a JSON object is needed, like {"name": 1}')
    return dict(value)
