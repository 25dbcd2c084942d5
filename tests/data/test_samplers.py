"""Samplers of single views and batches of one action: docs/objectives.md, the paragraphs on sampling."""

import itertools

import numpy as np
import pytest
import torch

from mvf.clip import phase_runs
from mvf.data.sampling import (
    SAMPLERS,
    SHORTEST_WINDOW,
    Settings,
    action_batches,
    draw_anchors,
    draw_frames,
    draw_phase,
    draw_segments,
    find_sampler,
    random_batches,
)
from mvf.losses.objective import shared_sampler

ONE_VIEW = Settings(1)
PHASES = np.repeat([-1, 0, 1, 2, 0], [5, 30, 2, 8, 55])  # 100 frames


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(draw, num_frames, length, settings=ONE_VIEW, phases=None, trials=200):
    """Frames (n,) of many draws, without padding."""
    for seed in range(trials):
        index, valid = draw(num_frames, length, generator(seed), settings, phases)
        assert index.shape == valid.shape == (1, length) and index.dtype == torch.long and valid.dtype == torch.bool
        assert ((0 <= index) & (index < num_frames)).all()
        assert valid[0].sort(descending=True, stable=True).indices.tolist() == list(range(length)), "padding is last"
        yield index[0, valid[0]]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_generator_draws_the_same_frames(name):
    draw = SAMPLERS[name].draw
    one, two, other = (draw(100, 12, generator(seed), Settings(), PHASES)[0] for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize(("num_frames", "length"), [(50, 20), (20, 20), (7, 20), (1, 4)])
def test_frames_are_distinct_sorted_and_as_many_as_there_are(num_frames, length):
    for frames in draws(draw_frames, num_frames, length, trials=30):
        assert len(frames) == min(num_frames, length) and (frames.diff() > 0).all()


def test_frames_come_from_the_whole_video():
    seen = torch.cat(list(draws(draw_frames, 40, 10))).bincount(minlength=40)
    assert (seen > 20).all(), "every frame is drawn, 50 times on average"


def test_content_frames_come_from_a_window():
    spans = [frames[-1] - frames[0] + 1 for frames in draws(draw_frames, 100, 90, Settings(1, "content"))]
    assert min(spans) < 60 and min(spans) >= SHORTEST_WINDOW * 100
    for draw in (draw_segments, draw_anchors):
        firsts = [int(frames.min()) for frames in draws(draw, 100, 20, Settings(1, "content"))]
        assert max(firsts) > 20, "windows start anywhere"


def test_segments_give_one_frame_each():
    for frames in draws(draw_segments, 83, 20):
        edges = [83 * part // 20 for part in range(21)]
        assert all(low <= frame < high for frame, low, high in zip(frames.tolist(), edges, edges[1:]))
    for short in draws(draw_segments, 3, 5, trials=5):
        assert short.tolist() == [0, 0, 1, 1, 2], "parts shorter than a frame show the frame they lie in"


def test_anchors_are_followed_by_an_earlier_frame_at_most_five_away():
    gaps = set()
    for frames in draws(draw_anchors, 60, 40):
        anchors, positives = frames[0::2], frames[1::2]
        assert len(anchors) == len(positives) == 20 and (anchors.diff() > 0).all()
        gaps |= set((anchors - positives)[anchors >= 5].tolist())
    assert gaps == {1, 2, 3, 4, 5}
    assert all(len(frames) == 6 for frames in draws(draw_anchors, 3, 40, trials=5)), "short videos have fewer pairs"
    with pytest.raises(ValueError, match="num_frames must be even.*got 7"):
        draw_anchors(60, 7, generator())


def test_a_phase_shows_its_ends_or_its_inside():
    runs = set()
    for frames in draws(draw_phase, 100, 12, phases=PHASES):
        first, stop = next(run for run in phase_runs(PHASES) if run[0] <= frames[0] < run[1])
        runs.add((first, stop))
        assert (frames.diff() >= 0).all() and len(frames) == 12 and frames[-1] < stop
        if stop - first >= 12:
            assert (frames[0], frames[-1]) == (first, stop - 1) and (frames.diff() > 0).all()
        else:  # drawn with replacement from within
            assert first < frames[0] and frames[-1] < stop - 1
    assert runs == {(5, 35), (37, 45), (45, 100)}, "every phase of 3 frames or more, none without a label"


def test_phases_are_needed_where_they_are_drawn_from():
    with pytest.raises(ValueError, match="no labels"):
        draw_phase(100, 12, generator(), Settings(), None)
    with pytest.raises(ValueError, match="0 such phases"):
        draw_phase(4, 12, generator(), Settings(), np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="num_frames 2"):
        draw_phase(100, 2, generator(), Settings(), PHASES)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match='did you mean "frames"'):
        find_sampler("frame")
    with pytest.raises(ValueError, match='sampling must be .* got "contents"'):
        draw_frames(10, 4, generator(), Settings(1, "contents"))
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        draw_segments(0, 4, generator(), Settings(1))


def test_random_batches_hold_every_video_once():
    batches = random_batches(10, 4, generator())
    assert sorted(sum(batches, [])) == list(range(10)) and [len(b) for b in batches] == [4, 4, 2]


@pytest.mark.parametrize("world", [1, 2])
def test_action_batches_hold_one_action_and_every_video(world):
    actions = ["squat"] * 9 + ["bowl"] * 4 + ["jump"] * 2
    for seed in range(20):
        batches = action_batches(actions, 4, generator(seed), world)
        assert set(sum(batches, [])) == set(range(15))
        for batch in batches:
            assert len({actions[video] for video in batch}) == 1 and 2 <= len(batch) <= 4 and len(batch) % world == 0
            assert len(set(batch)) == len(batch), "no video is paired with itself"
    orders = {tuple(actions[batch[0]] for batch in action_batches(actions, 4, generator(seed))) for seed in range(20)}
    assert len(orders) > 3, "actions come in random order"


def test_a_batch_that_cannot_be_filled_is_cut():
    for seed in range(10):
        (batch,) = action_batches(["squat"] * 3, 6, generator(seed), world=2)
        assert len(batch) == len(set(batch)) == 2


def test_an_action_without_a_pair_is_named():
    with pytest.raises(ValueError, match='"bowl" has 1 training video'):
        action_batches(["squat", "squat", "bowl"], 4, generator())
    with pytest.raises(ValueError, match="batch_size must be at least 2.*got 1"):
        action_batches(["squat", "squat"], 1, generator())
    with pytest.raises(ValueError, match="at least 3"):
        action_batches(["squat", "squat"], 3, generator(), world=3)
    for draw in (lambda: random_batches(9, 3, generator(), 2), lambda: action_batches(["a"] * 9, 3, generator(), 2)):
        with pytest.raises(ValueError, match="batch_size must be a multiple of the 2 processes, got 3"):
            draw()


def test_every_combination_that_is_allowed_has_a_sampler():
    allowed = 0
    for one, two in itertools.combinations(SAMPLERS, 2):
        try:
            allowed += shared_sampler({"one": one, "two": two}) in SAMPLERS
        except ValueError:
            assert {"anchors", "phase"} & {one, two}
    assert allowed == 10
