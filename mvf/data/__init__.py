"""Videos and their labels, from any of the datasets that are modules of this package.

A dataset is a module with `find_videos(split, root, *, options...) -> VideoList`; its file name is its name.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mvf.config import Config, nearest
from mvf.data.index import named
from mvf.data.records import Coverage, VideoList, VideoRecord

__all__ = ["Coverage", "VideoList", "VideoRecord", "datasets", "find_config_videos", "find_videos", "layout", "splits"]

SPLITS = ("train", "dev", "val")

logger = logging.getLogger(__name__)


def datasets() -> tuple[str, ...]:
    """Names of all datasets.

    Example:
        >>> "folder" in datasets()
        True
    """
    return tuple(name for name in _modules() if hasattr(importlib.import_module(f"{__name__}.{name}"), "find_videos"))


def find_videos(name: str, split: str = "val", root: str | Path | None = None, **options: Any) -> VideoList:
    """The videos of one split of a dataset, with their labels; nothing is decoded yet but what checking needs.

    Args:
        name: A dataset, like `synthetic` or `folder`.
        split: `train`, `val`, or `dev`: a part of the training videos to choose settings on.
        root: Where its files lie, relative to the working directory; empty: `$MVF_DATA`, else `~/mvf_data`.
        **options: Keywords of that dataset.

    Raises:
        ValueError: for an unknown dataset, split or option (the nearest is named), and for missing or bad data.
    """
    return _usable(_find(name, split, root, options), name, split)


def find_config_videos(config: Config, split: str, allow_empty: bool = False) -> VideoList:
    """The videos of one split of the dataset that `config` names.

    `data_seed` and `fps` reach the datasets that know them; `data_options` overrides both.

    Args:
        config: The settings.
        split: `train`, `dev` or `val`.
        allow_empty: Return an empty list, instead of an error, when none of the videos can be used.
    """
    known = _options(_finder(config.dataset))
    options = {key: getattr(config, key) for key in ("data_seed", "fps")}
    for key, value in options.items():
        if value and key not in known:
            logger.warning("%s=%s changes nothing: %s has no such option", key, value, config.dataset)
    options = {key: value for key, value in options.items() if key in known} | config.data_options
    videos = _find(config.dataset, split, config.data_root, options)
    if config.action:
        videos = _of_action(videos, config.action, split)
    return videos if allow_empty else _usable(videos, config.dataset, split)


def layout(name: str) -> tuple[str, str]:
    """The layouts that a dataset accepts, with `{root}` for its folder, and where its data are published."""
    module = _module(name)
    return getattr(module, "LAYOUT", ""), getattr(module, "SOURCE", "")


def splits(name: str) -> tuple[str, ...]:
    """The splits that a dataset has: all of them, but for one that serves only for training.

    Example:
        >>> splits("penn"), splits("kinetics400")
        (('train', 'dev', 'val'), ('train', 'dev'))
    """
    return getattr(_module(name), "SPLITS", SPLITS)


def _of_action(videos: VideoList, action: str, split: str) -> VideoList:
    """Videos of one action; which actions unreadable videos show is not known, so all of them stay named."""
    actions = sorted({record.action for record in videos})
    if split == "train" and action not in actions:
        raise ValueError(f'no training video shows action "{action}"; {nearest(action, actions)}')
    chosen = VideoList([record for record in videos if record.action == action])
    unreadable = videos.coverage.unreadable
    chosen.coverage = Coverage(len(chosen), len(chosen) + len(unreadable), unreadable)
    chosen.action_assumed = getattr(videos, "action_assumed", False)
    return chosen


def _find(name: str, split: str, root: str | Path | None, options: dict[str, Any]) -> VideoList:
    find = _finder(name)
    if split not in SPLITS:
        raise ValueError(f'unknown split "{split}"; {nearest(split, SPLITS)}')
    known = _options(find)
    for option in options:
        if option not in known:
            raise ValueError(f'{name} has no option "{option}"; {nearest(option, known)}')
    return find(split, root or None, **options)


def _usable(videos: VideoList, name: str, split: str) -> VideoList:
    """Refuses to train on nothing; a validation split of which nothing is left is empty, and its coverage says why."""
    reasons = videos.coverage.unreadable
    if reasons and not videos and split == "train":
        lines = "".join(f"\n  {line}" for line in named(reasons))
        raise ValueError(f"none of the {len(reasons)} {name} {split} videos can be used:{lines}")
    return videos


def _modules() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def _finder(name: str) -> Callable[..., VideoList]:
    return _module(name).find_videos


def _module(name: str) -> ModuleType:
    """The dataset module `name`; only that one is imported."""
    module = importlib.import_module(f"{__name__}.{name}") if name in _modules() else None
    if not hasattr(module, "find_videos"):
        raise ValueError(f'unknown dataset "{name}"; {nearest(name, datasets())}')
    return module


def _options(find: Callable[..., VideoList]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(find).parameters if name not in ("split", "root"))
