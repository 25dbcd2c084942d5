"""Position propagation, our reading of LRProp: docs/objectives.md, section 9."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import example_clip
from mvf.losses.dtw import dtw_path, squared_distances
from mvf.losses.lav import LearningByAligningVideosLoss
from mvf.losses.lrprop import MODES, REGULARISERS, PositionPropagationLoss, propagated_position, propagated_prior
from tests.golden import LOSSES


def random_batch(counts=(6, 4, 5), frames=6, width=5, seed=0):
    """Float64 embeddings (B, 1, T, E) of one action, and a clip with `counts` valid frames at random positions."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(counts), 1, frames, width, generator=generator, dtype=torch.float64)
    index = torch.rand(len(counts), 1, 30, generator=generator).argsort(-1)[..., :frames].sort(-1).values
    valid = (torch.arange(frames) < torch.tensor(counts)[:, None])[:, None]
    clip = replace(example_clip(len(counts), 1, frames), frame_index=index, valid=valid)
    return F.normalize(z, dim=-1), replace(
        clip, num_frames=torch.full((len(counts),), 30), action=torch.zeros(len(counts))
    )


def naive_path(cost):
    """Cells of the cheapest path, from the recursion of docs/objectives.md, section 0."""
    n, m = cost.shape
    table = {(-1, -1): 0.0}
    for i, j in np.ndindex(n, m):
        table[i, j] = cost[i, j] + min(table.get(cell, math.inf) for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1)))
    cell, path = (n - 1, m - 1), []
    while cell != (-1, -1):
        path.append(cell)
        i, j = cell
        cell = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda before: table.get(before, math.inf))
    return path


def naive_direction(x, y, frames_y, path, variance, temperature, mode):
    """Mean over the frames of x of KL(p || q), one frame at a time."""
    total = 0.0
    for i in range(len(x)):
        matched = [frames_y[j] for a, j in path if a == i]
        centres = [sum(matched) / len(matched)] if mode == "mean" else matched
        p = [sum(math.exp(-((f - c) ** 2) / (2 * variance)) for c in centres) for f in frames_y]
        log_q = torch.stack([x[i] @ other for other in y]).div(temperature).log_softmax(0)
        for weight, prediction in zip(p, log_q):
            share = weight / sum(p)
            total = total + share * (math.log(share) - prediction)
    return total / len(x)


def naive(x, y, frames_x, frames_y, variance=10.0, temperature=0.1, mode="mean"):
    """The propagation term of one pair."""
    x, y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
    path = naive_path(torch.cdist(x, y).square().detach().numpy())
    options = {"variance": variance, "temperature": temperature, "mode": mode}
    there = naive_direction(x, y, frames_y, path, **options)
    return (there + naive_direction(y, x, frames_x, [(j, i) for i, j in path], **options)) / 2


def golden_example():
    """The arrays of the example, and the batch of its two videos, the shorter one padded."""
    file = LOSSES / "spec_lrprop_propagation_example.npz"
    golden = np.load(file)
    x, y = (torch.from_numpy(golden[side]) for side in "xy")
    index = torch.zeros(2, 1, 8, dtype=torch.long)
    index[0, 0, :6], index[1, 0] = (torch.from_numpy(golden[f"frames_{side}"]).long() for side in "xy")
    valid = torch.ones(2, 1, 8, dtype=torch.bool)
    valid[0, 0, 6:] = False
    clip = replace(example_clip(2, 1, 8), frame_index=index, valid=valid, action=torch.zeros(2))
    return golden, torch.stack([F.pad(x, (0, 0, 0, 2)), y])[:, None], clip


@pytest.mark.parametrize("mode", MODES)
def test_equals_naive_loop(mode):
    z, clip = random_batch()
    z.requires_grad_()
    options = {"variance": 4.0, "temperature": 0.3, "mode": mode}
    value = PositionPropagationLoss(alignment_weight=0, **options)(z, clip)
    own = [(video[0, :n], index[0, :n].tolist()) for video, index, n in zip(z, clip.frame_index, (6, 4, 5))]
    pairs = [(*own[a], *own[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    wanted = sum(naive(x, y, frames_x, frames_y, **options) for x, frames_x, y, frames_y in pairs) / 3
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-8, atol=1e-12)


def test_orthonormal_frames_give_the_closed_form():  # R1
    frames, clip = torch.eye(4, dtype=torch.float64), replace(example_clip(2, 1, 4), action=torch.zeros(2))
    path = dtw_path(squared_distances(frames[None], frames[None]))
    assert torch.equal(path[0], torch.eye(4) > 0)
    assert propagated_position(path, clip.frame_index[0]).tolist() == [[0, 1, 2, 3]]
    value = PositionPropagationLoss(alignment_weight=0)(frames.expand(2, 1, 4, 4), clip)
    assert value.item() == pytest.approx(5.81125178, abs=5e-9)


@pytest.mark.parametrize("mode", MODES)
def test_no_gradient_flows_through_the_path(mode):  # R2
    z, clip = random_batch((6, 6))
    z.requires_grad_()
    loss = PositionPropagationLoss(alignment_weight=0, mode=mode)
    frames = clip.frame_index[:, 0].to(z)
    one, other = (video[0] / video[0].norm(dim=-1, keepdim=True) for video in z)
    path = dtw_path(squared_distances(one[None], other[None]))
    value = 0.0
    for x, y, cells, index in ((one, other, path, frames[1:]), (other, one, path.mT, frames[:1])):
        prior = propagated_prior(cells, index, torch.ones_like(index) > 0, 10.0, mode)[0]
        value = value + (torch.xlogy(prior, prior) - prior * (x @ y.T / 0.1).log_softmax(-1)).sum() / 12
    torch.testing.assert_close(loss(z, clip), value)
    (gradient,), (wanted,) = torch.autograd.grad(loss(z, clip), z), torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient, wanted)
    moved = z.detach() + 1e-6 * torch.randn_like(z)
    assert torch.equal(dtw_path(squared_distances(moved[0], moved[1])), path)  # so only q can change


def test_equals_the_example_of_the_specification():  # R3
    golden, z, clip = golden_example()
    x, y = (torch.from_numpy(golden[side])[None] for side in "xy")
    path = dtw_path(squared_distances(x, y))
    assert np.array_equal(path[0].numpy(), golden["path"])
    for cells, index, wanted in ((path, clip.frame_index[1], "x"), (path.mT, clip.frame_index[0, :, :6], "y")):
        assert np.array_equal(propagated_position(cells, index)[0].numpy(), golden[f"propagated_{wanted}"])
    loss = PositionPropagationLoss(float(golden["variance"]), float(golden["temperature"]), alignment_weight=0)
    assert loss(z, clip).item() == pytest.approx(float(golden["loss"]), rel=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_swapping_changes_nothing(mode, regulariser):  # R4
    z, clip = random_batch((6, 4))
    loss = PositionPropagationLoss(mode=mode, regulariser=regulariser)
    torch.testing.assert_close(
        loss(z.flip(0), clip.map(lambda tensor: tensor.flip(0))), loss(z, clip), rtol=1e-10, atol=0
    )


def test_matches_are_runs_and_positions_never_go_back():  # R5
    z, clip = random_batch((12,) * 8, frames=12)
    path = dtw_path(squared_distances(z[:4, 0], z[4:, 0]))
    for cells, index in ((path, clip.frame_index[4:, 0]), (path.mT, clip.frame_index[:4, 0])):
        assert cells.any(-1).all()
        starts = (cells & ~F.pad(cells, (1, -1))).sum(-1)
        assert (starts == 1).all()
        assert (propagated_position(cells, index).diff(dim=-1) >= 0).all()


def test_mixture_keeps_distant_matches_apart():
    path, index, valid = torch.ones(1, 1, 3) > 0, torch.tensor([[0.0, 50.0, 100.0]]), torch.ones(1, 3) > 0
    assert propagated_prior(path, index, valid, 10.0, "mean")[0, 0].tolist() == pytest.approx([0, 1, 0])
    assert propagated_prior(path, index, valid, 10.0, "mixture")[0, 0].tolist() == pytest.approx([1 / 3] * 3)


def test_alignment_is_lav_under_each_regulariser():
    z, clip = random_batch()
    wanted = {
        "idm": LearningByAligningVideosLoss(),
        "divergence": LearningByAligningVideosLoss(alpha=0, debiased=True),
        "none": LearningByAligningVideosLoss(alpha=0),
    }
    for regulariser, lav in wanted.items():
        loss = PositionPropagationLoss(regulariser=regulariser, alignment_weight=0.7)
        value, propagation = loss(z, clip), PositionPropagationLoss(alignment_weight=0)(z, clip)
        torch.testing.assert_close(value, propagation + 0.7 * lav(z, clip), rtol=1e-10, atol=0)
        torch.testing.assert_close(value, loss.parts["propagation"] + 0.7 * loss.parts["alignment"])


def test_regulariser_resists_collapse():
    clip = replace(example_clip(2, 1, 20), action=torch.zeros(2))
    same, values = torch.ones(2, 1, 20, 4, dtype=torch.float64), {}
    for regulariser in REGULARISERS:
        loss = PositionPropagationLoss(regulariser=regulariser)
        loss(same, clip)
        values[regulariser] = loss.parts["alignment"].item()
    assert values["none"] < 0 and values["divergence"] == pytest.approx(0)
    assert values["idm"] - values["none"] == pytest.approx(266.25 / 20)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_padding_changes_nothing(mode, regulariser):
    z, clip = random_batch((4, 4, 4), frames=4)
    more = F.pad(z, (0, 0, 0, 3), value=math.inf).requires_grad_()
    index, valid = F.pad(clip.frame_index, (0, 3), value=9), F.pad(clip.valid, (0, 3))
    loss = PositionPropagationLoss(mode=mode, regulariser=regulariser)
    z.requires_grad_()
    value, wanted = loss(more, replace(clip, frame_index=index, valid=valid)), loss(z, clip)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, more), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient[:, :, :4], wanted_gradient, rtol=1e-9, atol=1e-14)
    assert (gradient[:, :, 4:] == 0).all()


def test_scale_of_the_embeddings_changes_nothing():
    z, clip = random_batch()
    torch.testing.assert_close(
        PositionPropagationLoss()(7 * z, clip), PositionPropagationLoss()(z, clip), rtol=1e-10, atol=0
    )


def test_two_views_of_one_video_are_never_a_pair():
    z, clip = random_batch((4, 4), frames=4)
    index = torch.cat([clip.frame_index, clip.frame_index], dim=1)
    both = replace(clip, frame_index=index, valid=torch.cat([clip.valid, clip.valid], dim=1))
    two, loss = torch.cat([z, z.flip(2)], dim=1), PositionPropagationLoss()
    alone = [loss(torch.stack([two[0, a], two[1, b]])[:, None], clip) for a in (0, 1) for b in (0, 1)]
    torch.testing.assert_close(loss(two, both), torch.stack(alone).mean(), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="no pair"):
        loss(two[:1], both.map(lambda tensor: tensor[:1]))


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_gradient_equals_finite_differences(regulariser):
    z, clip = random_batch((4, 3), frames=4, width=3)
    loss = PositionPropagationLoss(regulariser=regulariser)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = random_batch()
    value = PositionPropagationLoss()(z, clip)
    changes = [{"variance": 5.0}, {"temperature": 0.2}, {"alignment_weight": 0.2}, {"alignment_weight": 0}]
    changes += [{"mode": "mixture"}, {"regulariser": "divergence"}, {"regulariser": "none"}]
    for change in changes:
        assert not torch.isclose(PositionPropagationLoss(**change)(z, clip), value, rtol=1e-7), change


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frames", [1, 2, 6])
def test_stays_finite(mode, frames):
    z = (10 * torch.eye(frames, 8)).expand(2, 1, -1, -1).clone().requires_grad_()
    clip = replace(example_clip(2, 1, frames), action=torch.zeros(2))
    clip = replace(clip, frame_index=clip.frame_index * 1000, num_frames=clip.num_frames * 1000)
    for regulariser in REGULARISERS:
        value = PositionPropagationLoss(mode=mode, regulariser=regulariser)(z, clip)
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = PositionPropagationLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("unit", 1, "action_frames", "video")
    assert not list(loss.parameters()) and "OUR READING" in PositionPropagationLoss.__doc__
