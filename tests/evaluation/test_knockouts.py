"""Knock-outs: scores with entities or patches removed, and which ones are removed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import mvf
from mvf.evaluation.controls import embed_controls
from mvf.evaluation.knockouts import (
    REMOVALS,
    _differences,
    actor_patches,
    knock_outs,
    measure_removal,
    patch_removals,
    pool_without,
    random_background,
    remove_entities,
    strongest_background,
)
from mvf.evaluation.protocol import clocks_of, grouped
from mvf.evaluation.report import score_report
from mvf.evaluation.scoring import KEPT, Scored, score_rounds
from mvf.models.mvformer import ModelPerAction

ENTITIES = [f"{kind}_entity_{i}" for kind in ("without", "only") for i in (1, 2, 3)]
PATCHES = list(REMOVALS)


class Frames:
    """Pixels in memory: drawing them anew takes longer than all else here."""

    def __init__(self, frames):
        self.pixels, self.identity = frames, "in memory"

    def count(self):
        return len(self.pixels)

    def frames(self, start=0, stop=None, step=1):
        return iter(self.pixels[start:stop:step])


def kept(record):
    """A record with its frames and labels in memory and an actor in the top left of the four patches."""
    mask = np.zeros((record.num_frames, 48, 56), bool)
    mask[:, :24, :28] = True
    annotations = {"phases": lambda: record.phases, "actor_mask": lambda: mask}
    return replace(record, source=Frames(record.load()), annotations=annotations)


@pytest.fixture(scope="module")
def drawn():
    options = {"actions": ["squat", "jumping_jacks"], "idle": 2, "repeats": 1, "height": 48, "width": 56}
    return [
        mvf.data.find_videos("synthetic", split=split, train_videos=4, val_videos=4, **options)
        for split in ("train", "val")
    ]


@pytest.fixture(scope="module")
def records(drawn):
    return [[kept(record) for record in split] for split in drawn]


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return mvf.build_model(tiny()).eval()


def without(annotation, records):
    return [
        replace(r, annotations={k: v for k, v in r.annotations.items() if not k.startswith(annotation)})
        for r in records
    ]


def test_masks_that_do_not_fit_cost_the_patch_removals_alone(tiny, model, records):
    train, val = records
    mask = np.ones((val[1].num_frames, 24, 28), bool)
    wrong = replace(val[1], annotations={**val[1].annotations, "actor_mask": lambda: mask})
    found = knock_outs(model, train, [val[0], wrong, *val[2:]], tiny())
    assert list(found["scores"]) == ["nothing", *ENTITIES, "position_only"]
    for name in PATCHES:
        assert found["skipped"][name].startswith(f"{wrong.name}: its actor_mask has shape {mask.shape}")
    assert found["removed"] == found["mass"] == {}


@pytest.mark.parametrize("videos", [4, 5])
def test_changes_on_few_videos_are_told_apart(videos):
    pieces = np.stack([np.arange(videos, dtype=float), np.full(videos, 10.0)], axis=1)
    first, second = (Scored({"classification": {"a": pieces + [[more, 0]]}}) for more in (0, 3))
    change = _differences(first, second)["classification"]
    assert change["mean"] == pytest.approx(-0.3)
    assert change["interval"] == pytest.approx([-0.3, -0.3]) and change["too_few"] == (videos < 5)


def test_every_knock_out_is_scored_whole_and_on_windows(tiny, model, records):
    found = knock_outs(model, *records, tiny())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["scores"]) == ["nothing", *ENTITIES, *PATCHES, "position_only"]
    for name, groups in found["scores"].items():
        assert list(groups) == ["whole", "cropped"]
        for group, values in groups.items():
            assert set(values) <= set(KEPT) and "classification" in values
            for score in values if name != "nothing" else ():
                change = found["differences"][name][group][score]
                assert change["mean"] == pytest.approx(values[score] - found["scores"]["nothing"][group][score])
                assert change["interval"][0] <= change["interval"][1] and change["too_few"], "two videos an action"
    assert "nothing" not in found["differences"]
    removed, mass = found["removed"], found["mass"]
    assert list(removed) == list(mass) == list(found["reached"]) == list(found["blank"]) == PATCHES
    assert [removed[name] for name in PATCHES if "strongest" not in name] == [0.25, 0.25, 0.75]
    np.testing.assert_allclose(np.add(mass["without_actor"], mass["without_background"]), 1, atol=1e-6)
    assert found["reached"]["without_actor"] == 1 and 0 < found["reached"]["without_strongest_background"] <= 1
    assert found["skipped"] == {}
    assert found == knock_outs(model, *records, tiny()), "not the same twice"


@pytest.mark.parametrize("velocity", [False, True])
def test_nothing_removed_and_the_clock_are_the_protocol_s(tiny, records, velocity):
    config = tiny(features="banked", velocity=velocity)
    torch.manual_seed(0)
    model = mvf.build_model(config).eval()
    found = knock_outs(model, *records, config)["scores"]
    train, val, protocol = grouped(*(mvf.embed(model, split) for split in records), config)
    report = score_report(train, val, protocol, clocks_of(config, model))
    crops = [embed_controls(model, model, split, config).cropped["model"] for split in records]
    cropped = score_rounds(*crops, protocol).means()
    for ours, theirs in (
        (found["nothing"]["whole"], report["scores"]),
        (found["position_only"]["whole"], report["controls"]["position_only"]),
        (found["nothing"]["cropped"], cropped),
    ):
        assert ours == pytest.approx({score: theirs[score] for score in ours}, abs=1e-6)


def test_an_entity_that_nothing_reads_can_be_removed(tiny, records, model):
    """What entity 3 pools is made constant: replaced by its mean, nothing changes."""
    with torch.no_grad():
        model.pooling = Constant(model.pooling)
    found = knock_outs(model, *[without("actor", split) for split in records], tiny())
    assert found["scores"]["without_entity_3"] == found["scores"]["nothing"]
    assert found["scores"]["without_entity_1"] != found["scores"]["nothing"]
    for group, values in found["differences"]["without_entity_3"].items():
        assert all(change["mean"] == 0 for change in values.values()), group


class Constant(torch.nn.Module):
    """A pooling whose third entity is the same for all frames."""

    makes_entities = True

    def __init__(self, pooling):
        super().__init__()
        self.inner = pooling

    def forward(self, patches, cls=None):
        entities, attention = self.inner(patches, cls)
        return torch.cat([entities[..., :2, :], torch.ones_like(entities[..., 2:, :])], dim=-2), attention


def test_without_masks_or_boxes_only_entities_are_removed(tiny, model, records):
    train, val = records
    found = knock_outs(model, train, [*val[1:], *without("actor", val[:1])], tiny())
    assert list(found["scores"]) == ["nothing", *ENTITIES, "position_only"]
    assert found["skipped"]["without_actor"] == "1 of 8 videos have neither a mask nor boxes of the actor"
    assert set(PATCHES) <= set(found["skipped"]) and found["removed"] == found["blank"] == {}


@pytest.mark.parametrize("pooling", ["mean", "fixed_width"])
def test_poolings_without_attention_keep_their_patches(tiny, records, pooling):
    found = knock_outs(mvf.build_model(tiny(pooling=pooling)).eval(), *records, tiny(pooling=pooling))
    assert found["skipped"]["without_actor"] == f'pooling "{pooling}" has no attention to take patches from'
    assert ("without_entity_1" in found["scores"]) == (pooling == "fixed_width")
    assert ("without_entity" in found["skipped"]) == (pooling == "mean")


def test_two_entities_are_not_kept_alone_twice(tiny, records):
    found = knock_outs(mvf.build_model(tiny(entities=2)).eval(), *[without("actor", s) for s in records], tiny())
    assert list(found["scores"]) == ["nothing", "without_entity_1", "without_entity_2", "position_only"]


def test_without_labels_the_scores_that_need_none_remain(tiny, model, records):
    found = knock_outs(model, *[without("phases", without("actor", split)) for split in records], tiny())
    assert list(found["scores"]["without_entity_1"]["whole"]) == ["kendall_tau"]
    assert "no validation frame is labelled" in found["skipped"]["whole.nothing.classification"]


def test_frames_that_are_all_actor_are_counted_as_blank(tiny, model, records):
    def everywhere(record):
        shape = (record.num_frames, 48, 56)
        return replace(record, annotations={**record.annotations, "actor_mask": lambda: np.ones(shape, bool)})

    found = knock_outs(model, *[[everywhere(r) for r in split] for split in records], tiny())
    assert found["blank"] == dict.fromkeys(PATCHES, 0) | {"without_actor": 1}
    assert found["reached"]["without_strongest_background"] == 0
    assert found["scores"]["without_background"] == found["scores"]["nothing"]


@pytest.mark.slow
def test_a_model_per_action_has_means_of_its_own(tiny, model, records):
    other = mvf.build_model(tiny())
    per_action = ModelPerAction({"squat": model, "jumping_jacks": other})
    found = knock_outs(per_action, *[without("actor", split) for split in records], tiny())
    squats = [[r for r in without("actor", split) if r.action == "squat"] for split in records]
    alone = knock_outs(model, *squats, tiny())["scores"]
    jacks = [[r for r in without("actor", split) if r.action != "squat"] for split in records]
    others = knock_outs(other, *jacks, tiny())["scores"]
    for name, score in (("without_entity_1", "classification"), ("only_entity_2", "kendall_tau")):
        mean = (alone[name]["whole"][score] + others[name]["whole"][score]) / 2
        assert found["scores"][name]["whole"][score] == pytest.approx(mean, abs=1e-6)


def test_empty_masks_are_a_reason(tiny, model, records):
    def nowhere(record):
        return replace(record, annotations={"actor_mask": lambda: np.zeros((record.num_frames, 48, 56), bool)})

    found = knock_outs(model, *[[nowhere(r) for r in split] for split in records], tiny())
    assert list(found["scores"]) == ["nothing", *ENTITIES, "position_only"]
    assert f"{records[0][0].name}: its mask is empty in all" in found["skipped"]["without_actor"]


def test_an_empty_split_or_no_backbone_is_a_reason(tiny, model, records):
    assert "there are 4 for training and 0" in knock_outs(model, records[0], [], tiny())["skipped"]["knock_outs"]
    model.backbone = None
    assert knock_outs(model, *records, tiny())["skipped"]["knock_outs"] == "the model came without a backbone"


# removals -----------------------------------------------------------------------------------------------------------


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
