"""Checks and casts the parameters of a notebook, because papermill only warns and passes text."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell

from mvf.config import Config, cast, load_config, nearest


def read_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the notebook's parameters, cast to their declared types.

    After this call, the output of every error begins with its message.

    Args:
        namespace: `globals()` of a notebook whose parameters cell declares one `name: type = value` per line.

    Raises:
        ValueError: if papermill passed a name that the notebook does not declare (the message suggests the nearest),
            or a value does not fit its type.

    Example:
        >>> read_parameters({"__annotations__": {"seed": int, "layers": str}, "seed": "3", "layers": [4, 8]})
        {'seed': 3, 'layers': '4,8'}
    """
    _show_messages_first()
    declared = namespace["__annotations__"]
    for name in _passed_names(namespace.get("In", [])):
        if name not in declared:
            raise ValueError(f'unknown parameter "{name}"; {nearest(name, declared)}')
    given = {name: namespace[name] for name in declared}
    return {
        name: None if given[name] is None else cast(f"parameter {name}", given[name], kind())
        for name, kind in declared.items()
    }


def run_config(parameters: Mapping[str, Any], **more: Any) -> Config:
    """Builds the configuration of a run from notebook parameters.

    Each of these overrides the one before: the preset, the data keys of the data set, the parameters, `overrides`.
    Parameters that are empty or None keep the preset's value. An empty preset means the data set's own.
    """
    given = {**parameters, **more}
    overrides = given.pop("overrides", {}) or {}
    if not isinstance(overrides, Mapping) or not all(isinstance(name, str) for name in overrides):
        raise ValueError(f'overrides must be a mapping of settings, like {{"learning_rate": 1e-4}}, got {overrides!r}')
    preset = given.pop("preset", "") or given.get("dataset") or "synthetic"
    return load_config(
        preset, **{name: value for name, value in given.items() if value not in ("", None)} | dict(overrides)
    )


def _show_messages_first() -> None:
    """Prints an error's message above its traceback, so that a batch's log begins with what to do."""
    shell = get_ipython()
    if shell is None:
        return

    def show(shell: InteractiveShell, kind: type, error: BaseException, trace: Any, **options: Any) -> None:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace, **options)
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}", *lines])

    shell.set_custom_exc((Exception,), show)


def _passed_names(cells: list[str]) -> list[str]:
    """Returns the names that papermill's injected cell assigns."""
    injected = [ast.parse(cell) for cell in cells if cell.startswith("# Parameters\n")]
    targets = [node.targets[0] for tree in injected for node in tree.body if isinstance(node, ast.Assign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
