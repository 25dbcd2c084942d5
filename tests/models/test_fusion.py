"""Multi-entity Temporal Fusion: positions, padding, the transformer."""

import math

import pytest
import torch
from torch import nn

from mvf.models.fusion import MultiEntityTemporalFusion, SelfAttention, sine_table, token_mlp


def small(**options):
    torch.manual_seed(0)
    return MultiEntityTemporalFusion(**{"width": 16, "heads": 4, "feedforward": 24, "num_frames": 6, **options}).eval()


def test_position_table_equals_the_formula():
    table = small(num_frames=6).position_table(6)
    for t in range(6):
        for d in range(16):
            angle = t / 10000 ** (d / 16)
            wanted = math.sin(angle) if d % 2 == 0 else math.cos(angle)
            assert table[t, d].item() == pytest.approx(wanted, abs=1e-6)


def test_other_lengths_are_stretched_onto_the_training_table():
    fusion = small(num_frames=6)
    table, training = fusion.position_table(11), fusion.position_table(6)
    torch.testing.assert_close(table[::2], training)  # frame 2t of 11 stands where frame t of 6 stood
    torch.testing.assert_close(table[1].double(), sine_table(torch.tensor([0.5]), 16)[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(fusion.position_table(1), training[:1])


def test_a_part_of_a_video_has_its_rows_of_the_table_of_the_whole():
    fusion = small(num_frames=6)
    assert torch.equal(fusion.position_table(4, (3, 11)), fusion.position_table(11)[3:7])
    assert not small(positions="none").position_table(4, (3, 11)).any()
    for first in (-1, 8):
        with pytest.raises(ValueError, match=f"4 frames from frame {first} on lie outside a video of 11"):
            fusion.position_table(4, (first, 11))


def test_without_positions_order_is_not_seen():
    fusion, order = small(positions="none"), torch.randperm(6)
    tokens = torch.randn(1, 6, 2, 16)
    torch.testing.assert_close(fusion(tokens[:, order]), fusion(tokens)[:, order])
    assert not fusion.position_table(6).any()
    assert not torch.allclose(small()(tokens[:, order]), small()(tokens)[:, order])


def test_entities_of_a_frame_share_its_position():
    fusion, order = small(), torch.tensor([2, 0, 1])
    tokens = torch.randn(2, 5, 3, 16)
    torch.testing.assert_close(fusion(tokens[:, :, order]), fusion(tokens)[:, :, order])


def test_padding_changes_nothing():
    fusion = small()
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    tokens = torch.randn(2, 6, 3, 16, requires_grad=True)
    out = fusion(tokens, valid)
    other = torch.where(valid[..., None, None], tokens, 100.0)
    torch.testing.assert_close(fusion(other, valid)[valid], out[valid])
    (gradient,) = torch.autograd.grad(out[valid].square().sum(), tokens)
    assert not gradient[~valid].any() and gradient[valid].any()
    assert not torch.allclose(fusion(tokens)[1, :4], out[1, :4])


def test_clip_without_a_real_frame_stays_finite():
    tokens = torch.randn(2, 4, 2, 16, requires_grad=True)
    out = small()(tokens, torch.tensor([[True] * 4, [False] * 4]))
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    assert out.isfinite().all() and gradient.isfinite().all()


def test_equals_torch_s_own_encoder_block():
    fusion = small(blocks=1, positions="none", dropout=0.0)
    block = fusion.blocks[0]
    wanted = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=True).eval()
    parts = [block.attention.query, block.attention.key, block.attention.value]
    wanted.self_attn.in_proj_weight.data = torch.cat([part.weight for part in parts])
    wanted.self_attn.in_proj_bias.data = torch.cat([part.bias for part in parts])
    pairs = [(wanted.self_attn.out_proj, block.attention.output), (wanted.linear1, block.feedforward[0])]
    pairs += [(wanted.linear2, block.feedforward[2]), (wanted.norm1, block.attention_norm)]
    for theirs, ours in [*pairs, (wanted.norm2, block.feedforward_norm)]:
        theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 5, 3, 16)
    torch.testing.assert_close(fusion(tokens).flatten(1, 2), wanted(tokens.flatten(1, 2)))


def test_initialisation_is_the_design_s():
    fusion = MultiEntityTemporalFusion(width=64, feedforward=128)
    weight = fusion.blocks[0].feedforward[0].weight
    bound = (6 / (64 + 128)) ** 0.5
    assert 0.9 * bound < weight.abs().max() <= bound
    assert len(fusion.blocks) == 3 and fusion.blocks[0].attention.heads == 8


def test_token_mlp_is_the_design_s():
    kinds = [type(layer).__name__ for layer in token_mlp(387, 512, 256)]
    assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert token_mlp(387, 512, 256)(torch.randn(4, 387)).shape == (4, 256)


def test_dropout_acts_in_training_only():
    fusion, tokens = small(dropout=0.5), torch.randn(1, 4, 2, 16)
    torch.testing.assert_close(fusion(tokens), fusion(tokens))
    fusion.train()
    assert not torch.allclose(fusion(tokens), fusion(tokens))


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="multiple of its 8 heads, got 20"):
        SelfAttention(20, 8)
    with pytest.raises(ValueError, match='unknown positions "learned"'):
        small(positions="learned")


@pytest.mark.parametrize("asking", [1, 3])
def test_attention_rows_equal_a_plain_softmax(asking):
    fusion = small(blocks=2).double()
    tokens, valid = torch.randn(2, 5, 3, 16, dtype=torch.float64), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    mixed = (tokens + fusion.position_table(5)[:, None]).flatten(1, 2)
    keys = valid.repeat_interleave(3, dim=1)
    for number, block in enumerate(fusion.blocks, start=1):
        normed = block.attention_norm(mixed)
        wanted = torch.zeros(2, 15, 15, dtype=torch.float64)
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            scores = block.attention.query(normed)[..., part] @ block.attention.key(normed)[..., part].mT / 2
            wanted += scores.masked_fill(~keys[:, None], -math.inf).softmax(-1) / 4
        wanted = wanted.view(2, 5, 3, 5, 3)[:, :, :asking].mean(2) * valid[:, :, None, None]
        for name in (number, number - 3):
            found = fusion.attention_rows(tokens, valid, block=name, asking=asking)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.sum((2, 3)), valid.double())
        assert not found[1, :, 3:].any() and not found[1, 3:].any()
        picked = fusion.attention_rows(tokens, valid, number, torch.tensor([4, 1]), asking)
        torch.testing.assert_close(picked, wanted[:, [4, 1]], rtol=0, atol=1e-12)
        mixed = block(mixed, keys)


def test_attention_weights_are_those_that_the_block_uses():
    attention, tokens = small(heads=1).blocks[0].attention, torch.randn(1, 6, 16)
    mixed = attention.weights(tokens[:, 2:4], tokens) @ attention.value(tokens)
    torch.testing.assert_close(attention.output(mixed), attention(tokens)[:, 2:4])


def test_attention_rows_in_parts_are_the_same(monkeypatch):
    fusion, tokens = small(), torch.randn(1, 7, 2, 16)
    whole = fusion.attention_rows(tokens)
    monkeypatch.setattr("mvf.models.fusion.ROWS", 3)
    torch.testing.assert_close(fusion.attention_rows(tokens), whole)


def test_attention_rows_of_a_long_video_never_hold_all_pairs():
    fusion, tokens = small(blocks=1, heads=8), torch.randn(1, 700, 3, 16)
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        fusion.attention_rows(tokens, frames=torch.arange(0, 700, 7))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 8 * 64 * 2100 * 4  # heads x frames at once x tokens; all pairs would be 141 MB


def test_a_block_that_is_not_there_is_refused():
    for block in (0, 4, -4):
        with pytest.raises(ValueError, match=f"block must be 1 to 3, or -1 to -3 from the end, got {block}"):
            small().attention_rows(torch.randn(1, 4, 2, 16), block=block)
