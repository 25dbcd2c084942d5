"""Counts against formulas written out, and a time that is one."""

import time
from dataclasses import replace

import pytest
import torch

from mvf.config import load_config
from mvf.cost import milliseconds_per_frame, model_cost
from mvf.models import build_model


def linear(rows, inputs, outputs):
    """Operations of (rows, inputs) @ (inputs, outputs), two for a multiplication with an addition."""
    return 2 * rows * inputs * outputs


def attention(tokens, width):
    return 2 * linear(tokens, width, tokens)


@pytest.mark.parametrize("entities, velocity", [(1, False), (3, False), (3, True)])
def test_operations_of_a_vit_with_lstp_are_those_of_its_matrix_products(tiny, entities, velocity):
    config = tiny(entities=entities, layers="2,12", fusion_blocks=2, features="banked", velocity=velocity)
    width, tokens, patches = 192, 5, 4  # vit_tiny, 32 pixels
    block = linear(tokens, width, 12 * width) + attention(tokens, width)
    backbone = linear(patches, 3 * 16 * 16, width) + 12 * block
    channels, inner, feedforward = 2 * width, config.fusion_width, config.fusion_feedforward
    pooling = linear(entities, config.entity_width, channels)  # the queries through the key map
    pooling += 2 * linear(entities, channels, patches) + linear(entities, channels, config.entity_width)
    length = config.num_frames * entities
    differences = len(config.motion_offsets) * channels * velocity
    mlp = linear(length, config.entity_width + differences + entities, config.token_width)
    mlp += linear(length, config.token_width, config.token_width) + linear(length, config.token_width, inner)
    layer = linear(length, inner, 4 * inner) + attention(length, inner) + 2 * linear(length, inner, feedforward)
    fusion = mlp + 2 * layer + linear(config.num_frames, inner, config.embedding_size)
    assert model_cost(config).operations == pytest.approx(backbone + pooling + fusion / config.num_frames, rel=1e-12)


@pytest.mark.parametrize("trainable_blocks", [0, 1])
def test_parameters_are_those_that_get_gradients(tiny, trainable_blocks):
    settings = {"backbone": "test_resnet", "image_size": 64, "layers": "4", "features": "online"}
    config = tiny(**settings, trainable_blocks=trainable_blocks)
    parameters, cost = list(build_model(config).parameters()), model_cost(config)
    assert cost.parameters == sum(p.numel() for p in parameters if p.requires_grad)
    assert cost.backbone_parameters == sum(p.numel() for p in parameters if not p.requires_grad)


def test_counting_needs_no_weights_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    penn = load_config("penn", backbone_weights="/there/is/no/such/file")
    cost = model_cost(penn)
    assert torch.equal(before, torch.get_rng_state())
    assert cost.backbone_parameters == pytest.approx(85.8e6, rel=1e-3)
    assert cost.operations == pytest.approx(156e9, rel=0.01)
    assert model_cost(replace(penn, entities=1)).operations < cost.operations


def test_time_of_a_frame_is_measured_and_leaves_the_model_as_it_was(tiny):
    model = build_model(tiny(features="banked", velocity=True)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert 0 < milliseconds_per_frame(model, tiny()) < 1000
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_time_is_of_one_frame_however_many_are_timed_at_once(tiny):
    model = build_model(tiny())
    model.backbone.register_forward_pre_hook(lambda _, inputs: time.sleep(0.01 * len(inputs[0])))
    assert 10 < milliseconds_per_frame(model, tiny()) < 100


def test_a_model_without_backbone_has_no_time(tiny):
    model = build_model(tiny())
    model.backbone = None
    with pytest.raises(ValueError, match="without a backbone"):
        milliseconds_per_frame(model, tiny())
