"""The whole model: assembly, padding, precision, errors."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mvf.config import load_config
from mvf.models import Architecture, MVFormer, build_model

SMALL = Architecture(
    channels=12, cls_channels=6, entity_width=8, token_width=16, fusion_width=16, fusion_blocks=2, fusion_heads=4,
    fusion_feedforward=24, embedding_size=10, projection_width=14, num_frames=6,
)  # fmt: skip


class FakeBackbone(nn.Module):
    """2 x 2 patches of mean colours, and their mean as class token."""

    channels, cls_channels = 3, 3

    def forward(self, frames):
        patches = nn.functional.adaptive_avg_pool2d(frames, 2).flatten(2).transpose(1, 2)
        return patches, patches.mean(1)


def small(**changes):
    torch.manual_seed(0)
    return MVFormer(replace(SMALL, **changes)).eval()


def features(videos=2, frames=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(videos, frames, 9, 12, generator=generator), torch.randn(videos, frames, 6, generator=generator)


@pytest.mark.parametrize("readout", ["cls", "mean"])
@pytest.mark.parametrize("pooling", ["lstp", "fixed_width", "max", "mean", "cls"])
def test_shapes_and_norms(pooling, readout):
    patches, cls = features()
    out = small(pooling=pooling, readout=readout).fuse(patches, cls=cls)
    assert out.raw_embeddings.shape == out.embeddings.shape == out.projections.shape == (2, 6, 10)
    torch.testing.assert_close(out.embeddings, nn.functional.normalize(out.raw_embeddings, dim=-1))
    torch.testing.assert_close(out.projections.norm(dim=-1), torch.ones(2, 6))
    assert (out.attention is not None) == (pooling == "lstp")
    assert (out.entities is not None) == (pooling in ("lstp", "fixed_width"))
    if out.entities is not None:
        assert out.entities.shape == (2, 6, 3, 8)
    if out.attention is not None:
        assert out.attention.shape == (2, 6, 3, 9)


def test_numbers_are_the_paper_s():
    model = MVFormer()
    assert model.pooling.query.shape == (3, 384) and model.pooling.key.weight.shape == (384, 2304)
    assert model.token_mlp[1].weight.shape == (512, 387) and model.token_mlp[8].weight.shape == (256, 512)
    assert model.projection[0].weight.shape == (128, 128) and model.architecture.num_frames == 80


def test_embeddings_are_an_equation_of_the_parts():
    model, (patches, _) = small(), features()
    out = model.fuse(patches)
    entities, attention = model.pool(patches)
    torch.testing.assert_close(out.entities, entities)
    torch.testing.assert_close(out.attention, attention)
    torch.testing.assert_close(out.embeddings, model.fuse_tokens(entities).embeddings)
    identity = torch.eye(3).expand(2, 6, 3, 3)
    tokens = model.token_mlp(torch.cat([entities, identity], -1).flatten(0, 2)).unflatten(0, (2, 6, 3))
    raw = model.embedding(model.fusion(tokens)[:, :, 0])
    torch.testing.assert_close(out.raw_embeddings, raw)
    head = model.projection(raw.flatten(0, 1)).unflatten(0, (2, 6))
    torch.testing.assert_close(out.projections, nn.functional.normalize(head, dim=-1))


@pytest.mark.parametrize("pooling", ["lstp", "fixed_width", "max", "mean", "cls"])
def test_z_scored_velocity_follows_every_token(pooling):
    model, (patches, cls) = small(pooling=pooling, velocity_offsets=(2, 5)), features()
    center, scale = torch.randn(24), torch.rand(24) + 1
    model.load_state_dict({"velocity_center": center, "velocity_scale": scale}, strict=False)
    velocity, (tokens, _) = torch.randn(2, 6, 24), model.pool(patches, cls)
    read = model.with_velocity(tokens, velocity)
    torch.testing.assert_close(read[..., :-24], tokens, rtol=0, atol=0)
    for i in range(tokens.shape[2]):
        torch.testing.assert_close(read[:, :, i, -24:], (velocity - center) / scale, rtol=0, atol=0)
    out = model.fuse(patches, cls=cls, velocity=velocity)
    torch.testing.assert_close(out.embeddings, model.fuse_tokens(read).embeddings)
    assert out.entities is None or out.entities.shape == tokens.shape
    assert not torch.allclose(model.fuse(patches, cls=cls, velocity=2 * velocity).embeddings, out.embeddings)
    with pytest.raises(ValueError, match="24 of them velocity: pass velocity, or embed whole videos with mvf.embed"):
        model.fuse(patches, cls=cls)
    with pytest.raises(ValueError, match=r"velocity must be \(B, T, C·O\) = \(2, 6, 24\), got \(2, 6, 12\)"):
        model.fuse(patches, cls=cls, velocity=velocity[..., :12])
    with pytest.raises(ValueError, match=r"\(2, 6, 0\), got \(2, 6, 24\)"):
        small(pooling=pooling).fuse(patches, cls=cls, velocity=velocity)


def test_readouts_take_the_first_entity_or_the_mean():
    (patches, _), model = features(), small()
    tokens = model.fusion(torch.randn(2, 6, 3, 16))
    torch.testing.assert_close(model._read_out(tokens), tokens[:, :, 0])
    torch.testing.assert_close(small(readout="mean")._read_out(tokens), tokens.mean(2))
    assert not torch.allclose(model.fuse(patches).embeddings, small(readout="mean").fuse(patches).embeddings)


def test_forward_is_backbone_then_fuse():
    torch.manual_seed(0)
    model = MVFormer(replace(SMALL, channels=3, cls_channels=3), FakeBackbone()).eval()
    frames, valid = torch.rand(2, 5, 3, 8, 8), torch.arange(5) < torch.tensor([[5], [3]])
    patches = model.backbone(frames.flatten(0, 1))[0].unflatten(0, (2, 5))
    torch.testing.assert_close(model(frames, valid).embeddings, model.fuse(patches, valid).embeddings)
    model = MVFormer(replace(SMALL, channels=3, cls_channels=3, velocity_offsets=(1,)), FakeBackbone()).eval()
    given = {"valid": valid, "velocity": torch.randn(2, 5, 3)}
    torch.testing.assert_close(model(frames, **given).embeddings, model.fuse(patches, **given).embeddings)


@pytest.mark.parametrize("pooling", ["lstp", "mean"])
def test_padding_changes_nothing(pooling):
    model, (patches, cls) = small(pooling=pooling), features()
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    out = model.fuse(patches, valid, cls)
    other = model.fuse(torch.where(valid[..., None, None], patches, 50.0), valid, cls)
    torch.testing.assert_close(other.embeddings[valid], out.embeddings[valid])
    torch.testing.assert_close(other.projections[valid], out.projections[valid])
    numbers = model.fuse(patches, valid.float(), cls)
    torch.testing.assert_close(numbers.embeddings, out.embeddings)


def test_every_trained_parameter_gets_a_gradient():
    model, (patches, _) = small().train(), features()
    model.fuse(patches).projections.square().mul(torch.randn(10)).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_projection_head_can_be_left_out():
    patches, _ = features()
    assert small().fuse(patches, project=False).projections is None
    without = small(projection_width=0)
    assert without.projection is None and without.fuse(patches).projections is None


def test_position_table_is_the_one_that_is_added():
    model = small()
    table = model.position_table(9)
    assert table.shape == (9, 16) and table.dtype == torch.float32 and model.architecture.num_frames == 6
    torch.testing.assert_close(table[-1], model.position_table(6)[-1])


def test_mixed_precision_stays_close():
    model, (patches, _) = small(), features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.fuse(patches.bfloat16())
    assert out.embeddings.dtype == out.attention.dtype == torch.float32
    torch.testing.assert_close(out.embeddings, model.fuse(patches).embeddings, atol=0.05, rtol=0)


def test_build_model_takes_over_the_configuration():
    config = load_config("penn", entities=2, pooling="lstp", readout="mean", num_frames=12, embedding_size=24)
    model = build_model(config, backbone=FakeBackbone())
    wanted = replace(Architecture(), channels=3, cls_channels=3, entities=2, readout="mean", num_frames=12)
    assert model.architecture == replace(wanted, embedding_size=24)
    assert build_model(config, FakeBackbone(), project=False).projection is None
    torch.manual_seed(3)
    first = build_model(config, FakeBackbone()).trained_state()
    torch.manual_seed(3)
    second = build_model(config, FakeBackbone()).trained_state()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bad_input_is_refused_by_name():
    model, (patches, _) = small(), features()
    with pytest.raises(ValueError, match="no backbone"):
        model(torch.rand(1, 2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\(2, 6, 9, 11\)"):
        model.fuse(patches[..., :11])
    with pytest.raises(ValueError, match=r"\(B, T\) = \(2, 6\), got \(2, 5\)"):
        model.fuse(patches, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"\(5, 3, 8, 8\)"):
        MVFormer(SMALL, FakeBackbone())(torch.rand(5, 3, 8, 8))
    with pytest.raises(ValueError, match="max"):
        small(readout="max")
    resnet = FakeBackbone()
    resnet.cls_channels = None
    with pytest.raises(ValueError, match='"cls" reads the class token, which this backbone does not have'):
        build_model(load_config("penn", pooling="cls"), resnet)
