"""Flipped bytes and files cut short: noticed, named, never used."""

from contextlib import contextmanager
from random import Random

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import mvf
from mvf.bank import FeatureBank
from mvf.data import find_config_videos
from mvf.files import atomic
from mvf.models import load_weights
from mvf.models.backbone import Backbone
from mvf.training.run import STATE, read_history, read_state
from tests.faults.processes import assert_equal, assert_same
from tests.models.stored import forget_checksums


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from mvf.config import load_config
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("damage") / "run"
    mvf.train(load_config("synthetic", **{**TINY, "epochs": 1}), folder)
    return folder


def copy_model(run, folder):
    for name in ("model.safetensors", "model_config.json"):
        (folder / name).write_bytes((run / name).read_bytes())


def read(folder):
    return mvf.MVFormer.from_pretrained(folder, backbone=False)


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


@pytest.mark.parametrize("name", ["model.safetensors", "model_config.json"])
@pytest.mark.parametrize("tries", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_damaged_model_is_refused(run, tmp_path, name, tries):
    copy_model(run, tmp_path)
    path, data = tmp_path / name, (run / name).read_bytes()
    good = read(run).state_dict()
    assert never_used(lambda: read(tmp_path).state_dict(), path, data, good, tries) == 4 + tries


def test_a_state_whose_error_has_no_text_is_refused_with_its_kind(tmp_path):
    torch.save([None], tmp_path / "state.pt")  # no pairs
    with pytest.raises(ValueError, match="state.pt is damaged .*TypeError"):
        read_state(tmp_path / "state.pt")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="state.pt is damaged .*EOFError"):
        patch.setattr("mvf.training.run.load_plain", lambda path: (_ for _ in ()).throw(EOFError()))
        read_state(tmp_path / "state.pt")


def test_a_damaged_state_stops_a_training_and_says_what_to_do(run, tiny):
    original = (run / "state.pt").read_bytes()
    (run / "state.pt").write_bytes(original[:-100])
    try:
        with pytest.raises(
            ValueError, match=r"state.pt is damaged .* restore it from a copy, or delete .*run to train"
        ):
            mvf.train(tiny(epochs=1), run)
    finally:
        (run / "state.pt").write_bytes(original)


@pytest.mark.parametrize("lost", [("optimizer",), ("step", "generators"), STATE])
def test_a_state_that_lacks_a_part_is_refused_with_the_part(run, tiny, lost):
    original = (run / "state.pt").read_bytes()
    state = {name: value for name, value in read_state(run / "state.pt").items() if name not in lost}
    torch.save(state, run / "state.pt")
    wanted = rf"run/state.pt is not a training state: it has no {', '.join(lost)}: restore it from a copy, or delete"
    try:
        with pytest.raises(ValueError, match=wanted):
            mvf.train(tiny(epochs=1), run)
    finally:
        (run / "state.pt").write_bytes(original)


def test_a_damaged_model_is_written_anew_by_the_same_training(run, tiny):
    original = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(flipped(original, Random(1)))
    with pytest.raises(ValueError, match="the same training command writes it anew"):
        read(run)
    mvf.train(tiny(epochs=1), run)
    assert (run / "model.safetensors").read_bytes() == original


def test_a_model_from_before_checksums_loads(run, tmp_path):
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    copy_model(run, tmp_path)
    forget_checksums(tmp_path)
    assert_equal(read(tmp_path).state_dict(), tensors)


def noted(folder, change):
    """Changes what the file of the tensors notes of the two files."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        (name, value) = next(iter(file.metadata().items()))
    data = safetensors.torch.save(safetensors.torch.load(path.read_bytes()), {name: change(value)})
    path.write_bytes(data)


def test_a_model_from_before_the_checksum_of_settings_loads_and_its_tensors_stay_checked(run, tmp_path):
    copy_model(run, tmp_path)
    noted(tmp_path, lambda sums: sums.split()[0])
    assert_equal(read(tmp_path).state_dict(), read(run).state_dict())
    noted(tmp_path, lambda _: "0" * 64)
    with pytest.raises(ValueError, match="model.safetensors is damaged .*its tensors do not match their checksum"):
        read(tmp_path)


@pytest.mark.parametrize(
    "change", [('"num_frames": 8', '"num_frames": 9'), ('"token_merge": 0.0', '"token_merge": 0.8')]
)
def test_settings_that_were_edited_are_refused_with_how_it_was_seen(run, tmp_path, change):
    copy_model(run, tmp_path)
    path = tmp_path / "model_config.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    wanted = r"config.json is damaged \(or was edited, .* sha256 begins \w{8}, .*model.safetensors notes \w{8}\): in a"
    with pytest.raises(ValueError, match=wanted):
        read(tmp_path)
    with pytest.raises(ValueError, match=wanted):
        load_weights(read(run), tmp_path)


def test_damaged_settings_are_written_anew_by_the_same_training(run, tiny):
    path = run / "model_config.json"
    original = path.read_bytes()
    path.write_bytes(flipped(original, Random(1)))
    mvf.train(tiny(epochs=1), run)
    assert path.read_bytes() == original and read(run)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_training_killed_between_the_two_files_of_its_model_goes_on(tiny, tmp_path, monkeypatch, epoch):
    mvf.train(tiny(), tmp_path / "reference")

    @contextmanager
    def killed(path):
        with atomic(path) as temporary:
            if path.name == "model_config.json" and len(read_history(path.parent)) == epoch:
                raise KeyboardInterrupt
            yield temporary

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mvf.models.stored.atomic", killed)
        mvf.train(tiny(), tmp_path / "run")
    if epoch == 2:  # the settings of the first epoch are those of the second
        assert_equal(read(tmp_path / "run").state_dict(), read(tmp_path / "reference").state_dict())
    mvf.train(tiny(), tmp_path / "run")
    assert_same(tmp_path / "reference", tmp_path / "run")


def test_a_model_file_holds_one_note_since_the_library_orders_several_anew_in_every_process(run):
    with safe_open(run / "model.safetensors", "pt") as file:
        assert len(file.metadata()) == 1


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
