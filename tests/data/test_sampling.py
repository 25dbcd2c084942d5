"""Frames of the views, samplers of single views, and batches: docs/objectives.md, the paragraphs on sampling."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from mvf.clip import phase_runs
from mvf.data import sampling
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
    sample_views,
)
from mvf.losses.objective import shared_sampler

RULES = [
    {"block_rule": "length"},
    {"block_rule": "sampled"},
    {"block_rule": "window"},
    {"sampling": "content"},
    {"block_rule": "sampled", "views": 3, "overlap": 1.0},
    {"sampling": "content", "views": 4},
]
SIZES = [(200, 32), (33, 32), (32, 32), (20, 32), (2, 8), (1, 4)]


def _draw(seed, num_frames=200, length=32, **options):
    return sample_views(num_frames, length, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("options", RULES)
@pytest.mark.parametrize("num_frames, length", SIZES)
def test_views_are_sorted_distinct_frames_then_padding(options, num_frames, length):
    for seed in range(20):
        index, valid = _draw(seed, num_frames, length, **options)
        assert index.shape == valid.shape == (options.get("views", 2), length)
        assert (index.dtype, valid.dtype) == (torch.int64, torch.bool)
        for frames, real in zip(index, valid):
            assert real.any() and (real.int().diff() <= 0).all()
            assert (frames[real].diff() > 0).all()
            assert 0 <= frames[real].min() and frames.max() <= num_frames - 1
            assert (frames[~real] == num_frames - 1).all()


@pytest.mark.parametrize("options", RULES)
def test_the_generator_alone_decides(options):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = _draw(1, **options), _draw(1, **options), _draw(2, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    "change",
    [{"num_frames": 190}, {"length": 30}, {"views": 3}, {"sampling": "content"}, {"region": 1.2}]
    + [{"overlap": 1.0}, {"block_rule": "length"}],
)
def test_every_argument_changes_the_views(change):
    default = {"block_rule": "sampled"}
    seeds = range(5)
    assert [_draw(seed, **default)[0].tolist() for seed in seeds] != [
        _draw(seed, **{**default, **change})[0].tolist() for seed in seeds
    ]


def test_block_rules_differ_where_the_video_is_shorter_than_the_view():
    drawn = [_draw(0, 20, 32, block_rule=rule)[0].tolist() for rule in ("length", "sampled", "window")]
    assert drawn[0] == drawn[1] != drawn[2]  # L = n here, below T


# the published rule -------------------------------------------------------------------------------------------------


def test_published_views_equal_a_plain_copy_of_the_rule(monkeypatch):
    """Draws what the text says, with the same stream of random numbers."""
    for rule in ("length", "sampled", "window"):
        for seed in range(30):
            generator = torch.Generator().manual_seed(seed)
            num_frames, length, first, expected = 150, 40, None, []
            n = min(num_frames, length)
            for _ in range(2):
                r = 1 + 0.5 * torch.rand((), generator=generator, dtype=torch.float64).item()
                block = math.ceil(r * {"length": num_frames, "sampled": n, "window": length}[rule])
                low, high = 0, max(num_frames - block, 1)
                if first is not None:
                    s = math.floor(0.8 * n)
                    low = max(0, min(num_frames - block, first - s))
                    high = max(1, min(num_frames - block + 1, first + s + 1))
                offset = torch.randint(low, high, (), generator=generator).item()
                chosen = sorted((offset + torch.randperm(block, generator=generator)[:n]).tolist())
                first = chosen[0] if first is None else first
                expected.append([f if f < num_frames else num_frames for f in chosen] + [num_frames] * (length - n))
            expected = torch.tensor(expected)
            index, valid = _draw(seed, num_frames, length, block_rule=rule)
            assert torch.equal(index, expected.clamp(max=num_frames - 1))
            assert torch.equal(valid, expected < num_frames)


def test_offset_is_always_zero_when_the_block_is_longer_than_the_video(monkeypatch):
    """Penn Action and Kinetics: the block starts at 0 whatever is drawn."""
    offsets, distinct = [], sampling.distinct
    monkeypatch.setattr(sampling, "distinct", lambda start, *rest: offsets.append(start) or distinct(start, *rest))
    for seed in range(200):
        _draw(seed, 100, 80)
    assert set(offsets) == {0}
    for seed in range(200):
        _draw(seed, 100, 20, block_rule="sampled")
    assert len(set(offsets)) > 40


def test_first_frame_of_a_published_view_is_distributed_as_by_thinning():
    """Without stretching (region 1) the first of n of L frames is i with probability C(L-1-i, n-1) / C(L, n)."""
    draws, num_frames, length = 3000, 12, 4
    first = Counter(_draw(seed, num_frames, length, region=1.0)[0][0, 0].item() for seed in range(draws))
    for position in range(6):
        wanted = math.comb(num_frames - 1 - position, length - 1) / math.comb(num_frames, length)
        spread = math.sqrt(wanted * (1 - wanted) / draws)
        assert abs(first[position] / draws - wanted) < 4 * spread


def test_published_views_hold_about_n_over_r_frames():
    """The mean of 1/r for r uniform in [1, 1.5] is 2 ln 1.5 = 0.81; up to a third is padding."""
    shares = torch.tensor([_draw(seed, 300, 80)[1].float().mean().item() for seed in range(300)])
    assert abs(shares.mean() - 2 * math.log(1.5)) < 0.01
    assert all(_draw(seed, 300, 80, region=1.0)[1].all() for seed in range(10))


def test_later_views_start_near_the_first():
    """With overlap 1 the second block starts at the first view's first frame, where the video is long enough."""
    for seed in range(50):
        index, _ = _draw(seed, 1000, 20, block_rule="sampled", region=1.0, overlap=1.0)
        assert index[1, 0] == index[0, 0] or index[0, 0] > 1000 - 20
    gaps = [abs(int((_draw(seed, 1000, 20, block_rule="sampled")[0][:, 0]).diff())) for seed in range(200)]
    assert 10 < max(gaps) <= 16 + 10  # 0.8 n, and what thinning a block of at most 30 to 20 leaves out


def test_a_view_of_nothing_but_padding_is_drawn_again():
    for seed in range(300):
        assert _draw(seed, 30, 2)[1].any(dim=1).all()
        assert _draw(seed, 2, 40, block_rule="window")[1].any(dim=1).all()


# content ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [2, 7, 60, 333])
def test_content_windows_are_as_promised(num_frames):
    starts, shares, overlaps = set(), [], []
    for seed in range(400):
        one, other = windows = sampling.content_windows(num_frames, 2, torch.Generator().manual_seed(seed))
        for start, size in windows:
            assert 0.4 * num_frames <= size <= num_frames and 0 <= start <= num_frames - size
            starts.add(start)
            shares.append(size / num_frames)
        shared = len(set(range(one[0], sum(one))) & set(range(other[0], sum(other))))
        overlaps.append(shared / min(one[1], other[1]))
    assert min(overlaps) >= 0.4
    if num_frames > 50:
        assert min(shares) < 0.45 and max(shares) > 0.95
        assert max(starts) > 0.5 * num_frames and min(overlaps) < 0.5


def test_no_content_view_is_special():
    first, second = torch.stack([_draw(seed, sampling="content")[0][:, 0] for seed in range(600)]).float().T
    assert abs(first.mean() - second.mean()) < 8


def test_content_views_hold_as_many_frames_as_their_window():
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        windows = sampling.content_windows(50, 2, generator)
        index, valid = _draw(seed, 50, 32, sampling="content")
        for (start, size), frames, real in zip(windows, index, valid):
            assert real.sum() == min(32, size)
            assert start <= frames[real].min() and frames[real].max() < start + size


def test_position_in_a_content_view_says_less_about_position_in_the_video():
    def spread_of_first(**options):
        return torch.stack([_draw(seed, **options)[0][0, 0] for seed in range(300)]).float().std()

    assert spread_of_first(sampling="content") > 3 * spread_of_first()


# bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"views": 0}, "views must be at least 1, got 0"),
        ({"region": 0.5}, "region must be at least 1, got 0.5"),
        ({"overlap": 1.5}, r"overlap must be in \[0, 1\], got 1.5"),
        ({"sampling": "contents"}, 'must be "published" or "content", got "contents"'),
        ({"block_rule": "len"}, 'block_rule must be one of length, sampled, window, got "len"'),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        _draw(0, **options)


# samplers and batches -------------------------------------------------------------------------------------------------

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
