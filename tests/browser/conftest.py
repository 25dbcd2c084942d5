"""A tiny trained run, a Jupyter server over it, and notebooks of this repository opened in a browser."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
import pytest

from tests.browser.lab import Lab, find_browser
from tests.conftest import TINY

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SCREENSHOTS = Path(os.environ.get("MVF_SCREENSHOTS") or Path(__file__).with_name("screenshots"))
DATA = {**TINY["data_options"], "height": 96, "width": 112}  # large enough to be looked at


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """What the server shows; tests skip here, before anything is trained, where there is no browser."""
    try:
        find_browser()
    except LookupError as reason:
        pytest.skip(str(reason))
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def run(folder, cache):
    """Folder of a tiny trained run with its report, so that notebooks only look."""
    import mvf
    from mvf.workbench.notebook import session

    config = mvf.load_config("synthetic", **{**TINY, "epochs": 1, "data_options": DATA})
    trained = mvf.train(config, folder / "run")
    splits = session.embed_splits(trained.model, trained.config)
    session.report_on(trained.model, trained.config, splits, trained.folder / "metrics.json")
    return trained


@pytest.fixture(scope="session")
def lab(folder, cache):
    """A server that ends with the session; its kernels see the session's cache."""
    with Lab(folder) as server:
        yield server


@pytest.fixture
def open_notebook(lab):
    """`with open_notebook(name, view="lab", **parameters) as page`: a copy of a notebook of the repository."""
    from tests.browser.page import open_page

    @contextmanager
    def opened(name, view="lab", **parameters):
        copy = lab.root / f"{name}.ipynb"
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"), str(copy), parameters, prepare_only=True, kernel_name="python3"
        )
        visible = os.environ.get("MVF_BROWSER") == "visible"
        with open_page(lab, copy.name, SCREENSHOTS, view=view, visible=visible) as page:
            yield page

    return opened


@pytest.fixture
def reopen(lab):
    """`with reopen(name, view="lab", kernel=True) as page`: a saved notebook, with a new kernel or with none."""
    from tests.browser.page import open_page

    def opened(name, view="lab", kernel=True):
        if not kernel:  # one that nobody has: the page then asks, and "No Kernel" is chosen
            notebook = nbformat.read(lab.root / f"{name}.ipynb", as_version=4)
            notebook.metadata["kernelspec"] = {"name": "gone", "display_name": "gone", "language": "none"}
            name = f"{name}-alone"
            nbformat.write(notebook, lab.root / f"{name}.ipynb")
            lab.trust(f"{name}.ipynb")
        return open_page(lab, f"{name}.ipynb", SCREENSHOTS, view=view, kernel=kernel)

    return opened
