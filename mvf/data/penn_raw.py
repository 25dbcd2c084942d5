"""Penn Action as published: a folder of frames and a .mat file a video, and phase labels from elsewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mvf.data.index import Listed
from mvf.data.labels import fit_length, labelled_record, read_table
from mvf.data.matlab import read_arrays
from mvf.data.penn_phases import WITHOUT_PHASES, find_action, known_action, phase_names
from mvf.data.records import FrameSource, VideoRecord
from mvf.data.video import ImageFolder, VideoError

PHASE_FOLDER = "penn_action_labels"
FIELDS = ("action", "x", "y", "visibility", "bbox", "train")
JOINTS = 13


@dataclass(frozen=True, eq=False)
class PennLabel:
    """What the label file of one video says; its fields may be longer or shorter than the frames, and one another.

    Attributes:
        action: As spelled in the file.
        train: True for the training part of the release.
        joints: (n, 13, 2) x y in pixels, NaN where the file calls a joint invisible (its place is then a guess or a
            corner of the image).
        boxes: (m, 4) x0 y0 x1 y1 in pixels. They were drawn on videos of another size, so they carry fractions:
            they are edges, not indices of pixels, and x1 and y1 are exclusive as they stand.
    """

    action: str
    train: bool
    joints: np.ndarray
    boxes: np.ndarray


def find_phase_files(root: Path) -> dict[str, list[Path]]:
    """Phase labels by the number of their video; a number with several files is a mistake."""
    found = defaultdict(list)
    for folder in (root, root / "Penn_Action", root / "penn_action", root.parent):
        for path in sorted((folder / PHASE_FOLDER).glob("*/*/*.npy")):
            number = re.match(r"\d*", path.stem)[0]
            if path.parts[-3] in ("train", "val") and number:
                found[number].append(path)
        if found:
            break
    return dict(found)


def read_raw(folder: Path, phase_files: Mapping[str, Sequence[Path]], part: str) -> list[Listed]:
    """The videos of one part; those of which neither labels nor split are known are listed, as left out, in both."""
    named = [*(folder / "frames").iterdir(), *(folder / "labels").glob("*.mat")]
    numbers = {path.stem for path in named if path.stem.isdecimal()} | phase_files.keys()
    videos = [_read_video(folder, number, phase_files.get(number, ())) for number in sorted(numbers)]
    return [listed for split, listed in videos if listed is not None and split in (part, "")]


def _read_video(folder: Path, number: str, phase_files: Sequence[Path]) -> tuple[str, Listed | None]:
    """The split of a video, empty where it is not known, and what is listed: nothing for an action without phases."""
    splits = {path.parts[-3] for path in phase_files}
    split = splits.pop() if len(splits) == 1 else ""
    name, mat = number, folder / "labels" / f"{number}.mat"
    try:
        if len(phase_files) > 1:
            raise VideoError(f"it has {len(phase_files)} phase labels: {', '.join(map(str, phase_files))}")
        if not mat.exists() and not phase_files:
            raise VideoError(f"its action and split are not known: {mat} does not exist")
        label = read_label(mat) if mat.exists() else None
        split = split or ("train" if label.train else "val")
        spelled = label.action if label else phase_files[0].parent.name
        name = f"{number}_{find_action(spelled) or spelled}"
        action = known_action(spelled)
        if any(find_action(path.parent.name) != action for path in phase_files):
            raise VideoError(f"{mat} says {label.action}, but its phases are {phase_files[0]}")
    except VideoError as error:
        return split, Listed.left_out(name, str(error))
    if action in WITHOUT_PHASES:
        return split, None
    record = partial(_record, name, action, label, phase_files[0] if phase_files else None)
    return split, Listed(name, partial(_open_frames, folder / "frames" / number), record)


def _open_frames(folder: Path) -> ImageFolder:
    """The frames of one video, which are numbered without a gap."""
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


# label files --------------------------------------------------------------------------------------------------------


def read_label(path: str | Path) -> PennLabel:
    """One label file.

    Raises:
        VideoError: when it is absent, damaged, cut short, or lacks a field, naming the file.
    """
    try:
        fields = read_arrays(Path(path).read_bytes(), FIELDS)
    except (OSError, ValueError) as error:
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
        raise VideoError(f"{path}: {name} is {values.dtype} {values.shape}, wanted numbers (frames, {columns})")
    return values.astype(np.float64)


def _text(values: np.ndarray) -> str:
    return str(values.ravel()[0]) if values.size else ""


def _is_train(path: str | Path, values: np.ndarray) -> bool:
    if values.size != 1 or values.ravel()[0] not in (1, -1):
        raise VideoError(f"{path}: train is {values.tolist()}, wanted 1 (train) or -1 (val)")
    return bool(values.ravel()[0] == 1)
