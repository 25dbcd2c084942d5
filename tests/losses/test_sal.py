"""Shuffle and learn: docs/objectives.md, section 5."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvf.clip import example_clip
from mvf.losses.sal import ShuffleAndLearnLoss, draw_triplets
from tests.golden import LOSSES


def random_batch(videos=3, frames=9, width=4, seed=0):
    z = torch.randn(videos, 1, frames, width, generator=seeded(seed), dtype=torch.float64)
    return z, example_clip(videos, 1, frames)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(seed=0, **arguments):
    torch.manual_seed(seed)
    return ShuffleAndLearnLoss(**{"embedding_size": 4, "hidden": (6, 5), **arguments}).double()


def naive(loss, z, triplets):
    """The formula of docs/objectives.md, one triplet at a time."""
    total = 0.0
    for video, (a, b, c), label in zip(*triplets, strict=True):
        x = torch.cat([z[video, 0, a], z[video, 0, b], z[video, 0, c]])
        layers = [layer for layer in loss.classifier if isinstance(layer, torch.nn.Linear)]
        for layer in layers[:-1]:
            x = (layer.weight @ x + layer.bias).clamp(min=0)
        logits = layers[-1].weight @ x + layers[-1].bias
        total = total - (logits[label] - logits.exp().sum().log())
    return total / len(triplets[0])


def test_equals_naive_loop():
    z, clip = random_batch()
    loss, triplets = build(), draw_triplets(torch.tensor([9, 9, 9]), generator=seeded(3))
    z.requires_grad_()
    inputs = [z, *loss.parameters()]
    value, wanted = loss(z, clip, triplets=triplets), naive(loss, z, triplets)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    for found, right in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-14)
    assert loss(z, clip, seeded(3)) == value  # the same triplets, drawn


def test_equals_the_golden():  # L5
    file = LOSSES / "spec_sal_example.npz"
    golden = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
    loss = ShuffleAndLearnLoss(embedding_size=4, hidden=(8, 6)).double()
    names = ("W1", "b1", "W2", "b2", "W3", "b3")
    loss.load_state_dict({key: golden[name].movedim(0, -1) for key, name in zip(loss.state_dict(), names, strict=True)})
    video, positions, label = golden["video_of_triplet"], golden["triplets"], golden["labels"]
    z = golden["embs"][:, None]
    torch.testing.assert_close(loss.classify(z[video[:, None], 0, positions]), golden["logits"], rtol=1e-6, atol=0)
    value = loss(z, example_clip(2, 1, 10), triplets=(video, positions, label))
    assert value.item() == pytest.approx(golden["loss"].item(), rel=1e-6)


def test_constant_predictions_give_the_closed_forms():  # L1
    z, clip = random_batch(videos=2)
    loss = build(hidden=(128, 64))
    last = loss.classifier[-1]
    torch.nn.init.zeros_(last.weight), torch.nn.init.zeros_(last.bias)
    assert loss(z, clip).item() == pytest.approx(math.log(2))
    last.bias.data = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    assert loss(z, clip).item() == pytest.approx(0.5623, abs=1e-4)  # 4 of 16 are in order


@pytest.mark.parametrize("counts", [[5, 5, 5], [5, 9, 40]])
def test_ordered_triplets_are_monotone_and_shuffled_are_not(counts):  # L2, L4
    for seed in range(10):
        video, positions, label = draw_triplets(torch.tensor(counts), generator=seeded(seed))
        assert video.tolist() == [i for i in range(3) for _ in range(8)]
        assert (positions >= 0).all() and (positions < torch.tensor(counts)[video][:, None]).all()
        for (a, b, c), shuffled in zip(positions.tolist(), label.tolist(), strict=True):
            assert len({a, b, c}) == 3
            assert (a < b < c or a > b > c) == (not shuffled)


def test_every_kind_of_triplet_is_drawn():
    _, positions, label = draw_triplets(torch.tensor([5]), triplets=4000, shuffled_share=0.75, generator=seeded())
    found = positions[label == 1].unique(dim=0, return_counts=True)
    assert found[0].tolist() == [[1, 0, 3], [1, 4, 3], [3, 0, 1], [3, 4, 1]]  # p3 and p1 in either direction
    assert (found[1] > 650).all()  # a quarter of 3000 each
    ordered = positions[label == 0].unique(dim=0, return_counts=True)
    assert ordered[0].tolist() == [[1, 2, 3], [3, 2, 1]] and (ordered[1] > 430).all()
    long = draw_triplets(torch.tensor([9]), triplets=2000, generator=seeded())[1]
    assert sorted(long.unique().tolist()) == list(range(9))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("triplets", [1, 3, 8])
def test_exactly_the_share_is_shuffled(share, triplets):  # L3
    places = set()
    for seed in range(5):
        label = draw_triplets(torch.tensor([6, 7, 8]), triplets, share, seeded(seed))[2]
        assert label.sum() == math.floor(share * 3 * triplets) and label.dtype == torch.int64
        places.add(tuple(label.tolist()))
    assert len(places) > 1 or share * 3 * triplets < 1 or share == 1  # at random places


def test_gradient_reaches_embeddings_and_classifier():  # L6
    z, clip = random_batch()
    loss = build(triplets=50)
    loss(z.requires_grad_(), clip, seeded()).backward()
    assert (z.grad.abs().sum(-1) > 0).all()
    assert all((parameter.grad != 0).any() for parameter in loss.parameters())


def test_training_the_classifier_lowers_the_value():
    z = torch.arange(9.0)[None, None, :, None].expand(2, 1, 9, 4).double() / 4 - 1  # a clock
    loss, clip = build(hidden=(32, 16), triplets=32), example_clip(2, 1, 9)
    optimiser, generator = torch.optim.Adam(loss.parameters(), lr=0.02), seeded()
    for _ in range(120):
        optimiser.zero_grad()
        loss(z, clip, generator).backward()
        optimiser.step()
    assert loss(z, clip, seeded(9)) < 0.3  # a constant reaches 0.5623


def test_padding_changes_nothing():
    z, clip = random_batch()
    loss = build()
    value = loss(z.requires_grad_(), clip, triplets=draw_triplets(torch.tensor([9, 9, 9]), generator=seeded()))
    place = torch.tensor([0, 1, 2, 3, 5, 6, 7, 9, 10])
    junk = torch.full((3, 1, 12, 4), torch.inf, dtype=torch.float64)
    junk[:, :, place] = z.detach()
    valid = torch.zeros(3, 1, 12, dtype=torch.bool)
    valid[:, :, place] = True
    with_junk = loss(junk.requires_grad_(), replace(example_clip(3, 1, 12), valid=valid), seeded())
    torch.testing.assert_close(with_junk, value, rtol=1e-12, atol=0)  # positions are drawn among the valid frames
    (gradient,), (wanted,) = torch.autograd.grad(with_junk, junk), torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient[:, :, place], wanted, rtol=1e-12, atol=1e-15)
    assert (gradient[~valid] == 0).all()


def test_gradient_equals_finite_differences():
    z, clip = random_batch()
    loss = build()
    assert torch.autograd.gradcheck(lambda x: loss(x, clip, seeded()), z.requires_grad_())


def test_wider_embeddings_are_not_narrowed():
    z, clip = random_batch()
    loss = build().float()
    assert loss(z, clip, seeded()).dtype == torch.float64
    torch.testing.assert_close(loss(z, clip, seeded()).float(), loss(z.float(), clip, seeded()), rtol=1e-5, atol=0)


def test_every_argument_changes_the_value():
    z, clip = random_batch()
    value = build()(z, clip, seeded())
    for change in ({"triplets": 4}, {"shuffled_share": 0.25}, {"hidden": (5,)}):
        assert not torch.isclose(build(**change)(z, clip, seeded()), value, rtol=1e-7), change
    assert build()(z, clip, seeded(1)) != value == build()(z, clip, seeded())


def test_extremes_stay_finite():
    z = (10 * torch.eye(5)).expand(1, 1, 5, 5).clone().requires_grad_()
    value = build(embedding_size=5).float()(z, example_clip(1, 1, 5), seeded())
    assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = ShuffleAndLearnLoss(embedding_size=16)
    assert (loss.reads, loss.views, loss.sampler, loss.labels, loss.fewest) == ("raw", 1, "frames", "none", 5)
    assert [tuple(p.shape) for p in loss.parameters() if p.ndim == 2] == [(128, 48), (64, 128), (2, 64)]
    assert all(p.requires_grad for p in loss.parameters())


def test_bad_triplets_and_sizes_are_refused_by_name():
    z, clip = random_batch()
    with pytest.raises(ValueError, match="embedding_size is None: pass"):
        ShuffleAndLearnLoss()
    with pytest.raises(ValueError, match="embedding_size = 7 channels, got 4"):
        build(embedding_size=7)(z, clip)
    with pytest.raises(ValueError, match="position 9 of a triplet"):
        build()(z, clip, triplets=(torch.tensor([0]), torch.tensor([[0, 1, 9]]), torch.tensor([1])))
    with pytest.raises(ValueError, match=r"5 valid frames, got videos of \[9, 4\]"):
        draw_triplets(torch.tensor([9, 4]))
