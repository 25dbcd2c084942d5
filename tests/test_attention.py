"""Maps and temporal attention of whole videos against the model's own attention; and which frames are sampled."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mvf
from mvf.attention import FRAMES_AT_ONCE, SAMPLED_FRAMES, attention_maps, map_frames, sampled, temporal_attention
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.embedding import pool_video
from mvf.models.backbone import Backbone
from mvf.models.mvformer import Architecture, ModelPerAction, MVFormer

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


def plain_softmax(model, frames, layers):
    """Full softmax (layers, M, heads, h, w) of timm's unfused attention: its class row, patches only."""
    network, rows = model.backbone.model, {}
    for number in layers:
        attention = network.blocks[number - 1].attn
        attention.fused_attn = False
        hook = lambda module, args, n=number: rows.update({n: args[0]})  # noqa: E731
        attention.attn_drop.register_forward_pre_hook(hook)
    with torch.no_grad():
        network.forward_features((frames - model.backbone.mean) / model.backbone.std)
    prefix, side = network.num_prefix_tokens, model.backbone.grid_of(frames.shape[-1])
    return torch.stack([rows[n][:, :, 0, prefix:] for n in layers]).unflatten(-1, side).numpy()


@pytest.mark.parametrize("name, trained, size", [
    ("vit_tiny_patch16_224", 32, 48),  # DINO's
    ("vit_small_patch14_dinov2", 28, 42),
    ("vit_small_patch14_reg4_dinov2", 28, 42),
    ("vit_small_patch16_dinov3", 32, 48),  # with norms of queries and keys, and rotary positions
])  # fmt: skip
def test_maps_equal_a_plain_full_softmax(name, trained, size):
    model = make_model(name, trained, (1, 2)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.backbone.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    record = VideoRecord("noise", "none", Noise(2))
    maps = attention_maps(model, record, (1, 3), image_size=size)
    frames = evaluation_view(torch.from_numpy(record.load()).permute(0, 3, 1, 2), size)
    with torch.no_grad():
        patches, cls = model.backbone(frames)
        scores = patches @ (model.pooling.query @ model.pooling.key.weight).T / model.pooling.width**0.5
    plain = scores.softmax(dim=1).transpose(1, 2).unflatten(-1, (3, 3)).numpy()
    np.testing.assert_allclose(maps.entities, plain, atol=1e-4)
    np.testing.assert_allclose(maps.heads, plain_softmax(model, frames, (1, 3)), atol=1e-4)
    assert maps.heads.std() > 1e-4  # no flat map could pass


class Bright(Noise):
    """Grey frames (60, 20) with a bright square at one place."""

    def frames(self, start=0, stop=None, step=1):
        for number in range(*slice(start, stop, step).indices(self.length)):
            picture = np.full((60, 20, 3), 40, np.uint8)
            picture[45:, :5] = 40 + number % 200
            yield picture


def test_frames_and_maps_come_from_one_pass(model):
    record = VideoRecord("bright", "none", Bright(3 * FRAMES_AT_ONCE + 5))
    seen = map_frames(model, record, (4,), step=2, longest_side=30)
    every = attention_maps(model, record, (4,))
    assert seen.frames.shape == (51, 30, 10, 3) and seen.size == (60, 20) and seen.maps.layers == (4,)
    np.testing.assert_array_equal(seen.numbers, np.arange(0, 101, 2))
    np.testing.assert_array_equal(seen.frames[:, -1, 0, 0], 40 + seen.numbers)
    np.testing.assert_allclose(seen.maps.entities, every.entities[::2], atol=1e-5)
    np.testing.assert_allclose(seen.maps.heads, every.heads[:, ::2], atol=1e-5)
    whole = map_frames(model, record)
    assert whole.frames.shape == (101, 60, 20, 3)


def test_the_map_of_a_frame_that_is_not_square_lies_where_the_picture_does():
    """A pooling that reads brightness finds the bright corner of a tall frame in the same corner of its map."""
    model = make_model(layers=(1,))
    one = map_frames(model, VideoRecord("bright", "none", Bright(200)), step=199)
    pixels = evaluation_view(torch.from_numpy(one.frames).permute(0, 3, 1, 2), 32)
    means = torch.nn.functional.avg_pool2d(pixels.mean(1), 16)[1]  # (h, w) of the bright frame
    assert means.argmax() == 2  # the lower left one of 2 x 2
    change = np.abs(one.maps.entities[1] - one.maps.entities[0]).max(axis=0)
    assert change.shape == (2, 2) and change.argmax() == 2


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
    with pytest.raises(ValueError, match="came without a backbone"):
        attention_maps(MVFormer(Architecture(channels=8)), VideoRecord("noise", "none", Noise(1)))


@pytest.mark.parametrize("frames", [*range(1, 70), 100, 1999])
def test_sampled_frames_are_spread_over_the_whole_video(frames):
    index = sampled(frames)
    assert len(index) == min(frames, SAMPLED_FRAMES) and len(set(index.tolist())) == len(index)
    middles = np.unique([int((i + 0.5) * frames / SAMPLED_FRAMES) for i in range(SAMPLED_FRAMES)])
    assert abs(index - middles).max() <= (2 if frames >= 32 else 0)
    assert 0 <= index[0] and index[-1] < frames and (frames < 32 or len(set(np.diff(index))) == 1)


# temporal attention -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records():
    return mvf.data.find_videos("synthetic", split="val", val_videos=2, height=48, width=56, idle=2, repeats=1)


@pytest.fixture
def two_blocks(tiny):
    torch.manual_seed(0)
    return mvf.build_model(tiny(fusion_blocks=2)).train()


def test_weights_are_those_of_the_pooled_video(two_blocks, records):
    found = temporal_attention(two_blocks, records[0])
    frames = records[0].num_frames
    assert found.weights.shape == (frames, frames, 3) and found.weights.dtype == np.float32
    assert (found.name, found.block, found.blocks) == (records[0].name, 2, 2)
    np.testing.assert_allclose(found.weights.sum((1, 2)), 1, atol=1e-5)
    assert two_blocks.training
    tokens = pool_video(two_blocks, records[0])[None]
    mapped, _ = two_blocks.eval()._map_tokens(tokens, None)
    rows = two_blocks.fusion.attention_rows(mapped, block=2)[0]
    np.testing.assert_allclose(found.weights, rows.detach().numpy(), atol=1e-6)
    first = temporal_attention(two_blocks, records[0], block=1)
    assert first.block == 1 and not np.allclose(first.weights, found.weights)


def test_readout_mean_averages_the_entities_that_look(tiny, records):
    torch.manual_seed(0)
    model = mvf.build_model(tiny(readout="mean")).eval()
    found = temporal_attention(model, records[0]).weights
    mapped, _ = model._map_tokens(pool_video(model, records[0])[None], None)
    each = [model.fusion.attention_rows(mapped[:, :, [i, *others]])[0] for i, others in ((0, (1, 2)), (1, (0, 2)))]
    assert not np.allclose(found, each[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found, model.fusion.attention_rows(mapped, asking=3)[0].detach().numpy(), atol=1e-6)


def test_asked_frames_are_rows_of_the_whole(two_blocks, records):
    whole, asked = temporal_attention(two_blocks, records[0]), temporal_attention(two_blocks, records[0], frames=[7, 2])
    assert asked.frames.tolist() == [7, 2]
    np.testing.assert_allclose(asked.weights, whole.weights[[7, 2]], atol=1e-6)


def test_frames_of_other_chunks_are_not_looked_at(two_blocks, records):
    weights = temporal_attention(two_blocks, records[0], chunk=10).weights
    assert not weights[:10, 10:].any() and not weights[10:20, :10].any()
    frames = records[0].num_frames
    assert 20 < frames and frames % 10, "the last chunk should be shorter"
    bounds = temporal_attention(two_blocks, records[0], frames=[12, frames - 1, 3], chunk=10).bounds
    assert bounds.tolist() == [[10, 20], [frames // 10 * 10, frames], [0, 10]]
    np.testing.assert_allclose(weights.sum((1, 2)), 1, atol=1e-5)


def test_a_model_per_action_is_asked_by_action(two_blocks, tiny, records):
    action, other = records[0].action, records[1].action
    assert action != other
    per_action = ModelPerAction({action: two_blocks, other: mvf.build_model(tiny())})
    np.testing.assert_array_equal(
        temporal_attention(per_action, records[0]).weights, temporal_attention(two_blocks, records[0]).weights
    )
    assert temporal_attention(per_action, records[1]).blocks == 1


def test_what_is_not_there_is_refused_before_a_frame_is_read(two_blocks, records):
    unreadable = replace(records[0], source=None)
    with pytest.raises(ValueError, match="block must be 1 to 2, or -1 to -2 from the end, got 3"):
        temporal_attention(two_blocks, unreadable, block=3)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        temporal_attention(two_blocks, unreadable, chunk=0)
    for frames in ([], [-1], [10_000]):
        with pytest.raises(ValueError, match=rf"frames must be numbers from 0 to \d+ of {records[0].name}"):
            temporal_attention(two_blocks, records[0], frames=frames)
