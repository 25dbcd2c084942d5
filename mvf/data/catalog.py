"""Finds the videos of a data set by its name, and reports what was found."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvf.config import Config, nearest
from mvf.data.datasets import DATASETS, SPLITS, Dataset
from mvf.data.index import reason_lines
from mvf.data.records import VideoList
from mvf.files import data_folder

SHOWN_ACTIONS = 20

logger = logging.getLogger(__name__)


def find_videos(name: str, split: str = "val", root: str | Path | None = None, **options: Any) -> VideoList:
    """Finds the videos of one split of a data set, with their labels; decodes only what must be checked.

    Args:
        name: Name of a data set, such as `synthetic` or `folder`.
        split: `train`, `val`, or `dev`, a part of the training videos for choosing settings.
        root: Folder of its files, relative to the working directory; empty for `$MVF_DATA`, else `~/mvf_data`.
        **options: Options of that data set.

    Raises:
        ValueError: for an unknown data set, split or option (the message suggests the nearest), or missing or bad data.
    """
    return _usable(_find(name, split, root, options), name, split)


def find_config_videos(
    config: Config, split: str, allow_empty: bool = False, sides: Mapping[str, str] | None = None
) -> VideoList:
    """Finds the videos of one split of the data set that `config` names.

    `data_seed` and `fps` are passed to data sets that have these options; `data_options` overrides both.

    Args:
        config: The settings.
        split: `train`, `dev` or `val`.
        allow_empty: Returns an empty list instead of raising an error if none of the videos can be used.
        sides: The split of videos by name, for a data set that has no splits of its own (a folder).
    """
    known = _options(_dataset(config.dataset).find_videos)
    options = {key: getattr(config, key) for key in ("data_seed", "fps")}
    for key, value in options.items():
        if value and key not in known:
            logger.warning("%s=%s changes nothing: %s has no such option", key, value, config.dataset)
    options = {key: value for key, value in options.items() if key in known} | config.data_options
    if sides and "sides" in known:
        options.setdefault("sides", sides)
    videos = _find(config.dataset, split, config.data_root, options)
    if config.action:
        videos = _of_action(videos, config.action, split)
    return videos if allow_empty else _usable(videos, config.dataset, split)


def layout(name: str) -> tuple[str, str]:
    """Returns the layouts that a data set accepts, with `{root}` for its folder, and where it is published."""
    dataset = _dataset(name)
    return dataset.layout, dataset.source


def splits(name: str) -> tuple[str, ...]:
    """Returns the splits of a data set; one that serves only for training has no `val`.

    Example:
        >>> splits("penn"), splits("kinetics400")
        (('train', 'dev', 'val'), ('train', 'dev'))
    """
    return _dataset(name).splits


def _of_action(videos: VideoList, action: str, split: str) -> VideoList:
    """Selects the videos of one action. Unreadable videos stay in the coverage, because their actions are unknown."""
    actions = sorted({record.action for record in videos})
    if split == "train" and action not in actions:
        raise ValueError(f'no training video shows action "{action}"; {nearest(action, actions)}')
    chosen = videos.only(lambda record: record.action == action)
    if others := [name for name in actions if name != action]:
        left = len(videos) - len(chosen)
        logger.info(
            "action=%s: %d %s videos of other actions are left out (%s)", action, left, split, ", ".join(others)
        )
    chosen.coverage = replace(chosen.coverage, expected=len(chosen) + len(chosen.coverage.unreadable))
    return chosen


def _find(name: str, split: str, root: str | Path | None, options: dict[str, Any]) -> VideoList:
    find = _dataset(name).find_videos
    if split not in SPLITS:
        raise ValueError(f'unknown split "{split}"; {nearest(split, SPLITS)}')
    known = _options(find)
    for option in options:
        if option not in known:
            raise ValueError(f'{name} has no option "{option}"; {nearest(option, known)}')
    return find(split, root or None, **options)


def _usable(videos: VideoList, name: str, split: str) -> VideoList:
    """Raises ValueError if no training video can be used; a validation split may be empty (see its coverage)."""
    reasons = videos.coverage.unreadable
    if reasons and not videos and split == "train":
        lines = "".join(f"\n  {line}" for line in reason_lines(reasons))
        raise ValueError(f"none of the {len(reasons)} {name} {split} videos can be used:{lines}")
    return videos


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f'unknown dataset "{name}"; {nearest(name, DATASETS)}')
    return DATASETS[name]


def _options(find: Callable[..., VideoList]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(find).parameters if name not in ("split", "root"))


def check_lines(config: Config) -> Iterator[str]:
    """Yields what was found, what was left out and why, the accepted layouts, and where the data are published.

    Raises:
        ValueError: if nothing was found, or an annotation file is invalid.
    """
    root = data_folder(config.data_root)
    accepted, source = layout(config.dataset)
    if accepted:
        yield f"{config.dataset} in {root}"
    ignored: dict[str, str] = {}
    for split in ("train", "val"):
        if split not in splits(config.dataset):
            yield f"{split}: none, {config.dataset} serves only for training"
            continue
        with _without_log():  # the same messages follow below
            videos = find_config_videos(config, split, allow_empty=True)
        yield f"{split}: {_found(videos)}"
        yield from (f"  {line}" for line in (*_actions(videos), *_resampled(videos)))
        yield from (f"  left out {line}" for line in reason_lines(videos.coverage.unreadable))
        yield from (f"  used although damaged: {line}" for line in reason_lines(videos.coverage.damaged))
        ignored |= videos.coverage.ignored
    yield from (f"not used: {line}" for line in reason_lines(ignored))
    if accepted:
        yield accepted.format(root=root)
    if source:
        yield f"published: {source}"


def _found(videos: VideoList) -> str:
    labelled = sum(record.phases is not None and bool((record.phases >= 0).any()) for record in videos)
    boxed = sum(not {"actor_box", "actor_mask"}.isdisjoint(record.annotations) for record in videos)
    found = videos.coverage
    return f"{found.found} of {found.expected} videos, {labelled} with phases, {boxed} with actor boxes or masks"


def _actions(videos: VideoList) -> list[str]:
    """Number of videos per action if there are several actions; only the range if there are many."""
    actions = Counter(record.action for record in videos)
    if len(actions) > SHOWN_ACTIONS:
        return [f"{len(actions)} actions of {min(actions.values())} to {max(actions.values())} videos"]
    return [f"{action}: {count}" for action, count in sorted(actions.items())] if len(actions) > 1 else []


def _resampled(videos: VideoList) -> list[str]:
    noted = [record for record in videos if record.note]
    if not noted:
        return []
    first = f"{noted[0].name}: {noted[0].note}"
    return [f"{len(noted)} with different numbers of labels and frames; the longer is resampled ({first})"]


@contextmanager
def _without_log() -> Iterator[None]:
    above = logging.getLogger("mvf.data")
    before = above.level
    above.setLevel(logging.ERROR)
    try:
        yield
    finally:
        above.setLevel(before)
