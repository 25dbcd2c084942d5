"""Localization: entities, heads of every layer and the region itself as rivals; what cannot be chosen or told."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mvf.attention import SAMPLED_FRAMES, sampled, sampled_maps
from mvf.data.records import VideoList, VideoRecord
from mvf.evaluation.localization import best_map, choose_head, localize
from mvf.evaluation.regions import body_parts, box_region, mask_region

GRID, SIZE = 4, 32


@dataclass(frozen=True)
class Source:
    """Black frames with a white actor."""

    mask: np.ndarray
    identity: str = "fake"

    def count(self):
        return len(self.mask)

    def frames(self, start=0, stop=None, step=1):
        yield from np.repeat(self.mask[start:stop:step, ..., None], 3, axis=-1).astype(np.uint8) * 255


def localization(*arguments):
    """Table, differences and reasons."""
    report = localize(*arguments)
    return report["localization"], report["localization_differences"], report["skipped"]


def make_record(name, seed, frames=20, boxes=False, labels=True, **others):
    rng = np.random.default_rng(seed)
    mask = np.zeros((frames, SIZE, SIZE), bool)
    boxes_of = []
    for t in range(frames):
        y, x = rng.integers(0, GRID - 1, 2) * SIZE // GRID
        mask[t, y : y + 16, x : x + 8] = True
        boxes_of.append([x, y, x + 8, y + 16])
    annotations = {"actor_box": lambda: np.array(boxes_of, float)} if boxes else {"actor_mask": lambda: mask}
    annotations |= {kind: lambda value=value: value for kind, value in others.items()}
    return VideoRecord(name, "squat", Source(mask), annotations if labels else {})


class Backbone(torch.nn.Module):
    """Patches are (brightness, 1); head 1 looks away from the actor, head 2 at it, head 3 at the first patch."""

    image_size, grid, layers, num_blocks = SIZE, (GRID, GRID), (1,), 1
    name = "vit"

    def cls_attention(self, frames, layers):
        brightness = torch.nn.functional.avg_pool2d(frames.mean(1), SIZE // GRID).flatten(1)
        first = torch.zeros_like(brightness)
        first[:, 0] = 1
        heads = torch.stack([1 - brightness, brightness, first], dim=1) + 0.01
        return torch.stack([brightness, torch.ones_like(brightness)], dim=-1), None, heads[None]

    def forward(self, frames):
        return self.cls_attention(frames, (-1,))[:2]


class Model(torch.nn.Module):
    """Entity 1 is uniform, entity 2 looks at the actor."""

    actions = ()

    def __init__(self, attends=True, heads=True):
        super().__init__()
        self.backbone, self.weight, self.attends = Backbone(), torch.nn.Parameter(torch.zeros(1)), attends
        if not heads:
            look = self.backbone.cls_attention
            self.backbone.cls_attention = lambda frames, layers: (*look(frames, layers)[:2], None)

    def of(self, action):
        return self

    def pool(self, patches, cls):
        attention = torch.stack([torch.ones_like(patches[..., 0]), patches[..., 0] + 0.01], dim=2)
        attention = attention / attention.sum(-1, keepdim=True)
        return None, attention if self.attends else None


@pytest.fixture(scope="module")
def records():
    return [
        VideoList([make_record(f"{split}{i}", 10 * i + len(split)) for i in range(6)]) for split in ("train", "val")
    ]


def test_the_map_on_the_actor_is_chosen_and_scores_full(records):
    table, differences, skipped = localization(Model(), *records)
    assert table["entity_best"]["index"] == 2 and table["head_best"]["index"] == 2
    assert skipped.keys() == {"localization.limbs", "localization.object_auroc"}  # no joints, no object
    assert table["entity_best"]["auroc"] == table["entity_2"]["auroc"] == 1
    assert table["entity_best"]["jaccard"] > 0.9 and table["entity_best"]["pointing"] == 1
    assert table["uniform"]["auroc"] == 0.5 and table["uniform"]["lift"] == pytest.approx(1)
    assert table["uniform"]["mass"] == pytest.approx(table["area"]) == pytest.approx(1 / 8)
    assert table["entity_1"]["auroc"] == pytest.approx(0.5)
    assert table["backbone_pca"]["auroc"] == 1  # the sign is chosen where the training actors are
    low, high = differences["entity_best - mean_training_mask"]["auroc"]["interval"]
    assert 0 < low <= differences["entity_best - mean_training_mask"]["auroc"]["mean"] <= high


def test_entity_and_head_are_chosen_on_training_videos(records):
    """Where training actors stand at the first patch, head 3 is chosen, whatever validation shows."""
    corner = np.zeros((20, SIZE, SIZE), bool)
    corner[:, :8, :8] = True
    fixed = VideoList(
        [VideoRecord("c", "squat", Source(np.zeros_like(corner)), {"actor_mask": lambda: corner})] * 2
    )  # the frames are black: only head 3 finds the region
    table, *_ = localization(Model(), fixed, records[1])
    assert table["head_best"]["index"] == 3
    assert table["head_best"]["auroc"] < table["head_oracle"]["auroc"] == 1


def test_boxes_have_no_jaccard():
    train, val = ([make_record(f"{s}{i}", i, boxes=True) for i in range(2)] for s in "tv")
    table, *_ = localization(Model(), train, val)
    assert "jaccard" not in table["entity_1"] and table["entity_best"]["auroc"] == 1


def test_boxes_and_masks_of_a_rectangle_agree(records):
    mask_table, *_ = localization(Model(), *([make_record(f"{s}{i}", i) for i in range(2)] for s in "tv"))
    box_table, *_ = localization(Model(), *([make_record(f"{s}{i}", i, boxes=True) for i in range(2)] for s in "tv"))
    assert mask_table["entity_1"]["mass"] == pytest.approx(box_table["entity_1"]["mass"])


def test_what_has_no_attention_is_named(records):
    table, _, skipped = localization(Model(attends=False, heads=False), *records)
    assert {"localization.entity_best", "localization.head_best"} <= skipped.keys()
    assert "entity_best" not in table and "head_oracle" not in table and "uniform" in table


def test_without_masks_or_boxes_the_split_is_named_and_what_needs_none_is_there(records):
    bare = [make_record("bare", 0, labels=False)]
    for train, val, split in ((bare, records[1], "training"), (records[0], bare, "validation")):
        report = localize(Model(), train, val)
        assert "localization" not in report
        assert f"no {split} video has an actor mask" in report["skipped"]["localization"]
        assert report["attention"]["overlap"][0][0] == pytest.approx(1)


def test_masked_videos_are_found_among_many_without(records):
    bare = [make_record(f"bare{i}", i, labels=False) for i in range(200)]
    table, *_ = localization(Model(), [*bare, records[0][0]], records[1])
    assert table["head_best"]["index"] == 2


@pytest.mark.parametrize("mask, message", [
    (np.zeros((20, SIZE, SIZE), bool), "mask is empty in all 8 sampled frames"),
    (np.ones((20, 8, SIZE), bool), r"actor_mask has shape \(20, 8, 32\), its frames need \(20, 32, 32\)"),
    (np.ones((9, SIZE, SIZE), bool), r"actor_mask has shape \(9, 32, 32\)"),
])  # fmt: skip
def test_a_mask_that_cannot_be_used_is_named_and_the_others_count(records, mask, message):
    wrong = make_record("wrong", 3, actor_mask=mask)
    report = localize(Model(), [*records[0], wrong], [*records[1], wrong])
    plain = localize(Model(), *records)
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=message):
            raise ValueError(report["skipped"][f"localization.{split}.wrong"])
    assert report["localization"] == plain["localization"]
    alone = localize(Model(), records[0], [wrong])
    assert "localization" not in alone and "wrong: its" in alone["skipped"]["localization"]


@pytest.mark.parametrize("frames", [2, SAMPLED_FRAMES, SAMPLED_FRAMES + 3, 50])
def test_any_length_is_sampled(frames):
    train, val = ([make_record(f"{s}{i}", i, frames=frames) for i in range(2)] for s in "tv")
    assert localization(Model(), train, val)[0]["entity_best"]["auroc"] == 1


def test_regions_are_shares_of_patches():
    rng = np.random.default_rng(0)
    mask = rng.random((3, 24, 36)) > 0.5
    wanted = mask.reshape(3, 4, 6, 6, 6).mean(axis=(2, 4))
    np.testing.assert_allclose(mask_region(mask, (4, 6)), wanted, atol=1e-6)
    box = np.array([[3, 5, 20, 17]])
    drawn = np.zeros((1, 24, 36), bool)
    drawn[0, 5:17, 3:20] = True
    np.testing.assert_allclose(box_region(box, (24, 36), (5, 7)), mask_region(drawn, (5, 7)), atol=1e-6)
    assert not box_region(np.array([[np.nan, 0, 5, 5]]), (24, 36), (4, 6)).any()
    np.testing.assert_allclose(box_region(np.array([[-9, -9, 99, 99]]), (24, 36), (4, 6)), 1)


def test_every_row_has_intervals_and_videos(records):
    report = localize(Model(), *records, Untrained(Model().backbone))
    table, videos = report["localization"], report["localization_videos"]
    for name, row in table.items():
        if name == "area":
            continue
        for metric in ("auroc", "lift", "average_precision", "pointing", "mass", "jaccard", "jaccard_size"):
            values = [videos[name][f"val{i}"][metric] for i in range(6)]
            assert row[metric] == pytest.approx(np.mean(values))
            low, high = row["interval"][metric]
            assert min(values) - 1e-9 <= low <= row[metric] + 1e-9 and row[metric] - 1e-9 <= high <= max(values) + 1e-9
    assert table["background"]["index"] == 1 and table["untrained_entity_best"]["index"] == 1
    assert table["entity_best"]["jaccard_size"] == pytest.approx(2 / 16)  # the actor covers two of 16 patches


def test_differences_are_paired_and_say_whether_zero_is_out(records):
    report = localize(Model(), *records, Untrained(Model().backbone))
    differences, videos = report["localization_differences"], report["localization_videos"]
    others = ("head_best", "head_oracle", "head_best_any_layer", "head_oracle_any_layer", "mean_training_mask",
              "centre", "uniform", "backbone_pca", "untrained_entity_best")  # fmt: skip
    assert differences.keys() == {f"{a} - {b}" for a in ("entity_1", "entity_best") for b in others}
    row = differences["entity_1 - head_best"]["auroc"]
    pairs = [videos["entity_1"][f"val{i}"]["auroc"] - videos["head_best"][f"val{i}"]["auroc"] for i in range(6)]
    assert row["mean"] == pytest.approx(np.mean(pairs)) and row["videos"] == 6 and "too_few" not in row
    low, high = row["interval"]
    said = f"entity 1 is below head 2 of the last layer (chosen on training videos) by {-row['mean']:.3f}"
    assert f"{said} [{-high:.3f}, {-low:.3f}]" in row["verdict"]
    assert "the interval excludes zero" in row["verdict"]
    same = differences["entity_best - head_best"]["auroc"]
    assert same["mean"] == pytest.approx(0) and "verdict" not in same
    one = localize(Model(), records[0], records[1][:1])["localization_differences"]["entity_1 - head_best"]["lift"]
    assert "interval" not in one and "too few videos (1) to say" in one["verdict"]
    few = localize(Model(), records[0], records[1][:4])["localization_differences"]["entity_1 - head_best"]["auroc"]
    assert few["interval"][1] < 0 and few["too_few"]  # the bootstrap of four is no ground for a verdict
    assert few["verdict"].endswith("too few videos (4) to say")


class Untrained(Model):
    """Entity 1 looks at the actor, entity 2 nowhere: another choice than the model's."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def pool(self, patches, cls):
        return None, super().pool(patches, cls)[1].flip(2)


def test_untrained_entities_are_chosen_by_the_same_rule(records):
    table = localize(Model(), *records, Untrained(Model().backbone))["localization"]
    assert table["untrained_entity_best"]["auroc"] == 1 and table["untrained_entity_best"]["index"] == 1
    assert "untrained_entity_best" not in localize(Model(), *records)["localization"]


def figure_joints(frames=20):
    """(frames, 13, 2): a trunk in the right half, arms reaching left along the top."""
    joints = np.full((frames, 13, 2), np.nan)
    for number, place in {1: (20, 9), 2: (28, 9), 7: (20, 22), 8: (28, 22), 3: (12, 12), 5: (2, 12)}.items():
        joints[:, number] = place
    return joints


def test_limbs_are_told_from_the_torso_and_the_object_from_both():
    mask = np.ones((20, SIZE, SIZE), bool)
    mask[:, 26:] = False
    thing = np.zeros_like(mask)
    thing[:, :3, :3] = True  # a seventh of the first patch
    joints = figure_joints()

    def records(split):
        return [make_record(f"{split}{i}", i, actor_mask=mask, object_mask=thing, joints=joints) for i in range(3)]

    drawn = torch.from_numpy(mask_region(body_parts(joints[:1], (SIZE, SIZE))[0], (GRID, GRID))).flatten()

    class Limbs(Backbone):
        def cls_attention(self, frames, layers):
            return *super().cls_attention(frames, layers)[:2], (drawn + 0.01).expand(1, len(frames), 1, -1)

    model = Model()
    model.backbone = Limbs()
    report = localize(model, records("t"), records("v"))
    table = report["localization"]
    assert table["uniform"]["limbs"] == pytest.approx(1 / 2) and table["uniform"]["object_lift"] == pytest.approx(1)
    assert not {"localization.limbs", "localization.object_auroc"} & report["skipped"].keys()
    assert 0.75 < table["head_best"]["limbs"] <= 1 and table["head_best"]["object_auroc"] < 0.5


def test_limbs_are_scored_on_boxes_too():
    train, val = ([make_record(f"{s}{i}", i, boxes=True, joints=figure_joints()) for i in range(2)] for s in "tv")
    for record in (*train, *val):
        record.annotations["actor_box"] = lambda: np.tile([0.0, 4.0, 32.0, 28.0], (20, 1))
    row = localize(Model(), train, val)["localization"]["uniform"]
    assert row["limbs"] == pytest.approx(1 / 2) and "jaccard" not in row and "jaccard_size" not in row


def test_parts_of_a_body_share_no_pixel_and_missing_joints_are_left_out():
    joints = np.concatenate([figure_joints(1), figure_joints(1), figure_joints(1)])
    joints[1, 5], joints[2, 7] = np.nan, np.nan  # no hand, no hip
    limbs, torso = body_parts(joints, (SIZE, SIZE))
    assert not (limbs & torso).any() and torso[0].sum() == pytest.approx(9 * 14, abs=10)
    assert limbs[0, 12, 4] and not limbs[1, 12, 4] and limbs[1, 10, 15]
    assert not torso[2].any() and limbs[2].any()
    assert not body_parts(np.full((2, 13, 2), np.nan), (8, 8))[0].any()


def test_a_head_on_the_object_is_seen_there():
    thing = np.zeros((20, SIZE, SIZE), bool)
    thing[:, :8, :8] = True
    train, val = ([make_record(f"{s}{i}", i, object_mask=thing) for i in range(2)] for s in "tv")

    class OnlyFirst(Backbone):
        def cls_attention(self, frames, layers):
            found, *_, heads = super().cls_attention(frames, layers)
            return found, None, heads[:, :, 2:]

    model = Model()
    model.backbone = OnlyFirst()
    row = localize(model, train, val)["localization"]["head_best"]
    assert row["object_auroc"] == 1 and row["object_lift"] > 10


def test_what_attention_says_without_masks(records):
    bare = [make_record(f"b{i}", i, labels=False) for i in range(3)]
    found = localize(Model(), bare, bare)["attention"]
    assert found["videos"] == 3 and np.allclose(np.diag(found["overlap"]), 1)
    assert found["entropy"]["entity_1"] == pytest.approx(1) and found["steadiness"]["entity_1"] == pytest.approx(1)
    assert found["effective_share"]["head_3"] < 0.2 < found["effective_share"]["entity_1"]
    assert found["steadiness"]["entity_2"] < 0.9  # the actor jumps
    single = localize(Model(), bare, [make_record("one", 0, frames=1, labels=False)])
    assert "steadiness" not in single["attention"] and "two frames" in single["skipped"]["attention.steadiness"]
    nothing = localize(Model(attends=False, heads=False), bare, bare)
    assert "attention" not in nothing and "neither pooling nor backbone" in nothing["skipped"]["attention"]


# rivals of the entities ---------------------------------------------------------------------------------------------


class Deep(Backbone):
    """The head that finds the actor is number 2 of layer 2; the last layer has only the first patch twice."""

    layers, num_blocks = (2, 3), 4

    def cls_attention(self, frames, layers):
        patches, cls, (heads,) = super().cls_attention(frames, layers)
        blind = heads[:, [2, 2, 2]]
        return patches, cls, torch.stack([heads if layer == 2 else blind for layer in layers])


def deep():
    model = Model()
    model.backbone = Deep()
    return model


def test_heads_of_every_layer_are_rivals(records):
    report = localize(deep(), *records)
    table, differences = report["localization"], report["localization_differences"]
    last, rival = table["head_best"], table["head_best_any_layer"]
    assert (rival["index"], rival["layer"]) == (2, 2) and rival["auroc"] == 1 > last["auroc"] and "layer" not in last
    oracle = table["head_oracle_any_layer"]
    assert (oracle["index"], oracle["layer"]) == (2, 2) and oracle["auroc"] == 1 > table["head_oracle"]["auroc"]
    assert differences["entity_best - head_best_any_layer"]["auroc"]["mean"] == 0
    said = differences["entity_1 - head_best_any_layer"]["auroc"]["verdict"]
    assert "below head 2 of layer 2 (chosen on training videos) by 0." in said


def test_what_no_auroc_tells_is_neither_chosen_nor_shown(records):
    """A sliver of an actor covers half of no patch."""
    sliver = np.zeros((20, SIZE, SIZE), bool)
    sliver[:, 5, 5] = True
    thin = [make_record(f"thin{i}", i, actor_mask=sliver) for i in range(2)]
    report = localize(Model(), thin, records[1])
    for name in ("entity_best", "head_best"):
        assert "no training video defines AUROC" in report["skipped"][f"localization.{name}"]
    gone = {"entity_best", "head_best", "head_best_any_layer", "background"}
    assert not gone & report["localization"].keys() and report["localization"]["head_oracle"]["auroc"] == 1
    assert not any("best" in pair for pair in report["localization_differences"])
    with pytest.raises(ValueError, match="no training video defines AUROC: .* use a finer grid"):
        choose_head(Model(), thin)
    with pytest.raises(ValueError, match="vit has no class token"):
        choose_head(Model(heads=False), records[0])


def test_the_oracle_leaves_out_videos_that_do_not_define_auroc(records):
    sliver = np.zeros((20, SIZE, SIZE), bool)
    sliver[:, 5, 5] = True
    thin = make_record("thin", 3, actor_mask=sliver)
    for val in ([*records[1], thin], [thin, *records[1]]):
        report = localize(Model(), records[0], val)
        scores = report["localization_videos"]
        assert (
            "thin" not in scores["head_oracle"]
            and len(scores["head_oracle"]) == len(records[1])
            and "thin" in scores["head_best"]
        )
        assert report["localization_differences"]["entity_1 - head_oracle"]["lift"]["videos"] == len(records[1])
    assert best_map(list(np.ones((2, 3, 4, 4))), np.zeros((3, 4, 4))) is None


def test_the_region_itself_shows_what_a_perfect_map_scores(records):
    report = localize(Model(), *records)
    row = report["localization"]["actor_mask"]
    assert row["auroc"] == row["jaccard"] == row["pointing"] == row["mass"] == 1
    assert row["lift"] >= max(r["lift"] for n, r in report["localization"].items() if n not in ("area", "actor_mask"))
    assert not any("actor_mask" in pair for pair in report["localization_differences"])
    gone = np.zeros((20, SIZE, SIZE), bool)
    gone[:10, :16, :8] = True  # the actor leaves
    left = localize(Model(), records[0], [make_record("left", 0, actor_mask=gone)])["localization"]["actor_mask"]
    assert left["auroc"] == 1 and left["mass"] == pytest.approx(0.5)


def test_limbs_of_the_region_itself_are_a_share():
    mask = np.ones((20, SIZE, SIZE), bool)
    mask[:, 28:] = False
    made = [[make_record(f"{s}{i}", i, actor_mask=mask, joints=figure_joints()) for i in range(2)] for s in "tv"]
    row = localize(Model(), *made)["localization"]["actor_mask"]
    assert 0.4 < row["limbs"] < 0.6 and len(row["interval"]["limbs"]) == 2


@pytest.mark.parametrize("frames, later", [(1, 0), (2, 1), (9, 0), (15, 0), (15, 1), (31, 1), (64, 0)])
def test_frames_and_maps_of_a_look_are_those_of_its_index(frames, later):
    """Every frame has a brightness of its own, which the patches tell."""
    levels = np.arange(frames) / frames
    source = Source(np.zeros((frames, SIZE, SIZE), bool))
    pictures = (levels[:, None, None, None] * 255).astype(np.uint8) + np.zeros((1, SIZE, SIZE, 3), np.uint8)
    object.__setattr__(source, "frames", lambda start=0, stop=None, step=1: iter(pictures[start:stop:step]))
    seen = sampled_maps(Model(), VideoRecord("v", "squat", source), later=later)
    assert seen.index.tolist() == [i + later for i in sampled(frames) if i + later < frames]
    np.testing.assert_allclose(seen.patches[:, 0, 0], pictures[seen.index, 0, 0, 0] / 255, atol=1e-3)
    np.testing.assert_allclose(seen.named["head_2"][:, 0, 0], seen.patches[:, 0, 0] + 0.01, atol=1e-6)


class OnePatch(Backbone):
    grid = (1, 1)

    def cls_attention(self, frames, layers):
        bright = frames.mean((1, 2, 3))[:, None]
        return bright[..., None].repeat(1, 1, 2), None, (bright[:, None] + 0.01).expand(1, -1, 3, -1)


class Blind(Model):
    """Entity 1 attends to nothing at all."""

    def pool(self, patches, cls):
        attention = super().pool(patches, cls)[1]
        return None, attention * torch.tensor([0.0, 1.0])[:, None]


def test_maps_that_define_no_entropy_are_skipped_with_a_reason(records):
    model = Model()
    model.backbone = OnePatch()
    report = localize(model, *records)
    assert "at least 2 patches" in report["skipped"]["attention.entropy"] and "entropy" not in report["attention"]
    assert report["attention"]["effective_share"]["entity_1"] == 1
    assert "no training video defines AUROC" in report["skipped"]["localization.head_best"]
    blind = localize(Blind(), *records)
    assert "all zero" in blind["skipped"]["attention.overlap"] and "entity_1" not in blind["attention"]["entropy"]
    assert "entity_1" not in blind["localization"] and blind["localization"]["entity_best"]["index"] == 2


def test_what_attention_says_has_intervals_over_videos(records):
    found = localize(Model(), *records)["attention"]
    for kind in ("entropy", "effective_share", "steadiness"):
        assert found["interval"][kind].keys() == found[kind].keys()
        low, high = found["interval"][kind]["entity_2"]
        assert low - 1e-9 <= found[kind]["entity_2"] <= high + 1e-9 and (kind != "steadiness" or low < high)
    low, high = found["interval"]["overlap"][0][1]
    assert low - 1e-9 <= found["overlap"][0][1] <= high + 1e-9
    assert localize(Model(), records[0], records[1][:1])["attention"]["interval"] == {}
