"""Batches: which videos they hold, and loading them ahead of the training steps."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
import torch

import mvf
from mvf.clip import Clip
from mvf.data import loading
from mvf.data.augment import Augmentation
from mvf.data.dataset import AugmentedVideo, RawClip, RawVideo
from mvf.data.records import VideoRecord


def test_batches_hold_every_video_once_and_depend_on_seed_and_epoch_only(tiny):
    config, ten = tiny(batch_size=4), [VideoRecord(str(i), "squat", None) for i in range(10)]
    batches = loading.epoch_batches(config, ten, epoch=3)
    assert sorted(sum(batches, [])) == list(range(10))
    assert batches == loading.epoch_batches(dataclasses.replace(config, epochs=99), ten, epoch=3)
    assert batches != loading.epoch_batches(config, ten, epoch=4)
    assert [len(batch) for batch in loading.epoch_batches(config, ten[:9], epoch=1, world=2)] == [4, 4]


def test_videos_left_out_so_that_processes_share_alike_are_counted_once(tiny, monkeypatch, caplog):
    config, loss = tiny(), mvf.losses.build_loss("scl")
    records = mvf.data.find_config_videos(config, "train")
    loading.check_supervision(loss, records, config)
    assert not caplog.text
    monkeypatch.setattr(loading, "world_size", lambda: 4)
    loading.check_supervision(loss, records, config)
    assert caplog.text.count("leaves out 2 of 6 training videos") == 1


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_items_made_ahead_come_in_order_one_ahead_and_in_a_thread_of_their_own(three_threads):
    made = []

    def items():
        for number in range(5):
            time.sleep(0.02)  # torch meets this thread after the number of the process is restored
            made.append((threading.current_thread().name, torch.get_num_threads()))
            yield number

    for number in loading.read_ahead(items()):
        assert torch.get_num_threads() == 3
        assert number < len(made) <= number + 2
    assert number == 4 and set(made) == {("read_ahead_0", 1)}


def test_an_error_in_the_thread_is_raised_where_the_item_is_asked_for():
    def items():
        yield 1
        raise OSError("squat.mp4 is damaged")

    ahead = loading.read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match=r"squat.mp4 is damaged"):
        next(ahead)


def _batch(kind):
    """A batch of two clips: with pixels, with raw frames, or with augmented ones."""
    clip = Clip(torch.zeros(1, 2, 4).long(), torch.tensor([9]), torch.ones(1, 2, 4, dtype=torch.bool))
    raw = RawVideo(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 4).long(), (0, 1))
    videos = {"raw": raw, "augmented": AugmentedVideo(torch.zeros(2, 4, 3, 8, 8))}
    return [clip if kind == "pixels" else RawClip(clip, (videos[kind],), Augmentation(8))] * 2


def _tensors(item):
    if isinstance(item, torch.Tensor):
        yield item
    for part in item if isinstance(item, tuple) else vars(item).values() if dataclasses.is_dataclass(item) else ():
        yield from _tensors(part)


@pytest.mark.parametrize("kind", ["pixels", "raw", "augmented"])
def test_batches_of_workers_are_in_shared_memory_before_they_are_sent(kind):
    found = list(_tensors(loading._collate_shared(_batch(kind))))
    assert len(found) >= 3 and all(tensor.is_shared() for tensor in found)


@pytest.mark.parametrize("kind", ["pixels", "raw", "augmented"])
def test_shared_memory_that_is_full_is_named(kind, monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)\nException raised from")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(
        OSError, match=r"/dev/shm larger \(docker run --shm-size 2g\), or .* workers=0 .*device \(28\)\)$"
    ):
        loading._collate_shared(_batch(kind))
