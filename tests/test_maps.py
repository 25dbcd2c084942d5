"""Maps of whole videos against the model's own attention, frame by frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.maps import FRAMES_AT_ONCE, attention_maps
from mvf.models.backbone import Backbone
from mvf.models.mvformer import Architecture, MVFormer

TINY = "vit_tiny_patch16_224"


class Noise:
    """A source of `length` random frames."""

    identity = "noise"

    def __init__(self, length):
        self.length = length

    def count(self):
        return self.length

    def frames(self, start=0, stop=None, step=1):
        yield from np.random.default_rng(0).integers(0, 256, (self.length, 40, 56, 3), dtype=np.uint8)[start:stop:step]


def make_model(name=TINY, image_size=32, layers=(2, 12), **numbers):
    backbone = Backbone(name, "random", image_size, layers)
    widths = {"channels": backbone.channels, "cls_channels": backbone.cls_channels}
    small = {"entity_width": 8, "token_width": 8, "fusion_width": 8, "fusion_heads": 2, "fusion_blocks": 1}
    torch.manual_seed(0)
    return MVFormer(Architecture(**widths, **small, **numbers), backbone)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def record():
    return VideoRecord("noise", "none", Noise(FRAMES_AT_ONCE + 3))


def test_maps_are_those_of_the_model(model, record):
    maps = attention_maps(model, record, (5, -1))
    frames = evaluation_view(torch.from_numpy(record.load()).permute(0, 3, 1, 2), 32)
    with torch.no_grad():
        expected = model.eval()(frames[None]).attention[0].unflatten(-1, (2, 2))
    heads = model.backbone.cls_attention(frames, (5, 12))[2].unflatten(-1, (2, 2))
    assert maps.entities.shape == (35, 3, 2, 2) and maps.heads.shape == (2, 35, 3, 2, 2) and maps.layers == (5, 12)
    assert maps.entities.dtype == maps.heads.dtype == np.float32
    np.testing.assert_allclose(maps.entities, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(maps.heads, heads.numpy(), atol=1e-5)
    np.testing.assert_allclose(maps.entities.sum((-2, -1)), 1, atol=1e-5)
    assert (maps.heads.sum((-2, -1)) < 1).all()


def test_another_image_size_gives_finer_maps_and_leaves_the_model_alone(model, record):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = attention_maps(model, record)
    fine = attention_maps(model, record, image_size=64)
    assert fine.entities.shape[2:] == fine.heads.shape[3:] == (4, 4)
    same_weights = make_model(image_size=64)
    same_weights.load_state_dict(model.state_dict())
    np.testing.assert_allclose(fine.entities, attention_maps(same_weights, record).entities, atol=1e-6)
    np.testing.assert_array_equal(attention_maps(model, record).entities, plain.entities)
    assert model.backbone.image_size == 32 and model.backbone.grid == (2, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_a_model_lacks_is_none(record):
    record = replace(record, source=Noise(2))
    without_cls = attention_maps(make_model("resnet50", 64, (4,)), record)
    assert without_cls.heads is None and without_cls.layers == () and without_cls.entities.shape == (2, 3, 2, 2)
    without_entities = attention_maps(make_model(pooling="mean"), record)
    assert without_entities.entities is None and without_entities.heads.shape == (1, 2, 3, 2, 2)
    with pytest.raises(ValueError, match="nothing to map"):
        attention_maps(make_model("resnet50", 64, (4,), pooling="max"), record)


@pytest.mark.parametrize("wrong, message", [
    ({"backbone_layers": (13,)}, "has layers 1 to 12, got layer 13"),
    ({"image_size": 40}, "use 32 or 48"),
])  # fmt: skip
def test_a_layer_or_size_that_the_backbone_lacks(model, record, wrong, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(model, record, **wrong)


def test_no_frames_and_no_backbone_are_said(model):
    with pytest.raises(ValueError, match="noise has no frames"):
        attention_maps(model, VideoRecord("noise", "none", Noise(0)))
    with pytest.raises(ValueError, match="need a model with a backbone"):
        attention_maps(MVFormer(Architecture(channels=8)), VideoRecord("noise", "none", Noise(1)))
