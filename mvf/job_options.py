"""Options of jobs, as they are written in a shell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of jobs from `name=value` pairs, several separated by commas; whole numbers become such.

    Example:
        >>> parse_options(["partition=gpu,time=240", "mem_gb=32"])
        {'partition': 'gpu', 'time': 240, 'mem_gb': 32}

    Raises:
        ValueError: for text without `=`.
    """
    options = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ValueError(f'an option of jobs is NAME=VALUE, as in "partition=gpu,time=240", got "{pair}"')
        name = {"timeout": "timeout_min"}.get(name.strip(), name.strip())
        options[name] = int(value) if value.strip().isdecimal() else value.strip()
    return options


def minutes(limit: int | str) -> int:
    """Whole minutes of a time limit in one of sbatch's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; seconds round up.

    Example:
        >>> [minutes(limit) for limit in (240, "90:00", "1:30:01", "2-0", "1-0:30", "1-00:00:00")]
        [240, 90, 91, 2880, 1470, 1440]

    Raises:
        ValueError: for another form, or no time at all.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", str(limit))
    days, clock = found.groups() if found else (None, "0")
    numbers = [int(number) for number in clock.split(":")]
    if days is None and len(numbers) < 3:  # it begins with minutes
        numbers.insert(0, 0)
    hours, whole, seconds = [*numbers, 0, 0][:3]
    total = (int(days or 0) * 24 + hours) * 60 + whole + -(-seconds // 60)
    if total < 1:
        raise ValueError(f'a time limit is minutes, H:MM:SS or D-HH:MM:SS, and not zero; got "{limit}"')
    return total
