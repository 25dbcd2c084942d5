"""One module per data set, and a table of their names; a new data set is one file and one line here.

docs/add_a_dataset.md shows how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mvf.data.datasets import finegym, folder, kinetics400, penn, pouring, synthetic
from mvf.data.records import VideoList

SPLITS = ("train", "dev", "val")


@dataclass(frozen=True)
class Dataset:
    """A data set: the function that finds its videos, and its description.

    Attributes:
        find_videos: Function of (split, root, *, options...) -> VideoList; its keywords are the data set's options.
        layout: The accepted layouts of its files, with `{root}` for its folder; empty if it has no files.
        source: Where its data are published.
        splits: Its splits; a data set that serves only for training has no `val`.
    """

    find_videos: Callable[..., VideoList]
    layout: str = ""
    source: str = ""
    splits: tuple[str, ...] = SPLITS


DATASETS: Mapping[str, Dataset] = {
    "synthetic": Dataset(synthetic.find_videos),
    "folder": Dataset(folder.find_videos, folder.LAYOUT),
    "penn": Dataset(penn.find_videos, penn.LAYOUT, penn.SOURCE),
    "pouring": Dataset(pouring.find_videos, pouring.LAYOUT, pouring.SOURCE),
    "finegym99": Dataset(finegym.find_gym99, finegym.LAYOUT_99, finegym.SOURCE),
    "finegym288": Dataset(finegym.find_gym288, finegym.LAYOUT_288, finegym.SOURCE),
    "kinetics400": Dataset(kinetics400.find_videos, kinetics400.LAYOUT, kinetics400.SOURCE, kinetics400.SPLITS),
}
