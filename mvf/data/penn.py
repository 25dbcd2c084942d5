"""Penn Action: 13 actions with phases; the raw release with boxes and joints, or the prepared form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvf.data.index import collect, dev_part, find_form
from mvf.data.penn_phases import WITHOUT_PHASES, known_action, phase_names
from mvf.data.penn_raw import find_phase_files, read_raw
from mvf.data.prepared import read_listed
from mvf.data.records import VideoList
from mvf.files import data_folder

INDEXES = ("train.pkl", "val.pkl")
SOURCE = (
    "https://dreamdragon.github.io/PennAction (frames, labels); the releases of Temporal Cycle-Consistency (phase "
    "labels: TCC in github.com/google-research/google-research) and CARL (prepared: github.com/minghchen/CARL_code)"
)
LAYOUT = """accepted layouts (the folder Penn_Action/ or penn_action/ may also be given itself):
  raw:       {root}/Penn_Action/
               frames/0001/000001.jpg, 000002.jpg, ...
               labels/0001.mat, ...                       action, split, joints, boxes
             {root}/penn_action_labels/                   optional; may also lie in Penn_Action/
               train/squat/1686.npy, val/..., ...         one phase a frame
  prepared:  {root}/penn_action/
               train.pkl, val.pkl                         lists of videos with their phases
               videos/0001.mp4, ..."""


def find_videos(split: str = "val", root: str | Path | None = None, *, form: str = "auto") -> VideoList:
    """The videos of Penn Action, named like `0001_baseball_pitch`, with phases where there are phase labels.

    The raw form adds boxes and joints. Its split is that of the folder with the phase labels, else the `train` field
    of the label file. jump_rope and strum_guitar have no phases and do not count. Where phases and frames differ in
    number the longer are resampled (`mvf.data.labels`). Videos with damaged labels or a gap between their frames are
    left out.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of `train`.
        root: The folder that holds Penn_Action/ or penn_action/; empty: `$MVF_DATA`, else `~/mvf_data`.
        form: `raw`, `prepared`, or `auto`: raw when it has phase labels, else prepared, else raw without phases.

    Raises:
        ValueError: if neither form is there, saying where it looked, or a prepared index would run code.
    """
    root = data_folder(root)
    places = {
        "raw": [folder / "frames" for folder in (root / "Penn_Action", root / "penn_action", root)],
        "prepared": [
            folder / index for folder in (root / "penn_action", root / "Penn_Action", root) for index in INDEXES
        ],
    }
    phase_files = find_phase_files(root)
    if not phase_files:
        places = dict(reversed(places.items()))
    form, folder = find_form(form, places, root, LAYOUT, SOURCE)
    part = "val" if split == "val" else "train"
    if form == "prepared":
        listed = read_listed(folder / f"{part}.pkl", _describe)
    else:
        listed = read_raw(folder, phase_files, part)
    return collect(dev_part(listed) if split == "dev" else listed)


def _describe(entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    action = known_action(str(entry["name"]).lstrip("0123456789_"))
    return None if action in WITHOUT_PHASES else (action, phase_names(action))
