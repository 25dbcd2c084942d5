"""Targets: settings as they come from JSON, a shell, papermill, and preset files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from mvf import config as preset_files
from mvf.config import Config, load_config, make_config
from mvf.workbench.notebook import read_parameters, run_config

from .harness import NUMBERS, TEXTS, Target, plain, texts

NAMES = sorted(field.name for field in fields(Config))
KINDS = {"seed": int, "layers": str, "preset": str, "overrides": dict, "flag": bool, "rate": float}  # of a notebook
KNOWN = {*NAMES, *KINDS}
VALUES = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), plain)
SETTINGS = st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), VALUES, min_size=1, max_size=3)


def _checked(config: Config) -> None:
    """What a configuration promises: values of the declared kinds, and a round trip through JSON."""
    for field in fields(Config):
        value = getattr(config, field.name)
        assert type(value) is type(getattr(Config(), field.name)), f"{field.name} is {value!r}"
        assert not isinstance(value, float) or not math.isnan(value), f"{field.name} is {value!r}"
    assert make_config(config.as_dict()) == config


def _make(_: Path, values: dict) -> None:
    _checked(make_config(values))


def _load(_: Path, case: tuple[str, str, dict]) -> None:
    preset, base, values = case
    _checked(load_config(preset, base, **values))


def _parameters(_: Path, values: dict) -> None:
    given = read_parameters({"__annotations__": KINDS, **dict.fromkeys(KINDS), **values})
    given = {name: value for name, value in given.items() if name not in ("flag", "rate")}
    _checked(run_config(given))


def _presets(home: Path, _: Any) -> None:
    with patch.object(preset_files, "FOLDER", home):
        preset_files.stored_presets.__wrapped__()


def _write_presets(home: Path) -> None:
    (home / "objectives").mkdir()
    for name in ("penn", "penn_carl", *preset_files.STUDY):
        (home / f"{name}.toml").touch()
    (home / "mine.toml").write_text('# What it is about.\nextends = "penn"\nentities = 2\nlayers = [4, 8]\n')
    (home / "objectives" / "tcc.toml").write_text(
        'own = { batch_size = 2 }\n[[published]]\nbases = ["penn"]\nlearning_rate = 1e-4\n'
    )


LINES = st.lists(
    st.one_of(
        st.builds(
            "{} = {}".format,
            st.sampled_from(NAMES),
            st.sampled_from(["1", "nan", "[1, 2]", '"a"', "{}", "1979-05-27", "true"]),
        ),
        st.sampled_from(
            ["extends = 3", 'extends = "mine"', 'extends = "nope"', "[[published]]", "[own]", "bases = 3", "a.b.c = 1"]
        ),
        texts,
    ),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
NOTEBOOK = st.dictionaries(st.sampled_from([*KINDS]), VALUES, max_size=3)


def _named(values: Mapping[str, Any], *others: str) -> str:
    """Pattern of a message that names one of the settings that were given, or quotes one of `others`."""
    words = [rf"\b{name}\b" for name in values if name in KNOWN]
    quoted = [f'"{re.escape(name)}"' for name in (*values, *others) if name not in KNOWN]
    return "|".join(words + quoted) or "(?!)"


def _named_with_overrides(values: Mapping[str, Any]) -> str:
    given = values.get("overrides")
    try:
        given = dict(json.loads(given) if isinstance(given, str) else given)
    except (TypeError, ValueError, RecursionError):
        given = {}
    return _named({**values, **{name: value for name, value in given.items() if isinstance(name, str)}})


TARGETS = (
    Target("settings: make_config", _make, SETTINGS, names=_named),
    Target(
        "settings: load_config",
        _load,
        st.tuples(st.sampled_from(["penn", "synthetic", "nope"]), st.sampled_from(["", "study", "x"]), SETTINGS),
        names=lambda case: _named(case[2], "nope", "x"),
    ),
    Target("notebook parameters", _parameters, NOTEBOOK, names=_named_with_overrides),
    Target("preset .toml", _presets, LINES, _write_presets, "mine.toml", r"mine\.toml|extends"),
    Target("objective .toml", _presets, LINES, _write_presets, "objectives/tcc.toml", r"tcc\.toml|extends"),
)
