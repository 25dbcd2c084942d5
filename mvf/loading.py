"""Batches of clips: which videos, in what order, and made ahead of the step that takes them."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby, tee
from typing import TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader

from mvf.clip import Clip, phase_runs
from mvf.config import Config
from mvf.data import VideoList
from mvf.data.augment import derive_seed
from mvf.data.dataset import VideoDataset, collate, draw_clip, first_view
from mvf.data.raw import RawClip
from mvf.data.samplers import Settings, action_batches, find_sampler, random_batches
from mvf.device import is_main_process, world_size

logger = logging.getLogger(__name__)

Plan = list[tuple[int, int]]  # (epoch, video) of every clip of a batch
Item = TypeVar("Item")
PATIENCE = 5.0  # seconds until a worker whose pipe is torn has surely ended
FROM_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\nOriginal ")


def epoch_batches(
    config: Config, records: VideoList, epoch: int, sampler: str = "views", world: int = 1
) -> list[list[int]]:
    """Videos of every batch of an epoch, of all processes: a function of seed, epoch and the videos' actions alone."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "order", epoch))
    if find_sampler(sampler).one_action:
        return action_batches([record.action for record in records], config.batch_size, generator, world)
    return random_batches(len(records), config.batch_size, generator, world)


def load_batches(
    dataset: VideoDataset, plans: Iterable[Plan], workers: int, device: torch.device
) -> Iterator[tuple[Plan, Clip | RawClip]]:
    """The batches of `plans`, made ahead: by worker processes, or without any by a thread of this process.

    A plan is asked for when its batch is about to be made, without workers in that thread. Where stored views are
    renewed that happens here, between the last batch of an epoch and the first of the next. Close it (or run it to its
    end) to stop the thread. For a GPU the batches lie in pinned memory.
    """
    for first, part in groupby(plans, lambda plan: first_view(plan[0][0], dataset.renew)):
        if dataset.renew and dataset.store is not None:
            dataset.store.move_to(first)
        yield from _made_ahead(dataset, part, workers, device)


def _made_ahead(
    dataset: VideoDataset, plans: Iterator[Plan], workers: int, device: torch.device
) -> Iterator[tuple[Plan, Clip | RawClip]]:
    on_gpu = device.type == "cuda"
    if workers:
        own = torch.Generator()  # else the loader would draw from the generator of dropout
        settings = {"collate_fn": collate, "num_workers": workers, "pin_memory": on_gpu, "generator": own}
        plans, sent = tee(plans)
        yield from zip(plans, _from_workers(DataLoader(dataset, batch_sampler=sent, **settings)))
        return
    made = ((plan, collate([dataset[item] for item in plan])) for plan in plans)
    with closing(read_ahead(((plan, clip.pin_memory()) for plan, clip in made) if on_gpu else made)) as ahead:
        yield from ahead


def _from_workers(batches: Iterable[Item]) -> Iterator[Item]:
    """The batches; what a worker raises says what it would say without workers.

    A pipe torn by a worker that is dying is named as its death, which the loader may not see yet.
    """
    try:
        yield from batches
    except Exception as error:
        if (own := _own_error(error)) is not None:
            raise own from error
        if isinstance(error, ConnectionError | EOFError) and not FROM_WORKER.search(str(error)):
            time.sleep(PATIENCE)  # the signal of its death raises here and says more; later it would raise anywhere
            raise RuntimeError(f"DataLoader worker (pid unknown) hung up: {error!r}") from error
        raise


def _own_error(error: Exception) -> Exception | None:
    """An error raised in a living worker with its own message, which torch puts below the worker's traceback.

    Of kinds that cannot be made from a message torch makes a RuntimeError; it then begins with the kind. None for
    other errors, and where no message is found.
    """
    said = error.args[0] if error.args else ""
    caught = FROM_WORKER.match(said) if isinstance(said, str) else None
    if caught is None:
        return None
    last = said.rpartition("Traceback (most recent call last):\n")[2]
    found = re.search(rf"^(?:[\w.<>]+\.)?{caught[1]}(?:: (.*))?\Z", last.rstrip("\n"), re.MULTILINE | re.DOTALL)
    if found is None:
        return None
    text = found[1] or ""
    if type(error).__name__ != caught[1]:
        text = f"{caught[1]}: {text}"
    return type(error)(type(said)(text))  # torch gives a KeyError a kind of text that is not quoted twice


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each made in a thread while the one before it is used; so two are in memory at once, never more.

    What making an item raises is raised where it is asked for. In the thread torch computes with one thread: with more,
    two sets of threads would wait for each other on the same cores.
    """
    threads, made, wanted, stopped = torch.get_num_threads(), _Made(), threading.Semaphore(), threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, wanted, stopped), name="read_ahead", daemon=True)
    thread.start()
    made.started.wait()
    torch.set_num_threads(threads)  # the thread's number is also that of threads to come
    try:
        while True:
            made.ready.acquire()
            if made.error is not None:
                raise made.error
            if made.ended:
                return
            item, made.item = made.item, None
            wanted.release()
            yield item
            del item  # before the next one is waited for
    finally:
        stopped.set()
        wanted.release()
        thread.join()


class _Made:
    """What the thread hands over, one item at a time."""

    def __init__(self) -> None:
        self.started, self.ready = threading.Event(), threading.Semaphore(0)
        self.item, self.error, self.ended = None, None, False


def _make(items: Iterable[Item], made: _Made, wanted: threading.Semaphore, stopped: threading.Event) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # torch sets a thread up at its first use: now, or it would take the number restored below
    made.started.set()
    try:
        source = iter(items)
        while wanted.acquire() and not stopped.is_set():
            made.item = next(source)
            made.ready.release()
    except StopIteration:
        made.ended = True
    except BaseException as error:  # whatever it is, it belongs to the thread that trains
        made.error = error
    made.ready.release()


def check_supervision(loss: nn.Module, records: VideoList, config: Config) -> None:
    """Refuses data that do not have what an objective needs: labels, pairs, numbers of frames."""
    if "phase" in loss.labels or "frame" in loss.labels:
        without = [record.name for record in records if record.phases is None or not phase_runs(record.phases)]
        if without:
            raise ValueError(
                f'objective "{config.objective}" needs {loss.labels} labels, and {len(without)} of {len(records)} '
                f"training videos of {config.dataset} have no labelled phase of 3 frames or more ({without[0]}, ...): "
                'add phases, leave these videos out, or choose an objective without labels such as "scl"'
            )
    batches = epoch_batches(config, records, 1, loss.sampler, world_size())  # an action without a pair is named now
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
    )  # a clip that cannot be drawn is named now
