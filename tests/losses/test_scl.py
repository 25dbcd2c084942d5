"""Sequence contrastive loss: docs/objectives.md, section 2."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import Clip, example_clip
from mvf.losses import build_loss
from mvf.losses.scl import NEGATIVES, SequenceContrastiveLoss
from tests.golden import LOSSES, each_file

VARIANTS = ("reference", "corrected")


def random_batch(videos=3, frames=6, width=5, padded=True, seed=0):
    """Unit-norm float64 embeddings, and a clip with padding of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(videos, 2, frames, width, generator=generator, dtype=torch.float64), dim=-1)
    index = torch.rand(videos, 2, 20, generator=generator).argsort(-1)[..., :frames].sort(-1).values
    lengths = torch.randint(2, frames + 1, (videos, 2, 1), generator=generator) if padded else frames
    valid = torch.arange(frames).expand_as(index) < lengths
    return z, Clip(frame_index=index, num_frames=torch.full((videos,), 20), valid=valid)


def is_negative(a, c, negatives):
    """Whether frame a is told apart from frame c."""
    another_video = negatives.startswith("single") and a[0] != c[0]
    own_view = negatives.endswith("noself") and a[:2] == c[:2]
    return not (another_video or own_view)


def naive(z, clip, temperature, variance, negatives, variant, max_distance=None, leak=1e-6):
    """The formula of docs/objectives.md, one pair of frames at a time."""
    frames = list(np.ndindex(*z.shape[:3]))
    total, divisor = 0.0, 0
    for a in frames:
        if not clip.valid[a]:
            continue
        gaussian, denominator, nearest = {}, 0.0, math.inf
        for c in frames:
            both, same_video, same_view = bool(clip.valid[c]), a[0] == c[0], a[:2] == c[:2]
            weight = is_negative(a, c, negatives) if both else leak * (variant == "reference")
            denominator = denominator + weight * torch.exp(z[a] @ z[c] / temperature)
            if same_video and not same_view and both:
                distance = abs(int(clip.frame_index[a]) - int(clip.frame_index[c]))
                gaussian[c], nearest = math.exp(-(distance**2) / (2 * variance)), min(nearest, distance)
        if max_distance is not None and nearest > max_distance:
            continue
        if not gaussian and variant == "corrected":
            continue
        divisor += 1
        for c, g in gaussian.items():
            p, q = g / sum(gaussian.values()), torch.exp(z[a] @ z[c] / temperature) / denominator
            total = total + p * (math.log(p) - torch.log(q + (1e-6 if variant == "reference" else 0.0)))
    return total / divisor


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("max_distance", [None, 1])
def test_equals_naive_loop(negatives, variant, max_distance):
    z, clip = random_batch(frames=4)
    z.requires_grad_()
    options = {"temperature": 0.3, "variance": 4.0, "negatives": negatives, "variant": variant}
    options["max_distance"] = max_distance
    value, wanted = SequenceContrastiveLoss(**options)(z, clip), naive(z, clip, **options)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-9, atol=1e-15)


def golden_clip(golden):
    return Clip(
        frame_index=torch.from_numpy(golden["steps"]),
        num_frames=torch.from_numpy(golden["seq_lens"])[:, 0],
        valid=torch.from_numpy(golden["masks"]) > 0,
    )


@pytest.mark.parametrize("file", **each_file("scl_*.npz"))
def test_equals_the_published_code(file):
    golden = np.load(file)
    clip = golden_clip(golden)
    negatives = next(n for n in sorted(NEGATIVES, key=len, reverse=True) if file.stem.startswith(f"scl_{n}"))
    loss = build_loss(
        "scl", temperature=float(golden["temperature"]), variance=float(golden["label_variance"]), negatives=negatives
    )
    z = torch.from_numpy(golden["embs"]).requires_grad_()
    value = loss(z, clip)
    value.backward()
    assert value.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    error = (z.grad - torch.from_numpy(golden["grad"])).abs().max()
    assert error <= 1e-6 * np.abs(golden["grad"]).max()


def test_the_leak_of_padding_is_what_parts_reference_from_the_formula():  # section 2 (iii)
    golden = np.load(LOSSES / "scl_single_noself_padded.npz")
    z, clip = torch.from_numpy(golden["embs"]), golden_clip(golden)
    options = {"temperature": 0.1, "variance": 10.0, "negatives": "single_noself", "variant": "reference"}
    assert naive(z, clip, **options).item() == pytest.approx(3.402941, abs=1e-6)
    assert naive(z, clip, **options, leak=0.0).item() == pytest.approx(3.402863, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_collapse_costs_more_than_order(variant):  # section 11, 3
    angle = torch.linspace(0, 2, 20, dtype=torch.float64)
    arc = torch.stack([angle.cos(), angle.sin()], dim=-1).expand(1, 2, -1, -1)
    loss, clip = SequenceContrastiveLoss(variant=variant), example_clip(1, 2, 20)
    assert loss(torch.ones_like(arc) / 2**0.5, clip) > loss(arc, clip)


def test_equal_embeddings_give_the_closed_forms():  # S1, S2, S3
    same = torch.ones(1, 2, 2, 4, dtype=torch.float64)
    assert SequenceContrastiveLoss()(same, example_clip(1, 2, 2)).item() == pytest.approx(3.10402e-4, abs=1e-9)
    same = torch.ones(1, 2, 3, 4, dtype=torch.float64)
    assert SequenceContrastiveLoss()(same, example_clip(1, 2, 3)).item() == pytest.approx(2.419874e-3, abs=1e-9)
    same = torch.ones(2, 2, 3, 4, dtype=torch.float64)
    loss = SequenceContrastiveLoss(negatives="batch_noself")
    assert loss(same, example_clip(2, 2, 3)).item() == pytest.approx(1.101026, abs=1e-6)


def test_realisable_target_costs_nothing():  # S4
    frames, temperature, variance = 7, 0.1, 10.0
    f = torch.arange(frames, dtype=torch.float64) / math.sqrt(variance)
    one = torch.ones_like(f)
    views = torch.stack([torch.stack([f, one, -f.square() / 2], -1), torch.stack([f, -f.square() / 2, one], -1)])
    z = math.sqrt(temperature) * views[None]
    assert abs(SequenceContrastiveLoss(temperature, variance)(z, example_clip(1, 2, frames))) <= 1e-6 * frames
    corrected = SequenceContrastiveLoss(temperature, variance, variant="corrected")
    assert abs(corrected(z, example_clip(1, 2, frames))) <= 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_symmetries_change_nothing(negatives, variant):  # S5
    z, clip = random_batch()
    loss = SequenceContrastiveLoss(negatives=negatives, variant=variant)
    value = loss(z, clip)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    order = torch.tensor([2, 0, 1])
    swapped = replace(clip, frame_index=clip.frame_index.flip(1), valid=clip.valid.flip(1))
    permuted = clip.map(lambda tensor: tensor[order])
    for other, its_clip in (
        (z @ rotation, clip),
        (z.flip(1), swapped),
        (z[order], permuted),
        (z, replace(clip, frame_index=clip.frame_index + 7)),
        (z, replace(clip, num_frames=clip.num_frames * 3)),
    ):
        torch.testing.assert_close(loss(other, its_clip), value, rtol=1e-10, atol=0)


def test_more_negatives_cost_more():  # S6
    z, clip = random_batch()
    single, batch = (SequenceContrastiveLoss(negatives=n) for n in ("single_noself", "batch_noself"))
    assert batch(z, clip) >= single(z, clip)
    one, its_clip = z[:1], clip.map(lambda tensor: tensor[:1])
    torch.testing.assert_close(batch(one, its_clip), single(one, its_clip))


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_padding_changes_nothing_when_corrected(negatives):  # S7
    z, clip = random_batch()
    loss = SequenceContrastiveLoss(negatives=negatives, variant="corrected")
    junk = torch.where(clip.valid[..., None], z, torch.full_like(z, torch.inf)).requires_grad_()
    value = loss(junk, clip)
    torch.testing.assert_close(value, loss(z, clip), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value, junk)
    assert (gradient[~clip.valid] == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_empty_views_and_single_frames_stay_finite(negatives, variant):
    for frames in (1, 3):
        z = (10 * torch.eye(frames, 4)).expand(2, 2, -1, -1).clone().requires_grad_()
        clip = example_clip(2, 2, frames)
        clip.valid[0, 1] = False
        for valid in (clip.valid, torch.zeros_like(clip.valid)):
            value = SequenceContrastiveLoss(negatives=negatives, variant=variant)(z, replace(clip, valid=valid))
            assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_equals_finite_differences(variant):
    z, clip = random_batch(videos=2, frames=4, width=3)
    loss = SequenceContrastiveLoss(negatives="batch", variant=variant)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = random_batch()
    value = SequenceContrastiveLoss()(z, clip)
    changes = [{"temperature": 0.2}, {"variance": 5.0}, {"variant": "corrected"}, {"max_distance": 0}]
    changes += [{"negatives": name} for name in NEGATIVES if name != "single_noself"]
    for change in changes:
        assert not torch.isclose(SequenceContrastiveLoss(**change)(z, clip), value, rtol=1e-7), change


def test_declares_its_contract():
    loss = build_loss("scl", embedding_size=8)
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("projection", 2, "views", "none")
    assert not list(loss.parameters())
