"""Pictures and movies of a run's `figures/`, put into the page itself."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from PIL import Image

from mvf.plotting.style import MESSAGE
from mvf.report.markup import Html, bullets, element

MOVIES = {".gif": "image/gif", ".mp4": "video/mp4"}
DRAWN = ("history", "controls", "label_fractions")  # the page draws them itself
BUDGET = 7_000_000  # characters of all media together: the page stays below 8 MB
LARGEST_MOVIE = 2_500_000  # bytes
LARGEST_PNG = 250_000  # bytes; larger ones are stored as WebP
WIDEST = 2000  # pixels
PIXELS_PER_POINT = 1.6  # of a figure saved at 200 dots per inch, on the page
CAPTIONS = {
    "attention": "Where the model looks: frames, entity maps and a head of the backbone.",
    "entities": "What each entity looks at, over the frames.",
    "overlay": "What each entity looks at, over the frames.",
    "confusion": "Phases that the probe confuses, on frames of validation videos.",
    "embeddings": "Frames of validation videos in two dimensions, coloured by phase.",
    "progression": "Time to the next phase boundary: predicted and true.",
    "retrieval": "Frames of one video and their nearest frames in other videos.",
    "similarity": "Two videos, frame by frame: similarity and the path that aligns them.",
    "temporal": "Which frames and entities a frame looks at.",
    "knockouts": "Scores when an entity or a region is taken away.",
    "alignment": "Frames of several videos at the same moment of the action.",
    "ribbons": "Phases over time, predicted and true.",
}


def media_markup(folder: Path) -> Html:
    """Every `.png`, `.gif` and `.mp4` of `folder` that fits in `BUDGET`, pictures first, and what was left out.

    A film that is there as `.mp4` too is not taken as `.gif`, and figures that only say why there is nothing to draw
    (`mvf.plotting.plot_message`) are no pictures.
    """
    paths = [path for path in sorted(folder.glob("*")) if path.stem not in DRAWN]
    pictures = [path for path in paths if path.suffix == ".png"]
    shown, left_out, spent = [], [], 0
    films = [path for path in paths if path.suffix in MOVIES]
    for path in [
        *pictures,
        *(film for film in films if film.suffix == ".mp4" or film.with_suffix(".mp4") not in films),
    ]:
        markup = _embed(path)
        if isinstance(markup, Html) and spent + len(markup) <= BUDGET:
            shown.append(markup)
            spent += len(markup)
        else:
            left_out.append(f"{path.name}: {'the page would be too large' if isinstance(markup, Html) else markup}")
    note = element("p", "Left out of this page, see the run's figures/:") if left_out else Html()
    return Html("".join(shown) + note + (bullets(left_out) if left_out else ""))


def caption_of(name: str) -> str:
    """What a figure of that file name shows; the name in words where nothing is known of it.

    Example:
        >>> caption_of("attention_2"), caption_of("my_figure")
        ('Where the model looks: frames, entity maps and a head of the backbone.', 'My figure.')
    """
    known = CAPTIONS.get(re.split(r"[_\-.\d]", name)[0])
    return known or re.sub(r"[_\-]+", " ", name).capitalize() + "."


def _embed(path: Path) -> Html | str:
    """The figure of a file, or why there is none."""
    try:
        drawn = _movie(path) if path.suffix in MOVIES else _picture(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"cannot be read ({error})"
    caption = element("figcaption", element("b", path.stem.replace("_", " ")), f" {caption_of(path.stem)}")
    return element("figure", drawn, caption, class_="picture") if isinstance(drawn, Html) and drawn else drawn


def _picture(path: Path) -> Html:
    with Image.open(path) as image:
        if image.info.get("Title") == MESSAGE:
            return Html()
        size = image.size
        data, kind = path.read_bytes(), "image/png"
        if len(data) > LARGEST_PNG or size[0] > WIDEST:
            image = image.convert("RGB")
            image.thumbnail((WIDEST, 4 * WIDEST))
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=88, method=4)
            data, kind = buffer.getvalue(), "image/webp"
    width, height = (round(pixels / PIXELS_PER_POINT) for pixels in size)
    return element("img", src=_uri(data, kind), alt=caption_of(path.stem), width=width, height=height)


def _movie(path: Path) -> Html | str:
    data, caption = path.read_bytes(), caption_of(path.stem)
    if len(data) > LARGEST_MOVIE:
        return f"{len(data) / 1e6:.1f} MB, a movie may have {LARGEST_MOVIE / 1e6:.1f} MB"
    uri = _uri(data, MOVIES[path.suffix])
    if path.suffix == ".gif":
        return element("img", src=uri, alt=caption)
    return element("video", src=uri, controls=True, loop=True, muted=True, playsinline=True, aria_label=caption)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
