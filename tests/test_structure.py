"""Imports point one way, files stay small, no module hides a public name."""

import ast
from pathlib import Path

import pytest

import mvf

PACKAGE = Path(mvf.__file__).parent
ALLOWED = {
    "metrics": {"metrics"},
    "config": {"casting", "config", "preset"},
    "casting": set(),
    "batch": {"tables", "casting", "config", "files", "executors"},
    "executors": {"tables", "files", "job"},
    "job": set(),
    "clip": set(),
    "files": set(),
    "precision": set(),
    "losses": {"losses", "clip", "config"},
    "models": {"models", "clip", "config", "files"},
    "data": {"data", "clip", "config", "files"},
    "plotting": {"plotting", "files"},
    "report": {"report", "plotting", "evaluation", "tables", "config", "run", "files"},
    "widgets": {"plotting", "widgets", "files", "alignment"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mvf":
            names |= {node.module} if node.module != "mvf" else {f"mvf.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("mvf.")}
    return {name.split(".")[1].split("_")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py").split("_")[0]
    if part in ALLOWED:
        assert imported(path) <= ALLOWED[part]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            body = node.body[1 if documented else 0 :]
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{path.name}: {node.name} has {lines} lines"


def test_no_module_carries_a_public_functions_name():
    functions = {
        name for name in mvf.__all__ if callable(getattr(mvf, name)) and not isinstance(getattr(mvf, name), type)
    }
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert not functions & modules


def test_no_code_prints_or_loads_pickles():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "pickle.load", "pickle.loads", "eval", "exec"), f"{path.name}: {name}"
                if name == "torch.load":
                    assert "weights_only=True" in ast.unparse(node), path.name
                if name == "np.load":
                    assert "allow_pickle=True" not in ast.unparse(node), path.name
