"""The report page: everything about a run, or two runs compared, in one HTML file that can be sent to anyone."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from mvf.files import atomic
from mvf.workbench.report.reading import Story, check_same_data, read_story
from mvf.workbench.report.sections import (
    Html,
    comparison_sections,
    configuration_section,
    coverage_section,
    curve_section,
    element,
    figure_section,
    head,
    look_section,
    score_section,
    verdict_section,
)

__all__ = ["write_page"]


# ----------------------------------------------------------------------------------------------------------------------
# The page itself: sections in order, contents, style; one file that needs nothing else.

# No script runs and nothing is fetched, whatever a name of a video may say.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def write_page(run: str | Path, other: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Writes the report of a run as one HTML file without scripts, fonts or pictures from elsewhere.

    The same run gives the same bytes.

    Args:
        run: Run folder with a report.
        other: Another one, judged on the same data, to compare with.
        out: Where to; default `report.html` in `run`, with two runs `report-against-<other>.html`.

    Returns:
        The file written.

    Raises:
        ValueError: when a folder holds no run or no report, or the two are one run or were judged on different data.
    """
    first = read_story(run)
    second = None if other is None else read_story(other)
    if second is not None:
        if second.folder.resolve() == first.folder.resolve():
            raise ValueError(f"{other} and {run} are one run: name another run to compare with, or none")
        check_same_data(first, second)
    name = "report.html" if second is None else f"report-against-{second.folder.resolve().name}.html"
    path = Path(out) if out else first.folder / name
    with atomic(path) as temporary:
        temporary.write_text(page(first, second), encoding="utf-8", newline="\n")
    return path


def page(first: Story, second: Story | None = None) -> str:
    """The whole file."""
    against = f" against {second.name}" if second else ""
    sections = [
        verdict_section(first),
        *(comparison_sections(first, second) if second else []),
        score_section(first),
        look_section(first),
        curve_section(first),
        figure_section(first),
        coverage_section(first),
        configuration_section(first),
    ]
    header = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{first.name}{against} – MV-Former run"),
        element("style", Html(files("mvf.workbench.report").joinpath("report.css").read_text(encoding="utf-8"))),
    )
    top = head(first, f"MV-Former run{against}")
    main = element("main", top, *sections)
    return f'<!DOCTYPE html>\n<html lang="en">{header}\n{element("body", _contents(sections), main)}</html>\n'


def _contents(sections: list[Html]) -> Html:
    """Links to the sections that are there."""
    titles = [match for part in sections for match in re.findall(r'<h2 id="([^"]*)">([^<]*)</h2>', part)]
    links = [element("li", element("a", Html(title), href=f"#{name}")) for name, title in titles]
    return element("nav", element("ol", *links), aria_label="Contents")
