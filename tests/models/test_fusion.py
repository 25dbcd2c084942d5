"""Multi-entity Temporal Fusion: positions, padding, the transformer.

Tokens merged along time: exact when off, lossless for equal frames, and every frame keeps what is its own.
"""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mvf
from mvf.attention import temporal_attention
from mvf.cost import model_cost
from mvf.models import load_weights
from mvf.models.fusion import MultiEntityTemporalFusion, SelfAttention, group_tokens, sine_table, token_mlp
from mvf.workbench.notebook.session import embed_splits, report_on
from tests.conftest import TINY
from tests.models.stored import forget_checksums


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


# tokens merged along time -------------------------------------------------------------------------------------------


def walk(*shape, seed=1, dtype=torch.float32):
    """Tokens (B, T, N, 16) that drift along time, so that neighbours are alike and no two distances are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 16, generator=generator, dtype=dtype).cumsum(1)


def everywhere(tokens):
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def ends_padded(frames, *lengths):
    return torch.arange(frames) < torch.tensor(lengths)[:, None]


def numbered(tokens, real, share):
    """`group_tokens`, with its index as (B, T, N)."""
    groups = group_tokens(tokens, real, share)
    return groups, groups.index.unflatten(1, tokens.shape[1:3])


# merging off --------------------------------------------------------------------------------------------------------


def plain_forward(fusion, tokens, valid):
    """The fusion as it was before merging, step by step."""
    mixed = (tokens + fusion.position_table(tokens.shape[1])[:, None]).flatten(1, 2)
    mask = None if valid is None else valid.repeat_interleave(tokens.shape[2], dim=1)[:, None, None, :]
    for block in fusion.blocks:
        attention, normed = block.attention, block.attention_norm(mixed)
        parts = (linear(normed) for linear in (attention.query, attention.key, attention.value))
        q, k, v = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in parts)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = mixed + attention.output(heads.transpose(1, 2).flatten(-2))
        mixed = mixed + block.feedforward(block.feedforward_norm(mixed))
    return mixed.unflatten(1, tokens.shape[1:3])


@pytest.mark.parametrize("valid", [None, ends_padded(9, 9, 6)], ids=["whole", "padded"])
def test_off_is_the_plain_model_bit_for_bit(valid):
    fusion, tokens = small(), walk(2, 9, 3)
    assert fusion.token_merge == 0
    assert torch.equal(fusion(tokens, valid), plain_forward(fusion, tokens, valid))
    assert torch.equal(small(token_merge=0.0)(tokens, valid), fusion(tokens, valid))
    assert not torch.allclose(small(token_merge=0.5)(tokens, valid), fusion(tokens, valid))


def test_weights_are_the_same_with_and_without():
    off, on = small(), small(token_merge=0.5)
    assert all(torch.equal(value, on.state_dict()[name]) for name, value in off.state_dict().items())
    assert off.state_dict().keys() == on.state_dict().keys()


# what is merged -----------------------------------------------------------------------------------------------------


def naive_links(tokens, real, share):
    """For each video the pairs (frame, entity) that join the frame before, by a loop."""
    batch, frames, entities = tokens.shape[:3]
    longest = math.ceil(2 / (1 - share))
    chosen = []
    for b in range(batch):
        links = [
            ((tokens[b, t, n] - tokens[b, t - 1, n]).square().sum().item(), 1 - t % 2, t, n)
            for t in range(1, frames)
            for n in range(entities)
            if real[b, t] and real[b, t - 1] and t % longest
        ]
        count = math.floor(share * entities * int(real[b].sum()))
        chosen.append({(t, n) for *_, t, n in sorted(links)[:count]})
    return chosen


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(2, 9, 1), (3, 12, 3), (2, 23, 6)])
def test_the_closest_neighbours_in_time_are_merged(shape, share):
    tokens = walk(*shape)
    real = ends_padded(shape[1], *range(shape[1], shape[1] - shape[0], -1))
    groups, index = numbered(tokens, real, share)
    for b, links in enumerate(naive_links(tokens, real, share)):
        together = {
            (t, n)
            for t in range(1, shape[1])
            for n in range(shape[2])
            if real[b, t] and real[b, t - 1] and index[b, t, n] == index[b, t - 1, n]
        }
        assert together == links
        assert (groups.sizes[b] > 0).sum() == real[b].sum() * shape[2] - len(links)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_groups_are_short_runs_of_one_entity_so_order_is_kept(share):
    tokens = walk(2, 40, 3)
    groups, index = numbered(tokens, everywhere(tokens), share)
    assert groups.sizes.shape == (2, 120 - math.floor(share * 120)) and groups.sizes.sum(1).tolist() == [120, 120]
    for b in range(2):
        entities = [set(index[b, :, n].tolist()) for n in range(3)]
        assert sum(map(len, entities)) == len(set.union(*entities)), "no group has two entities"
    assert ((index.diff(dim=1) == 0) | (index.diff(dim=1) == 1)).all(), "runs, in order of time"
    assert groups.sizes.max() <= math.ceil(2 / (1 - share))


def test_what_stands_still_is_merged_before_what_moves():
    tokens = torch.cat([walk(1, 16, 1) * 0.01, walk(1, 16, 1, seed=2)], dim=2)
    _, index = numbered(tokens, everywhere(tokens), 0.25)
    assert len(index[0, :, 0].unique()) == 8 and len(index[0, :, 1].unique()) == 16


def test_a_still_picture_is_halved_evenly():
    groups, index = numbered(torch.ones(1, 12, 2, 16), torch.ones(1, 12, dtype=torch.bool), 0.5)
    assert groups.sizes.eq(2).all() and index[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_means_weigh_tokens_alike_and_restoring_copies_them_back():
    tokens = walk(2, 10, 2)
    real = ends_padded(10, 10, 7)
    groups = group_tokens(tokens, real, 0.5)
    flat, merged = tokens.flatten(1, 2), groups.merge(tokens.flatten(1, 2))
    counted = real.repeat_interleave(2, dim=1)
    for b in range(2):
        for g in range(groups.sizes.shape[1]):
            members = counted[b] & (groups.index[b] == g)
            assert members.sum() == groups.sizes[b, g]
            if members.any():
                torch.testing.assert_close(merged[b, g], flat[b, members].mean(0))
                assert (groups.restore(merged)[b, members] == merged[b, g]).all()


# what comes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entities", range(1, 7))
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_merging_equal_frames_loses_nothing(entities, share):
    tokens = walk(2, 6, entities).repeat_interleave(2, dim=1)
    plain, merging = small(positions="none"), small(positions="none", token_merge=share)
    groups = group_tokens(tokens, everywhere(tokens), share)
    assert groups.sizes.shape[1] == 12 * entities - math.floor(share * 12 * entities)
    torch.testing.assert_close(merging(tokens), plain(tokens), atol=1e-5, rtol=0)


def test_a_merged_token_counts_as_many_times_as_it_stands_for(monkeypatch):
    tokens = walk(2, 6, 3).repeat_interleave(2, dim=1)
    plain, merging = small(positions="none")(tokens), small(positions="none", token_merge=0.3)
    monkeypatch.setattr("mvf.models.fusion.TokenGroups.log_sizes", property(lambda g: torch.zeros_like(g.sizes)))
    assert (merging(tokens) - plain).abs().max() > 1e-3


def test_each_frame_differs_from_its_group_by_what_it_came_with():
    fusion, tokens = small(token_merge=0.75), walk(1, 16, 2)
    out = fusion(tokens)
    own = tokens + fusion.position_table(16)[:, None]
    groups, index = numbered(tokens, everywhere(tokens), 0.75)
    assert groups.sizes.max() > 2
    for n in range(2):
        for group in index[0, :, n].unique():
            members = index[0, :, n] == group
            added = (out - own)[0, members, n]
            torch.testing.assert_close(added, added[:1].expand_as(added))
    frames = out[0].flatten(1)
    assert torch.pdist(frames).min() > 0.5, "frames that differ stay different"


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("entities", range(1, 7))
def test_every_frame_of_a_clip_of_any_length_gets_an_output(frames, entities):
    tokens = walk(2, frames, entities)
    for share in (0.1, 0.5, 0.9):
        out = small(token_merge=share)(tokens, ends_padded(frames, frames, max(1, frames - 1)))
        assert out.shape == tokens.shape and out.isfinite().all()
    if frames == 1:
        torch.testing.assert_close(small(token_merge=0.9)(tokens), small()(tokens))


def test_padding_changes_nothing_and_a_padded_video_is_merged_as_if_alone():
    fusion, valid = small(token_merge=0.5, positions="none"), ends_padded(11, 11, 6, 1)
    tokens = walk(3, 11, 3).requires_grad_()
    out = fusion(tokens, valid)
    junk = torch.where(valid[..., None, None], tokens, 1e4)
    torch.testing.assert_close(fusion(junk, valid)[valid], out[valid])
    (gradient,) = torch.autograd.grad(out[valid].square().sum(), tokens)
    assert not gradient[~valid].any() and (gradient[valid] != 0).any(-1).all()
    for b, length in enumerate((11, 6, 1)):
        torch.testing.assert_close(fusion(tokens[b : b + 1, :length])[0], out[b, :length], atol=1e-5, rtol=1e-5)


def test_frames_missing_within_a_clip_are_neither_merged_nor_in_the_way():
    valid = torch.tensor([[True, True, False, True, True, False, False, True, True]])
    tokens = walk(1, 9, 2)
    groups, index = numbered(tokens, valid, 0.75)
    assert index[0, 1, 0] != index[0, 3, 0] and groups.sizes.sum() == 12
    out = small(token_merge=0.75)(tokens, valid)
    junk = tokens.where(valid[..., None, None], 1e4)
    torch.testing.assert_close(small(token_merge=0.75)(junk, valid)[valid], out[valid])


def test_a_clip_without_a_real_frame_stays_finite():
    tokens = walk(2, 4, 2).requires_grad_()
    out = small(token_merge=0.5)(tokens, ends_padded(4, 4, 0))
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    assert out.isfinite().all() and gradient.isfinite().all()


def test_order_of_videos_does_not_matter_and_runs_repeat_to_the_bit():
    fusion, tokens, valid = small(token_merge=0.4), walk(4, 9, 3), ends_padded(9, 9, 5, 7, 2)
    order = torch.tensor([2, 0, 3, 1])
    out = fusion(tokens, valid)
    torch.testing.assert_close(fusion(tokens[order], valid[order])[valid[order]], out[order][valid[order]])
    assert torch.equal(fusion(tokens, valid), out)


def test_gradients_are_those_of_finite_differences():
    fusion, valid = small(token_merge=0.5, blocks=2).double(), ends_padded(5, 5, 4)
    tokens = walk(2, 5, 2, dtype=torch.float64).requires_grad_()
    assert (group_tokens(tokens, valid, 0.5).sizes > 1).any()
    weight = fusion.blocks[0].attention.key.weight
    assert torch.autograd.gradcheck(lambda t, _: fusion(t, valid)[valid], (tokens, weight), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_works_whole_and_by_autocast(dtype):
    fusion, tokens, valid = small(token_merge=0.5), walk(2, 9, 3), ends_padded(9, 9, 6)
    wanted = fusion(tokens, valid)[valid]
    with torch.autocast("cpu", dtype):
        out = fusion(tokens, valid)
        out.square().mean().backward()
    torch.testing.assert_close(out[valid].float(), wanted, atol=0.1, rtol=0.05)
    assert fusion.to(dtype)(tokens.to(dtype), valid).dtype == dtype


def test_merged_attention_never_holds_all_pairs():
    fusion, tokens = small(blocks=1, token_merge=0.5), walk(1, 700, 3)
    with torch.profiler.profile(profile_memory=True) as profile:
        fusion(tokens, everywhere(tokens)).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 1050 * 1050 * 4  # one head's weights; twice as long without merging


# attention on request -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asking", [1, 2])
def test_attention_rows_are_those_of_a_clip_of_copies(asking):
    fusion = small(blocks=2, token_merge=0.5).double()
    tokens, valid = walk(2, 7, 2, dtype=torch.float64), ends_padded(7, 7, 5)
    groups, keys = group_tokens(tokens, valid, 0.5), valid.repeat_interleave(2, dim=1)
    mixed = groups.merge((tokens + fusion.position_table(7)[:, None]).flatten(1, 2))
    for number, block in enumerate(fusion.blocks, start=1):
        copies = groups.restore(block.attention_norm(mixed))  # every frame has its group's token, none counts double
        wanted = block.attention.weights(copies, copies, keys).unflatten(1, (7, 2))[:, :, :asking].mean(2)
        wanted = wanted.unflatten(-1, (7, 2)) * valid[:, :, None, None]
        found = fusion.attention_rows(tokens, valid, number, asking=asking)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.sum((2, 3)), valid.double())
        picked = fusion.attention_rows(tokens, valid, number, torch.tensor([4, 1]), asking)
        torch.testing.assert_close(picked, wanted[:, [4, 1]], rtol=0, atol=1e-12)
        mixed = block(mixed, groups.log_sizes)


def test_merged_weights_are_those_that_the_block_uses():
    attention, tokens = small(heads=1).blocks[0].attention, torch.randn(1, 6, 16)
    sizes = torch.tensor([[1.0, 3.0, 2.0, 1.0, 4.0, 0.0]]).log()
    mixed = attention.weights(tokens[:, 2:4], tokens, sizes) @ attention.value(tokens)
    torch.testing.assert_close(attention.output(mixed), attention(tokens, sizes)[:, 2:4])


# the model ----------------------------------------------------------------------------------------------------------


def test_a_model_remembers_its_merging_and_starts_from_weights_without(tiny, tmp_path):
    torch.manual_seed(0)
    plain, merging = mvf.build_model(tiny()).eval(), mvf.build_model(tiny(token_merge=0.5)).eval()
    plain.save_pretrained(tmp_path / "plain")
    load_weights(merging, tmp_path / "plain")
    merging.save_pretrained(tmp_path / "merging")
    tokens = torch.randn(1, 12, 3, plain.pooling.width)
    again = mvf.MVFormer.from_pretrained(tmp_path / "merging")
    assert again.architecture.token_merge == again.fusion.token_merge == 0.5
    assert torch.equal(again.fuse_tokens(tokens).embeddings, merging.fuse_tokens(tokens).embeddings)
    assert not torch.allclose(again.fuse_tokens(tokens).embeddings, plain.fuse_tokens(tokens).embeddings)
    forget_checksums(tmp_path / "plain")
    stored = json.loads((tmp_path / "plain" / "model_config.json").read_text())
    del stored["architecture"]["token_merge"]
    (tmp_path / "plain" / "model_config.json").write_text(json.dumps(stored))
    assert mvf.MVFormer.from_pretrained(tmp_path / "plain").fusion.token_merge == 0, "a file from before merging"


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_that_is_none_is_refused(tiny, share):
    message = rf"token_merge must be in \[0, 1\), got {share}"
    with pytest.raises(ValueError, match=message):
        tiny(token_merge=share)
    with pytest.raises(ValueError, match=message):
        small(token_merge=share)


def test_merging_half_takes_less_than_half_of_the_fusions_operations(tiny):
    config = tiny(num_frames=240, entities=6, fusion_blocks=3, layers="2")
    off, on = (model_cost(replace(config, token_merge=share, entities=6)) for share in (0, 0.5))
    less = model_cost(replace(config, fusion_blocks=1))
    block = (off.operations - less.operations) / 2
    assert off.operations - on.operations > 3 * block / 2
    assert (off.parameters, off.backbone_parameters) == (on.parameters, on.backbone_parameters)


def test_a_merged_model_is_trained_judged_and_looked_into(tiny, tmp_path):
    options = {**TINY["data_options"], "train_videos": 4, "val_videos": 2, "actions": ["squat"]}
    config = tiny(token_merge=0.5, dropout=0.0, epochs=1, localization=False, data_options=options)
    run = mvf.train(config, tmp_path / "run")
    assert all(math.isfinite(row["loss"]) for row in run.history)
    splits = embed_splits(run.model, run.config)
    report = report_on(run.model, run.config, splits)
    assert report["token_merge"] == 0.5
    assert {"frozen_frame", "shuffled_order"} <= report["controls"].keys()
    assert math.isfinite(report["cropped"]["model"]["classification"])
    record, embedded = splits.val_records[0], splits.val[0].embeddings
    assert len({tuple(row) for row in embedded.tolist()}) == record.num_frames, "no two frames have one embedding"
    weights = temporal_attention(run.model, record).weights
    torch.testing.assert_close(torch.from_numpy(weights).sum((1, 2)), torch.ones(record.num_frames))
