"""The scripts and styles of the widgets: plain files beside this one, joined so that a page loads nothing else."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def javascript(*names: str) -> str:
    """The module of one widget: what all share, then its own files; the last ends in `export default widget(View)`.

    Example:
        >>> "class Strip" in javascript("overlay.js", "attention.js")
        True
    """
    return "\n".join((FOLDER / file).read_text("utf-8") for file in ("common.js", *names))


def stylesheet() -> str:
    """The style that all widgets share."""
    return (FOLDER / "common.css").read_text("utf-8")
