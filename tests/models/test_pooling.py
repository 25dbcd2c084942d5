"""The poolings beside LSTP, and the overlap of entity maps that training can penalise."""

import pytest
import torch
from torch import nn

from mvf.models.pooling import FixedWidthPooling, FramePooling, entity_overlap, make_pooling


def test_fixed_width_reads_numbers_channel_major():
    pooling = FixedWidthPooling(cls_channels=6, width=2, entities=3)
    nn.init.eye_(pooling.expand.weight)
    nn.init.zeros_(pooling.expand.bias)
    tokens, attention = pooling(None, torch.arange(6.0).expand(1, 1, 6))
    assert tokens[0, 0].tolist() == [[0, 3], [1, 4], [2, 5]] and attention is None


def test_frame_poolings_make_one_token():
    patches, cls = torch.randn(2, 5, 7, 8), torch.randn(2, 5, 4)
    wanted = {"max": patches.max(2, keepdim=True).values, "mean": patches.mean(2, keepdim=True), "cls": cls[:, :, None]}
    for kind, tokens in wanted.items():
        pooling = make_pooling(kind, channels=8, cls_channels=4, width=16, entities=3)
        found, attention = pooling(patches, cls)
        torch.testing.assert_close(found, tokens)
        assert attention is None and pooling.width == tokens.shape[-1] and not list(pooling.parameters())


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="entities must be at least 1, got 0"):
        FixedWidthPooling(cls_channels=8, entities=0)
    for name in ("cls", "fixed_width"):
        with pytest.raises(ValueError, match=f'"{name}" reads the class token, which this backbone does not have'):
            make_pooling(name, channels=8, cls_channels=None, width=4, entities=3)
    with pytest.raises(ValueError, match="pass cls"):
        FramePooling("cls", 4)(torch.randn(1, 1, 2, 4))
    with pytest.raises(ValueError, match='"mean" reads patches: pass patches'):
        FramePooling("mean", 8)(None, torch.randn(1, 1, 4))
    with pytest.raises(ValueError, match='unknown pooling "lsdp"'):
        make_pooling("lsdp", channels=8, cls_channels=None, width=4, entities=3)


def test_competition_without_attention_is_refused():
    for name in ("fixed_width", "max", "mean", "cls"):
        with pytest.raises(ValueError, match=f'pooling "{name}" has no attention that entities could compete for'):
            make_pooling(name, channels=8, cls_channels=4, width=4, entities=3, competition=True)


# overlap penalty


def test_overlap_equals_a_plain_loop_over_pairs():
    torch.manual_seed(0)
    maps = torch.rand(2, 4, 3, 9, dtype=torch.float64)
    found = entity_overlap(maps)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        frame = maps[tuple(index)]
        pairs = [frame[i] @ frame[j] / (frame[i].norm() * frame[j].norm()) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found[tuple(index)].item() == pytest.approx((sum(pairs) / 3).item(), abs=1e-12)


def test_overlap_stays_between_disjoint_and_equal_maps():
    equal = torch.rand(50, 1, 9).expand(-1, 4, -1).softmax(-1)
    assert (entity_overlap(equal) <= 1).all() and (entity_overlap(equal) > 0.9999).all()
    assert not entity_overlap(torch.eye(4)).any()
    assert 0 < entity_overlap(torch.rand(3, 9)).item() < 1
    assert entity_overlap(torch.rand(3, 9).bfloat16()).dtype == torch.float32


def test_gradient_of_overlap_pulls_maps_apart():
    torch.manual_seed(0)
    scores = torch.randn(5, 2, 16, requires_grad=True)
    before = entity_overlap(scores.softmax(-1)).mean()
    (gradient,) = torch.autograd.grad(before, scores)
    after = entity_overlap((scores - 10 * gradient).softmax(-1)).mean()
    assert after < before - 0.01


def test_one_entity_has_nothing_to_overlap_with():
    with pytest.raises(ValueError, match="needs at least 2 of them, got 1"):
        entity_overlap(torch.rand(3, 1, 9))
