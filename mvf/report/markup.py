"""HTML from Python values: text is escaped where it enters, so nothing that a file says can become markup."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from mvf.plotting import Table

VOID = ("img", "meta", "br")
PIXELS_PER_INCH = 125  # of a figure on the page; its 8 point text is then as large as the page's small print


class Html(str):
    """Text that is markup already."""


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """An element; children that are no `Html` are escaped, attributes that are None or False left out.

    Example:
        >>> print(element("p", "a < b ", element("b", "c"), class_="note", aria_label='"x"', hidden=True))
        <p class="note" aria-label="&quot;x&quot;" hidden>a &lt; b <b>c</b></p>
    """
    opened = tag + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{opened}>" if tag in VOID else f"<{opened}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Markup of several children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def section(title: str, *body: object) -> Html:
    """A section of the page under a heading that can be linked to; empty without a body."""
    if not any(body):
        return Html()
    name = anchor(title)
    heading = element("h2", title, id=name)
    return element("section", heading, *body, aria_labelledby=name)


def anchor(title: str) -> str:
    """The id of the section of that title.

    Example:
        >>> anchor("Scores and controls")
        'scores-and-controls'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def details(summary: str, *body: object, open: bool = False) -> Html:
    """What is shown on request."""
    return element("details", element("summary", summary), *body, open=open)


def bullets(items: Iterable[object], **attributes: object) -> Html:
    """A list."""
    return element("ul", *(element("li", item) for item in items), **attributes)


def table_markup(table: Table) -> Html:
    """A table that scrolls by itself where the screen is narrower; a sentence where it has no row."""
    if not table.rows:
        return element("p", f"{table.caption}: nothing to show.", class_="absent")
    label = table.caption or ", ".join(table.columns)
    return element("div", Html(table._repr_html_()), class_="scroll", tabindex=0, role="region", aria_label=label)


def chart(figure: Figure, label: str, caption: str = "") -> Html:
    """A figure as SVG in the page, its text as text: it follows the page's colours and can be searched.

    Args:
        figure: The figure.
        label: What it shows, for those who cannot see it; unlike those of all other charts of the page.
        caption: Below it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):  # names inside the SVG: the same every time, others in every chart
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r'<g id="[^"]*">', "<g>", buffer.getvalue())  # names like axes_1 are those of every chart
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    width = figure.get_size_inches()[0] * PIXELS_PER_INCH
    width = f"width:{width:.0f}px;min-width:{0.75 * width:.0f}px"  # on a phone it scrolls before its text is too small
    drawn = element("div", element("div", Html(svg), style=width), class_="scroll", tabindex=0, role="region",
                    aria_label=label)  # fmt: skip
    return element("figure", drawn, element("figcaption", caption) if caption else "", class_="chart")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'
