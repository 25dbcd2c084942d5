"""`config.json`: the configuration of a run folder, and the version of the folder's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvf.config import Config, make_config

FORMAT = 1  # of a run folder's files; goes up when an older mvf would misread them


def config_text(config: Config) -> str:
    """What `config.json` holds."""
    return json.dumps({"format": FORMAT, **config.as_dict()}, indent=1)


def stored_config(path: Path) -> Config:
    """The configuration in a `config.json`; one that names no format is from before they were numbered.

    Raises:
        ValueError: naming the file, when it is damaged, of a newer version, or has settings unknown to this one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"wanted an object, got {type(values).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON of settings ({error}): put a copy of it back") from None
    version = check_format(values, path)
    try:
        return make_config({name: value for name, value in values.items() if name != "format"})
    except ValueError as error:
        raise ValueError(
            f"{path} (format {version}, this mvf writes {FORMAT}) was edited or written by another mvf: {error}. "
            "Open the folder with the mvf that wrote it, update this one, or choose another run_dir"
        ) from error


def check_format(values: Mapping[str, Any], path: Path) -> int:
    """The format that a stored file names, 1 where it names none.

    Raises:
        ValueError: naming the file and both versions, when it is newer than this program.
    """
    version = values.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"{path} was written by a newer mvf: its format is {version!r}, this mvf reads up to {FORMAT}. "
            "Update mvf, or choose another run_dir"
        )
    return version
