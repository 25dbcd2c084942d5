"""Entities and patches that knock-outs remove."""

from dataclasses import replace

import pytest
import torch

import mvf
from mvf.evaluation.knockouts import (
    REMOVALS,
    actor_patches,
    measure_removal,
    patch_removals,
    pool_without,
    random_background,
    remove_entities,
    strongest_background,
)


@pytest.fixture(scope="module")
def record():
    return mvf.data.find_videos("synthetic", split="val", val_videos=1, idle=2, repeats=1, height=48, width=56)[0]


def test_entities_are_replaced_by_their_mean():
    tokens, mean = torch.randn(5, 3, 4), torch.randn(3, 4)
    found = dict(remove_entities(tokens, mean))
    assert list(found) == [f"{kind}_entity_{i}" for kind in ("without", "only") for i in (1, 2, 3)]
    for i in range(3):
        others = [j for j in range(3) if j != i]
        removed, alone = found[f"without_entity_{i + 1}"], found[f"only_entity_{i + 1}"]
        assert torch.equal(removed[:, i], mean[i].expand(5, 4)) and torch.equal(removed[:, others], tokens[:, others])
        assert torch.equal(alone[:, i], tokens[:, i]) and torch.equal(alone[:, others], mean[others].expand(5, 2, 4))


def test_removed_patches_are_not_read_and_blank_frames_get_the_mean(tiny):
    torch.manual_seed(0)
    model = mvf.build_model(tiny()).eval()
    patches, mean = torch.randn(3, 4, model.architecture.channels), torch.randn(3, 16)
    removed = torch.tensor([[True, False, False, False], [False] * 4, [True] * 4])
    with torch.no_grad():
        tokens = pool_without(model, patches, removed, mean)
        changed = pool_without(model, torch.where(removed[..., None], 50.0, patches), removed, mean)
        torch.testing.assert_close(tokens, changed)
        torch.testing.assert_close(tokens[1], model.pooling(patches[1])[0])
        torch.testing.assert_close(tokens[0], model.pooling(patches[0, 1:])[0])
    assert torch.equal(tokens[2], mean)


def test_every_patch_that_the_actor_touches_is_removed(record):
    grid = (6, 7)
    actor = actor_patches(record, grid)
    mask = record.actor_mask().reshape(record.num_frames, 6, 8, 7, 8).any(axis=(2, 4))
    assert torch.equal(actor, torch.from_numpy(mask).flatten(1)) and actor.any()
    boxed = replace(record, annotations={"actor_box": record.actor_box})
    box = actor_patches(boxed, grid)
    assert (box | ~actor).all() and box.sum() > actor.sum()


def test_controls_remove_as_many_patches_or_as_much_attention(record):
    actor = actor_patches(record, (8, 8))
    attention = torch.rand(len(actor), 3, 64, generator=torch.manual_seed(0)).softmax(dim=-1)
    removals = patch_removals(actor, attention, record.name)
    removed, random, strongest, background = (removals[name] for name in REMOVALS)
    assert actor.any() and torch.equal(removed, actor) and torch.equal(background, ~actor)
    assert torch.equal(random.sum(1), actor.sum(1)) and not (random & actor).any()
    assert torch.equal(random, random_background(actor, record.name))
    assert not torch.equal(random, random_background(actor, "another"))
    mean = attention.mean(dim=1)
    held, gone = ((mean * part).sum(1) for part in (actor, strongest))
    assert not (strongest & actor).any() and (gone >= held - 1e-6).all()
    weakest = mean.masked_fill(~strongest, 1).amin(1)
    assert (gone - weakest < held)[strongest.any(1)].all(), "one patch more than needed"
    assert (mean.masked_fill(strongest | actor, 0).amax(1) <= weakest).all(), "not the most attended"


def test_the_attention_that_goes_is_measured_by_entity():
    actor = torch.tensor([[True, False, False, False]] * 2)
    attention = torch.tensor(
        [[[0.8, 0.1, 0.1, 0.0], [0.6, 0.1, 0.3, 0.0]], [[0.2, 0.5, 0.2, 0.1], [0.2, 0.5, 0.2, 0.1]]]
    )
    strongest = strongest_background(actor, attention)
    assert strongest.tolist() == [[False, True, True, False], [False, True, False, False]]
    found = measure_removal(strongest, actor, attention)
    assert found["mass"] == pytest.approx([0.35, 0.45]) and found["removed"] == 3 / 8 and found["blank"] == 0
    assert found["reached"] == pytest.approx((0.3 + 0.2) / (0.7 + 0.2))
    assert measure_removal(actor, actor, attention)["mass"] == pytest.approx([0.5, 0.4])
    assert measure_removal(actor, actor, attention)["reached"] == 1


def test_a_mask_short_of_frames_is_refused(record):
    short = replace(record, annotations={"actor_mask": lambda: record.actor_mask()[:3]})
    with pytest.raises(ValueError, match=rf"{record.name}: its actor_mask has shape \(3, 48, 56\)"):
        actor_patches(short, (6, 7))
