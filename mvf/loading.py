"""Batches of clips: which videos, in what order, and made ahead of the step that takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from mvf.clip import Clip
from mvf.config import Config
from mvf.data import VideoList
from mvf.data.augment import derive_seed
from mvf.data.dataset import VideoDataset, collate
from mvf.data.raw import RawClip
from mvf.data.samplers import action_batches, find_sampler, random_batches

Plan = list[tuple[int, int]]  # (epoch, video) of every clip of a batch
Item = TypeVar("Item")


def epoch_batches(
    config: Config, records: VideoList, epoch: int, sampler: str = "views", world: int = 1
) -> list[list[int]]:
    """Videos of every batch of an epoch, of all processes: a function of seed, epoch and the videos' actions alone."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "order", epoch))
    if find_sampler(sampler).one_action:
        return action_batches([record.action for record in records], config.batch_size, generator, world)
    return random_batches(len(records), config.batch_size, generator, world)


def load_batches(
    dataset: VideoDataset, plans: Sequence[Plan], workers: int, device: torch.device
) -> Iterator[tuple[Plan, Clip | RawClip]]:
    """The batches of `plans`, made ahead: by worker processes, or without any by a thread of this process.

    Close it (or run it to its end) to stop the thread. For a GPU the batches lie in pinned memory.
    """
    on_gpu = device.type == "cuda"
    if workers:
        own = torch.Generator()  # else the loader would draw from the generator of dropout
        settings = {"collate_fn": collate, "num_workers": workers, "pin_memory": on_gpu, "generator": own}
        yield from zip(plans, DataLoader(dataset, batch_sampler=plans, **settings))
        return
    made = (collate([dataset[item] for item in plan]) for plan in plans)
    with closing(read_ahead((clip.pin_memory() for clip in made) if on_gpu else made)) as ahead:
        yield from zip(plans, ahead)


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
