import json
from functools import cache

import numpy as np
import pytest
import torch

import mvf
from mvf import bank as bank_module
from mvf.bank import BankStore, FeatureBank, build_bank
from mvf.bank_files import decode, encode
from mvf.data import find_config_videos
from mvf.data.augment import build_augmentation
from mvf.data.records import VideoRecord, frame_batches
from mvf.models.backbone import Backbone
from mvf.models.mvformer import pool_reduced
from mvf.workbench import notebook


@pytest.fixture
def records(tiny):
    return find_config_videos(tiny(), "val")[:2]


@cache
def backbone(layers=(2, 4)):
    return Backbone("vit_tiny_patch16_224", "random", image_size=32, layers=layers)


def make(root, layers=(2, 4), augmentation=None):
    return FeatureBank(backbone(layers), augmentation, "fp32", root)


def test_clean_features_are_the_backbones_in_bfloat16(records, tmp_path):
    bank = make(tmp_path)
    patches, cls = bank.read(records[0], 0, torch.tensor([3, 1]))
    pixels = whole_view(bank, records[0], 0)
    expected, expected_cls = bank.backbone(pixels)
    torch.testing.assert_close(patches, expected[[3, 1]].bfloat16())
    torch.testing.assert_close(cls, expected_cls[[3, 1]].bfloat16())


def test_the_key_ignores_layers_and_a_second_bank_computes_only_what_is_new(records, tmp_path):
    make(tmp_path, (2,)).ensure(records)
    other = make(tmp_path, (2, 3))
    frames = sum(record.num_frames for record in records)
    # layer 3 and its class token; layer 2 is there
    assert other.predicted_bytes(records, 1) == 2 * frames * 192 * (4 + 1)
    assert make(tmp_path, (2,)).predicted_bytes(records, 1) == 0


def whole_view(bank, record, view):
    frames = torch.from_numpy(record.load()).permute(0, 3, 1, 2)
    return bank.maker.pixels(record, view, frames)


def test_views_differ_and_one_draw_serves_all_chunks_of_a_video(records, tiny, tmp_path):
    bank = make(tmp_path, augmentation=build_augmentation(tiny()))
    whole = whole_view(bank, records[0], 0)
    chunks = [bank.maker.pixels(records[0], 0, frames) for frames in frame_batches(records[0].frames(), 3)]
    torch.testing.assert_close(torch.cat(chunks), whole)
    assert not torch.equal(whole_view(bank, records[0], 1), whole)


def test_predicted_size_is_the_size_written(records, tmp_path):
    bank = make(tmp_path)
    predicted = bank.predicted_bytes(records, 2)
    BankStore(bank, records, 2)
    written = sum(p.stat().st_size for p in tmp_path.rglob("view*") if p.suffix != ".sha256")
    assert predicted == written


def test_no_room_is_refused_before_anything_is_made(records, tmp_path, monkeypatch):
    monkeypatch.setattr("mvf.bank_files.shutil.disk_usage", lambda _: type("usage", (), {"free": 10})())
    wanted = r'needs 0\.00 GB in .*, where 0\.00 GB are free, of which 1\.07 GB are reserved .* features="online"'
    with pytest.raises(OSError, match=wanted):
        make(tmp_path).ensure(records)
    assert not list(tmp_path.rglob("view*"))


def test_an_interrupted_build_goes_on_where_it_stopped(records, tmp_path, monkeypatch):
    bank = make(tmp_path)
    real = bank.backbone.intermediates
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1 + (records[0].num_frames - 1) // bank_module.FRAMES_AT_ONCE + 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(bank.backbone, "intermediates", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bank.ensure(records)
    left = make(tmp_path).predicted_bytes(records, 1)
    assert 0 < left < 2 * sum(r.num_frames for r in records) * 192 * (2 * 4 + 1)
    whole = make(tmp_path)
    whole.ensure(records)
    assert whole.predicted_bytes(records, 1) == 0


# options ------------------------------------------------------------------------------------------------------------


def written(folder):
    """Bytes of all that a bank keeps but checksums and notes."""
    kept = [*folder.rglob("view*"), *folder.rglob("basis")]
    return sum(p.stat().st_size for p in kept if p.suffix != ".sha256")


class Noise:
    """A few frames without any order."""

    identity = "noise"

    def __init__(self, length):
        self.length = length

    def count(self):
        return self.length

    def frames(self, start=0, stop=None, step=1):
        for number in range(self.length)[start:stop:step]:
            yield np.random.default_rng([self.length, number]).integers(0, 256, (36, 40, 3), dtype=np.uint8)


@pytest.fixture
def clips():
    return [VideoRecord(f"noise{length}", "none", Noise(length)) for length in (9, 7)]


def whole_bank(root, clips, **options):
    if options.get("channels"):
        options["fitted_on"] = clips
    return FeatureBank(backbone(), None, "fp32", root, **options)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"channels": 16}, {"channels": 16, "dtype": "int8"}])
def test_the_predicted_size_of_every_option_is_the_size_written(clips, tmp_path, options):
    bank = whole_bank(tmp_path, clips, **options)
    predicted = bank.predicted_bytes(clips, 2)
    assert written(tmp_path) == 0
    BankStore(bank, clips, 2)
    assert predicted == written(tmp_path) and bank.predicted_bytes(clips, 2) == 0
    bank.ensure(clips, 2, first=1)
    basis = 4 * bank.channels * bank.backbone.channels
    assert written(tmp_path) == predicted + (predicted - basis) // 2


def test_every_option_has_a_bank_of_its_own_and_the_plain_one_keeps_its_key(clips, tmp_path):
    options = [{}, {"dtype": "int8"}, {"channels": 16}, {"channels": 8}]
    folders = [whole_bank(tmp_path, clips, **option).folder for option in options]
    assert len(set(folders)) == len(options)
    assert whole_bank(tmp_path, clips[:1], channels=16).folder not in folders
    assert not list(tmp_path.iterdir())  # naming them makes none
    whole_bank(tmp_path, clips).ensure(clips[:1])
    made_from = json.loads((folders[0] / "made_from.json").read_text())
    assert list(made_from) == ["backbone", "weights", "image_size", "augmentation", "precision"]


def test_int8_is_within_half_a_step_of_each_channel(clips, tmp_path):
    plain, _ = whole_bank(tmp_path, clips).read(clips[0])
    small, _ = whole_bank(tmp_path, clips, dtype="int8").read(clips[0], 0)
    step = plain.float().abs().amax(1, keepdim=True) / 127
    assert ((plain.float() - small.float()).abs() <= 0.51 * step + 2**-7 * plain.float().abs()).all()
    assert not torch.equal(plain, small)


def test_a_channel_that_is_zero_stays_zero_in_int8():
    features = torch.zeros(2, 3, 4)
    features[..., 1] = 5.0
    out = np.empty((2, 3, 4), np.int16)
    decode("int8", encode("int8", features), [0, 1], out)
    torch.testing.assert_close(torch.from_numpy(out).view(torch.bfloat16).float(), features, rtol=2**-8, atol=0)


def test_reduced_features_are_the_best_of_their_rank_and_all_directions_lose_nothing(clips, tmp_path):
    plain = whole_bank(tmp_path, clips)
    exact = torch.cat([plain.read(record)[0].flatten(0, 1) for record in clips]).double()
    best = torch.linalg.svdvals(exact)[16:].square().sum().sqrt()
    reduced = whole_bank(tmp_path, clips, channels=16)
    rebuilt = torch.cat([reduced.read(record)[0].flatten(0, 1) for record in clips]).double()
    assert reduced.read_stored(clips[0])[0].shape[-1] == 16
    lost = (rebuilt - exact).norm()
    assert best * (1 - 1e-4) < lost < 1.05 * best + 0.01 * exact.norm()
    whole = whole_bank(tmp_path, clips, channels=384)
    torch.testing.assert_close(whole.read(clips[0])[0], plain.read(clips[0])[0], rtol=0.03, atol=0.03)


def test_a_damaged_basis_is_made_again_and_a_lost_one_makes_no_mixed_bank(clips, tmp_path, caplog):
    first = whole_bank(tmp_path, clips, channels=16)
    first.ensure(clips)
    basis, good = first.folder / "basis", first.read(clips[0])[0]
    data = np.fromfile(basis, np.uint8)
    data[7] ^= 1
    data.tofile(basis)
    assert torch.equal(whole_bank(tmp_path, clips, channels=16).read(clips[0])[0], good)
    assert "basis does not match its checksum: it is made again from training videos" in caplog.text
    basis.unlink()
    (first.folder / "basis.sha256").write_text("0" * 64)  # as of other directions
    assert whole_bank(tmp_path, clips, channels=16).predicted_bytes(clips, 1) > 0


def test_more_directions_than_channels_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="bank_channels must be at most the 384 channels of layers"):
        whole_bank(tmp_path, clips, channels=385)


@pytest.mark.parametrize("pooling", ["lstp", "mean", "max", "cls", "fixed_width"])
@pytest.mark.parametrize("competition", [False, True])
def test_pooling_reduced_patches_is_pooling_their_reconstruction(tiny, pooling, competition):
    if competition and pooling != "lstp":
        pytest.skip("only LSTP has entities that compete")
    torch.manual_seed(0)
    model = mvf.build_model(tiny(pooling=pooling, entity_competition=competition))
    basis = torch.linalg.qr(torch.randn(384, 16)).Q.T
    reduced, cls = torch.randn(2, 3, 4, 16), torch.randn(2, 3, 192)
    tokens, attention = pool_reduced(model, reduced, basis, cls)
    wanted, wanted_attention = model.pool(reduced @ basis, cls)
    torch.testing.assert_close(tokens, wanted)
    if pooling != "lstp":
        return
    torch.testing.assert_close(attention, wanted_attention)
    gradients = [torch.autograd.grad(t.square().sum(), model.pooling.key.weight)[0] for t in (tokens, wanted)]
    torch.testing.assert_close(*gradients)


def test_one_read_gives_the_rows_of_all_layers_in_the_order_asked_for(clips, tmp_path):
    bank = make(tmp_path, (4, 2))
    whole, cls = bank.read(clips[0])
    pick = torch.tensor([5, 1, 1, 7])
    some, some_cls = bank.read(clips[0], 0, pick)
    assert torch.equal(some, whole[pick]) and torch.equal(some_cls, cls[pick])
    assert torch.equal(whole[..., 192:], make(tmp_path, (2,)).read(clips[0])[0])


def test_the_notebook_shows_the_size_before_anything_is_made(tiny, clips):
    config = tiny(features="banked", bank_dtype="int8", bank_channels=16, seed=77)
    model = mvf.build_model(config, backbone())
    table = notebook.bank_table(config, model, clips)
    bank = build_bank(config, model.backbone, clips)
    whole = bank.predicted_bytes(clips, 2)
    size = f"{whole / 1e9:.3f}"
    assert table.rows[:2] == (("2 views, int8, 16 of 384 channels", size), ("not yet written", size))
    assert not list(bank.folder.rglob("view*"))
    bank.ensure(clips, 2)
    assert not bank.predicted_bytes(clips, 2) and bank.predicted_bytes(clips, 2, whole=True) == whole > 0
    assert notebook.bank_table(tiny(features="online"), model, clips).rows[0][0] == "online: nothing is stored"
