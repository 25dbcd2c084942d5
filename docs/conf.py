"""The documentation site: `make docs` builds it into docs/_build, without the network and without running anything."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
sys.path.insert(0, str(DOCS))

import mvf  # noqa: E402

project = "mvf"
author = "the mvf authors"
copyright = "the mvf authors, Apache-2.0"
release = mvf.__version__
html_title = "mvf"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "extension",
]
exclude_patterns = ["_build", "notebooks/jupyter", "**/.ipynb_checkpoints"]
autosummary_generate = False
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!mvf\.).*")]  # types of other packages, whose pages are on the network
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True
autodoc_member_order = "bysource"
default_role = "code"

myst_enable_extensions = [
    "attrs_inline",
    "deflist",
]
myst_heading_anchors = 3
python_maximum_signature_line_length = 88
nb_execution_mode = "off"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(DOCS / "_static" / "scorer.js")
html_show_sphinx = False
html_copy_source = False
