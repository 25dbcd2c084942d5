"""The frozen backbone against plain timm, and attention maps against a full softmax."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat

from mvf.models.backbone import Backbone

TINY = "vit_tiny_patch16_224"
VITS = {TINY: 32, "vit_small_patch14_reg4_dinov2": 28, "vit_small_patch16_dinov3": 48}


def perturbed(name, image_size, layers=(1, -1)):
    """A random backbone whose biases and scales are not at their trivial initial values."""
    backbone = Backbone(name, "random", image_size, layers)
    generator = torch.Generator().manual_seed(1)
    for parameter in backbone.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone


def full_attention(module, x, rope=None):
    """All rows of the softmax (M, heads, L, L) of a timm attention module, spelled out."""
    weight, bias = module.qkv.weight, module.qkv.bias
    if getattr(module, "q_bias", None) is not None:
        bias = torch.cat([module.q_bias, module.k_bias, module.v_bias])
    query, key, _ = F.linear(x, weight, bias).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key = module.q_norm(query), module.k_norm(key)
    if rope is not None:
        n, half = module.num_prefix_tokens, module.rotate_half
        rotate = lambda t: torch.cat([t[:, :, :n], apply_rot_embed_cat(t[:, :, n:], rope, half=half)], dim=2)  # noqa: E731
        query, key = rotate(query), rotate(key)
    return (query @ key.transpose(-2, -1) * module.scale).softmax(-1)


@pytest.mark.parametrize("name", VITS)
def test_class_token_attention_is_its_row_of_the_full_softmax(name):
    backbone, frames = perturbed(name, VITS[name]), torch.rand(2, 3, VITS[name], VITS[name])
    seen = {}
    for number, block in enumerate(backbone.model.blocks, start=1):
        hook = lambda module, args, kwargs, n=number: seen.update({n: (module, args[0], kwargs.get("rope"))})  # noqa: E731
        block.attn.register_forward_pre_hook(hook, with_kwargs=True)
    patches, cls, heads = backbone.cls_attention(frames, (3, -1))
    assert heads.shape == (2, 2, backbone.num_heads, backbone.grid[0] * backbone.grid[1])
    with torch.no_grad():
        for row, layer in zip(heads, (3, 12)):
            full = full_attention(*seen[layer])
            torch.testing.assert_close(row, full[:, :, 0, backbone.model.num_prefix_tokens :], atol=1e-6, rtol=1e-5)
    expected = backbone(frames)
    torch.testing.assert_close((patches, cls), expected)


@pytest.mark.parametrize("name", VITS)
def test_features_are_block_outputs_before_the_final_norm(name):
    backbone, frames = perturbed(name, VITS[name], layers=(2, 12)), torch.rand(2, 3, VITS[name], VITS[name])
    outputs = []
    for block in backbone.model.blocks:
        block.register_forward_hook(lambda _, __, output: outputs.append(output))
    patches, cls = backbone(frames)
    prefix = backbone.model.num_prefix_tokens
    torch.testing.assert_close(patches, torch.cat([outputs[1][:, prefix:], outputs[11][:, prefix:]], dim=-1))
    torch.testing.assert_close(cls, outputs[11][:, 0])
    assert patches.shape == (2, backbone.grid[0] * backbone.grid[1], backbone.channels)
    assert cls.shape == (2, backbone.cls_channels)


def test_layers_keep_the_order_in_which_they_are_named():
    frames = torch.rand(1, 3, 32, 32)
    forth, back = (Backbone(TINY, "random", 32, layers) for layers in ((2, -1), (12, 2)))
    torch.testing.assert_close(forth(frames)[0].roll(192, -1), back(frames)[0])
    torch.testing.assert_close(forth(frames)[1], back(frames)[1])
    first, cls = forth.intermediates(frames, (5,))
    assert len(first) == 1 and cls.shape == (1, 192)


def test_positions_are_resized_as_timm_does_when_it_loads():
    backbone = perturbed(TINY, 96)
    overlay = {"state_dict": dict(backbone.model.state_dict())}
    resized = timm.create_model(
        TINY, pretrained=True, img_size=96, num_classes=0, pretrained_cfg_overlay=overlay
    ).eval()
    frames = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        expected = resized.forward_features((frames - backbone.mean) / backbone.std)
        actual = backbone.model.forward_features((frames - backbone.mean) / backbone.std)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_one_backbone_reads_frames_of_several_sizes():
    backbone = Backbone(TINY, "random", 32, (12,))
    frames = torch.rand(1, 3, 64, 64)
    other = Backbone(TINY, "random", 64, (12,))
    torch.testing.assert_close(backbone(frames), other(frames))
    assert backbone.weights_sha256 == other.weights_sha256
    assert backbone.grid_of(64) == other.grid == (4, 4)


def test_it_stays_frozen_under_train():
    backbone = Backbone("resnet50", "random", 64, (4,))
    parent = torch.nn.Sequential(backbone).train()
    before = backbone.model.bn1.running_mean.clone()
    patches, cls = parent[0](torch.rand(2, 3, 64, 64))
    assert patches.shape == (2, 4, 2048) and cls is None and backbone.cls_channels is None
    torch.testing.assert_close(before, backbone.model.bn1.running_mean)
    assert not any(module.training for module in backbone.modules())
    assert not patches.requires_grad and not any(parameter.requires_grad for parameter in parent.parameters())


def test_a_resnet_gives_its_last_stage_and_no_heads():
    backbone = Backbone("resnet50", "random", 80, (4,))
    frames = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        expected = backbone.model.forward_features((frames - backbone.mean) / backbone.std).flatten(2).transpose(1, 2)
    patches, cls, heads = backbone.cls_attention(frames, (-1,))
    torch.testing.assert_close(patches, expected)
    assert cls is None and heads is None and backbone.grid == (3, 3)
    with pytest.raises(ValueError, match="different numbers of patches"):
        backbone.intermediates(frames, (3, 4))


@pytest.mark.parametrize(("name", "side"), [("test_resnet", 4), ("test_convnext", 3)])
def test_a_convolutional_networks_grid_is_that_of_its_patches(name, side):
    backbone = Backbone(name, "random", 112, (4,))
    patches, _ = backbone(torch.rand(1, 3, 112, 112))
    assert backbone.grid == (side, side) and patches.shape[1] == side**2


def test_rotary_positions_and_registers_serve_frames_of_several_sizes():
    """DINOv3 has five tokens before its patches and no positions to resize: every size is computed from its grid."""
    small, large = (Backbone("vit_tiny_patch16_dinov3_qkvb", "random", size, (12,)) for size in (32, 48))
    frames = torch.rand(1, 3, 48, 48)
    assert small.model.num_prefix_tokens == 5 and small.model.pos_embed is None
    torch.testing.assert_close(small(frames), large(frames))


@pytest.mark.parametrize("layers", [(4, 8, 13), (0,), (-13,), ()])
def test_layers_that_it_lacks_are_refused(layers):
    with pytest.raises(ValueError, match="layer"):
        Backbone(TINY, "random", 32, layers)


def test_the_message_names_the_layers_there_are():
    with pytest.raises(ValueError, match="has layers 1 to 12, got layer 13"):
        Backbone(TINY, "random", 32, (13,))
    with pytest.raises(ValueError, match="has layers 1 to 4, got layer 8"):
        Backbone("resnet50", "random", 64)


@pytest.mark.parametrize("image_size, fitting", [(40, "32 or 48"), (8, "use 16"), (0, "use 16")])
def test_an_image_size_that_does_not_fit_names_those_that_do(image_size, fitting):
    with pytest.raises(ValueError, match=f"image_size {image_size} .*{fitting}"):
        Backbone(TINY, "random", image_size)
    backbone = Backbone(TINY, "random", 32)
    with pytest.raises(ValueError, match=fitting):
        backbone.grid_of(image_size)


@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (3, 32, 32), (1, 1, 32, 32), (1, 3, 40, 40)])
def test_frames_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(M, 3, S, S\)|does not fit"):
        Backbone(TINY, "random", 32)(torch.rand(shape))
