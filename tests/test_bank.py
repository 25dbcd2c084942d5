import pytest
import torch

from mvf import bank as bank_module
from mvf.bank import BankStore, FeatureBank
from mvf.data import find_config_videos
from mvf.data.augment import build_augmentation
from mvf.models.backbone import Backbone


@pytest.fixture
def records(tiny):
    return find_config_videos(tiny(), "val")[:2]


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
    return bank._pixels(record, view, frames)


def test_views_differ_and_one_draw_serves_all_chunks_of_a_video(records, tiny, tmp_path):
    bank = make(tmp_path, augmentation=build_augmentation(tiny()))
    whole = whole_view(bank, records[0], 0)
    chunks = [bank._pixels(records[0], 0, frames) for frames in bank_module.in_chunks(records[0], 3)]
    torch.testing.assert_close(torch.cat(chunks), whole)
    assert not torch.equal(whole_view(bank, records[0], 1), whole)


def test_predicted_size_is_the_size_written(records, tmp_path):
    bank = make(tmp_path)
    predicted = bank.predicted_bytes(records, 2)
    BankStore(bank, records, 2)
    written = sum(p.stat().st_size for p in tmp_path.rglob("view*") if p.suffix != ".sha256")
    assert predicted == written


def test_no_room_is_refused_before_anything_is_made(records, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_module.shutil, "disk_usage", lambda _: type("usage", (), {"free": 10})())
    with pytest.raises(OSError, match=r'needs .* GB .* features="online"'):
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
