"""Batches of clips: their videos and order, and loading them ahead of the training steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields, is_dataclass
from itertools import tee
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from mvf.clip import Clip, phase_runs
from mvf.config import Config
from mvf.data import VideoList
from mvf.data.augment import derive_seed
from mvf.data.dataset import Needs, RawClip, VideoDataset, collate, draw_clip
from mvf.data.records import read_ahead
from mvf.data.sampling import Settings, action_batches, find_sampler, random_batches
from mvf.device import is_main_process, world_size

logger = logging.getLogger(__name__)

Plan = list[tuple[int, int]]  # (epoch, video) of every clip of a batch
Item = TypeVar("Item")
FROM_WORKER = "in DataLoader worker process"  # torch's message above the traceback of a worker
NO_ROOM = (
    "a batch does not fit into shared memory: make /dev/shm larger (docker run --shm-size 2g), or load without worker "
    "processes, workers=0"
)
PATIENCE = 5.0  # seconds after which a worker with a broken pipe has certainly ended


def epoch_batches(
    config: Config, records: VideoList, epoch: int, sampler: str = "views", world: int = 1
) -> list[list[int]]:
    """Returns the videos of every batch of an epoch, for all processes, from seed, epoch and the videos' actions."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "order", epoch))
    if find_sampler(sampler).one_action:
        return action_batches([record.action for record in records], config.batch_size, generator, world)
    return random_batches(len(records), config.batch_size, generator, world)


def load_batches(
    dataset: VideoDataset, plans: Iterable[Plan], workers: int, device: torch.device
) -> Generator[tuple[Plan, Clip | RawClip], None, None]:
    """Loads the batches of `plans` ahead, in worker processes, or in a thread if there are none.

    A plan is read just before its batch is made; without workers the thread reads it. Close or exhaust the iterator to
    stop the thread. For a GPU the batches are in pinned memory.
    """
    on_gpu = device.type == "cuda"
    if workers:
        own = torch.Generator()  # otherwise the loader would use the generator of dropout
        plans, sent = tee(plans)
        loader = DataLoader(
            dataset,
            batch_sampler=sent,
            collate_fn=_collate_shared,
            num_workers=workers,
            pin_memory=on_gpu,
            generator=own,
        )
        yield from zip(plans, _from_workers(loader))
        return
    made = ((plan, collate([dataset[item] for item in plan])) for plan in plans)
    with closing(read_ahead(((plan, clip.pin_memory()) for plan, clip in made) if on_gpu else made)) as ahead:
        yield from ahead


def _collate_shared(clips: Sequence[Clip | RawClip]) -> Clip | RawClip:
    """Joins clips in a worker, in shared memory: an error here is sent, one of torch's sending thread never ends."""
    batch = collate(clips)
    try:
        _share(batch)
    except RuntimeError as error:
        raise OSError(f"{NO_ROOM} ({str(error).partition(chr(10))[0]})") from None
    return batch


def _share(item: Any) -> None:
    """Moves every tensor of a batch to shared memory."""
    if isinstance(item, torch.Tensor):
        item.share_memory_()
    elif isinstance(item, tuple):
        for part in item:
            _share(part)
    elif is_dataclass(item):
        for part in fields(item):
            _share(getattr(item, part.name))


def _from_workers(batches: Iterable[Item]) -> Iterator[Item]:
    """Yields the batches; an error in a worker is raised as torch gives it, with one line on top."""
    try:
        yield from batches
    except Exception as error:
        if FROM_WORKER in str(error):
            reason = str(error).rpartition("\n  ")[2].partition("\n")[2].strip()  # after the lines of its traceback
            # without its traceback, which would keep the iterator and its workers alive until they are collected
            raise ChildProcessError(f"a worker that reads data failed: {reason}") from error.with_traceback(None)
        if isinstance(error, ConnectionError | EOFError):
            time.sleep(PATIENCE)  # a worker is dying, and torch's signal handler will raise a more helpful error here
            raise RuntimeError(f"DataLoader worker (pid unknown) hung up: {error!r}") from error
        raise


def check_supervision(loss: Needs, records: VideoList, config: Config) -> None:
    """Raises ValueError if the data lack what an objective needs: labels, pairs of videos, enough frames."""
    if "phase" in loss.labels or "frame" in loss.labels:
        without = [record.name for record in records if record.phases is None or not phase_runs(record.phases.tolist())]
        if without:
            raise ValueError(
                f'objective "{config.objective}" needs {loss.labels} labels, and {len(without)} of {len(records)} '
                f"training videos of {config.dataset} have no labelled phase of 3 frames or more ({without[0]}, ...): "
                'add phases, leave these videos out, or choose an objective without labels such as "scl"'
            )
    batches = epoch_batches(config, records, 1, loss.sampler, world_size())  # raises now if an action has no pair
    left_out = len(records) - len(set().union(*batches))
    if left_out and is_main_process():
        logger.warning(
            "every epoch leaves out %d of %d training videos, not always the same: batches are cut to a multiple of "
            "the %d processes",
            *(left_out, len(records), world_size()),
        )
    shortest = min(records, key=lambda record: record.num_frames)
    settings = Settings(loss.views, config.sampling, config.block_rule, config.region, config.overlap)
    draw_clip(
        find_sampler(loss.sampler), shortest, config.num_frames, torch.Generator(), settings, loss.fewest
    )  # raises now if no clip can be drawn
