"""The report page: everything about a run, or two runs compared, in one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mvf.files import atomic
from mvf.workbench.plotting.table import explained_text, minus
from mvf.workbench.report.sections import (
    Chart,
    ReportedRun,
    chart,
    check_same_data,
    data_uri,
    page_values,
    read_run,
    webp,
)

__all__ = ["Chart", "chart", "data_uri", "webp", "write_page"]


def write_page(run: str | Path, other: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Writes the report of a run as one HTML file without external scripts, fonts and pictures.

    The only scripts are those of the browsers in `figures/`, each in a frame of its own. The same run gives the same
    bytes.

    Args:
        run: Run folder with a report.
        other: Run folder to compare with, evaluated on the same data.
        out: File to write; by default `report.html` in `run`, or `report-against-<other>.html` for two runs.

    Returns:
        Path of the written file.

    Raises:
        ValueError: if a folder has no run or no report, or both runs are the same or were evaluated on different data.
    """
    first = read_run(run)
    second = None if other is None else read_run(other)
    if second is not None:
        if second.folder.resolve() == first.folder.resolve():
            raise ValueError(f"{other} and {run} are the same run: name another run to compare with, or none")
        check_same_data(first, second)
    name = "report.html" if second is None else f"report-against-{second.folder.resolve().name}.html"
    path = Path(out) if out else first.folder / name
    with atomic(path) as temporary:
        temporary.write_text(page(first, second), encoding="utf-8", newline="\n")
    return path


def page(first: ReportedRun, second: ReportedRun | None = None) -> str:
    """Renders the page of one run or two."""
    return rendered("page.html", page_values(first, second))


def rendered(template: str, values: Mapping[str, object]) -> str:
    """Renders a template of this folder. Every text is escaped, so nothing in a run's files becomes markup."""
    loader = PackageLoader("mvf.workbench", "report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        keep_trailing_newline=True,
        finalize=lambda value: minus(value) if type(value) is str else value,  # not markup, which is made already
    )
    environment.filters["anchor"] = anchor
    environment.filters["explained"] = lambda text: Markup(explained_text(text))
    environment.filters["raw"] = escape  # markup already, so without minus signs
    return environment.get_template(template).render(values)


def anchor(title: str) -> str:
    """Returns the id of the section with a title.

    Example:
        >>> anchor("Scores and controls")
        'scores-and-controls'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")
