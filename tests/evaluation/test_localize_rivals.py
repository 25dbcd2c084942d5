"""Rivals of the entities: heads of every layer, the region itself; and what cannot be chosen or told."""

import numpy as np
import pytest
import torch

from mvf.attention import SAMPLED_FRAMES, sampled, sampled_maps
from mvf.data.records import VideoList, VideoRecord
from mvf.evaluation.localization import best_map, choose_head, localize
from tests.evaluation.test_localize import SIZE, Backbone, Model, Source, figure_joints, make_record


@pytest.fixture(scope="module")
def records():
    return [VideoList([make_record(f"{s}{i}", 10 * i + len(s)) for i in range(5)]) for s in ("train", "val")]


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
        assert "thin" not in scores["head_oracle"] and len(scores["head_oracle"]) == 5 and "thin" in scores["head_best"]
        assert report["localization_differences"]["entity_1 - head_oracle"]["lift"]["videos"] == 5
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


@pytest.mark.parametrize("frames", [*range(1, 70), 100, 1999])
def test_sampled_frames_are_spread_over_the_whole_video(frames):
    index = sampled(frames)
    assert len(index) == min(frames, SAMPLED_FRAMES) and len(set(index.tolist())) == len(index)
    middles = np.unique([int((i + 0.5) * frames / SAMPLED_FRAMES) for i in range(SAMPLED_FRAMES)])
    assert abs(index - middles).max() <= (2 if frames >= 32 else 0)
    assert 0 <= index[0] and index[-1] < frames and (frames < 32 or len(set(np.diff(index))) == 1)


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
