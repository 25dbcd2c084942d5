from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mvf.data.records import VideoList, VideoRecord
from mvf.evaluation.localize import FRAMES, localization
from mvf.evaluation.regions import box_region, mask_region

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


def make_record(name, seed, frames=20, boxes=False, labels=True):
    rng = np.random.default_rng(seed)
    mask = np.zeros((frames, SIZE, SIZE), bool)
    boxes_of = []
    for t in range(frames):
        y, x = rng.integers(0, GRID - 1, 2) * SIZE // GRID
        mask[t, y : y + 16, x : x + 8] = True
        boxes_of.append([x, y, x + 8, y + 16])
    annotations = {"actor_box": lambda: np.array(boxes_of, float)} if boxes else {"actor_mask": lambda: mask}
    return VideoRecord(name, "squat", Source(mask), annotations if labels else {})


class Backbone(torch.nn.Module):
    """Patches are (brightness, 1); head 1 looks away from the actor, head 2 at it, head 3 at the first patch."""

    image_size, grid = SIZE, (GRID, GRID)

    def cls_attention(self, frames, layers):
        brightness = torch.nn.functional.avg_pool2d(frames.mean(1), SIZE // GRID).flatten(1)
        first = torch.zeros_like(brightness)
        first[:, 0] = 1
        heads = torch.stack([1 - brightness, brightness, first], dim=1) + 0.01
        return torch.stack([brightness, torch.ones_like(brightness)], dim=-1), None, heads[None]


class Model(torch.nn.Module):
    """Entity 1 is uniform, entity 2 looks at the actor."""

    def __init__(self, attends=True, heads=True):
        super().__init__()
        self.backbone, self.weight, self.attends = Backbone(), torch.nn.Parameter(torch.zeros(1)), attends
        if not heads:
            look = self.backbone.cls_attention
            self.backbone.cls_attention = lambda frames, layers: (*look(frames, layers)[:2], None)

    def pool(self, patches, cls):
        attention = torch.stack([torch.ones_like(patches[..., 0]), patches[..., 0] + 0.01], dim=2)
        attention = attention / attention.sum(-1, keepdim=True)
        return None, attention if self.attends else None


@pytest.fixture(scope="module")
def records():
    return [
        VideoList([make_record(f"{split}{i}", 10 * i + len(split)) for i in range(4)]) for split in ("train", "val")
    ]


def test_the_map_on_the_actor_is_chosen_and_scores_full(records):
    table, differences, skipped = localization(Model(), *records)
    assert table["entity_best"]["index"] == 2 and table["head_best"]["index"] == 2 and not skipped
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


def test_without_masks_or_boxes_the_split_is_named(records):
    bare = [make_record("bare", 0, labels=False)]
    with pytest.raises(ValueError, match="no training video has an actor mask"):
        localization(Model(), bare, records[1])
    with pytest.raises(ValueError, match="no validation video has an actor mask"):
        localization(Model(), records[0], bare)


@pytest.mark.parametrize("frames", [2, FRAMES, FRAMES + 3, 50])
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
