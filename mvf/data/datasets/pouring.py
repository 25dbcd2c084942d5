"""Pouring: one action with five phases, in prepared form or as TFRecord shards."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mvf.data.datasets.prepared import read_index
from mvf.data.formats import SequenceExample, read_examples
from mvf.data.index import IndexEntry, collect, dev_part, find_form
from mvf.data.labels import labelled_record
from mvf.data.records import VideoList
from mvf.files import data_folder

ACTION = "pouring"
PHASE_NAMES = ("reaching", "lifting", "pouring", "placing", "receding")
SOURCE = (
    "the releases of Temporal Cycle-Consistency (TFRecords with phase labels: TCC in "
    "github.com/google-research/google-research) and CARL (prepared: github.com/minghchen/CARL_code)"
)
LAYOUT = """accepted layouts (the folder pouring/ may also be given itself):
  prepared:  {root}/pouring/
               train.pkl, val.pkl                         lists of videos with their phases
               videos/NAME.mp4, ...
  tfrecord:  {root}/pouring/
               pouring_train-0-of-2.tfrecord, ...
               pouring_val-0-of-2.tfrecord, ..."""


def find_videos(split: str = "val", root: str | Path | None = None, *, form: str = "auto") -> VideoList:
    """Finds the videos of Pouring, all of the action `pouring`, with phases if there are labels.

    If labels and frames differ in number, the longer of the two is resampled (`mvf.data.labels`). The complete videos
    of a TFRecord shard that is cut short are used.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of `train`.
        root: The parent of pouring/; empty for `$MVF_DATA`, else `~/mvf_data`.
        form: `prepared`, `tfrecord`, or `auto`, which is the first of them that exists.

    Raises:
        ValueError: if neither form is found (the message lists the paths), or a prepared index would run code.
    """
    root = data_folder(root)
    patterns = {"prepared": ("train.pkl", "val.pkl"), "tfrecord": ("pouring_*-of-*.tfrecord",)}
    folders = (root / "pouring", root / "Pouring", root)
    places = {name: [folder / part for folder in folders for part in parts] for name, parts in patterns.items()}
    form, folder = find_form(form, places, root, LAYOUT, SOURCE)
    part = "val" if split == "val" else "train"
    if form == "prepared":
        entries = read_index(folder / f"{part}.pkl", lambda entry: (ACTION, PHASE_NAMES))
    else:
        entries = _read_shards(folder, part)
    return collect(dev_part(entries) if split == "dev" else entries)


def _read_shards(folder: Path, part: str) -> list[IndexEntry]:
    """Reads the videos of all shards of a split; a missing shard is listed as left out."""
    found = [re.fullmatch(rf"pouring_{part}-(\d+)-of-(\d+)\.tfrecord", path.name) for path in sorted(folder.iterdir())]
    shards = {int(match[1]): match[0] for match in found if match}
    total = max((int(match[2]) for match in found if match), default=1)
    entries = [_entry(example) for shard in shards.values() for example in read_examples(folder / shard)]
    for number in sorted(set(range(total)) - set(shards)):
        name = f"pouring_{part}, shard {number} of {total}"
        entries.append(IndexEntry.left_out(name, f"it is not in {folder}; its videos are missing"))
    return entries


def _entry(example: SequenceExample) -> IndexEntry:
    frames = example.frames
    if frames is None:
        return IndexEntry.left_out(example.name, example.problem)
    record = partial(labelled_record, example.name, ACTION, PHASE_NAMES, example.labels)
    return IndexEntry(example.name, lambda: frames, record)
