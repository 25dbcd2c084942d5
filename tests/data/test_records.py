"""Frames at given positions are those of the whole video to the bit, and no others are read, converted or drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.warped import warped
from mvf.data import find_videos, video
from mvf.data.dataset import wanted_frames
from mvf.data.datasets.synthetic import SyntheticVideo
from mvf.data.formats import read_examples
from mvf.data.labels import ThinnedSource
from mvf.data.records import VideoRecord
from mvf.data.video import Excerpt, ImageFolder, VideoError, VideoFile

from .footage import number_of, picture, write_images, write_video
from .penn_disk import sequence_example, write_tfrecord

WANTED = [1, 2, 5, 9]


class Plain:
    """A source that can only iterate."""

    identity = "plain"

    def count(self):
        return 20

    def frames(self, start=0, stop=None, step=1):
        return (picture(number) for number in range(20)[start:stop:step])


def record_of_a_shard(folder):
    (example,) = read_examples(write_tfrecord(folder / "shard", [sequence_example("a", 20, None)]))
    return example.frames


def drawn():
    return find_videos("synthetic", "val", val_videos=1, height=48, width=56)[0]


SOURCES = {
    "file": lambda folder: VideoFile(write_video(folder / "a.mp4", 20)),
    "faster": lambda folder: VideoFile(write_video(folder / "a.mp4", 20), fps=70),
    "excerpt": lambda folder: Excerpt(write_video(folder / "a.mp4", 30), 0.2, 0.8),
    "images": lambda folder: ImageFolder(write_images(folder / "images", 20)),
    "record": record_of_a_shard,
    "thinned": lambda folder: ThinnedSource(VideoFile(write_video(folder / "a.mp4", 20)), 13),
    "thinned plain": lambda folder: ThinnedSource(Plain(), 13),
    "warped": lambda folder: warped(VideoRecord("a", "a", Plain()), [4, 7, 7, 2, 3, 3, 9, 19, 0, 0]).source,
    "drawn": lambda folder: drawn().source,
    "plain": lambda folder: Plain(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_frames_at_positions_are_those_of_the_whole_video_to_the_bit(tmp_path, name):
    record = VideoRecord("a", "a", SOURCES[name](tmp_path))
    whole = list(record.frames(0, 10))
    np.testing.assert_array_equal(list(record.frames_at(WANTED)), [whole[position] for position in WANTED])
    assert list(record.frames_at([])) == []


def read(source, wanted=WANTED):
    return torch.cat([frames for _, frames in wanted_frames(VideoRecord("a", "a", source), torch.tensor(wanted))])


def test_of_a_folder_only_the_wanted_images_are_read(tmp_path, monkeypatch):
    source, opened, real = ImageFolder(write_images(tmp_path / "images")), [], video.read_image
    assert source.count() == 12
    monkeypatch.setattr(video, "read_image", lambda path: (opened.append(int(path.stem)), real(path))[1])
    assert [number_of(frame.permute(1, 2, 0).numpy()) for frame in read(source)] == opened == WANTED


def test_an_image_that_breaks_after_it_was_counted_matters_only_where_it_is_wanted(tmp_path):
    source = ImageFolder(write_images(tmp_path / "images"))
    assert source.count() == 12
    (tmp_path / "images" / "3.png").write_bytes(b"broken")
    assert len(read(source)) == len(WANTED)
    with pytest.raises(VideoError, match="3.png: not an image, or damaged"):
        read(source, [1, 3])


def test_of_a_video_file_only_the_wanted_frames_are_converted(tmp_path, monkeypatch):
    source, converted, real = VideoFile(write_video(tmp_path / "a.mp4")), [], video._upright
    monkeypatch.setattr(video, "_upright", lambda *args: (converted.append(0), real(*args))[1])
    assert len(read(source)) == len(converted) == len(WANTED)


def test_only_the_wanted_frames_are_drawn_in_another_order_too(monkeypatch):
    record, frames, real = drawn(), [], SyntheticVideo._render
    monkeypatch.setattr(SyntheticVideo, "_render", lambda self, frame: (frames.append(frame), real(self, frame))[1])
    read(warped(record, [4, 4, 9, 2, 8]).source, [0, 1, 2, 4])
    assert frames == [4, 9, 8]
