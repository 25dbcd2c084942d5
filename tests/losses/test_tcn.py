"""Time-contrastive loss, n-pairs form: docs/objectives.md, section 4."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvf.clip import Clip, example_clip
from mvf.losses.tcn import TimeContrastiveLoss, pairs_contrast
from tests.golden import each_file


def random_batch(videos=3, frames=8, width=5, padded=True):
    """Float64 embeddings, and a clip whose video b lacks its last b frames: pairs are cut in the middle."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(videos, 1, frames, width, generator=generator, dtype=torch.float64)
    clip = example_clip(videos, 1, frames)
    missing = torch.arange(videos)[:, None, None] if padded else 0
    return z, replace(clip, valid=torch.arange(frames).expand(videos, 1, -1) < frames - missing)


def naive(z, clip, regularization):
    """The formula of docs/objectives.md, one pair at a time."""
    values = []
    for video, valid in zip(z[:, 0], clip.valid[:, 0]):
        pairs = [(video[t], video[t + 1]) for t in range(0, len(video), 2) if valid[t] and valid[t + 1]]
        value = 0.0
        for a, p in pairs:
            value = value - a @ p + torch.log(sum(torch.exp(a @ other) for _, other in pairs))
            value = value + regularization / 4 * ((a**2).sum() + (p**2).sum())
        values.append(value / len(pairs))
    return sum(values) / len(values)


def test_equals_naive_loop():
    z, clip = random_batch()
    clip.valid[1, 0, 2] = False  # an anchor in the middle
    z.requires_grad_()
    value, wanted = TimeContrastiveLoss(0.3)(z, clip), naive(z, clip, 0.3)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("file", **each_file("tcn_*.npz"))
@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_equals_the_published_code(file, variant):
    golden = np.load(file)
    z = torch.from_numpy(golden["embs"])[:, None].requires_grad_()
    clip = example_clip(*z.shape[:3])
    loss = TimeContrastiveLoss(float(golden["reg_lambda"]), variant)
    value = loss(z, clip)
    value.backward()
    assert value.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    each = [loss(z[b : b + 1], clip.map(lambda t: t[:1])).item() for b in range(len(z))]
    assert each == pytest.approx(golden["loss_per_sequence"].tolist(), rel=1e-6)
    error = (z.grad[:, 0] - torch.from_numpy(golden["grad"])).abs().max()
    assert error <= 1e-6 * np.abs(golden["grad"]).max()


@pytest.mark.parametrize("n", [1, 4, 6])
def test_orthogonal_pairs_give_the_closed_form(n):  # N1
    z = torch.eye(n, dtype=torch.float64).repeat_interleave(2, dim=0)[None, None]
    value = TimeContrastiveLoss()(z, example_clip(1, 1, 2 * n)).item()
    assert value == pytest.approx(math.log(1 + (n - 1) / math.e) + 0.001, abs=1e-12)
    if n == 4:
        assert value == pytest.approx(0.74466838, abs=1e-8)


def test_zeros_cost_the_logarithm_of_the_pairs():  # N2
    loss = TimeContrastiveLoss()
    assert loss(torch.zeros(2, 1, 10, 3), example_clip(2, 1, 10)).item() == pytest.approx(math.log(5))
    assert loss.parts["regularization"] == 0


def test_turning_and_permuting_pairs_changes_nothing():  # N3
    z, clip = random_batch()
    loss = TimeContrastiveLoss()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    order = torch.tensor([[2, 3], [0, 1], [6, 7], [4, 5]]).flatten()
    permuted = replace(clip, frame_index=clip.frame_index[:, :, order], valid=clip.valid[:, :, order])
    for other, its_clip in ((z @ rotation, clip), (z[:, :, order], permuted)):
        torch.testing.assert_close(loss(other, its_clip), loss(z, clip), rtol=1e-12, atol=0)


def test_own_pairs_are_pulled_and_others_pushed():  # N4
    z, clip = random_batch(padded=False)
    similarity = (z[:, 0, 0::2] @ z[:, 0, 1::2].mT).requires_grad_()
    (gradient,) = torch.autograd.grad(pairs_contrast(similarity, clip.valid[:, 0, 0::2]).sum(), similarity)
    own = torch.eye(4, dtype=torch.bool).expand_as(gradient)
    assert (gradient[own] < 0).all() and (gradient[~own] > 0).all()


def test_unit_embeddings_cannot_fall_below_the_bound():
    n, regularization = 2, 0.002  # opposite anchors reach the bound
    z = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)[None, None]
    bound = math.log(1 + (n - 1) * math.exp(-2)) + regularization / 2
    assert TimeContrastiveLoss()(z, example_clip(1, 1, 4)).item() == pytest.approx(bound, abs=1e-12)


def test_padding_changes_nothing():
    z, clip = random_batch()
    loss = TimeContrastiveLoss()
    value = loss(z.requires_grad_(), clip)
    (gradient,) = torch.autograd.grad(value, z)
    junk = torch.cat([z.detach(), torch.full((3, 1, 4, 5), torch.inf, dtype=z.dtype)], dim=2)
    longer = Clip(
        frame_index=torch.arange(12).expand(3, 1, 12),
        num_frames=clip.num_frames,
        valid=torch.cat([clip.valid, torch.zeros(3, 1, 4, dtype=torch.bool)], dim=2),
    )
    junk[~longer.valid] = torch.inf
    padded = loss(junk.requires_grad_(), longer)
    (padded_gradient,) = torch.autograd.grad(padded, junk)
    torch.testing.assert_close(padded, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_gradient[:, :, :-4], gradient, rtol=1e-12, atol=1e-15)
    assert (padded_gradient[~longer.valid] == 0).all()


@pytest.mark.parametrize("frames", [2, 8])
def test_large_embeddings_and_a_single_pair_stay_finite(frames):
    z = (10 * torch.eye(frames, 8)).expand(1, 1, -1, -1).clone().requires_grad_()
    for scaled in (z, 100 * z):
        value = TimeContrastiveLoss()(scaled, example_clip(1, 1, frames))
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_gradient_equals_finite_differences():
    z, clip = random_batch(videos=2, frames=4, width=3)
    assert torch.autograd.gradcheck(lambda x: TimeContrastiveLoss(0.5)(x, clip), z.requires_grad_())


def test_regularization_changes_the_value_and_variant_does_not():
    z, clip = random_batch()
    value = TimeContrastiveLoss()(z, clip)
    assert not torch.isclose(TimeContrastiveLoss(0.1)(z, clip), value, rtol=1e-6)
    assert torch.equal(TimeContrastiveLoss(variant="corrected")(z, clip), value)


def test_parts_add_up():
    loss, (z, clip) = TimeContrastiveLoss(0.3), random_batch()
    value = loss(z, clip)
    torch.testing.assert_close(sum(loss.parts.values()), value)
    torch.testing.assert_close(loss.parts["contrast"], TimeContrastiveLoss(0)(z, clip))


def test_declares_its_contract():
    loss = TimeContrastiveLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("raw", 1, "anchors", "none")
    assert loss.fewest == 2 and not list(loss.parameters())


def test_frames_that_make_no_pairs_are_refused():
    loss, z, clip = TimeContrastiveLoss(), torch.randn(2, 1, 6, 4), example_clip(2, 1, 6)
    with pytest.raises(ValueError, match="T = 5"):
        loss(z[:, :, :5], example_clip(2, 1, 5))
    clip.valid[1] = torch.tensor([False, True, True, False, True, False])
    with pytest.raises(ValueError, match="video 1 has 0 pairs"):
        loss(z, clip)
