"""FineGym288: gymnastics events whose frames are labelled with 288 classes of elements, and unlabelled ones."""

from __future__ import annotations

from pathlib import Path

from mvf.data import finegym
from mvf.data.records import VideoList

SOURCE = finegym.SOURCE
LAYOUT = finegym.LAYOUT.replace("EDITION", "gym288") + "\n  optional:  additional_v1.0.pkl (unlabelled training events)"


def find_videos(
    split: str = "val",
    root: str | Path | None = None,
    *,
    form: str = "auto",
    stage: str = "all",
    additional: bool = True,
) -> VideoList:
    """The events of FineGym288, as `finegym99.find_videos` describes them.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of the labelled events of `train`.
        root: As there.
        form: As there.
        stage: As there.
        additional: Add the unlabelled events of `additional_v1.0.pkl`, where it is there, to `train`. In the raw form
            they are cut from their source video, or else read from the file that the list names.

    Raises:
        ValueError: as there.
    """
    return finegym.find_events("gym288", split, root, form, stage, additional)
