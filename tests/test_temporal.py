"""Temporal attention of whole videos, on request."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mvf
from mvf.attention import temporal_attention
from mvf.embedding import pool_video
from mvf.models.mvformer import ModelPerAction


@pytest.fixture(scope="module")
def records():
    return mvf.data.find_videos("synthetic", split="val", val_videos=2, height=48, width=56, idle=2, repeats=1)


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return mvf.build_model(tiny(fusion_blocks=2)).train()


def test_weights_are_those_of_the_pooled_video(model, records):
    found = temporal_attention(model, records[0])
    frames = records[0].num_frames
    assert found.weights.shape == (frames, frames, 3) and found.weights.dtype == np.float32
    assert (found.name, found.block, found.blocks) == (records[0].name, 2, 2)
    np.testing.assert_allclose(found.weights.sum((1, 2)), 1, atol=1e-5)
    assert model.training
    tokens = pool_video(model, records[0])[None]
    mapped, _ = model.eval()._map_tokens(tokens, None)
    rows = model.fusion.attention_rows(mapped, block=2)[0]
    np.testing.assert_allclose(found.weights, rows.detach().numpy(), atol=1e-6)
    first = temporal_attention(model, records[0], block=1)
    assert first.block == 1 and not np.allclose(first.weights, found.weights)


def test_readout_mean_averages_the_entities_that_look(tiny, records):
    torch.manual_seed(0)
    model = mvf.build_model(tiny(readout="mean")).eval()
    found = temporal_attention(model, records[0]).weights
    mapped, _ = model._map_tokens(pool_video(model, records[0])[None], None)
    each = [model.fusion.attention_rows(mapped[:, :, [i, *others]])[0] for i, others in ((0, (1, 2)), (1, (0, 2)))]
    assert not np.allclose(found, each[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found, model.fusion.attention_rows(mapped, asking=3)[0].detach().numpy(), atol=1e-6)


def test_asked_frames_are_rows_of_the_whole(model, records):
    whole, asked = temporal_attention(model, records[0]), temporal_attention(model, records[0], frames=[7, 2])
    assert asked.frames.tolist() == [7, 2]
    np.testing.assert_allclose(asked.weights, whole.weights[[7, 2]], atol=1e-6)


def test_frames_of_other_chunks_are_not_looked_at(model, records):
    weights = temporal_attention(model, records[0], chunk=10).weights
    assert not weights[:10, 10:].any() and not weights[10:20, :10].any()
    frames = records[0].num_frames
    assert 20 < frames and frames % 10, "the last chunk should be shorter"
    bounds = temporal_attention(model, records[0], frames=[12, frames - 1, 3], chunk=10).bounds
    assert bounds.tolist() == [[10, 20], [frames // 10 * 10, frames], [0, 10]]
    np.testing.assert_allclose(weights.sum((1, 2)), 1, atol=1e-5)


def test_a_model_per_action_is_asked_by_action(model, tiny, records):
    action, other = records[0].action, records[1].action
    assert action != other
    per_action = ModelPerAction({action: model, other: mvf.build_model(tiny())})
    np.testing.assert_array_equal(
        temporal_attention(per_action, records[0]).weights, temporal_attention(model, records[0]).weights
    )
    assert temporal_attention(per_action, records[1]).blocks == 1


def test_what_is_not_there_is_refused_before_a_frame_is_read(model, records):
    unreadable = replace(records[0], source=None)
    with pytest.raises(ValueError, match="block must be 1 to 2, or -1 to -2 from the end, got 3"):
        temporal_attention(model, unreadable, block=3)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        temporal_attention(model, unreadable, chunk=0)
    for frames in ([], [-1], [10_000]):
        with pytest.raises(ValueError, match=rf"frames must be numbers from 0 to \d+ of {records[0].name}"):
            temporal_attention(model, records[0], frames=frames)
