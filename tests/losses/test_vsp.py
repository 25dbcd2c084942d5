"""Process contrast of VSP and the drawing of its bridges: docs/objectives.md, section 10."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import example_clip
from mvf.losses.vsp import (
    ProcessContrastiveLoss,
    given_bridges,
    join_bridges,
    log_density,
    process_contrast,
    segment_bridges,
)
from tests.golden import LOSSES, each_file

VARIANTS = ("reference", "corrected")
BRIDGES = torch.tensor([[[0, 3, 6], [5, 6, 8]], [[1, 2, 4], [2, 7, 8]], [[0, 1, 2], [3, 4, 8]]])


def random_batch(videos=3, frames=9, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(videos, 1, frames, width, generator=generator, dtype=torch.float64)
    return F.normalize(z, dim=-1), example_clip(videos, 1, frames)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def naive(z, bridges_of_videos, power):
    """The formula of docs/objectives.md, a bridge and a negative at a time; videos may have any number of bridges."""
    every = [(i, b) for i, bridges in enumerate(bridges_of_videos) for b in bridges]
    means = []
    for i, bridges in enumerate(bridges_of_videos):
        costs = []
        for own, (h, t, e) in enumerate(bridges):
            alpha = (t - h) / (e - h)
            spread = (alpha * (e - t)) ** power

            def density(x, h=h, e=e, alpha=alpha, spread=spread, i=i):
                return -(x - (1 - alpha) * z[i, 0, h] - alpha * z[i, 0, e]).square().sum() / (2 * spread)

            first = sum(len(b) for b in bridges_of_videos[:i])
            others = [other for n, other in enumerate(every) if n != first + own]
            terms = [density(z[j, 0, p]) for j, b in others for p in b]
            positive = density(z[i, 0, t])
            costs.append(torch.stack([positive, *terms]).exp().sum().log() - positive)
        if costs:
            means.append(sum(costs) / len(costs))
    return sum(means) / len(means)


@pytest.mark.parametrize("power", [1, 2, 0.5])
def test_equals_naive_loop(power):
    z, clip = random_batch()
    z.requires_grad_()
    value = ProcessContrastiveLoss(variance_power=power)(z, clip, bridges=BRIDGES)
    wanted = naive(z, BRIDGES.tolist(), power)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, z)[0], torch.autograd.grad(wanted, z)[0], rtol=1e-9, atol=1e-14
    )


def test_videos_with_different_numbers_of_bridges_count_alike():
    z, _ = random_batch()
    lists = [[(0, 3, 6), (5, 6, 8), (1, 2, 3)], [], [(0, 1, 2)]]
    bridges = join_bridges(lists)
    ends = z[bridges.video[:, None], 0, bridges.positions]
    torch.testing.assert_close(process_contrast(ends, bridges), naive(z, lists, 1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("file", **each_file("vsp_pcl_*.npz"))
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_equals_the_published_code(file, dtype):
    golden = np.load(file)
    z = torch.from_numpy(golden["embs"])[:, None].requires_grad_()
    bridges = torch.from_numpy(golden["bridges"]).to(dtype)
    clip = example_clip(len(z), 1, z.shape[2])
    value = ProcessContrastiveLoss(variant="reference")(z, clip, bridges=bridges)
    value.backward()
    assert value.item() == pytest.approx(golden["loss"].item(), rel=1e-6)
    error = (z.grad[:, 0] - torch.from_numpy(golden["grad"])).abs().max()
    assert error <= 1e-6 * np.abs(golden["grad"]).max()
    if "positive_log_density" in golden:
        flat = given_bridges(bridges, clip.valid[:, 0].sum(-1))
        ends = z.detach()[flat.video[:, None], 0, flat.positions]
        positive = log_density(ends[:, 1], ends, flat.positions, 2).diagonal()
        torch.testing.assert_close(positive, torch.from_numpy(golden["positive_log_density"]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_collapse_costs_more_than_bridges_of_their_own(variant):  # section 11, 3
    apart = torch.eye(3, dtype=torch.float64)[:, None, None].expand(3, 1, 9, 3)  # every video a straight bridge
    loss, clip = ProcessContrastiveLoss(variant=variant), example_clip(3, 1, 9)
    assert loss(torch.ones_like(apart) / 3**0.5, clip, bridges=BRIDGES) > loss(apart, clip, bridges=BRIDGES) + 0.1


def test_equal_embeddings_cost_the_log_of_their_number():  # B1, B2
    same = torch.ones(3, 1, 9, 4, dtype=torch.float64)
    for power in (0.5, 1, 2):
        loss = ProcessContrastiveLoss(variance_power=power)
        three = loss(same, example_clip(3, 1, 9), bridges=BRIDGES[:, :1])
        assert three.item() == pytest.approx(1.94591015, abs=1e-8)
        assert loss(same, example_clip(3, 1, 9), bridges=BRIDGES).item() == pytest.approx(math.log(3 * 6 - 2))
    z, clip = random_batch(videos=1)
    assert ProcessContrastiveLoss()(z, clip, seeded()) == 0


def test_embeddings_linear_in_position_follow_the_bridge():  # B3
    line = torch.arange(12.0, dtype=torch.float64)[None, None, :, None].expand(1, 1, 12, 2)
    bridges = torch.tensor([[[0.0, 2.0, 5.0], [6.0, 8.0, 11.0]]])
    for power, wanted in ((2, 9.71769e-4), (1, 2.77276e-4)):
        value = ProcessContrastiveLoss(variance_power=power)(line, example_clip(1, 1, 12), bridges=bridges)
        assert value.item() == pytest.approx(wanted, rel=1e-5)
    ends = line[0, 0][bridges[0].long()]
    assert (log_density(ends[:, 1], ends, bridges[0]).diagonal().abs() < 1e-12).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_symmetries_change_nothing(variant):  # B4
    z, clip = random_batch()
    loss = ProcessContrastiveLoss(variant=variant)
    value = loss(z, clip, bridges=BRIDGES)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=seeded()))[0]
    order = torch.tensor([2, 0, 1])
    for other, bridges in (
        (z + torch.tensor([1.0, -2.0, 0.5, 3.0]), BRIDGES),
        (z @ rotation, BRIDGES),
        (z.flip(2), 8 - BRIDGES.flip(-1)),
        (z[order], BRIDGES[order]),
        (z, BRIDGES.flip(1)),
    ):
        torch.testing.assert_close(loss(other, clip, bridges=bridges), value, rtol=1e-10, atol=0)


def test_single_segment_golden_has_the_stated_values():  # B5
    file = LOSSES / "vsp_pcl_single_segment.npz"
    golden = np.load(file)
    z, bridges = torch.from_numpy(golden["embs"])[:, None], torch.from_numpy(golden["bridges"])
    squared, plain = 2.50069485, 2.51102705
    for power, variant, wanted in ((None, "reference", squared), (None, "corrected", plain), (1, "reference", plain)):
        value = ProcessContrastiveLoss(power, variant=variant)(z, example_clip(4, 1, 12), bridges=bridges)
        assert value.item() == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_never_negative(variant):  # B7
    loss = ProcessContrastiveLoss(segments=2, variant=variant)
    assert all(loss(3 * z, clip, seeded()) >= 0 for z, clip in (random_batch(seed=seed) for seed in range(20)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant):
    z, clip = random_batch()
    loss = ProcessContrastiveLoss(segments=2, variant=variant)
    place = torch.tensor([0, 1, 2, 3, 5, 6, 7, 9, 10])  # padding at the end, and in between
    long = torch.full((3, 1, 12, 4), torch.inf, dtype=torch.float64)
    long[:, :, place] = z
    long.requires_grad_()
    valid = torch.zeros(3, 1, 12, dtype=torch.bool)
    valid[:, :, place] = True
    padded = replace(example_clip(3, 1, 12), valid=valid)
    z.requires_grad_()
    for bridges in (None, BRIDGES):
        value, with_junk = loss(z, clip, seeded(), bridges=bridges), loss(long, padded, seeded(), bridges=bridges)
        torch.testing.assert_close(with_junk, value, rtol=1e-12, atol=0)
        (gradient,), (wanted,) = torch.autograd.grad(with_junk, long), torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient[:, :, place], wanted, rtol=1e-12, atol=1e-15)
        assert (gradient[~valid] == 0).all()


def test_short_videos_get_fewer_bridges():
    z, clip = random_batch()
    clip.valid[1, 0, 3:] = False  # room for one bridge
    clip.valid[2, 0, 5:] = False  # room for two
    generator = seeded()
    lists = [segment_bridges(frames, 3, 0.2, generator) for frames in (9, 3, 5)]
    assert [len(bridges) for bridges in lists] == [3, 1, 2]
    value = ProcessContrastiveLoss(segments=3)(z, clip, seeded())
    torch.testing.assert_close(value, naive(z, lists, 1), rtol=1e-12, atol=0)


def test_the_generator_decides_the_bridges():
    (z, clip), loss = random_batch(frames=30), ProcessContrastiveLoss()
    assert loss(z, clip, seeded(1)) == loss(z, clip, seeded(1)) != loss(z, clip, seeded(2))
    torch.manual_seed(0)
    assert loss(z, clip) == loss(z, clip, seeded(0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_equals_finite_differences(variant):
    z, clip = random_batch(width=2)
    loss = ProcessContrastiveLoss(variant=variant)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip, bridges=BRIDGES), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = random_batch(frames=30)
    value = ProcessContrastiveLoss()(z, clip, seeded())
    for change in ({"variance_power": 2}, {"segments": 3}, {"overlap": 0.8}, {"variant": "reference"}):
        assert not torch.isclose(ProcessContrastiveLoss(**change)(z, clip, seeded()), value, rtol=1e-7), change
    assert ProcessContrastiveLoss(temperature=1.0)(z, clip, seeded()) == value  # as documented: vsp_f alone uses it


@pytest.mark.parametrize("variant", VARIANTS)
def test_extremes_stay_finite(variant):
    for videos, frames in ((1, 3), (2, 3), (4, 12)):
        z = (10 * torch.eye(frames, 16)).expand(videos, 1, -1, -1).clone().requires_grad_()
        value = ProcessContrastiveLoss(variant=variant)(z, example_clip(videos, 1, frames), seeded())
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = ProcessContrastiveLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels, loss.fewest) == ("unit", 1, "frames", "none", 3)
    assert (loss.variance_power, ProcessContrastiveLoss(variant="reference").variance_power) == (1, 2)
    assert not list(loss.parameters())


def test_bridges_of_fewer_videos_are_refused():
    with pytest.raises(ValueError, match=r"bridges must be \(3, K, 3\)"):
        ProcessContrastiveLoss()(*random_batch(), bridges=BRIDGES[:2])


# where bridges lie


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


def test_bad_bridges_are_refused_by_name():
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
