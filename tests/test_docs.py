"""Documentation: links and commands hold, and the code of README and tutorials runs, that of tutorials in a copy."""

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mvf
from mvf.__main__ import _parse
from mvf.models.weight_files import WeightsUnavailableError
from tests.conftest import TINY
from tests.data.footage import write_video

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs").glob("add_*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (mvf/\S+)\n")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "figures").glob("*.md")])
EXAMPLES = sorted(  # of the README and of the first page of the site, where they differ
    {
        code
        for page in (ROOT / "README.md", ROOT / "docs" / "start.md")
        for language, code in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language == "python"
    }
)
INLINE = re.compile(r"`((?:python -m )?mvf [a-z]+ [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"^```{toctree}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def headings(text: str) -> set[str]:
    """The anchors of a page, as the site and repository hosts make them from headings."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the shell blocks and the text of a page; it may go on over lines, and over `&&`."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for language, code in BLOCK.findall(text) if language == "sh"]
    shell = "\n".join([*blocks, *INLINE.findall(BLOCK.sub("", text))])
    lines = re.split(r"\n|&&|;", re.sub(r"(^|\s)#.*", "", shell.replace("\\\n", " ")))
    return [words for line in lines if (words := shlex.split(line))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading_of_it(page):
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if not re.match(r"https?://", link):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{link}: there is no {file}"
            if anchor:
                assert anchor in headings(target.read_text(encoding="utf-8")), f"{link}: there is no such heading"


def test_every_page_table_and_notebook_is_in_the_sites_contents():
    docs, named = ROOT / "docs", []
    for page in [*docs.glob("*.md"), *docs.glob("api/*.md")]:
        for block in TOCTREE.findall(page.read_text(encoding="utf-8")):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            named += [(page.parent / entry).relative_to(docs).as_posix() for entry in entries]
    found = [*docs.glob("*.md"), *docs.glob("api/*.md"), *docs.glob("figures/*.md"), *docs.glob("notebooks/*.ipynb")]
    assert sorted(named) == sorted(
        path.relative_to(docs).with_suffix("").as_posix()
        for path in found
        if path.stem != "index" or path.parent != docs
    )


def test_the_reference_has_every_public_name_and_every_package_with_a_face():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    assert {f"mvf.{name}" for name in mvf.__all__} == set(re.findall(r"^   (mvf\.\w+)$", pages, re.MULTILINE))
    faces = [path for path in (ROOT / "mvf").rglob("__init__.py") if "__all__ = [" in path.read_text(encoding="utf-8")]
    shown = set(re.findall(r"automodule:: (\S+)", pages))
    assert {".".join(path.parent.relative_to(ROOT).parts) for path in faces} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_commands_are_understood(page):
    for words in commands(page):
        if words[:3] == ["python", "-m", "mvf"] or words[0] == "mvf":
            _parse(words[words.index("mvf") + 1 :])  # a mistake ends the process
        elif words[0] == "papermill":
            given = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
            assert given <= parameters(ROOT / "notebooks" / Path(words[1]).name), " ".join(words)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words[1]
        elif words[0] == "python":
            assert (ROOT / words[1]).exists(), words[1]


def test_commands_of_the_readme_name_only_what_a_clone_has():
    """But for the user's own clips, and for what the commands above them have made."""
    for words in commands(ROOT / "README.md"):
        for word in words[1:]:
            if "/" in word and not word.startswith(("~/clips", "runs/", ".venv/")):
                assert (ROOT / word).exists(), f"{' '.join(words)}: a clone has no {word}"


@pytest.mark.slow  # a minute and a half: two notebooks, training and five other commands, each in a process of its own
def test_commands_of_the_readme_run_as_printed(tmp_path):
    """At tiny size: only settings of what trains are added. Making and installing are left out."""
    names = ("a", "b", "c", "d", "e", "set1")
    for name in names:
        write_video(tmp_path / "clips" / f"{name}.mp4", count=30)
    rows = [f"{name}.mp4,{'0;10' if name < 'c' else ''},up;down\n" for name in names]
    (tmp_path / "clips" / "videos.csv").write_text("path,phases,phase_names\n" + "".join(rows))
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    tiny = [word for name, value in TINY.items() if name != "data_options" for word in ("-p", name, str(value))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = []
    for words in commands(ROOT / "README.md"):
        if words[0] not in ("python", "papermill"):
            continue
        module = ["-m", words[0]] if words[0] != "python" else []
        given = [word.replace("~", str(tmp_path)) for word in words[1:]]
        if words[2:4] in (["mvf", "train"], ["mvf", "batch"]):
            given += tiny
        ran = subprocess.run(
            [sys.executable, *module, *given], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"{' '.join(words)}\n{ran.stdout}{ran.stderr}"
        done.append(" ".join(words[: 4 if words[0] == "python" else 2]))
    assert {
        "python -m mvf train", "python -m mvf report", "python -m mvf apply", "python -m mvf repetitions",
        "python -m mvf batch", "papermill notebooks/attention.ipynb", "papermill notebooks/align.ipynb",
    } == set(done)  # fmt: skip
    run = tmp_path / "runs" / "mine"
    assert {"attention.ipynb", "align.ipynb", "report.html", "clips-clips.html"} <= {
        path.name for path in run.iterdir()
    }
    segments = list(csv.DictReader((tmp_path / "segments.csv").open(encoding="utf-8")))
    assert {row["video"] for row in segments} == set(names) and {row["name"] for row in segments} == {"up", "down"}


def parameters(notebook: Path) -> set[str]:
    (cell,) = (
        cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if "parameters" in cell["metadata"].get("tags", ())
    )  # fmt: skip
    return {node.target.id for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.AnnAssign)}


@pytest.mark.slow  # half a minute; `make docs` does the same
def test_the_site_is_built_without_a_warning(tmp_path):
    for name in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(name, reason=f'{name} is not installed: pip install -e ".[docs]"')
    (options,) = re.findall(r"^SITE := (.*) docs docs/_build/html$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *options.split(), "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists() and "verdict" in (tmp_path / "reports.html").read_text(encoding="utf-8")


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
    checks = (["-m", "doctest", *new], ["-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *new])
    for arguments in (["tutorial.py"], *(checks if new else ())):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: f"{code.count(chr(10))} lines")
def test_python_examples_run_as_printed(code, tmp_path, monkeypatch, capsys):
    """At tiny size: only the settings of `load_config` are replaced."""
    load = mvf.load_config
    monkeypatch.setattr(mvf, "load_config", lambda preset, **given: load(preset, **{**TINY, **given}), raising=False)
    monkeypatch.chdir(tmp_path)
    variables: dict = {}
    try:
        exec(code, variables)
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    printed = capsys.readouterr().out
    assert variables["config"].preset == "demo" and str(variables["maps"].entities.shape) in printed
    if "run" not in variables:  # with the released head nothing is trained
        assert not Path("runs").exists() and str(variables["video"].embeddings.shape) in printed
        return
    assert variables["report"]["verdicts"]["cropped.classification"] in printed
    assert variables["run"].folder.samefile("runs/short")
    assert len(variables["model"].trained_state()) == len(variables["run"].model.trained_state())
