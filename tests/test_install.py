"""What is installed and imported: every library is declared and waits until it is needed, OpenCV is there once."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import mvf

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_libraries(folder):
    """Top-level names that the modules of a folder import and that are neither Python's nor the project's."""
    names = set()
    for path in set(folder.rglob("*.py")) - set((ROOT / "tests/cases").glob("*.py")):  # scripts that run by themselves
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


LISTS = "from mvf.__main__ import main; main(['presets']); main(['fields', 'demo']); main(['runs', 'mvf/presets'])"


@pytest.mark.parametrize("code", ["import mvf; dir(mvf)", "from mvf.__main__ import main; main(['train'])", LISTS])
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    heavy = "torch", "torchvision", "timm", "accelerate", "matplotlib", "cv2", "av", "sklearn", "scipy", "pandas"
    code = f"""
import sys
try:
    {code}
except SystemExit:
    pass  # the parser was built and the preset is missing
assert "mvf" in sys.modules
assert not [name for name in {heavy} if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_package_shows_its_public_names_and_no_others():
    assert {name for name in dir(mvf) if not name.startswith("__")} == set(mvf.__all__)
    assert "__version__" in dir(mvf) and re.match(r"\d|unknown", mvf.__version__)
    with pytest.raises(AttributeError, match="'mvf' has no attribute 'trian'"):
        getattr(mvf, "trian")  # noqa: B009


def test_a_public_name_is_what_a_type_checker_takes_it_for():
    checked = next(n for n in ast.parse(Path(mvf.__file__).read_text()).body if isinstance(n, ast.If))
    imported = [(node.module, alias.name) for node in checked.body for alias in node.names]
    assert sorted(name for _, name in imported) == sorted(mvf.__all__)
    for module, name in imported:
        found = getattr(mvf, name)
        assert found is (import_module(f"mvf.{name}") if module == "mvf" else getattr(import_module(module), name))


def test_two_wheels_of_opencv_are_warned_of(tmp_path, monkeypatch, recwarn):
    mvf._warn_of_two_opencvs()
    assert not recwarn
    metadata = tmp_path / "opencv_python-4.12.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.12.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="opencv-python 4.12.0 and opencv-python-headless .* uninstall"):
        mvf._warn_of_two_opencvs()


def files_of_the_package():
    """Every file of the package but the interpreter's own."""
    return {p for p in (ROOT / "mvf").rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_every_file_that_is_no_module_is_package_data():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mvf"]
    matched = {path for pattern in patterns for path in (ROOT / "mvf").glob(pattern)}
    assert {path for path in files_of_the_package() if path.suffix != ".py"} == matched
    assert sum(path.stat().st_size for path in (ROOT / "mvf" / "released").rglob("*") if path.is_file()) <= 8e6


@pytest.mark.slow  # builds a wheel
def test_a_wheel_has_every_file_and_opens_a_released_head(tmp_path):
    tree = tmp_path / "tree"  # a copy, because building leaves folders behind
    shutil.copytree(ROOT / "mvf", tree / "mvf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("mvf/")}
        archive.extractall(tmp_path / "site-packages")
    assert found == {path.relative_to(ROOT).as_posix() for path in files_of_the_package()}
    code = "import mvf; print(mvf.__file__, len(mvf.MVFormer.from_pretrained('drawn', backbone=False).trained_state()))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site-packages")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and str(tmp_path) in done.stdout, done.stderr
