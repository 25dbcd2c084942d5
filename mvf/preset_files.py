"""Presets as they are stored: a file each, and a file an objective from which a family of presets is made.

A file in `presets/` lists what it sets otherwise than the preset that it `extends`. A file in `presets/objectives/`
names an objective, in `own` what it cannot do without at the base's own size, and in `[[published]]` the data sets
(`bases`) that it was published on with the settings it had there. Two presets a base are made of it:
`<base>_<objective>`, which trains the base's own model with the objective, and `<base>_<objective>_published`, on the
model of CARL (`<base>_carl`) with the published settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "presets"
STUDY = ("study", "study_late", "study_pullups", "study_pullups_late")  # bases of every objective


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
        extends: The preset that it starts from; empty where that is the defaults.
        values: What it sets, by name of the setting.
        purpose: The comment that its file begins with.
        objective: The file in `objectives/` that it was made from; empty for a preset with a file of its own.
    """

    extends: str
    values: dict[str, Any] = field(default_factory=dict)
    purpose: str = ""
    objective: str = ""


@cache
def stored_presets() -> dict[str, Preset]:
    """All presets by name, in order.

    Example:
        >>> stored_presets()["penn_tcc_published"].extends, stored_presets()["penn_tcc"].values
        ('penn_carl', {'objective': 'tcc', 'objective_options': {}})
    """
    files = [(path, [(path.stem, _single(path))]) for path in FOLDER.glob("*.toml")]
    files += [(path, list(_family(path))) for path in (FOLDER / "objectives").glob("*.toml")]
    known = {name for _, made in files for name, _ in made}
    for path, made in files:
        for name, preset in made:
            if preset.extends and (preset.extends not in known or preset.extends == name):
                raise ValueError(f'{path}: {name} extends "{preset.extends}", which is no other preset')
    return dict(sorted(pair for _, made in files for pair in made))


def preset_values(preset: str, base: str = "", kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of a preset on top of those of the preset that it extends.

    Args:
        preset: Name of a preset.
        base: Takes the place of the last preset of the chain: that which says what data and size there are.
        kept: Settings of `base` that nothing on top of it changes.
    """
    stored = stored_presets()[preset]
    if stored.extends:
        own = {name: value for name, value in stored.values.items() if not (base and name in kept)}
        return preset_values(stored.extends, base, kept) | deepcopy(own)
    return preset_values(base) if base else deepcopy(stored.values)


def own_settings(preset: str) -> dict[str, Any]:
    """What a preset and those it extends say, without the last one: what it is about."""
    stored = stored_presets()[preset]
    return own_settings(stored.extends) | deepcopy(stored.values) if stored.extends else {}


def _single(path: Path) -> Preset:
    text, values = _read(path)
    extends = values.pop("extends", "")
    if not isinstance(extends, str):
        raise ValueError(f"{path}: extends must be the name of a preset, got {extends!r}")
    return Preset(extends, values, _comment(text))


def _family(path: Path) -> Iterator[tuple[str, Preset]]:
    """The presets of one objective; options of the base's own objective are not handed on to another one."""
    (text, stored), name = _read(path), path.stem
    try:
        published = {base: dict(block) for block in stored["published"] for base in _texts(block.pop("bases"))}
        own = {"objective": name, "objective_options": {}} | dict(stored.get("own", {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: wanted [[published]] blocks with bases, and own settings ({error!r})") from None
    for base in (*published, *STUDY):
        yield f"{base}_{name}", Preset(base, own, _comment(text), name)
    for base, block in published.items():
        values = {"objective": name, "objective_options": {}} | block
        yield f"{base}_{name}_published", Preset(f"{base}_carl", values, _comment(text), name)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None


def _texts(values: Any) -> list[str]:
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ValueError(f"bases must be names, got {values!r}")
    return values


def _comment(text: str) -> str:
    """The lines of comment that a file begins with, as one."""
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))
