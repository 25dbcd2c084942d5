"""Penn Action: 13 actions with phases; the raw release with boxes and joints, or the prepared form."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.io import loadmat

from mvf.config import nearest
from mvf.data.datasets.prepared import read_index
from mvf.data.index import IndexEntry, collect, dev_part, find_form
from mvf.data.labels import fit_length, labelled_record, read_table
from mvf.data.records import FrameSource, VideoList, VideoRecord
from mvf.data.video import ImageFolder, VideoError
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
    """Finds the videos of Penn Action, named like `0001_baseball_pitch`, with phases if there are phase labels.

    The raw form adds boxes and joints. Its split is that of the folder with the phase labels, else the `train` field
    of the label file. jump_rope and strum_guitar have no phases and are excluded. If phases and frames differ in
    number, the longer of the two is resampled (`mvf.data.labels`). Videos with damaged labels or missing frames are
    left out.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of `train`.
        root: The parent of Penn_Action/ or penn_action/; empty for `$MVF_DATA`, else `~/mvf_data`.
        form: `raw`, `prepared`, or `auto`, which is raw if it has phase labels, else prepared, else raw without phases.

    Raises:
        ValueError: if neither form is found (the message lists the paths), or a prepared index would run code.
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
        entries = read_index(folder / f"{part}.pkl", _describe)
    else:
        entries = read_raw(folder, phase_files, part)
    return collect(dev_part(entries) if split == "dev" else entries)


def _describe(entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    action = known_action(str(entry["name"]).lstrip("0123456789_"))
    return None if action in WITHOUT_PHASES else (action, phase_names(action))


# The raw form: a folder of frames and a .mat file for each video, and phase labels from another source.

PHASE_FOLDER = "penn_action_labels"
FIELDS = ("action", "x", "y", "visibility", "bbox", "train")
JOINTS = 13


@dataclass(frozen=True, eq=False)
class PennLabel:
    """The label file of one video; its fields may differ in length from the frames and from one another.

    Attributes:
        action: Action as spelled in the file.
        train: True for the training split of the release.
        joints: (n, 13, 2) x y in pixels, NaN where the file marks a joint as invisible (its position is then a guess or
            a corner of the image).
        boxes: (m, 4) x0 y0 x1 y1 in pixels. They were drawn on videos of another size and have fractions, so they are
            edges, not pixel indices, and x1 and y1 are already exclusive.
    """

    action: str
    train: bool
    joints: np.ndarray
    boxes: np.ndarray


def find_phase_files(root: Path) -> dict[str, list[Path]]:
    """Finds phase label files by video number; more than one file per number is an error in the data."""
    found = defaultdict(list)
    for folder in (root, root / "Penn_Action", root / "penn_action", root.parent):
        for path in sorted((folder / PHASE_FOLDER).glob("*/*/*.npy")):
            number = "".join(takewhile(str.isdecimal, path.stem))
            if path.parts[-3] in ("train", "val") and number:
                found[number].append(path)
        if found:
            break
    return dict(found)


def read_raw(folder: Path, phase_files: Mapping[str, Sequence[Path]], part: str) -> list[IndexEntry]:
    """Reads the videos of one split. A video with unknown labels and split is listed as left out in both splits."""
    named = [*(folder / "frames").iterdir(), *(folder / "labels").glob("*.mat")]
    numbers = {path.stem for path in named if path.stem.isdecimal()} | phase_files.keys()
    videos = [_read_video(folder, number, phase_files.get(number, ())) for number in sorted(numbers)]
    return [entry for split, entry in videos if entry is not None and split in (part, "")]


def _read_video(folder: Path, number: str, phase_files: Sequence[Path]) -> tuple[str, IndexEntry | None]:
    """Returns a video's split, empty if unknown, and its entry, None for an action without phases."""
    splits = {path.parts[-3] for path in phase_files}
    split = splits.pop() if len(splits) == 1 else ""
    name, mat = number, folder / "labels" / f"{number}.mat"
    try:
        if len(phase_files) > 1:
            raise VideoError(f"it has {len(phase_files)} phase labels: {', '.join(map(str, phase_files))}")
        if not mat.exists() and not phase_files:
            raise VideoError(f"its action and split are not known: {mat} does not exist")
        label = read_label(mat) if mat.exists() else None
        if label and not split:
            split = "train" if label.train else "val"
        spelled = label.action if label else phase_files[0].parent.name
        name = f"{number}_{find_action(spelled) or spelled}"
        action = known_action(spelled)
        if any(find_action(path.parent.name) != action for path in phase_files):
            raise VideoError(f"{mat} says {spelled}, but its phases are {phase_files[0]}")
    except VideoError as error:
        return split, IndexEntry.left_out(name, str(error))
    if action in WITHOUT_PHASES:
        return split, None
    record = partial(_record, name, action, label, phase_files[0] if phase_files else None)
    return split, IndexEntry(name, partial(_open_frames, folder / "frames" / number), record)


def _open_frames(folder: Path) -> ImageFolder:
    """Opens the frames of one video, which must be numbered without gaps."""
    if not folder.is_dir():
        raise VideoError(f"its frames are absent: {folder} does not exist")
    source = ImageFolder(folder)
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in source.files]
    for before, number in zip([min([1, *numbers]) - 1, *numbers], numbers):
        if number != before + 1:
            raise VideoError(f"frame {before + 1} is missing in {folder}: found {number} instead")
    return source


def _record(name: str, action: str, label: PennLabel | None, phases: Path | None, source: FrameSource) -> VideoRecord:
    others = {} if label is None else {"actor_box": label.boxes, "joints": label.joints}
    values = None if phases is None else _read_phases(name, phases)
    return labelled_record(name, action, phase_names(action), values, source, **others)


def _read_phases(name: str, path: Path) -> np.ndarray:
    try:
        return read_table(name, path)
    except ValueError as error:
        raise VideoError(str(error)) from None


def read_label(path: str | Path) -> PennLabel:
    """Reads a label file.

    Raises:
        VideoError: if it is missing, damaged, cut short or lacks a field; the message names the file.
    """
    try:
        fields = loadmat(io.BytesIO(Path(path).read_bytes()), variable_names=FIELDS)
    except Exception as error:  # loadmat raises many kinds of errors on damaged files
        raise VideoError(f"cannot read {path}: damaged or cut short ({type(error).__name__}: {error})") from None
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise VideoError(f"{path} has no field {', '.join(missing)}; is it cut short?")
    x, y, visible = (_numbers(path, name, fields[name], JOINTS) for name in ("x", "y", "visibility"))
    visible = fit_length(visible, len(x)) > 0
    joints = np.where(visible[..., None], np.stack([x, fit_length(y, len(x))], axis=-1), np.nan)
    boxes = _numbers(path, "bbox", fields["bbox"], 4)
    return PennLabel(_text(fields["action"]), _is_train(path, fields["train"]), joints, boxes)


def _numbers(path: str | Path, name: str, values: np.ndarray, columns: int) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] != columns or not len(values) or values.dtype.kind not in "biuf":
        raise VideoError(f"{path}: {name} is {values.dtype} {values.shape}, expected numbers (frames, {columns})")
    return values.astype(np.float64)


def _text(values: np.ndarray) -> str:
    return str(values.ravel()[0]) if values.size else ""


def _is_train(path: str | Path, values: np.ndarray) -> bool:
    if values.size != 1 or values.ravel()[0] not in (1, -1):
        raise VideoError(f"{path}: train is {values.tolist()}, expected 1 (train) or -1 (val)")
    return bool(values.ravel()[0] == 1)


# Phase names from the key events of the 13 actions with phases.

# Dwibedi et al., CVPR 2019, https://arxiv.org/abs/1904.07846, table 2
KEY_EVENTS = MappingProxyType(
    {
        "baseball_pitch": ("knee fully up", "arm fully stretched out", "ball release"),
        "baseball_swing": ("bat swung back fully", "bat hits ball"),
        "bench_press": ("bar fully down",),
        "bowl": ("ball swung fully back", "ball release"),
        "clean_and_jerk": ("bar at hip", "fully squatting", "standing", "begin thrusting", "beginning balance"),
        "golf_swing": ("stick swung fully back", "stick hits ball"),
        "jumping_jacks": (
            "hands at shoulder (going up)",
            "hands above head",
            "hands at shoulders (going down)",
        ),
        "pullup": ("chin above bar",),
        "pushup": ("head at floor",),
        "situp": ("abs fully crunched",),
        "squat": ("hips at knees (going down)", "hips at floor", "hips at knee (going up)"),
        "tennis_forehand": ("racket swung fully back", "racket touches ball"),
        "tennis_serve": ("ball released from hand", "racket swung fully back", "ball touches racket"),
    }
)
WITHOUT_PHASES = ("jump_rope", "strum_guitar")


def phase_names(action: str) -> tuple[str, ...]:
    """Names the phases of an action: before, between and after its key events.

    Example:
        >>> phase_names("bowl")
        ('to ball swung fully back', 'to ball release', 'after ball release')
    """
    events = KEY_EVENTS[action]
    return (*(f"to {event}" for event in events), f"after {events[-1]}")


def find_action(text: str) -> str:
    """Finds the name of an action from any spelling, also if it has no phases; empty if there is no such action.

    Example:
        >>> find_action("push_ups"), find_action("Jumping-Jack"), find_action("juggling")
        ('pushup', 'jumping_jacks', '')
    """
    known = {_letters(action): action for action in (*KEY_EVENTS, *WITHOUT_PHASES)}
    return known.get(_letters(text), "")


def known_action(text: str) -> str:
    """Finds the name of an action from any spelling.

    Raises:
        VideoError: if there is no such action; the message suggests the nearest.
    """
    action = find_action(text)
    if not action:
        raise VideoError(f'unknown action "{text}"; {nearest(text, KEY_EVENTS)}')
    return action


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower()).rstrip("s")
