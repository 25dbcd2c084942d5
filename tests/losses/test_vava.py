"""Video alignment by optimal transport: docs/objectives.md, section 8."""

import math
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import example_clip
from mvf.losses.vava import VideoAlignmentByOptimalTransportLoss, mixing, temporal_transport
from tests.golden import LOSSES, each_file

VARIANTS = ("reference", "corrected")
each_golden = pytest.mark.parametrize("file", **each_file("vava_*.npz"))


def batch(counts=(6, 4, 5), frames=6, width=5, seed=0):
    """Unit-norm float64 embeddings (B, 1, T, E) of one action, and a clip with `counts` valid frames."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(counts), 1, frames, width, generator=generator, dtype=torch.float64)
    valid = (torch.arange(frames) < torch.tensor(counts)[:, None])[:, None]
    clip = replace(example_clip(len(counts), 1, frames), valid=valid, action=torch.zeros(len(counts)))
    return F.normalize(z, dim=-1), clip


def make(step=0, **options):
    loss = VideoAlignmentByOptimalTransportLoss(**options)
    loss.step = step
    return loss


def transport(x, y, **options):
    """Of one pair (n, E), (m, E) without padding."""
    return temporal_transport(x[None], y[None], *(torch.ones(1, len(z), dtype=torch.bool) for z in (x, y)), **options)


def naive_transport(x, y, variant, step=0, lambda1=1.0, lambda2=0.1, zeta=0.5, kappa=5.0, delta=2.0):
    """Prior, smoothness, cost, kernel and plan of one pair, cell by cell, outside log space."""
    n, m = len(x), len(y)
    big_n, big_m, scale1, scale2 = n + 1, m + 1, lambda1 * (n + m), lambda2 * n * m / 4
    phi = min(max(0.999 ** math.floor(math.sqrt(step + 1)), 0.001), 0.999)
    rho, theta = math.sqrt(1 / big_n**2 + 1 / big_m**2), 2 * kappa / (big_n + big_m)

    def g(d):
        return math.exp(-((d / rho) ** 2) / (2 * delta**2)) / (delta * math.sqrt(2 * math.pi))

    def h(d):
        return scale1 / (d**2 + 1)

    prior, smoothness = (torch.empty(big_n, big_m, dtype=x.dtype) for _ in range(2))
    cost = [[x.new_tensor(zeta)] * big_m for _ in range(big_n)]
    for i in range(1, big_n + 1):
        anchor = 1 / big_m
        if i > 1:
            distances = [(x[i - 2] - b).detach().square().sum().item() for b in y]
            anchor = (distances.index(min(distances)) + (2 if variant == "corrected" else 1)) / big_m
        for j in range(1, big_m + 1):
            dc, do = abs(i / big_n - j / big_m), abs(j / big_m - anchor)
            if (i == 1) != (j == 1):
                dc = do = 1.5 * theta
            prior[i - 1, j - 1] = phi * g(dc) + (1 - phi) * g(do)
            smoothness[i - 1, j - 1] = phi * h(dc) + (1 - phi) * h(do)
            if i > 1 and j > 1:
                cost[i - 1][j - 1] = (x[i - 2] - y[j - 2]).square().sum()
    cost = torch.stack([torch.stack(row) for row in cost])
    kernel = (prior * ((smoothness - cost) / scale2).exp()).clamp(1e-15, 1e20)
    u = x.new_full((big_n,), 1 / big_n)
    for _ in range(21):
        v = (1 / big_m) / (kernel.T @ u)
        u = (1 / big_n) / (kernel @ v)
    return prior, smoothness, cost, kernel, u[:, None] * kernel * v


def naive(x, y, variant, weight=1.0, **options):
    """The formula of docs/objectives.md for one pair."""
    n, m = len(x), len(y)
    *_, cost, kernel, plan = naive_transport(x, y, variant, **options)

    def contrast(z):
        total = 0.0
        for i in range(len(z)):
            for j in range(len(z)):
                d = (z[i] - z[j]).square().mean()
                total = total + ((2 - d).clamp(min=0) if abs(i - j) > 15 else d / ((i - j) ** 2 + 1))
        return total / len(z) ** 2

    score = (kernel * cost if variant == "reference" else plan)[1:, 1:]
    best = worst = 0.0
    for one, other, scores in ((x, y, score), (y, x, score.T)):
        best = best + (one - other[scores.argmax(1)]).square().mean() / 0.5
        worst = worst + (one - other[scores.argmin(1)]).square().mean() / 0.5
    inter = (best.exp() + worst.exp()).log() - worst
    moved = (plan * cost).sum()
    if variant == "reference":
        moved = moved / ((n + 1) * (m + 1)) / (n * m)
    return (contrast(x) + contrast(y)) / 2 + weight * moved + 1e-4 * inter


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("step", [0, 10**6])
def test_equals_naive_loop(variant, step):
    counts = (18, 18, 18) if variant == "reference" else (18, 3, 5)
    z, clip = batch(counts, frames=18)
    z.requires_grad_()
    options = {"lambda1": 0.7, "lambda2": 0.2}
    given = {"virtual_cost": 0.6, "neighbourhood": 3, "variance": 1.5, "transport_weight": 0.7}
    value = make(step, variant=variant, **given, **options)(z, clip)
    own = [video[0, :n] for video, n in zip(z, counts)]
    options |= {"zeta": 0.6, "kappa": 3.0, "delta": 1.5, "weight": 0.7, "step": step}
    wanted = sum(naive(own[a], own[b], variant, **options) for a, b in ((0, 1), (0, 2), (1, 2))) / 3
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pieces_equal_naive_loop(variant):
    z, _ = batch((8, 5), frames=8)
    x, y = z[0, 0], z[1, 0, :5]
    found = transport(x, y, step=10**5, variant=variant)
    wanted = naive_transport(x, y, variant, step=10**5)
    for name, table in zip(("prior", "smoothness", "cost", "kernel", "plan"), wanted):
        torch.testing.assert_close(getattr(found, name)[0], table, rtol=1e-9, atol=0)
    assert found.vava.item() == pytest.approx(found.total.item() / 54)


def test_kernel_is_kept_within_bounds():
    z, _ = batch((8, 5), frames=8)
    x, y = z[0, 0], z[1, 0, :5]
    for scale, options, bound in ((20, {}, 1e-15), (1, {"lambda2": 0.01}, 1e20)):
        found = transport(scale * x, scale * y, **options)
        *_, kernel, plan = naive_transport(scale * x, scale * y, "corrected", **options)
        assert (found.kernel / bound - 1).abs().min() <= 1e-9
        torch.testing.assert_close(found.kernel[0], kernel, rtol=1e-9, atol=0)
        torch.testing.assert_close(found.plan[0], plan, rtol=1e-9, atol=0)


@each_golden
def test_equals_the_published_code(file):  # V2
    golden = np.load(file)
    x, y = (torch.from_numpy(golden[side]).double().requires_grad_() for side in "xy")
    step = int(golden["global_step"])
    found = transport(x, y, step=step, variant="reference")
    assert mixing(step) == pytest.approx(float(golden["phi"]), rel=1e-12)
    for name in ("prior", "idm", "cost", "kernel", "plan", "vava"):
        value = getattr(found, {"idm": "smoothness"}.get(name, name))[0].detach()
        torch.testing.assert_close(value, torch.tensor(golden[name]).double(), rtol=1e-5, atol=0)
    for side, gradient in zip("xy", torch.autograd.grad(found.vava.sum(), (x, y))):
        wanted = golden[f"grad_{side}"]
        assert np.abs(gradient.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()
    if len(x) == len(y):
        clip = replace(example_clip(2, 1, len(x)), action=torch.zeros(2))
        value = make(step, variant="reference")(torch.stack([x, y])[:, None], clip)
        assert value.item() == pytest.approx(float(golden["all_loss_as_released"]), rel=1e-5)


@each_golden
@pytest.mark.parametrize("variant", VARIANTS)
def test_plan_has_its_marginals(file, variant):  # V1
    golden = np.load(file)
    x, y = (torch.from_numpy(golden[side]).double() for side in "xy")
    plan = transport(x, y, step=int(golden["global_step"]), variant=variant).plan[0]
    assert (plan >= 0).all() and plan.sum().item() == pytest.approx(1, abs=1e-12)
    assert (plan.sum(1) - 1 / len(plan)).abs().max() <= 1e-9
    assert (plan.sum(0) - 1 / plan.shape[1]).abs().max() < 1e-2


def test_diagonal_gives_way_to_matches():  # V3
    assert mixing(0) == 0.999
    assert mixing(10**4) == pytest.approx(0.904792, abs=1e-6)
    assert mixing(10**9) == 0.001


def test_swapping_changes_the_value_once_matches_count():  # V4
    file = LOSSES / "vava_6x6_step10000.npz"
    x, y = (torch.from_numpy(np.load(file)[side]).double() for side in "xy")
    there, back = (transport(*pair, step=10**4, variant="reference").vava.item() for pair in ((x, y), (y, x)))
    assert (there, back) == pytest.approx((0.035844, 0.036069), abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lies_between_the_extremes_of_the_cost(variant):  # V5
    z, clip = batch((8, 8, 8, 8), frames=8)
    found = temporal_transport(z[:2, 0], z[2:, 0], clip.valid[:2, 0], clip.valid[2:, 0], variant=variant)
    assert (found.cost.amin((1, 2)) <= found.total).all() and (found.total <= found.cost.amax((1, 2))).all()
    torch.testing.assert_close(found.vava, found.total / 81)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rotation_and_translation_change_nothing(variant):  # V6
    z, clip = batch((6, 6))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    moved = z @ rotation + torch.randn(5, dtype=torch.float64)
    loss = make(10**5, variant=variant)
    torch.testing.assert_close(loss(moved, clip), loss(z, clip), rtol=1e-9, atol=0)


def test_frame_moves_to_its_match_when_corrected():
    """Released anchors lie one column early: with the frames in order, only corrected ones lie on the diagonal."""
    frames, step = torch.eye(6, dtype=torch.float64), 10**9
    for variant, shift in (("corrected", 0), ("reference", 1)):
        prior = transport(frames, frames, step=step, variant=variant).prior[0, 1:, 1:]
        assert torch.equal(prior.argmax(1), (torch.arange(6) - shift).clamp(min=0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant):
    z, clip = batch((4, 4, 4), frames=4)
    more = F.pad(z, (0, 0, 0, 3), value=math.inf).requires_grad_()
    padded = replace(example_clip(3, 1, 7), valid=F.pad(clip.valid, (0, 3)), action=clip.action)
    loss = make(10**5, variant=variant)
    z.requires_grad_()
    value, wanted = loss(more, padded), loss(z, clip)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, more), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient[:, :, :4], wanted_gradient, rtol=1e-9, atol=1e-14)
    assert (gradient[:, :, 4:] == 0).all()


def test_pairs_of_different_lengths_do_not_touch_each_other():
    z, clip = batch((6, 3, 4))
    loss = make(10**5)
    pairs = [torch.tensor(pair) for pair in ((0, 1), (0, 2), (1, 2))]
    alone = [loss(z[pair], clip.map(lambda tensor, pair=pair: tensor[pair])) for pair in pairs]
    torch.testing.assert_close(loss(z, clip), torch.stack(alone).mean(), rtol=1e-12, atol=0)


def test_two_views_of_one_video_are_never_a_pair():
    z, clip = batch((4, 4), frames=4)
    two = torch.cat([z, z.flip(2)], dim=1)
    both = replace(example_clip(2, 2, 4), action=clip.action)
    loss = VideoAlignmentByOptimalTransportLoss()
    value = loss(two, both)
    alone = [loss(torch.stack([two[0, a], two[1, b]])[:, None], clip) for a in (0, 1) for b in (0, 1)]
    torch.testing.assert_close(value, torch.stack(alone).mean(), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="no pair"):
        loss(two[:1], both.map(lambda tensor: tensor[:1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_equals_finite_differences(variant):
    z, clip = batch((4, 4), frames=4, width=3)
    loss = make(10**5, variant=variant)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = batch((6, 6, 6))
    value = make(10**5)(z, clip)
    changes = [{"lambda1": 0.5}, {"lambda2": 0.2}, {"virtual_cost": 0.7}, {"neighbourhood": 2}, {"variance": 1.0}]
    changes += [{"transport_weight": 0.5}, {"transport_weight": 0}, {"variant": "reference"}, {"step": 10**6}]
    for change in changes:
        assert not torch.isclose(make(**{"step": 10**5} | change)(z, clip), value, rtol=1e-7), change


def test_step_advances_and_lives_in_the_state_dict():
    z, clip = batch()
    loss = make(10**5)
    assert torch.equal(loss(z, clip), loss(z, clip)) and loss.step == 10**5
    loss.advance()
    file = BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = VideoAlignmentByOptimalTransportLoss()
    assert fresh.step == 0
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.step == 10**5 + 1 and type(fresh.step) is int
    assert torch.equal(fresh(z, clip), loss(z, clip))


def test_equal_embeddings_pay_the_whole_margin():
    """They move for nothing; frames far apart pay. In many channels that is not enough: order pays nearly as much."""
    clip = replace(example_clip(2, 1, 20), action=torch.zeros(2))
    loss = VideoAlignmentByOptimalTransportLoss()
    loss(torch.ones(2, 1, 20, 4, dtype=torch.float64) / 2, clip)
    assert loss.parts["positions"].item() == pytest.approx(2 * 20 / 400)  # 20 of 400 ordered pairs are over 15 apart
    assert loss.parts["partners"].item() == pytest.approx(math.log(2))
    loss, z = VideoAlignmentByOptimalTransportLoss(), torch.zeros(2, 1, 20, 128, dtype=torch.float64)
    angle = torch.linspace(0, math.pi, 20, dtype=torch.float64)
    z[..., 0], z[..., 1] = angle.cos(), angle.sin()
    arc = loss(z, clip), loss.parts["positions"]
    equal = loss(z[:, :, :1].expand_as(z), clip), loss.parts["positions"]
    assert arc[1] < equal[1] < arc[1] + 4 / 128 and equal[0] < arc[0], "collapse wins, as seen in training"


def test_parts_sum_to_the_value():
    z, clip = batch()
    loss = VideoAlignmentByOptimalTransportLoss(transport_weight=0.5)
    value, parts = loss(z, clip), loss.parts
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(value, parts["positions"] + 0.5 * parts["transport"] + 1e-4 * parts["partners"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("frames", [1, 2, 6])
def test_stays_finite(variant, frames):
    z = (10 * torch.eye(frames, 8)).expand(2, 1, -1, -1).clone().requires_grad_()
    clip = replace(example_clip(2, 1, frames), action=torch.zeros(2))
    for step in (0, 10**9):
        value = make(step, variant=variant)(z, clip)
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = VideoAlignmentByOptimalTransportLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("unit", 1, "action_segments", "video")
    assert loss.pairs == "once" and loss.variant == "corrected" and not list(loss.parameters())


def test_reference_refuses_videos_of_different_lengths():
    with pytest.raises(ValueError, match=re.escape("[(6, 4), (6, 6), (4, 6)]")):
        VideoAlignmentByOptimalTransportLoss(variant="reference")(*batch((6, 4, 6)))
