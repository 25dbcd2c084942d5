from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mvf.data
from mvf.config import load_config
from mvf.data.augment import Augmentation, evaluation_view
from mvf.data.dataset import VideoDataset, build_dataset, collate
from mvf.data.datasets import Dataset
from mvf.data.records import VideoRecord
from mvf.data.sampling import Settings
from mvf.data.video import VideoError
from mvf.losses import build_loss

from .footage import STEP, picture


class Flat:
    """Frames whose brightness is their number, and a note of which were asked for."""

    identity = "flat"

    def __init__(self, length: int, missing: int = 0, scale: int = 1) -> None:
        self.length, self.missing, self.scale, self.asked = length, missing, scale, []

    def count(self) -> int:
        return self.length

    def frames(self, start=0, stop=None, step=1):
        for number in range(self.length - self.missing)[start:stop:step]:
            self.asked.append(number)
            yield picture(number, 64 * self.scale, 48 * self.scale)


class Store:
    """Features that tell video, view and frame."""

    views = 4

    def __init__(self, cls: bool = True) -> None:
        self.cls = cls

    def read(self, index, view, frame_index):
        told = torch.stack([torch.full_like(frame_index, index), torch.full_like(frame_index, view), frame_index], 1)
        return told[:, None].float().expand(-1, 5, -1), told.float() if self.cls else None

    def velocity(self, index, frame_index):
        return torch.stack([torch.full_like(frame_index, index), frame_index], -1) if self.cls else None


def _clean(frames, seed):
    return evaluation_view(frames, 8)


def _records(phases=True):
    lengths = {"squat1": 30, "squat2": 50, "bowl1": 6}
    annotations = {"squat1": {"phases": partial(np.arange, 30)}} if phases else {}
    return [VideoRecord(name, name[:-1], Flat(n), annotations.get(name, {})) for name, n in lengths.items()]


def _same(one, other):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b
        for a, b in zip(vars(one).values(), vars(other).values())
    )


def test_clips_show_the_frames_they_name():
    dataset = VideoDataset(_records(), 16, augmentation=_clean)
    for index, length in enumerate([30, 50, 6]):
        for epoch in range(5):
            clip = dataset[epoch, index]
            assert clip.frames.shape == (1, 2, 16, 3, 8, 8) and clip.num_frames.tolist() == [length]
            numbers = (clip.frames[..., 0, 6, 6] * 255 / STEP).round().long()
            assert torch.equal(numbers, clip.frame_index)


def test_frames_come_from_the_one_sampler():
    options = {"sampling": "content", "block_rule": "window", "region": 1.1, "overlap": 0.5}
    assert VideoDataset(_records(), 4, augmentation=_clean, **options).settings == Settings(**options)
    for change in [
        {},
        {"sampling": "content"},
        {"block_rule": "sampled"},
        {"region": 1.0},
        {"overlap": 1.0},
        {"views": 3},
    ]:
        options = {"block_rule": "window", **change}
        index = VideoDataset(_records(), 12, augmentation=_clean, **options)[0, 1].frame_index
        assert index.shape == (1, change.get("views", 2), 12)
    with pytest.raises(TypeError, match="regions"):
        VideoDataset(_records(), 4, augmentation=_clean, regions=2)


def test_a_clip_depends_on_seed_epoch_and_video_only():
    def clip(seed=1, epoch=0, name="squat1", workers_state=0):
        torch.manual_seed(workers_state)
        records = [VideoRecord(name, "squat", Flat(30))]
        return VideoDataset(records, 16, seed=seed, augmentation=Augmentation(8))[epoch, 0]

    assert _same(clip(), clip(workers_state=5))
    for change in ({"seed": 2}, {"epoch": 1}, {"name": "squat2"}):
        assert not torch.equal(clip().frame_index, clip(**change).frame_index)
        assert not torch.equal(clip().frames, clip(**change).frames)


def test_views_are_augmented_on_their_own():
    flips = Augmentation(8, (1.0, 1.0), 0.5, (0, 0, 0, 0), 0.0, 0.0)
    records = [VideoRecord(str(n), "squat", Flat(4)) for n in range(40)]
    dataset = VideoDataset(records, 4, region=1.0, augmentation=flips)  # region 1: both views show all frames
    differ = [not torch.equal(*dataset[0, index].frames[0]) for index in range(40)]
    assert 8 < sum(differ) < 32


def test_a_view_keeps_one_draw_however_long():
    """More frames than are decoded at once: all of them flipped, or none."""
    dataset = VideoDataset(
        [VideoRecord("a", "a", Flat(50))], 50, region=1.0, augmentation=Augmentation(8, jitter_probability=0)
    )
    for epoch in range(6):
        corner = dataset[epoch, 0].frames[0, :, :40, 0, 0, 0] > 0.8  # white where not flipped and still dark elsewhere
        assert all(view.all() or not view.any() for view in corner)


def test_only_the_span_of_the_sampled_frames_is_read_and_only_once():
    records = [VideoRecord("a", "a", Flat(400))]
    clip = VideoDataset(records, 8, block_rule="sampled", augmentation=_clean)[0, 0]
    assert records[0].source.asked == list(range(clip.frame_index.min(), clip.frame_index.max() + 1))


def test_phases_follow_the_frames():
    dataset = VideoDataset(_records(), 12, augmentation=_clean)
    clip = dataset[0, 0]
    assert torch.equal(clip.phase[clip.valid], clip.frame_index[clip.valid])
    assert not clip.valid.all() and (clip.phase[~clip.valid] == -1).all()
    assert (dataset[0, 1].phase == -1).all()
    assert VideoDataset(_records(phases=False), 12, augmentation=_clean)[0, 0].phase is None


def test_actions_are_numbered_in_the_order_of_their_names():
    dataset = VideoDataset(_records(), 4, augmentation=_clean)
    assert dataset.actions == ["bowl", "squat"]
    assert [dataset[0, index].action.tolist() for index in range(len(dataset))] == [[1], [1], [0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_are_batched_by_a_loader(workers):
    dataset = VideoDataset(_records(), 8, augmentation=Augmentation(8))
    batches = [[(0, 2), (0, 0)], [(1, 1)]]
    first, second = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)
    assert first.frames.shape == (2, 2, 8, 3, 8, 8) and first.num_frames.tolist() == [6, 30]
    assert _same(second, dataset[1, 1]) and _same(first, collate([dataset[0, 2], dataset[0, 0]]))


def test_a_video_that_gives_fewer_frames_than_it_counted_is_named():
    dataset = VideoDataset([VideoRecord("short", "a", Flat(30, missing=20))], 30, augmentation=_clean)
    with pytest.raises(VideoError, match="short gave .* of .* requested frames"):
        dataset[0, 0]


def test_what_travels_to_the_device_never_takes_more_than_float_frames_and_gives_the_same_clip():
    config = load_config(
        "penn", backbone="dinov2_vits14", num_frames=20, image_size=28
    )  # 4 x 28 x 28 pixels are a few more than 64 x 48
    records = [VideoRecord(f"a{scale}", "a", Flat(60, scale=scale)) for scale in (1, 2, 4)]
    before, after = (
        collate([build_dataset(config, records, build_loss("scl"), raw=raw)[0, index] for index in range(3)])
        for raw in (False, True)
    )
    sent = [next(part for part in vars(video).values() if isinstance(part, torch.Tensor)) for video in after.videos]
    assert [tensor.dtype for tensor in sent] == [torch.uint8, torch.float32, torch.float32]
    assert sum(tensor.nbytes for tensor in sent) <= before.frames.nbytes
    moved = after.to("cpu")
    assert torch.equal(moved.frame_index, before.frame_index) and torch.equal(moved.frames[1:], before.frames[1:])
    torch.testing.assert_close(moved.frames, before.frames, atol=1e-5, rtol=0)  # pieces differ in rounding


# banked -------------------------------------------------------------------------------------------------------------


def test_stored_views_differ_within_a_clip_and_all_are_used():
    dataset = VideoDataset(_records(), 8, store=Store())
    used = set()
    for epoch in range(20):
        clip = dataset[epoch, 1]
        assert clip.frames is None and clip.patches.shape == (1, 2, 8, 5, 3) and clip.cls.shape == (1, 2, 8, 3)
        video, view, frame = clip.patches[0, :, :, 0].unbind(-1)
        assert (video == 1).all() and torch.equal(frame.long(), clip.frame_index[0])
        views = [set(row.tolist()) for row in view]
        assert len(views[0]) == len(views[1]) == 1 and views[0] != views[1]
        used |= views[0] | views[1]
        torch.testing.assert_close(clip.velocity[0], torch.stack([video.long(), clip.frame_index[0]], -1))
    assert used == {0, 1, 2, 3}
    without = VideoDataset(_records(), 8, store=Store(cls=False))[0, 1]
    assert without.cls is None and without.velocity is None


def test_the_same_frames_are_drawn_with_and_without_a_store():
    banked, online = VideoDataset(_records(), 8, store=Store()), VideoDataset(_records(), 8, augmentation=_clean)
    assert torch.equal(banked[3, 1].frame_index, online[3, 1].frame_index)
    assert _same(banked[3, 1], banked[3, 1])


def test_pixels_or_features_but_not_both_or_neither():
    for options in ({}, {"augmentation": _clean, "store": Store()}):
        with pytest.raises(ValueError, match="either an augmentation .* or a store"):
            VideoDataset(_records(), 8, **options)
    with pytest.raises(ValueError, match="5 different views are needed, the store holds 4; raise bank_views"):
        VideoDataset(_records(), 8, views=5, store=Store())


def test_a_config_gives_every_setting():
    settings = {"sampling": "content", "block_rule": "window", "region": 1.2, "overlap": 0.4}
    config = load_config("penn", backbone="dinov2_vits14", num_frames=6, seed=9, image_size=28, **settings)
    dataset = build_dataset(config, _records(), build_loss("tcc"))
    assert (dataset.length, dataset.views, dataset.seed, dataset.settings) == (6, 1, 9, Settings(1, **settings))
    assert dataset[0, 0].frames.shape == (1, 1, 6, 3, 28, 28)
    assert build_dataset(config, _records(), build_loss("scl"), Store()).augmentation is None


# finding ------------------------------------------------------------------------------------------------------------


def test_unknown_names_suggest_the_nearest(tmp_path):
    with pytest.raises(ValueError, match='unknown dataset "foldr"; did you mean "folder"'):
        mvf.data.find_videos("foldr")
    for module in ("video", "os", "../folder", "folder.csv", ""):
        with pytest.raises(ValueError, match="unknown dataset"):
            mvf.data.find_videos(module)
    with pytest.raises(ValueError, match='unknown split "vall"; did you mean "val"'):
        mvf.data.find_videos("folder", split="vall")
    with pytest.raises(ValueError, match='folder has no option "fpss"; did you mean "fps"'):
        mvf.data.find_videos("folder", root=tmp_path, fpss=3)
    with pytest.raises(ValueError, match='folder has no option "root"'):
        mvf.data.find_config_videos(load_config("folder", data_options={"root": "x"}), "val")


def test_a_new_dataset_is_one_function_and_one_line(tmp_path, monkeypatch):
    def find_videos(split, root=None, *, data_seed=0, size=1):
        found = mvf.data.VideoList([])
        found.args = (split, root, data_seed, size)
        return found

    monkeypatch.setitem(mvf.data.DATASETS, "toy", Dataset(find_videos))
    assert mvf.data.find_videos("toy", "train", "here", size=3).args == ("train", "here", 0, 3)
    config = load_config("penn", dataset="toy", data_seed=4, data_root=str(tmp_path), data_options={"size": 2})
    assert mvf.data.find_config_videos(config, "dev").args == ("dev", str(tmp_path), 4, 2)


def test_a_setting_that_a_dataset_does_not_have_is_said(tmp_path, caplog):
    with pytest.raises(ValueError, match="no videos in"):
        mvf.data.find_config_videos(load_config("folder", data_root=str(tmp_path), data_seed=3), "val")
    assert "data_seed=3 changes nothing: folder has no such option" in caplog.text


def test_unusable_videos_are_an_error_unless_allowed(tmp_path):
    (tmp_path / "a.mp4").touch()
    config = load_config("folder", data_root=str(tmp_path))
    with pytest.raises(ValueError, match="none of the 1 folder train videos can be used:\n  a: .*0 bytes"):
        mvf.data.find_config_videos(config, "train")
    videos = mvf.data.find_config_videos(config, "train", allow_empty=True)
    assert videos == [] and list(videos.coverage.unreadable) == ["a"]
