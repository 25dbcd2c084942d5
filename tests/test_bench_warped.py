"""A warped video shows exactly the frames it names, labels with them, and reads no more than it must."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from bench.warped import random_warp, warped
from mvf.data import find_videos
from mvf.data.records import VideoRecord


@dataclass
class Counting:
    """Twelve frames of one number each; remembers what was read."""

    identity: str = "twelve"
    read: list = field(default_factory=list)

    def count(self):
        return 12

    def frames(self, start=0, stop=None, step=1):
        for i in range(12)[start:stop:step]:
            self.read.append(i)
            yield np.full((2, 3, 3), i, np.uint8)


def record(source=None):
    labels = {"phases": lambda: np.arange(12) // 4, "actor_box": lambda: np.arange(48.0).reshape(12, 4)}
    return VideoRecord("twelve", "count", source or Counting(), labels, ("a", "b", "c"))


def shown(video, *arguments):
    return [int(frame[0, 0, 0]) for frame in video.frames(*arguments)]


@pytest.mark.parametrize("index", [[3], [2, 2, 5, 7, 7], [5, 4, 9, 0, 0], list(range(12))])
def test_frames_and_labels_are_those_named(index):
    video = warped(record(), index)
    assert video.num_frames == len(index) and shown(video) == index
    assert shown(video, 1, 4, 2) == index[1:4:2]
    assert video.phases.tolist() == [i // 4 for i in index]
    assert (video.actor_box() == record().actor_box()[index]).all() and video.actor_mask() is None
    assert video.phase_names == ("a", "b", "c")


def test_an_order_that_never_goes_back_is_one_reading_of_the_range():
    source = Counting()
    assert shown(warped(record(source), [4, 4, 6, 9])) == [4, 4, 6, 9]
    assert source.read == list(range(4, 10))


def test_nothing_is_read_before_it_is_asked_for():
    source = Counting()
    frames = warped(record(source), [1, 1, 2, 11]).frames()
    assert source.read == []
    next(frames), next(frames)
    assert source.read == [1]


def test_other_orders_have_other_names_and_identities():
    videos = [warped(record(), index) for index in ([1, 2], [2, 1])]
    again = warped(record(), [1, 2])
    assert len({v.name for v in videos}) == len({v.source.identity for v in videos}) == 2
    assert (again.name, again.source.identity) == (videos[0].name, videos[0].source.identity)


def test_masks_of_a_drawn_video_go_along():
    video = find_videos("synthetic", "val", val_videos=1, height=48, width=56)[0]
    index = [7, 7, 3]
    assert (warped(video, index).actor_mask() == video.actor_mask()[index]).all()
    assert (warped(video, index).load() == video.load()[index]).all()


def test_a_warp_is_a_window_at_a_tempo_within_bounds():
    lengths, starts = [], set()
    for seed in range(200):
        index = random_warp(100, np.random.default_rng(seed))
        steps = np.diff(index)
        assert 0 <= index[0] and index[-1] < 100 and steps.min() >= 0 and steps.max() <= 2
        for t in range(0, len(index) - 20, 5):  # rounding moves each end by half a frame
            assert 0.6 * 20 - 1 <= index[t + 20] - index[t] <= 1.6 * 20 + 1
        lengths.append(index[-1] - index[0] + 1)
        starts.add(int(index[0]))
    assert min(lengths) >= 48 and max(lengths) <= 80 and np.mean(lengths) == pytest.approx(65, abs=2)
    assert len(starts) > 30


def test_a_warp_follows_its_arguments_and_generator():
    def draw(seed=0, **options):
        return random_warp(80, np.random.default_rng(seed), **options)

    assert (draw() == draw()).all() and draw(1).tolist() != draw().tolist()
    assert draw(share=(1, 1), tempo=(1, 1)).tolist() == list(range(80))
    assert draw(share=(1, 1), tempo=(0.5, 0.5)).tolist()[:4] == [0, 0, 1, 2]
    assert draw(pieces=1).tolist() != draw(pieces=9).tolist()
    assert random_warp(1, np.random.default_rng(0)).tolist() == [0]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "at least one frame"),
        ([0.5], "integers"),
        ([[1]], r"\(1, 1\)"),
        ([12], "frames 0 to 11 of twelve"),
        ([-1], "got -1"),
    ],
)
def test_an_index_that_is_none_is_refused(index, message):
    with pytest.raises(ValueError, match=message):
        warped(record(), index)


def test_ranges_that_are_none_are_refused():
    generator = np.random.default_rng(0)
    for options in ({"share": (0, 0.5)}, {"share": (0.8, 0.5)}, {"tempo": (0, 1)}, {"share": (0.5, 1.1)}):
        with pytest.raises(ValueError, match="share must be a range"):
            random_warp(50, generator, **options)
    with pytest.raises(ValueError, match="at least one frame and one piece, got 0"):
        random_warp(0, generator)
