"""The tutorials and the README: their code is extracted and run, that of tutorials in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mvf
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs").glob("add_*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (mvf/\S+)\n")


def apply(folder: Path, diff: str) -> None:
    """Replaces the old lines of every hunk of a diff, which must stand in the file once, by its new ones."""
    path = folder / re.search(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)[1]
    text = path.read_text()
    for hunk in diff.split("@@\n")[1:]:
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
        assert text.count(old) == 1, f"{path.name} has not just once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(tutorial, tmp_path):
    shutil.copytree(ROOT / "mvf", tmp_path / "mvf", ignore=shutil.ignore_patterns("__pycache__"))
    script = []
    for language, code in BLOCK.findall(tutorial.read_text(encoding="utf-8")):
        if file := FILE.match(code):
            (tmp_path / file[1]).write_text(code[file.end() :] if language == "python" else code)
        elif language == "diff":
            apply(tmp_path, code)
        elif language == "python":
            script.append(code)
    (tmp_path / "tutorial.py").write_text("\n".join(script))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    new = [str(path) for path in tmp_path.rglob("mvf/**/*.py") if not (ROOT / path.relative_to(tmp_path)).exists()]
    for arguments in (
        ["tutorial.py"],
        ["-m", "doctest", *new],
        ["-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *new],
    ):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_from_python_runs_as_printed(tmp_path, monkeypatch, capsys):
    """At tiny size: only the settings of `load_config` are replaced."""
    load = mvf.load_config
    monkeypatch.setattr(mvf, "load_config", lambda preset, **given: load(preset, **{**TINY, **given}), raising=False)
    monkeypatch.chdir(tmp_path)
    (code,) = [code for language, code in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"]
    variables: dict = {}
    exec(code, variables)
    printed = capsys.readouterr().out
    assert variables["report"]["verdicts"]["cropped.classification"] in printed
    assert variables["run"].folder.samefile("runs/short") and variables["config"].preset == "demo"
    assert len(variables["model"].trained_state()) == len(variables["run"].model.trained_state())
