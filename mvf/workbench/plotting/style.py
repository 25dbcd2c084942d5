"""The style of all figures: page sizes, colours, how figures are made and saved."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from numpy.typing import ArrayLike, NDArray

from mvf.files import atomic
from mvf.workbench.plotting.table import minus

COLUMN, PAGE = 3.25, 6.75  # inches: one column and the full width of a two-column paper
MESSAGE = "message"  # label of a figure that only explains why there is nothing to draw
TALLEST = 9.0  # inches: height of a page's text
LETTER, LINE = 0.0565, 0.125  # inches: a letter and a line of 7 point DejaVu Sans, the font of small text

# Okabe and Ito's palette, ordered so that neighbours differ for every kind of colour vision.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
UNLABELLED = "#D9D9D9"
GRID = "#EBEBEB"  # thin lines behind marks
RIGHT, WRONG = "#009E73", "#D55E00"

STYLE: Mapping[str, object] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "figure.titlesize": 8,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "lines.linewidth": 1.2,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "image.interpolation": "nearest",
        "image.cmap": "cividis",
        "axes.prop_cycle": cycler(color=OKABE_ITO),
        "figure.dpi": 130,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "none",
        "text.parse_math": False,  # names of videos may hold dollar signs
    }
)


class PaperFigure(Figure):
    """A figure that is always drawn in the package's style, and is shown once in a notebook.

    pyplot does not manage it, so nothing stays open or is shown twice. Matplotlib makes some ticks and embeds fonts
    only when it draws, so the style must apply then too, not just while the figure is built.
    """

    def draw(self, renderer: RendererBase) -> None:
        with mpl.rc_context(mpl.RcParams(STYLE)):
            super().draw(renderer)

    def savefig(self, fname: str | os.PathLike[str] | IO[bytes], **options: Any) -> None:
        with mpl.rc_context(mpl.RcParams(STYLE)):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


@contextmanager
def paper_figure(
    width: float, height: float, layout: Literal["constrained", "compressed", "none"] = "constrained"
) -> Iterator[PaperFigure]:
    """Yields an empty figure of `width` x `height` inches in the package's style.

    Layout "compressed" closes the gaps that pictures of a fixed aspect leave in a grid.

    Example:
        >>> with paper_figure(COLUMN, 2) as figure:
        ...     axes = figure.subplots()
        >>> [round(float(x), 2) for x in figure.get_size_inches()]
        [3.25, 2.0]
    """
    with mpl.rc_context(mpl.RcParams(STYLE)):
        figure = PaperFigure(figsize=(width, height))
        figure.set_layout_engine(layout)
        yield figure


def save_figure(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Writes `path`.png (200 dots per inch) and `path`.pdf (with text as text) atomically.

    Args:
        figure: The figure.
        path: Path of the files, without a suffix.

    Returns:
        The two paths written.
    """
    written = Path(f"{path}.png"), Path(f"{path}.pdf")
    for target in written:
        # Without a date, the same figure gives the same file; the title distinguishes a message from a figure.
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else {"Title": figure.get_label()}
        with atomic(target) as temporary:
            figure.savefig(temporary, dpi=200, metadata=metadata)
    return written


def set_caption(figure: Figure, text: str) -> None:
    """Writes a small wrapped caption below the figure."""
    if text:
        figure.supxlabel(_wrapped(minus(text), figure.get_size_inches()[0]), fontsize=7, color="#404040")


def caption_lines(text: str, width: float) -> int:
    """Number of lines of a `set_caption` text below a figure of `width` inches."""
    return _wrapped(text, width).count("\n") + 1


def _wrapped(text: str, width: float) -> str:
    return textwrap.fill(text, int(width / LETTER))


def fit_words(text: str, inches: float) -> str:
    """Breaks 7 point text at spaces, if necessary at underscores, into lines of at most `inches`.

    Example:
        >>> fit_words("clean_and_jerk_000", 0.7)
        'clean_and_\\njerk_000'
    """
    most = max(int(inches / LETTER), 4)
    lines = [""]
    for part in re.findall(rf"[^\s_]{{1,{most - 1}}}[\s_]?|[\s_]", text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def short_label(name: str, letters: int = 40) -> str:
    """A name on one line, its middle left out if it has more letters.

    Example:
        >>> short_label("squat_of_someone", 9)
        'squa…eone'
    """
    name, half = " ".join(name.splitlines()), (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def phase_colours(count: int) -> list[str]:
    """One colour per phase: Okabe and Ito's for up to eight, else evenly spaced viridis.

    Example:
        >>> phase_colours(2)
        ['#0072B2', '#E69F00']
    """
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    return [mpl.colors.to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 1, count))]


def phase_names(names: Sequence[str] | None, *phases: ArrayLike | None) -> list[str]:
    """Returns `names`, or "phase 0", "phase 1", ... for every phase that occurs.

    Raises:
        ValueError: if a phase has no name.
    """
    count = max((int(np.max(p)) + 1 for p in phases if p is not None and np.size(p)), default=0)
    if names is None:
        return [f"phase {i}" for i in range(count)]
    if len(names) < count:
        raise ValueError(f"names must have one entry for each of {count} phases, got {len(names)}: {list(names)}")
    return list(names)


def as_images(frames: ArrayLike, name: str = "frames") -> NDArray[np.uint8]:
    """Checks (T, H, W, 3) pictures, uint8 or float in [0, 1], and returns them as uint8.

    Raises:
        ValueError: if the shape or the values are different.

    Example:
        >>> as_images(np.ones((2, 4, 5, 3))).max()
        np.uint8(255)
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"{name} must be (T, H, W, 3) with at least one frame, got {frames.shape}")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating) or frames.min() < 0 or frames.max() > 1.0001:
        raise ValueError(
            f"{name} must be uint8 or float in [0, 1], got {frames.dtype} from {frames.min()} to {frames.max()}"
        )
    return np.clip(np.rint(frames * 255), 0, 255).astype(np.uint8)


def show_image(axes: Axes, image: NDArray[np.uint8], title: str = "") -> None:
    """Draws a picture without ticks or frame in `axes`."""
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=7, pad=2)


def draw_ribbon(axes: Axes, phases: ArrayLike, colours: Sequence[str], vertical: bool = False) -> None:
    """Fills `axes` with one coloured cell per frame, time to the right or upwards; frames of phase -1 are grey."""
    phases = np.asarray(phases)
    # Phase -1 indexes the last row.
    table = np.array([mpl.colors.to_rgb(colour) for colour in (*colours, UNLABELLED)])
    cells = table[np.where(phases < 0, -1, phases)]
    end = len(phases) - 0.5
    if vertical:
        axes.imshow(cells[:, None], aspect="auto", origin="lower", extent=(0, 1, -0.5, end))
    else:
        axes.imshow(cells[None], aspect="auto", extent=(-0.5, end, 0, 1))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
