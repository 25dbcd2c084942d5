"""Global temporal alignment: docs/objectives.md, section 7."""

import math

import numpy as np
import pytest
import torch

from mvf.losses import gta
from mvf.losses.dtw import read_corner
from mvf.losses.gta import CONTRASTS, DIRECTIONS, GlobalTemporalAlignmentLoss
from mvf.losses.objective import VARIANTS
from tests.golden import each_file
from tests.losses.test_lav import append_junk, clip_pairs, one_action, pair_batch

OPTIONS = {"gamma_table": 0.3, "gamma_softmin": 0.5, "contrast": "dtw_prob", "directions": "both"}
OPTIONS |= {"label_smoothing": 0.2, "consistency_weight": 0.7, "variant": "reference"}


def score(cost, gamma=0.1, contrast="dtw_prob"):
    return read_corner(gta.accumulated_cost(cost, gamma, contrast))


def naive_table(x, y, gamma_table, gamma_softmin, contrast):
    """Accumulated contrastive costs, one cell at a time."""
    table = {}
    for i, j in np.ndindex(len(x), len(y)):
        near = [table[cell] for cell in ((i, j - 1), (i - 1, j - 1), (i - 1, j)) if cell in table]
        r = torch.stack(near) if near else torch.zeros(1, dtype=x.dtype)
        combined = {
            "dtw_prob": (torch.softmax(-r / gamma_table, 0) * r).sum(),
            "dtw_minGamma": -gamma_table * torch.logsumexp(-r / gamma_table, 0),
            "dtw": r.min(),
        }
        likelihood = torch.softmax(x @ y[j] / gamma_softmin, 0)
        table[i, j] = combined[contrast] - likelihood[i].log()
    return torch.stack(list(table.values())).view(len(x), len(y))


def naive(z, clip, options):
    """The formula of docs/objectives.md on valid frames; the first clip of an action with each other video."""
    actions = clip.action.tolist()
    terms = []
    for a, b in clip_pairs(clip):
        if a != (actions.index(actions[a[0]]), 0):
            continue
        x, y = z[a][clip.valid[a]], z[b][clip.valid[b]]
        keys = ("gamma_table", "gamma_softmin", "contrast")
        there, back = (naive_table(*pair, *(options[k] for k in keys)) for pair in ((x, y), (y, x)))
        cycle = (torch.softmax(-there, 0) @ torch.softmax(-back, 0)).T
        smooth, n = options["label_smoothing"], len(x)
        label = (1 - smooth) * torch.eye(n, dtype=x.dtype) + smooth / n
        twice = cycle.exp() / cycle.exp().sum(1, keepdim=True)
        log = (cycle + 1e-8).log() if options["variant"] == "corrected" else twice.log()
        alone = options["directions"] == "one" and not options["consistency_weight"]
        scores = there[-1, -1] + (back[-1, -1] if options["directions"] == "both" else 0)
        consistency = -(label * log).sum(1).mean()
        terms.append((1 if alone else 0.1) * scores + options["consistency_weight"] * consistency)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("weight", [0, 2])
def test_equals_naive_loop(weight, directions, contrast, variant):
    z, clip = pair_batch()
    z.requires_grad_()
    options = OPTIONS | {"variant": variant, "contrast": contrast}
    options |= {"directions": directions, "consistency_weight": weight}
    value, wanted = GlobalTemporalAlignmentLoss(**options)(z, clip), naive(z, clip, options)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("file", **each_file("gta_table_*.npz"))
def test_tables_equal_the_published_code(file):
    golden = {name: torch.from_numpy(value)[None].double() for name, value in np.load(file).items()}
    cost = gta.contrastive_cost(golden["x"], golden["y"], golden["gamma_f"].item())
    table = gta.accumulated_cost(cost, golden["gamma_s"].item())
    for found, name in ((cost, "cost"), (table, "table"), (read_corner(table), "score")):
        torch.testing.assert_close(found, golden[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("file", **each_file("gta_loss_*.npz"))
def test_losses_equal_the_published_code(file):
    golden = np.load(file)
    directions = "one" if file.stem.endswith("one_direction") else "both"
    loss = GlobalTemporalAlignmentLoss(consistency_weight=float("consistency" in file.stem), directions=directions)
    z = torch.from_numpy(golden["embs"]).double()[:, None].requires_grad_()
    value = loss(z, one_action(6, videos=3))
    value.backward()
    assert value.item() == pytest.approx(golden["loss"].item(), rel=1e-5)
    if "grad" in golden:
        error = np.abs(z.grad[:, 0].numpy() - golden["grad"]).max()
        assert error <= 1e-5 * np.abs(golden["grad"]).max()


def test_cost_is_a_distribution_over_the_first_video():  # G1
    z, _ = pair_batch((0, 0))
    x, y = z[:, 0]
    cost = gta.contrastive_cost(x[None], y[None, :3], 0.1)
    torch.testing.assert_close((-cost).exp().sum(1), torch.ones(1, 3, dtype=torch.float64), rtol=1e-12, atol=0)
    ones, shift = torch.ones(len(x), 1), torch.tensor([[5.0], [0], [0]])  # adds 5 to the similarities of one column
    moved = gta.contrastive_cost(torch.cat([x, ones], 1)[None], torch.cat([y[:3], shift], 1)[None], 0.1)
    torch.testing.assert_close(moved, cost, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_two_equal_frames_give_the_closed_form(gamma):  # G2
    zero = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    c, w = math.log(2), 2 ** (-1 / gamma)
    wanted = c + (c + 4 * c * w) / (1 + 2 * w)
    found = GlobalTemporalAlignmentLoss(gamma_table=gamma, directions="one", consistency_weight=0)(zero, one_action(2))
    assert found.item() == pytest.approx(wanted, rel=1e-12)
    assert gamma != 0.1 or wanted == pytest.approx(1.3876455, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_probable_score_is_above_hard_dtw_above_soft(gamma):  # G3
    z, _ = pair_batch(frames=6)
    cost = gta.contrastive_cost(z[:2, 0], z[2:, 0], 0.1)
    probable, soft, hard = (score(cost, gamma, contrast) for contrast in CONTRASTS)
    assert (probable >= hard).all() and (hard >= soft).all() and (probable > soft).all()


def test_cycle_keeps_probability():  # G4
    z, clip = pair_batch(frames=6)
    valid_x, valid_y = clip.valid[:2, 0], clip.valid[2:, 0]
    there = gta.accumulated_cost(gta.contrastive_cost(z[:2, 0], z[2:, 0], 0.1, valid_x), 0.1)
    back = gta.accumulated_cost(gta.contrastive_cost(z[2:, 0], z[:2, 0], 0.1, valid_y), 0.1)
    for table, valid in ((there, valid_x), (back, valid_y)):
        columns = gta.column_probabilities(table, valid)
        torch.testing.assert_close(columns.sum(1), torch.ones_like(columns[:, 0]))
        assert (columns[~valid] == 0).all()
    cycle = gta.cycle_probabilities(there, back, valid_x, valid_y)
    torch.testing.assert_close(cycle.sum(2), torch.ones_like(cycle[..., 0]))
    assert (cycle.transpose(1, 2)[~valid_x] == 0).all()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_single_frames_score_zero(contrast):  # G5
    z = pair_batch(frames=3)[0][:, :, :1]
    assert score(gta.contrastive_cost(z[:2, 0], z[2:, 0], 0.1), contrast=contrast).abs().max() == 0
    assert GlobalTemporalAlignmentLoss(contrast=contrast)(z, one_action(1, videos=4)).item() == 0


def test_consistency_has_the_stated_range():  # errata
    valid, uniform = torch.ones(1, 20, dtype=torch.bool), torch.full((1, 20, 20), 0.05, dtype=torch.float64)
    identity = torch.eye(20, dtype=torch.float64)[None]
    found = {v: [gta.cycle_entropy(z, 0.1, v, valid).item() for z in (identity, uniform)] for v in VARIANTS}
    assert found["reference"] == pytest.approx([2.1732, 2.9957], abs=5e-5)
    wanted = -(0.905 * math.log(1 + 1e-8) + 0.095 * math.log(1e-8))
    assert found["corrected"] == pytest.approx([wanted, -math.log(0.05 + 1e-8)], rel=1e-12)


def test_only_the_first_video_of_an_action_is_compared():
    z, clip = pair_batch((0, 1, 0, 0), views=2)
    z.requires_grad_()
    loss = GlobalTemporalAlignmentLoss(**OPTIONS)
    value = loss(z, clip)
    torch.testing.assert_close(value, naive(z, clip, OPTIONS), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value, z)
    assert (gradient[1] == 0).all() and (gradient[2:].abs().amax((2, 3)) > 0).all()
    pairs = [loss(z[keep], clip.map(lambda t, keep=keep: t[keep])) for keep in ([0, 2], [0, 3])]
    torch.testing.assert_close(value, sum(pairs) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_padding_changes_nothing(contrast, variant):
    z, clip = pair_batch()
    loss = GlobalTemporalAlignmentLoss(contrast=contrast, variant=variant)
    value = loss(z.requires_grad_(), clip)
    (wanted,) = torch.autograd.grad(value, z)
    padded, its_clip = append_junk(z, clip)
    same = loss(padded.requires_grad_(), its_clip)
    (gradient,) = torch.autograd.grad(same, padded)
    torch.testing.assert_close(same, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[:, :, :-2], wanted, rtol=1e-12, atol=1e-15)
    assert (gradient[~its_clip.valid] == 0).all()


@pytest.mark.parametrize("change", [{"variant": "corrected"}, *({"contrast": c} for c in CONTRASTS)], ids=str)
def test_gradient_equals_finite_differences(change):
    z, clip = pair_batch((0, 0), frames=4)
    loss = GlobalTemporalAlignmentLoss(**OPTIONS | change)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = pair_batch()
    value = GlobalTemporalAlignmentLoss()(z, clip)
    changes = [{"gamma_table": 1.0}, {"gamma_softmin": 0.3}, {"contrast": "dtw"}, {"contrast": "dtw_minGamma"}]
    changes += [{"directions": "one"}, {"label_smoothing": 0.0}, {"consistency_weight": 0}, {"variant": "corrected"}]
    for change in changes:
        assert not torch.isclose(GlobalTemporalAlignmentLoss(**change)(z, clip), value, rtol=1e-6), change


def test_parts_add_up_without_gradient():
    z, clip = pair_batch()
    loss = GlobalTemporalAlignmentLoss()
    value = loss(z.requires_grad_(), clip)
    torch.testing.assert_close(sum(loss.parts.values()), value.detach())
    assert set(loss.parts) == {"alignment", "consistency"} and not any(p.requires_grad for p in loss.parts.values())


@pytest.mark.parametrize("frames", [1, 2, 6])
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_stays_finite(contrast, frames):
    for z in (10 * torch.eye(frames, 6), torch.ones(frames, 6), torch.zeros(frames, 6)):
        z = z.expand(3, 1, -1, -1).clone().requires_grad_()
        for variant in VARIANTS:
            value = GlobalTemporalAlignmentLoss(contrast=contrast, variant=variant)(z, one_action(frames, videos=3))
            assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = GlobalTemporalAlignmentLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("unit", 1, "action_frames", "video")
    assert loss.pairs == "first" and not list(loss.parameters())
