"""The overlap of entity maps that training can penalise."""

import pytest
import torch

from mvf.models.pooling import entity_overlap


def test_equals_a_plain_loop_over_pairs():
    torch.manual_seed(0)
    maps = torch.rand(2, 4, 3, 9, dtype=torch.float64)
    found = entity_overlap(maps)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        frame = maps[tuple(index)]
        pairs = [frame[i] @ frame[j] / (frame[i].norm() * frame[j].norm()) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found[tuple(index)].item() == pytest.approx((sum(pairs) / 3).item(), abs=1e-12)


def test_stays_between_disjoint_and_equal_maps():
    equal = torch.rand(50, 1, 9).expand(-1, 4, -1).softmax(-1)
    assert (entity_overlap(equal) <= 1).all() and (entity_overlap(equal) > 0.9999).all()
    assert not entity_overlap(torch.eye(4)).any()
    assert 0 < entity_overlap(torch.rand(3, 9)).item() < 1
    assert entity_overlap(torch.rand(3, 9).bfloat16()).dtype == torch.float32


def test_its_gradient_pulls_maps_apart():
    torch.manual_seed(0)
    scores = torch.randn(5, 2, 16, requires_grad=True)
    before = entity_overlap(scores.softmax(-1)).mean()
    (gradient,) = torch.autograd.grad(before, scores)
    after = entity_overlap((scores - 10 * gradient).softmax(-1)).mean()
    assert after < before - 0.01


def test_one_entity_has_nothing_to_overlap_with():
    with pytest.raises(ValueError, match="needs at least 2 of them, got 1"):
        entity_overlap(torch.rand(3, 1, 9))
