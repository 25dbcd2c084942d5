"""What is installed: every import is declared, and OpenCV is there once."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import mvf

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_libraries(folder):
    """Top-level names that the modules of a folder import and that are neither Python's nor the project's."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
    return names - sys.stdlib_module_names - {"mvf", "tests", "bench"}


def declared(*extras):
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {re.split("[<>=!~ ]", line)[0].replace("_", "-").lower() for line in lines}


@pytest.mark.parametrize(("folder", "extras"), [("mvf", ["cluster"]), ("tests", ["test"])])
def test_every_imported_library_is_declared(folder, extras):
    distributions = packages_distributions()
    for name in imported_libraries(ROOT / folder):
        of = {distribution.replace("_", "-").lower() for distribution in distributions.get(name, [name])}
        assert of & declared(*extras), f"{folder} imports {name}, of {of}, which pyproject.toml does not declare"


def test_two_wheels_of_opencv_are_warned_of(tmp_path, monkeypatch, recwarn):
    mvf._warn_of_two_opencvs()
    assert not recwarn
    metadata = tmp_path / "opencv_python-4.12.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.12.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="opencv-python 4.12.0 and opencv-python-headless .* uninstall"):
        mvf._warn_of_two_opencvs()
