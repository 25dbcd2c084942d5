"""What a widget shows, as an ordinary picture: a reopened notebook has lost its widgets, not its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from IPython.display import Image
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from mvf.widgets.strip import encode_jpeg

CAPTION, GAP = 20, 10  # pixels: as in attention.js


def captioned_row(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Image:
    """Pictures side by side on white, each below its caption, as a JPEG output.

    Args:
        pictures: (H, W, 3) uint8 each; lower ones stand at the top.
        captions: One each; cut where they are wider than the picture.

    Example:
        >>> captioned_row([np.zeros((8, 60, 3), np.uint8)], ["frame 3"]).format
        'jpeg'
    """
    height = CAPTION + max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] + GAP for picture in pictures) - GAP
    page = Picture.new("RGB", (width, height), "white")
    font = ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 12)
    left = 0
    for picture, caption in zip(pictures, captions, strict=True):
        cell = Picture.new("RGB", (picture.shape[1], CAPTION), "white")
        ImageDraw.Draw(cell).text((0, 2), caption, "black", font)
        page.paste(cell, (left, 0))
        page.paste(Picture.fromarray(picture), (left, CAPTION))
        left += picture.shape[1] + GAP
    return Image(encode_jpeg(np.asarray(page)), format="jpeg", alt=", ".join(captions))
