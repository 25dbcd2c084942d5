"""The clips that a training or a report saw, with marks of their content and labels, and how two such lists differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mvf.data.records import VideoRecord

Manifest = dict[str, dict[str, dict[str, Any]]]  # split -> name -> what is known of the clip

LABELS = {"action": "the action", "phases": "labels", "boxes": "boxes", "masks": "masks"}
NAMED = 5  # clips named in a sentence


def manifest(**splits: Sequence[VideoRecord]) -> Manifest:
    """Lists the clips of each split: number of frames, action, and the marks that the data set gives (see `marks`).

    Only a folder of one's own clips gives marks of content and labels, because it is edited by hand; of published and
    drawn data names, lengths and actions are enough, and cost nothing.
    """
    return {
        split: {r.name: {"frames": r.num_frames, "action": r.action, **r.marks()} for r in records}
        for split, records in splits.items()
    }


def digest(clips: Manifest) -> str:
    """A text that is equal for equal lists."""
    return hashlib.sha256(repr(sorted(_flat(clips).items())).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def changed_clips(before: Manifest, now: Manifest) -> list[str]:
    """Says which clips were added, removed, replaced by other footage, or moved to the other split.

    Example:
        >>> changed_clips({"train": {"a": {"frames": 9}}}, {"train": {"a": {"frames": 7}, "b": {"frames": 9}}})
        ['1 clip added (b)', '1 clip replaced by other footage (a)']
    """
    old, new = _flat(before), _flat(now)
    both = [name for name in new if name in old]
    replaced = [name for name in both if any(_differ(old[name], new[name], key) for key in ("frames", "content"))]
    found = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "replaced by other footage": replaced,
        "moved to the other split": [name for name in both if old[name]["split"] != new[name]["split"]],
    }
    return [f"{_count(len(names))} {what} ({_some(names)})" for what, names in found.items() if names]


def changed_labels(before: Manifest, now: Manifest, kinds: Sequence[str] = tuple(LABELS)) -> list[str]:
    """Says of how many clips the action, phases, boxes or masks changed; `kinds` are keys of `LABELS`.

    Example:
        >>> changed_labels({"val": {"a": {"action": "squat"}}}, {"val": {"a": {"action": "squat", "phases": "0b"}}})
        ['labels of 1 clip changed (a)']
    """
    old, new = _flat(before), _flat(now)
    both = [name for name in new if name in old]
    found = {key: [name for name in both if _differ(old[name], new[name], key)] for key in kinds}
    return [f"{LABELS[key]} of {_count(len(names))} changed ({_some(names)})" for key, names in found.items() if names]


def sides(clips: Manifest) -> dict[str, str]:
    """The split of every clip, by name."""
    return {name: entry["split"] for name, entry in _flat(clips).items()}


def _flat(clips: Manifest) -> dict[str, dict[str, Any]]:
    return {name: {**entry, "split": split} for split, entries in clips.items() for name, entry in entries.items()}


def _differ(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> bool:
    return bool(old.get(key) != new.get(key))


def _count(number: int) -> str:
    return f"{number} clip{'s' * (number != 1)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
