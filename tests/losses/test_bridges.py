"""Where bridges lie: docs/objectives.md, section 10."""

import math

import pytest
import torch

from mvf.losses.vsp import given_bridges, join_bridges, segment_bridges


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("frames", [3, 4, 5, 7, 12, 80])
@pytest.mark.parametrize("segments", [1, 2, 3, 5])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
def test_bridges_lie_in_their_segments(frames, segments, overlap):
    fitting = min(segments, (frames - 1) // 2)  # fewer where the video is short, one at least
    part = frames // fitting
    reach = math.floor(part * overlap / (2 - overlap) + 1e-9)
    for seed in range(6):
        bridges = segment_bridges(frames, segments, overlap, seeded(seed))
        assert len(bridges) == fitting >= 1
        assert all(0 <= head < point < tail < frames for head, point, tail in bridges)
        if overlap == 0.9:
            continue  # such ends may have to be clamped
        assert 0 <= bridges[0][0] <= reach and frames - 1 - reach <= bridges[-1][2]
        for k, ((_, _, tail), (head, _, _)) in enumerate(zip(bridges, bridges[1:]), start=1):
            assert k * part - reach <= head <= k * part <= tail <= k * part + reach


def test_every_allowed_bridge_is_drawn():
    generator = seeded()
    drawn = {segment_bridges(12, 1, 0.2, generator)[0] for _ in range(800)}  # floor(12 / 9) = 1 at either end
    assert drawn == {(h, t, e) for h in (0, 1) for e in (10, 11) for t in range(h + 1, e)}
    middle = {segment_bridges(36, 3, 0.2, generator)[1] for _ in range(500)}  # 1 frame of either neighbour
    assert {bridge[::2] for bridge in middle} == {(h, e) for h in (11, 12) for e in (24, 25)}
    assert {bridge[1] for bridge in middle} == set(range(12, 25))


@pytest.mark.parametrize(("part", "overlap", "reach"), [(9, 0.2, 1), (18, 0.2, 2), (37, 0.15, 3), (37, 0.0, 0)])
def test_whole_reaches_lose_nothing_by_rounding(part, overlap, reach):  # 37 * 0.15 / 1.85 is 2.9999999999999996
    generator = seeded()
    assert max(segment_bridges(part, 1, overlap, generator)[0][0] for _ in range(60)) == reach


def test_one_generator_gives_one_drawing():
    assert segment_bridges(80, 5, 0.2, seeded(1)) == segment_bridges(80, 5, 0.2, seeded(1))
    assert segment_bridges(80, 5, 0.2, seeded(1)) != segment_bridges(80, 5, 0.2, seeded(2))


def test_given_bridges_equal_joined_ones():
    lists = [[(0, 1, 2), (1, 3, 4)], [(0, 2, 4), (2, 3, 4)]]
    joined, given = join_bridges(lists), given_bridges(torch.tensor(lists).double(), torch.tensor([5, 5]))
    assert joined.video.equal(given.video) and joined.positions.equal(given.positions)


def test_bad_input_is_refused_by_name():
    counts = torch.tensor([9, 9])
    for bad in ([0, 0, 3], [0, 3, 3], [-1, 2, 3], [0, 2, 9], [0, 1.5, 3]):
        bridges = torch.tensor([[[0, 1, 2]], [bad]], dtype=torch.float64)
        with pytest.raises(ValueError, match="video 1 .*head < point < tail among its 9"):
            given_bridges(bridges, counts)
    for shape in ((3, 1, 3), (2, 3), (2, 1, 2), (2, 0, 3)):
        with pytest.raises(ValueError, match=r"bridges must be \(2, K, 3\)"):
            given_bridges(torch.zeros(shape), counts)
    with pytest.raises(ValueError, match="a bridge needs 3 frames, got 2"):
        segment_bridges(2)
