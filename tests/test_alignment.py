"""Alignment equals plain loops, is monotone where it says so, and refuses what it cannot align."""

from dataclasses import dataclass

import numpy as np
import pytest
from dtaidistance import dtw

from mvf.alignment import align, align_all, alignment_path, transfer_phases


@dataclass(frozen=True)
class Clip:
    embeddings: np.ndarray
    phases: np.ndarray | None = None
    name: str = "clip"


def draw(length, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(length, width))


def distances(a, b):
    return np.square(a[:, None] - b).sum(-1)


def cheapest(cost, open_ends):
    """Cost of the cheapest path by a plain loop over the table."""
    total = np.full(cost.shape, np.inf)
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            before = [total[s] for s in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if min(s) >= 0]
            if i == 0 and (j == 0 or open_ends):
                before.append(0)
            total[i, j] = cost[i, j] + min(before)
    return total[-1].min() if open_ends else total[-1, -1]


@pytest.mark.parametrize("open_ends", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_path_is_the_cheapest_of_all_monotone_paths(open_ends, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(dtw, "dtw_cc", None)
    sizes = np.random.default_rng(0).integers(1, 12, (60, 3))
    for seed, (ta, tb, width) in enumerate(sizes):
        a, b = draw(ta, width, seed), draw(tb, width, seed + 1000)
        path = alignment_path(a, b, open_ends)
        assert distances(a, b)[tuple(path.T)].sum() == pytest.approx(cheapest(distances(a, b), open_ends))
        assert set(map(tuple, np.diff(path, axis=0))) <= {(0, 1), (1, 0), (1, 1)}
        assert path[0, 0] == 0 and path[-1, 0] == ta - 1
        if not open_ends:
            assert path[0].tolist() == [0, 0] and path[-1].tolist() == [ta - 1, tb - 1]


def test_nearest_is_the_first_of_the_nearest_frames():
    a, b = draw(20), np.concatenate([draw(15, seed=1)] * 2)
    assert align(a, b, "nearest").tolist() == distances(a, b).argmin(1).tolist()


def test_a_frame_with_several_partners_gets_the_middle_one():
    slow = np.array([0, 0, 0, 0, 5, 5, 5])[:, None]
    assert align(np.array([[0], [5]]), slow, open_ends=False).tolist() == [1, 5]


def test_open_ends_find_a_window_inside_a_longer_video():
    whole = draw(40)
    assert align(whole[11:26], whole).tolist() == list(range(11, 26))
    assert align(whole[11:26], whole, open_ends=False)[0] != 11


@pytest.mark.parametrize("open_ends", [False, True])
def test_time_warping_never_goes_back_and_undoes_a_warp(open_ends):
    index = np.repeat(np.arange(30), np.random.default_rng(3).integers(1, 4, 30))
    for seed in range(5):
        assert (np.diff(align(draw(25, seed=seed), draw(17, seed=seed + 9), open_ends=open_ends)) >= 0).all()
    assert align(draw(30)[index], draw(30)).tolist() == index.tolist()


def test_one_frame_aligns_with_anything_and_with_itself():
    one = draw(1)
    for method in ("nearest", "dtw"):
        assert align(one, one, method).tolist() == [0]
        assert align(draw(4), one, method).tolist() == [0] * 4
        assert align(one, np.concatenate([draw(3, seed=5) + 9, one]), method).tolist() == [3]


def test_embedded_videos_and_integer_arrays_are_taken():
    a, b = draw(6), draw(9, seed=1)
    assert align(Clip(a), Clip(b)).tolist() == align(a, b).tolist()
    assert align(np.array([[0], [4]]), np.array([[4], [0]]), "nearest").dtype == np.int64


def test_a_set_gets_the_clock_of_its_reference():
    videos = {"a": draw(8), "b": draw(12, seed=1), "c": draw(5, seed=2)}
    maps = align_all(videos, "b", "nearest")
    assert list(maps) == ["a", "b", "c"] and maps["b"].tolist() == list(range(12))
    assert maps["c"].tolist() == align(videos["b"], videos["c"], "nearest").tolist()
    listed = align_all(list(videos.values()), 1, "nearest")
    assert [m.tolist() for m in listed] == [m.tolist() for m in maps.values()]


def test_phases_follow_the_frames_and_unlabelled_ones_stay_so():
    phases = np.array([-1, 0, 0, 1, 1, 1, 2, -1])
    index = [0, 1, 1, 2, 3, 4, 4, 5, 6, 6, 7]
    for method in ("nearest", "dtw"):
        (carried,) = transfer_phases(Clip(draw(8), phases), [draw(8)[index]], method)
        assert carried.tolist() == phases[index].tolist() and carried.dtype == np.int64


def test_several_labelled_videos_give_the_middle_of_their_phases():
    frames, other = draw(6), draw(9, seed=4)
    labels = [np.repeat([0, 1], n) for n in ((2, 4), (3, 3), (5, 1))]
    (carried,) = transfer_phases([Clip(frames, p) for p in labels], [frames])
    assert carried.tolist() == labels[1].tolist()
    (carried,) = transfer_phases([Clip(draw(7, seed=s), np.arange(7)) for s in range(4)], [other])
    assert (np.diff(carried) >= 0).all()


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (draw(4, 3), draw(4, 2), "a and b must have one width, got 3 and 2"),
        (draw(0), draw(4), r"a must hold at least one frame.*\(0, 3\)"),
        (draw(4), draw(0), "b must hold at least one frame"),
        (np.full((2, 3), np.nan), draw(4), "holds NaN"),
        (draw(4), np.full((2, 3), np.inf), "b holds NaN or infinity"),
        (draw(4), np.zeros(3), r"^b must be \(T, E\), got \(3,\)"),
        (Clip(draw(3)), Clip(np.zeros(3), name="squat"), r"^squat must be \(T, E\), got \(3,\)"),
        ("a", "b", r"^a must be a \(T, E\) array or .*\.embeddings, got 'a'"),
        (None, draw(4), r"^a must be a \(T, E\) array .*got None"),
        (draw(4), 1e200 * draw(4), r"^b must lie within ±1e\+140 .*scale it down"),
    ],
)
def test_videos_that_do_not_fit_are_refused(a, b, message):
    for function in (align, alignment_path):
        with pytest.raises(ValueError, match=message):
            function(a, b)


def test_unknown_method_and_reference_name_the_nearest():
    with pytest.raises(ValueError, match='unknown method "dwt".*did you mean "dtw"'):
        align(draw(3), draw(3), "dwt")
    with pytest.raises(ValueError, match='reference "clp".*did you mean "clip"'):
        align_all({"clip": draw(3)}, "clp")
    with pytest.raises(ValueError, match="at least one video, got none"):
        align_all({})


def test_transfer_without_labels_is_refused_by_name():
    with pytest.raises(ValueError, match="squat has no phases"):
        transfer_phases(Clip(draw(3), None, "squat"), [draw(3)])
    with pytest.raises(ValueError, match="no frame of squat is labelled"):
        transfer_phases([Clip(draw(3), np.full(3, -1), "squat")], [draw(3)])
    with pytest.raises(ValueError, match=r"phases of squat must be \(3,\) integers, got \(2,\)"):
        transfer_phases(Clip(draw(3), np.zeros(2, int), "squat"), [draw(3)])
    with pytest.raises(ValueError, match="at least one labelled video, got none"):
        transfer_phases([], [draw(3)])


def test_a_single_video_gets_phases_like_a_list_of_one():
    source = Clip(draw(6), np.repeat([0, 1, 2], 2))
    for target in (draw(9, seed=1), Clip(draw(9, seed=1))):
        single, listed = transfer_phases(source, target), transfer_phases(source, [target])
        assert len(single) == 1 and single[0].tolist() == listed[0].tolist()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([draw(4), np.zeros(3)], r"^unlabelled\[1\] must be \(T, E\), got \(3,\)"),
        (Clip(draw(0), name="lunge"), "^lunge must hold at least one frame"),
        ([Clip(draw(4, 2), name="lunge")], "^lunge and squat must have one width, got 2 and 3"),
        ([1e200 * draw(4)], r"^unlabelled\[0\] must lie within"),
        (None, r"^unlabelled must be a \(T, E\) array"),
    ],
)
def test_videos_without_use_for_a_transfer_are_refused_by_name(target, message):
    with pytest.raises(ValueError, match=message):
        transfer_phases(Clip(draw(6), np.arange(6), "squat"), target)


def test_the_clock_is_by_default_the_first_video():
    videos = {"slow": draw(8), "fast": draw(5, seed=1)}
    assert [m.tolist() for m in align_all(videos).values()] == [m.tolist() for m in align_all(videos, "slow").values()]
    assert len(align_all(videos, 1)["slow"]) == 5
    with pytest.raises(ValueError, match=r"^fast must be \(T, E\), got \(5,\)"):
        align_all(videos | {"fast": np.zeros(5)})
    with pytest.raises(ValueError, match="^slow and fast must have one width, got 3 and 2"):
        align_all(videos | {"fast": draw(5, 2)})
    with pytest.raises(ValueError, match="videos must be videos by name or a list of them, got NoneType"):
        align_all(None)


def test_large_embeddings_within_the_limit_align_as_small_ones():
    a, b = draw(12), draw(15, seed=1)
    assert align(1e139 * a, 1e139 * b).tolist() == align(a, b).tolist()
