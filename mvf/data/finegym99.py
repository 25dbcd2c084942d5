"""FineGym99: gymnastics events whose frames are labelled with 99 classes of elements."""

from __future__ import annotations

from pathlib import Path

from mvf.data import finegym
from mvf.data.records import VideoList

SOURCE = finegym.SOURCE
LAYOUT = finegym.LAYOUT.replace("EDITION", "gym99")


def find_videos(
    split: str = "val", root: str | Path | None = None, *, form: str = "auto", stage: str = "all"
) -> VideoList:
    """The events of FineGym99: `phases` are element classes, -1 outside all elements.

    Events that cannot be used are left out and named in `.coverage`: the source video is absent or ends more than a
    second before the event does, or the json lacks the event or one of its elements.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of `train`.
        root: Its folder, or the folder that holds it; empty: `$MVF_DATA`, else `~/mvf_data`.
        form: `raw`, `prepared`, or `auto`: prepared where its files are there, else raw.
        stage: An element with several stages (a vault has three) has a time stamp for each. Its frames are those of
            the `first` stage, of the `last`, or `all` from the start of the first to the end of the last. Only `raw`.

    Raises:
        ValueError: if the data are missing, or an annotation file is not what it should be.
    """
    return finegym.find_events("gym99", split, root, form, stage)
