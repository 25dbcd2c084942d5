"""What the pages of the site take from the package and the repository, so that nothing is written twice.

The directive `{generated} NAME` puts a page's part made from the code in its place; links to `figures/` and
`notebooks/`, which lie beside `docs/`, lead to their pages, and docstrings that cite a page link to it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import runpy
from dataclasses import asdict
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "figures/results": "Runs over seeds",
    "figures/study": "Every objective: all tables",
    "figures/table3": "Table 3 on drawn videos",
    "figures/table5": "Table 5 on drawn videos",
    "figures/table6": "Table 6 on drawn videos",
}


def glossary() -> list[str]:
    """The words of tables and reports, from `plotting/table.py`."""
    words = runpy.run_path(str(ROOT / "mvf/workbench/plotting/table.py"))["GLOSSARY"]
    terms = [line for word in sorted(words, key=str.lower) for line in (word, f"  {words[word]}.", "")]
    return ["```{glossary}", *terms, "```"]


def settings() -> list[str]:
    """Every field of the configuration, with its default and the comment beside it."""
    from mvf.config import Config, field_meanings

    defaults = asdict(Config())
    rows = [f"| `{name}` | `{defaults[name]!r}` | {cell(text)} |" for name, text in field_meanings().items()]
    return ["| setting | default | meaning |", "| --- | --- | --- |", *rows]


def presets() -> list[str]:
    """Every preset that has a file of its own, what it is for, and the one that it extends."""
    from mvf.config import stored_presets

    rows = []
    for name, preset in stored_presets().items():
        if not preset.objective:
            base = f" Extends `{preset.extends}`." if preset.extends else ""
            rows.append(f"| `{name}` | {cell(' '.join(preset.purpose.split()))}{base} |")
    return ["| preset | for |", "| --- | --- |", *rows]


def commands() -> list[str]:
    """What every shell command is for, and its help."""
    from mvf.__main__ import _add_commands

    os.environ["COLUMNS"] = "88"  # argparse wraps at the width of the terminal
    subparsers = argparse.ArgumentParser(prog="mvf").add_subparsers()
    _add_commands(subparsers)
    purposes = {action.dest: action.help for action in subparsers._choices_actions}
    lines = []
    for name, command in subparsers.choices.items():
        purpose = f"{purposes[name][0].upper()}{purposes[name][1:]}."
        lines += [f"## {name}", "", purpose, "", "```text", *command.format_help().splitlines(), "```", ""]
    return lines


def benchmarks() -> list[str]:
    """The scripts in bench/ and the first line of each."""
    rows = []
    for path in sorted((ROOT / "bench").glob("*.py")):
        purpose = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        rows.append(f"| [{path.name}](/../bench/{path.name}) | {cell(purpose)} |")
    return ["| script | what it does |", "| --- | --- |", *rows]


def cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


GENERATED = {made.__name__: made for made in (glossary, settings, presets, commands, benchmarks)}


class Generated(SphinxDirective):
    """Markdown made from the code, put where the directive stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = GENERATED[self.arguments[0]]()
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, holder, True)
        return holder.children


def add_title(app: Sphinx, name: str, source: list[str]) -> None:
    """The tables that `figures.ipynb` writes begin with a table."""
    if name in TITLES:
        source[0] = f"# {TITLES[name]}\n\n{source[0]}"


def link_pages(app: Sphinx, document: nodes.document) -> None:
    """Names the pages of figures/ and notebooks/, which are links in docs/, as the site does."""
    for link in document.findall(addnodes.pending_xref):
        target = Path(link.get("reftarget", ""))
        if target.is_absolute() and target.is_relative_to(ROOT):
            link["reftarget"] = target.relative_to(ROOT).as_posix()


FIELD = re.compile(
    r":(?:param|ivar) (\w+(?:, \w+)+):"
)  # of several names, the last of which Sphinx takes for the field's


def finish_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """After napoleon: links to the pages that a docstring cites, and fields that describe several names at once."""
    for number, line in enumerate(lines):
        line = re.sub(r"\bdocs/(\w+)\.md\b", r":doc:`docs/\1.md </\1>`", line)
        lines[number] = FIELD.sub(lambda found: found[0].replace(", ", ","), line)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("generated", Generated)
    app.connect("source-read", add_title)
    app.connect("doctree-read", link_pages)
    app.connect("autodoc-process-docstring", finish_docstring, priority=600)
    return {"parallel_read_safe": True}
