"""Flipped bytes and files cut short: noticed, named, never used."""

from random import Random

import pytest
import safetensors.torch
import torch

import mvf
from mvf.bank import FeatureBank
from mvf.data import find_config_videos
from mvf.models.backbone import Backbone
from mvf.run_folder import read_state
from tests.faults.processes import assert_equal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from mvf.config import load_config
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("damage") / "run"
    mvf.train(load_config("synthetic", **{**TINY, "epochs": 1}), folder)
    return folder


def flipped(data, draw):
    damaged = bytearray(data)
    damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def never_used(read, path, original, good, tries):
    """Of damaged copies, `read` refuses each, naming it, or (where padding was hit) reads what is right."""
    draw, refused = Random(6), 0
    cuts = [b"", original[:10], original[: len(original) // 2], original[:-1]]
    for data in [*cuts, *(flipped(original, draw) for _ in range(tries))]:
        path.write_bytes(data)
        try:
            assert_equal(good, read())
        except ValueError as error:
            assert str(path) in str(error) and "is damaged" in str(error)
            refused += 1
    return refused


@pytest.mark.parametrize("tries", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_damaged_state_is_refused(run, tmp_path, tries):
    path, data = tmp_path / "state.pt", (run / "state.pt").read_bytes()
    refused = never_used(lambda: read_state(path), path, data, read_state(run / "state.pt"), tries)
    assert refused > 4 + tries / 2


@pytest.mark.parametrize("tries", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_damaged_model_is_refused(run, tmp_path, tries):
    path, data = tmp_path / "model.safetensors", (run / "model.safetensors").read_bytes()
    (tmp_path / "model_config.json").write_bytes((run / "model_config.json").read_bytes())

    def read():
        return mvf.MVFormer.from_pretrained(tmp_path, backbone=False).trained_state()

    good = mvf.MVFormer.from_pretrained(run, backbone=False).trained_state()
    assert never_used(read, path, data, good, tries) == 4 + tries


def test_a_damaged_state_stops_a_training_and_says_what_to_do(run, tiny):
    original = (run / "state.pt").read_bytes()
    (run / "state.pt").write_bytes(original[:-100])
    try:
        with pytest.raises(ValueError, match=r"state.pt is damaged .* put a copy of it back, or delete .*run to train"):
            mvf.train(tiny(epochs=1), run)
    finally:
        (run / "state.pt").write_bytes(original)


def test_a_damaged_model_is_written_anew_by_the_same_training(run, tiny):
    original = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(flipped(original, Random(1)))
    with pytest.raises(ValueError, match="the same training command writes it anew"):
        mvf.MVFormer.from_pretrained(run)
    mvf.train(tiny(epochs=1), run)
    assert (run / "model.safetensors").read_bytes() == original


def test_a_model_from_before_checksums_loads(run, tmp_path):
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "model_config.json").write_bytes((run / "model_config.json").read_bytes())
    assert_equal(mvf.MVFormer.from_pretrained(tmp_path, backbone=False).trained_state(), tensors)


# banks --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path):
    backbone = Backbone("vit_tiny_patch16_224", "random", image_size=32, layers=(2,))
    return lambda: FeatureBank(backbone, None, "fp32", tmp_path / "banks")


def flip(path):
    path.write_bytes(flipped(path.read_bytes(), Random(2)))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()], ids=["flipped", "cut", "deleted"])
def test_a_damaged_bank_file_is_made_again_with_a_warning(tiny, tmp_path, bank, caplog, damage):
    record = find_config_videos(tiny(), "val")[0]
    patches, cls = bank().read(record)
    good = patches.clone()
    (path,) = tmp_path.rglob("view0.layer02")
    damage(path)
    again, _ = bank().read(record)
    assert torch.equal(again, good)
    assert len([r for r in caplog.records if str(path) in r.getMessage()]) == 1
    caplog.clear()
    assert torch.equal(bank().read(record)[0], good) and not caplog.records


@pytest.mark.parametrize("error", [OSError("no such video"), RuntimeError("Cannot re-initialize CUDA")])
def test_a_damaged_bank_file_that_cannot_be_made_again_is_refused(tiny, tmp_path, bank, monkeypatch, error):
    record = find_config_videos(tiny(), "val")[0]
    good = bank().read(record)[0]
    (path,) = tmp_path.rglob("view0.layer02")
    flip(path)

    def gone(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(record), "frames", gone)
        for _ in range(2):  # and stays refused
            with pytest.raises(OSError, match=f"view0.layer02 is missing or .* cannot be made again: {error}; start"):
                bank().read(record)
    bank().ensure([record])  # as a run does before it trains
    assert torch.equal(bank().read(record)[0], good)
