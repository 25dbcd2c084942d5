"""What would be found of a dataset, in words: nothing is trained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mvf.config import Config
from mvf.data import VideoList, find_config_videos, layout, splits
from mvf.data.index import named
from mvf.files import data_folder

SHOWN_ACTIONS = 20


def check_lines(config: Config) -> Iterator[str]:
    """What is found, what is left out and why, the layouts that are accepted, and where the data are published.

    Raises:
        ValueError: if nothing is there, and for annotation files that are not what they should be.
    """
    root = data_folder(config.data_root)
    accepted, source = layout(config.dataset)
    if accepted:
        yield f"{config.dataset} in {root}"
    for split in ("train", "val"):
        if split not in splits(config.dataset):
            yield f"{split}: none, {config.dataset} serves only for training"
            continue
        with _without_log():  # the same is said below
            videos = find_config_videos(config, split, allow_empty=True)
        yield f"{split}: {_found(videos)}"
        yield from (f"  {line}" for line in (*_actions(videos), *_resampled(videos)))
        yield from (f"  left out {line}" for line in named(videos.coverage.unreadable))
    if accepted:
        yield accepted.format(root=root)
    if source:
        yield f"published: {source}"


def _found(videos: VideoList) -> str:
    labelled = sum("phases" in record.annotations for record in videos)
    boxed = sum(not {"actor_box", "actor_mask"}.isdisjoint(record.annotations) for record in videos)
    found = videos.coverage
    return f"{found.found} of {found.expected} videos, {labelled} with phases, {boxed} with actor boxes or masks"


def _actions(videos: VideoList) -> list[str]:
    """Number of videos of each action, where there are several actions; of many actions only the range."""
    actions = Counter(record.action for record in videos)
    if len(actions) > SHOWN_ACTIONS:
        return [f"{len(actions)} actions of {min(actions.values())} to {max(actions.values())} videos"]
    return [f"{action}: {count}" for action, count in sorted(actions.items())] if len(actions) > 1 else []


def _resampled(videos: VideoList) -> list[str]:
    noted = [record for record in videos if record.note]
    if not noted:
        return []
    first = f"{noted[0].name}: {noted[0].note}"
    return [f"{len(noted)} whose labels and frames differ in number, the longer resampled ({first})"]


@contextmanager
def _without_log() -> Iterator[None]:
    logger = logging.getLogger("mvf.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
