"""Process and supervised contrast of points of phases: docs/objectives.md, section 10, VSP-F."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import example_clip
from mvf.losses.vsp import (
    FrameProcessContrastiveLoss,
    PhaseProcessContrastiveLoss,
    given_bridges,
    point_classes,
    released_contrast,
    released_diagonal,
    supervised_contrast,
)
from tests.golden import LOSSES

VARIANTS = ("reference", "corrected")
PHASES = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 2, 2]])
ACTIONS = torch.tensor([0, 0, 1, 0])


def random_batch(seed=0, width=4):
    z = torch.randn(4, 1, 7, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=-1), replace(example_clip(4, 1, 7), phase=PHASES[:, None], action=ACTIONS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_points(count=9, seed=0):
    generator = seeded(seed)
    points = F.normalize(torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=-1)
    return points, torch.randint(0, 2, (count, 2), generator=generator)


def golden_points(name):
    golden = {key: torch.from_numpy(value) for key, value in np.load(LOSSES / f"{name}.npz").items()}
    points = golden["embs"][torch.arange(4), golden["points"][:, 0].long()]
    return golden, points, torch.stack([golden["action_of_video"], golden["labels"][:, 0]], dim=-1)


def naive_corrected(points, classes, temperature):
    costs = []
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        positives = [j for j in others if (classes[i] == classes[j]).all()]
        if positives:
            e = {j: torch.exp(points[i] @ points[j] / temperature) for j in others}
            costs.append(-torch.log(sum(e[j] for j in positives) / sum(e.values())))
    return sum(costs) / len(costs)


def naive_released(points, classes, temperature):
    shares = []
    for i in range(len(points)):
        e = {j: torch.exp(points[i] @ points[j] / temperature) for j in range(i, len(points))}
        shares.append(sum(e[j] for j in e if (classes[i] == classes[j]).all()) / sum(e.values()))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_naive_loops(temperature):
    points, classes = random_points()
    for function, naive in ((supervised_contrast, naive_corrected), (released_contrast, naive_released)):
        value, wanted = function(points, classes, temperature), naive(points, classes, temperature)
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)


def test_several_released_bridges_equal_a_naive_loop():
    points = random_points(12)[0].unflatten(0, (4, 3))
    total = 0.0
    for i in range(4):
        for j in range(i, 4):
            total = total + F.cross_entropy(points[i] @ points[j].T, torch.arange(3))
    torch.testing.assert_close(released_diagonal(points), total / 4, rtol=1e-12, atol=0)


def test_equals_the_goldens():  # B6
    golden, points, classes = golden_points("vsp_supervised_as_released_single")
    value = released_contrast(points, classes, float(golden["temperature"]))
    assert value.item() == pytest.approx(golden["value"].item(), rel=1e-6)
    assert value.item() == pytest.approx(0.99624294, abs=1e-8)
    golden, points, classes = golden_points("spec_vspf_supervised_corrected")
    value = supervised_contrast(points, classes, float(golden["temperature"]))
    assert value.item() == pytest.approx(golden["loss"].item(), rel=1e-6)
    assert value.item() == pytest.approx(5.45487250, abs=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_the_sum_of_its_parts(variant):
    z, clip = random_batch()
    bridges = torch.tensor([[[0, 1, 2]], [[0, 2, 3]], [[0, 1, 3]], [[3, 5, 6]]])
    loss = FrameProcessContrastiveLoss(variant=variant)
    value = loss(z, clip, bridges=bridges)
    chosen = given_bridges(bridges, torch.full((4,), 7))
    classes = point_classes(chosen, clip)
    assert classes.tolist() == [[0, 0], [0, 0], [1, 0], [0, 2]]
    points = z[chosen.video, 0, chosen.positions[:, 1]]
    supervised = (supervised_contrast if variant == "corrected" else released_contrast)(points, classes)
    process = PhaseProcessContrastiveLoss(variant=variant)(z, clip, bridges=bridges)
    torch.testing.assert_close(value, process + supervised, rtol=1e-12, atol=0)
    assert loss.parts["process"] == process and loss.parts["supervised"] == supervised


def test_the_released_form_of_several_bridges_is_used():
    z, clip = random_batch()
    loss = FrameProcessContrastiveLoss(segments=2, variant="reference")
    bridges = torch.tensor(
        [[[0, 1, 2], [3, 4, 6]], [[0, 2, 3], [4, 5, 6]], [[0, 1, 3], [4, 5, 6]], [[0, 1, 2], [3, 5, 6]]]
    )
    loss(z, clip, bridges=bridges)
    points = z[torch.arange(4)[:, None], 0, bridges[:, :, 1]]
    torch.testing.assert_close(loss.parts["supervised"], released_diagonal(points), rtol=1e-12, atol=0)


def test_equal_embeddings_give_closed_forms():
    same = torch.ones(3, 2, dtype=torch.float64)
    classes = torch.tensor([[0, 0], [0, 0], [0, 1]])
    assert supervised_contrast(same, classes).item() == pytest.approx(math.log(2))
    assert released_contrast(same, classes).item() == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert released_diagonal(torch.zeros(3, 5, 2)).item() == pytest.approx(2 * math.log(5), rel=1e-6)


def test_no_positive_costs_nothing():
    points, _ = random_points(3)
    points.requires_grad_()
    value = supervised_contrast(points, torch.tensor([[0, 0], [1, 0], [0, 1]]))
    assert value == 0 and (torch.autograd.grad(value, points)[0] == 0).all()
    assert supervised_contrast(points[:1], torch.tensor([[0, 0]])) == 0


def test_minimising_the_released_term_drives_a_class_apart():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    apart = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    classes = torch.tensor([[0, 0], [0, 0], [0, 1]])
    assert released_contrast(apart, classes, 1.0) < released_contrast(points, classes, 1.0)
    assert supervised_contrast(apart, classes, 1.0) > supervised_contrast(points, classes, 1.0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("segments", [1, 2])
def test_padding_changes_nothing(variant, segments):
    z, clip = random_batch()
    loss = FrameProcessContrastiveLoss(segments=segments, variant=variant)
    value = loss(z.requires_grad_(), clip, seeded())
    valid = torch.arange(9).expand(4, 1, 9) < 7
    padded = replace(example_clip(4, 1, 9), phase=F.pad(PHASES, (0, 2), value=2)[:, None], action=ACTIONS, valid=valid)
    junk = F.pad(z.detach(), (0, 0, 0, 2), value=torch.inf).requires_grad_()
    with_junk = loss(junk, padded, seeded())
    torch.testing.assert_close(with_junk, value, rtol=1e-12, atol=0)
    (gradient,), (wanted,) = torch.autograd.grad(with_junk, junk), torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient[:, :, :7], wanted, rtol=1e-12, atol=1e-15)
    assert (gradient[:, :, 7:] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("segments", [1, 2])
def test_gradient_equals_finite_differences(variant, segments):
    z, clip = random_batch(width=2)
    loss = FrameProcessContrastiveLoss(segments=segments, variant=variant, temperature=0.5)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip, seeded()), z.requires_grad_())


def test_arguments_and_labels_change_the_value():
    z, clip = random_batch()
    value = FrameProcessContrastiveLoss(segments=2)(z, clip, seeded())
    for change in ({"variance_power": 2}, {"segments": 1}, {"temperature": 0.3}, {"variant": "reference"}):
        other = FrameProcessContrastiveLoss(**{"segments": 2, **change})(z, clip, seeded())
        assert not torch.isclose(other, value, rtol=1e-7), change
    assert FrameProcessContrastiveLoss(segments=2, overlap=0.5)(z, clip, seeded()) == value  # documented as not used
    for other in (replace(clip, action=torch.tensor([0, 1, 1, 0])), replace(clip, phase=clip.phase.clamp(max=1))):
        assert FrameProcessContrastiveLoss(segments=2)(z, other, seeded()) != value


@pytest.mark.parametrize("variant", VARIANTS)
def test_computes_in_float32_under_autocast_and_stays_finite(variant):
    z, clip = random_batch()
    loss = FrameProcessContrastiveLoss(variant=variant)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z.float(), clip, seeded())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(z, clip, seeded()), rtol=1e-5, atol=0)
    for videos in (1, 4):
        loud = (10 * torch.eye(7)).expand(videos, 1, 7, 7).clone().requires_grad_()
        value = loss(loud, clip.map(lambda x, videos=videos: x[:videos]), seeded())
        assert value.isfinite() and torch.autograd.grad(value, loud)[0].isfinite().all()


def test_declares_its_contract():
    loss = FrameProcessContrastiveLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels, loss.fewest) == ("unit", 1, "phase", "frame", 3)
    assert FrameProcessContrastiveLoss(segments=2).sampler == "frames"


def test_points_without_phase_and_ragged_bridges_are_refused():
    z, clip = random_batch()
    loss = FrameProcessContrastiveLoss()
    unlabelled = replace(clip, phase=torch.full_like(clip.phase, -1))
    with pytest.raises(ValueError, match="point of video 0 has no phase"):
        loss(z, unlabelled, bridges=torch.tensor([[[0, 1, 2]]] * 4))
    with pytest.raises(ValueError, match="none of the 4 videos"):
        loss(z, unlabelled)
    ragged = replace(clip, phase=torch.where(torch.arange(4)[:, None, None] > 0, clip.phase, 0))
    with pytest.raises(ValueError, match=r"equally many bridges in every video, got \[1, 2, 2, 2\]"):
        FrameProcessContrastiveLoss(segments=2, variant="reference")(z, ragged)
    assert FrameProcessContrastiveLoss(segments=2)(z, ragged).isfinite()
