"""Learnable Spatial Token Pooling in its cheap form."""

import pytest
import torch
from torch import nn

from mvf.models.lstp import LearnableSpatialTokenPooling


class PlainPooling(nn.Module):
    """The textbook form: keys and values of every patch."""

    def __init__(self, pooling: LearnableSpatialTokenPooling) -> None:
        super().__init__()
        channels, width = pooling.key.in_features, pooling.width
        self.query = nn.Parameter(pooling.query.detach().clone())
        self.key, self.value = nn.Linear(channels, width), nn.Linear(channels, width)
        self.key.weight.data.copy_(pooling.key.weight)
        self.value.load_state_dict(pooling.value.state_dict())

    def forward(self, patches):
        keys, values = self.key(patches), self.value(patches)
        attention = (self.query @ keys.transpose(-1, -2) / self.query.shape[-1] ** 0.5).softmax(-1)
        return attention @ values, attention


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_the_plain_form_with_any_key_bias(dtype, tolerance):
    torch.manual_seed(0)
    pooling = LearnableSpatialTokenPooling(channels=40, width=16, entities=3).to(dtype)
    plain = PlainPooling(pooling).to(dtype)
    patches = 3 * torch.randn(2, 5, 9, 40, dtype=dtype)
    weights = torch.randn(2, 5, 3, 16, dtype=dtype)
    for module in (pooling, plain):
        entities, attention = module(patches)
        ((entities * weights).sum() + attention.square().sum()).backward()
    for value, wanted in zip(pooling(patches), plain(patches)):
        assert _error(value, wanted) <= tolerance
    for name, parameter in pooling.named_parameters():
        assert _error(parameter.grad, plain.get_parameter(name).grad) <= tolerance, name


def _error(value, wanted):
    return ((value - wanted).norm() / wanted.norm()).item()


def test_one_frame_by_hand():
    pooling = LearnableSpatialTokenPooling(channels=2, width=1, entities=1).double()
    nn.init.constant_(pooling.query, 1.0)
    pooling.key.weight.data = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    pooling.value.weight.data = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    nn.init.constant_(pooling.value.bias, 0.5)
    # scores log 3 and 0: weights 3/4 and 1/4, of the values 2 · 4 and 2 · 8
    patches = torch.tensor([[3.0, 4.0], [1.0, 8.0]], dtype=torch.float64)
    patches[:, 0] = patches[:, 0].log()
    entities, attention = pooling(patches[None, None])
    torch.testing.assert_close(attention.flatten(), torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert entities.item() == pytest.approx(10.5)


def test_attention_sums_to_one_and_follows_the_patches():
    torch.manual_seed(0)
    pooling = LearnableSpatialTokenPooling(channels=8, width=4, entities=2)
    patches, order = 5 * torch.randn(1, 3, 7, 8), torch.randperm(7)
    entities, attention = pooling(patches)
    permuted, its_attention = pooling(patches[:, :, order])
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 3, 2))
    torch.testing.assert_close(permuted, entities)
    torch.testing.assert_close(its_attention, attention[..., order])


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_patches_are_not_widened(autocast):
    torch.manual_seed(0)
    pooling = LearnableSpatialTokenPooling(channels=64, width=32, entities=3)
    patches = torch.randn(2, 4, 50, 64)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        narrow = patches.bfloat16()
        entities, attention = pooling(narrow)
        entities.float().sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events() if event.name != "aten::to")
    assert largest <= narrow.nbytes  # making `narrow` itself
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4, 3))
    torch.testing.assert_close(entities.float(), pooling(patches)[0], atol=0.02, rtol=0.05)


def test_initialisation_is_the_design_s():
    pooling = LearnableSpatialTokenPooling(channels=64, width=128, entities=4)
    bound = (4 * 128) ** -0.5
    assert 0.9 * bound < pooling.query.abs().max() <= bound
    assert pooling.value.weight.abs().max() <= 64**-0.5


def test_no_entity_is_refused():
    with pytest.raises(ValueError, match="entities must be at least 1, got 0"):
        LearnableSpatialTokenPooling(channels=8, entities=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_competition_equals_the_plain_form(dtype, tolerance):
    torch.manual_seed(0)
    pooling = LearnableSpatialTokenPooling(channels=40, width=16, entities=3, competition=True).to(dtype)
    patches = 3 * torch.randn(2, 5, 9, 40, dtype=dtype)
    weights = torch.randn(2, 5, 3, 16, dtype=dtype)

    def plain():
        keys, values = pooling.key(patches), pooling.value(patches)
        share = (pooling.query @ keys.transpose(-1, -2) / 4).softmax(dim=-2)  # over entities
        attention = share / share.sum(dim=-1, keepdim=True)
        return attention @ values, attention

    gradients = []
    for entities, attention in (pooling(patches), plain()):
        pooling.zero_grad()
        ((entities * weights).sum() + attention.square().sum()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in pooling.named_parameters()})
    for value, wanted in zip(pooling(patches), plain()):
        assert _error(value, wanted) <= tolerance
    for name, wanted in gradients[1].items():
        assert _error(gradients[0][name], wanted) <= tolerance, name
    torch.testing.assert_close(pooling(patches)[1].sum(-1), torch.ones(2, 5, 3, dtype=dtype))
    assert not torch.allclose(pooling(patches)[1], LearnableSpatialTokenPooling.attend(without(pooling), patches))


def without(pooling):
    """The same weights, without competition."""
    plain = LearnableSpatialTokenPooling(pooling.key.in_features, pooling.width, pooling.entities)
    plain.load_state_dict(pooling.state_dict())
    return plain.to(pooling.query.dtype)


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_competition_survives_extreme_scores(scale):
    """An entity that loses every patch by far still gets weights: in its own favourite places."""
    pooling = LearnableSpatialTokenPooling(channels=2, width=1, entities=2, competition=True)
    pooling.query.data = torch.tensor([[1.0], [0.001]])
    pooling.key.weight.data = torch.tensor([[1.0, 0.0]])
    patches = (scale * torch.tensor([[1.0, 0.3], [0.9, 0.1]])).expand(1, 1, 2, 2).clone().requires_grad_()
    entities, attention = pooling(patches)
    entities.sum().backward()
    assert attention.isfinite().all() and patches.grad.isfinite().all() and pooling.query.grad.isfinite().all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 1, 2))
    assert attention[0, 0, 1].argmax() == 1  # it loses by less where the other's score is smaller


def test_a_single_competing_entity_is_mean_pooling():
    torch.manual_seed(0)
    pooling, patches = LearnableSpatialTokenPooling(8, 4, entities=1, competition=True), torch.randn(1, 3, 7, 8)
    entities, attention = pooling(patches)
    torch.testing.assert_close(attention, torch.full((1, 3, 1, 7), 1 / 7))
    torch.testing.assert_close(entities[..., 0, :], pooling.value(patches.mean(-2)))


@pytest.mark.parametrize("competition", [False, True])
def test_patches_left_out_get_no_weight_and_the_others_share_it(competition):
    torch.manual_seed(0)
    pooling = LearnableSpatialTokenPooling(8, 4, entities=2, competition=competition)
    patches, keep = torch.randn(1, 3, 7, 8), torch.rand(1, 3, 7) < 0.6
    keep[..., 0] = True
    entities, attention = pooling(patches, keep=keep)
    whole = pooling(patches)[1] * keep[..., None, :]
    torch.testing.assert_close(attention, whole / whole.sum(-1, keepdim=True))
    other = torch.where(keep[..., None], patches, 50.0)
    torch.testing.assert_close(pooling(other, keep=keep)[0], entities)
