"""Model folders: read back exactly, refused clearly."""

import json
import logging
from dataclasses import asdict

import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from mvf.config import load_config
from mvf.models import MVFormer, build_model, load_official_checkpoint, load_weights
from mvf.models.mvformer import Architecture
from mvf.models.wheel_weights import read_encoder
from tests.fuzz.models import CFG, SIZES, _checkpoint, _official_state
from tests.models.stored import forget_checksums
from tests.models.test_mvformer import SMALL, features, small

BACKBONE = {"backbone": "test_vit", "backbone_weights": "random", "image_size": 32, "layers": (2, 6)}


@pytest.mark.parametrize(
    "changes", [{}, {"pooling": "cls", "readout": "mean", "projection_width": 0}, {"velocity_offsets": (2, 5)}]
)
def test_saved_model_is_read_back_exactly(tmp_path, changes):
    model, (patches, cls) = small(**changes), features()
    given = {"cls": cls, "velocity": torch.randn(2, 6, model.velocity_width)}
    for buffer in model.velocity_scaling.values():
        buffer.uniform_(1, 2)
    model.save_pretrained(tmp_path / "new" / "run")
    found = MVFormer.from_pretrained(tmp_path / "new" / "run")
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == ["model.safetensors", "model_config.json"]
    assert found.architecture == model.architecture and not found.training
    torch.testing.assert_close(
        found.fuse(patches, **given).embeddings, model.fuse(patches, **given).embeddings, rtol=0, atol=0
    )


def test_config_file_holds_the_constructor_arguments_and_nothing_new_where_velocity_is_off(tmp_path):
    for offsets in ((), (2, 5)):
        small(velocity_offsets=offsets).save_pretrained(tmp_path)
        stored = json.loads((tmp_path / "model_config.json").read_text())["architecture"]
        assert {"velocity_offsets": [], **stored} == asdict(SMALL) | {"velocity_offsets": list(offsets)}
        assert ("velocity_offsets" in stored) == bool(offsets)


def test_frozen_backbone_is_stored_by_name_and_rebuilt(tmp_path):
    model = build_model(load_config("synthetic", **BACKBONE)).eval()
    model.save_pretrained(tmp_path)
    assert not [name for name in _tensor_names(tmp_path) if name.startswith("backbone")]
    found = MVFormer.from_pretrained(tmp_path)
    assert found.backbone.weights_sha256 == model.backbone.weights_sha256 and found.backbone.layers == (2, 6)
    frames = torch.rand(1, 3, 3, 32, 32)
    torch.testing.assert_close(found(frames).embeddings, model(frames).embeddings, rtol=0, atol=0)
    assert MVFormer.from_pretrained(tmp_path, backbone=False).backbone is None


def test_settings_that_describe_no_backbone_are_refused_naming_their_file(tmp_path):
    build_model(load_config("synthetic", **BACKBONE)).save_pretrained(tmp_path)
    path = tmp_path / "model_config.json"
    settings = json.loads(path.read_text())
    settings["backbone"]["layers"] = []
    path.write_text(json.dumps(settings))
    forget_checksums(tmp_path)
    with pytest.raises(ValueError, match=r"model_config\.json: layers must be different numbers, at least one"):
        MVFormer.from_pretrained(tmp_path)


def test_another_backbone_than_in_training_is_refused(tmp_path):
    model = build_model(load_config("synthetic", **BACKBONE))
    model.backbone.weights_sha256 = "0" * 64
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="0{64}.*backbone=False"):
        MVFormer.from_pretrained(tmp_path)


def test_same_weights_from_hub_and_index_are_accepted_with_a_warning(tmp_path, monkeypatch, caplog):
    model = build_model(load_config("synthetic", **BACKBONE))
    model.backbone.weights_sha256, model.backbone.weights_source = "0" * 64, "hub"
    model.save_pretrained(tmp_path)
    model.backbone.weights_sha256, model.backbone.weights_source = "1" * 64, "index"
    monkeypatch.setattr("mvf.models.stored.Backbone", lambda *_, **__: model.backbone)
    with caplog.at_level(logging.WARNING):
        assert MVFormer.from_pretrained(tmp_path).backbone is model.backbone
    assert "0" * 64 in caplog.text and "1" * 64 in caplog.text


def test_backbone_file_that_moved_is_found_by_argument(tmp_path):
    model = build_model(load_config("synthetic", **BACKBONE))
    torch.save(model.backbone.model.state_dict(), tmp_path / "old.pth")
    model = build_model(load_config("synthetic", **{**BACKBONE, "backbone_weights": str(tmp_path / "old.pth")}))
    model.save_pretrained(tmp_path / "run")
    assert MVFormer.from_pretrained(tmp_path / "run").backbone.weights_source == "file"
    (tmp_path / "old.pth").rename(tmp_path / "new.pth")
    with pytest.raises(FileNotFoundError, match="old.pth"):
        MVFormer.from_pretrained(tmp_path / "run")
    MVFormer.from_pretrained(tmp_path / "run", backbone_weights=tmp_path / "new.pth")


def _tensor_names(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_folders_without_a_readable_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing holds no model"):
        MVFormer.from_pretrained(tmp_path / "nothing")
    (tmp_path / "file.pth").write_bytes(b"junk")
    with pytest.raises(ValueError, match="load_official_checkpoint"):
        MVFormer.from_pretrained(tmp_path / "file.pth")
    run = tmp_path / "run"
    small().save_pretrained(run)
    forget_checksums(run)
    described = json.loads((run / "model_config.json").read_text())
    for broken, message in (
        ("{", "no readable model"),
        ("{}", "no readable model"),
        (json.dumps({**described, "architecture": {"wings": 2}}), "wings"),
        (json.dumps({**described, "architecture": {**asdict(SMALL), "entities": 4}}), r"query is \(3, 8\), wanted"),
    ):
        (run / "model_config.json").write_text(broken)
        with pytest.raises(ValueError, match=message):
            MVFormer.from_pretrained(run)
    small().save_pretrained(run)
    tensors = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(tensors[: len(tensors) // 2])
    with pytest.raises(ValueError, match="no readable model"):
        MVFormer.from_pretrained(run)


def test_trained_parts_start_from_a_run(tmp_path):
    source = small()
    nn.init.normal_(source.embedding.weight)
    source.save_pretrained(tmp_path)
    model = small(num_frames=9)
    load_weights(model, tmp_path)
    for name, tensor in model.trained_state().items():
        torch.testing.assert_close(tensor, source.trained_state()[name])
    with pytest.raises(ValueError, match="left over projection"):
        load_weights(small(projection_width=0), tmp_path)


# stored settings


@pytest.fixture
def change_stored(tmp_path):
    """Changes one number of a stored model."""
    MVFormer(SIZES).save_pretrained(tmp_path)
    forget_checksums(tmp_path)
    path = tmp_path / "model_config.json"

    def change(**values):
        described = json.loads(path.read_text())
        described["architecture"] |= values
        path.write_text(json.dumps(described))
        return tmp_path

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fusion_width", 2**20, "the tensors do not fit the model"),  # would be terabytes
        ("fusion_blocks", 10**9, "fusion_blocks must be from 1 to 1000, got 1000000000"),
        ("fusion_heads", 0, "fusion_heads must be from 1 to"),
        ("dropout", "high", "dropout must be float, got 'high'"),
        ("entity_id", 1, "entity_id must be bool, got 1"),
        ("cls_channels", [8], "cls_channels must be int | None"),
        ("velocity_offsets", 2, "velocity_offsets must be list, got 2"),
        ("velocity_offsets", [2, 0], "velocity_offsets must be from 1 to"),
        ("velocity_offsets", [2], "missing velocity_center"),
    ],
)
def test_a_size_that_the_tensors_have_not_is_refused_before_memory_is_taken(change_stored, name, value, message):
    with pytest.raises(ValueError) as error:
        MVFormer.from_pretrained(change_stored(**{name: value}))
    assert message in str(error.value) and str(change_stored()) in str(error.value)


def test_comparing_shapes_draws_nothing(change_stored):
    """Numbers of runs that start from a stored model stay what they were."""
    torch.manual_seed(1)
    MVFormer.from_pretrained(change_stored())
    first = torch.rand(1)
    torch.manual_seed(1)
    MVFormer(SIZES)
    assert torch.equal(first, torch.rand(1))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HIDDEN_SIZE", 2**20, "the tensors do not fit the model"),
        ("NUM_LAYERS", 10**9, "fusion_blocks must be from 1 to 1000"),
        ("FC_LAYERS", 3, "describes no model"),
        ("SMART_TOKENS", None, "entities must be int, got None"),
    ],
)
def test_an_official_cfg_that_is_not_of_its_tensors_is_refused_by_file(tmp_path, name, value, message):
    cfg = json.loads(json.dumps(CFG))
    (tmp_path / "a.pth").write_bytes(_checkpoint(cfg, _official_state()))
    assert load_official_checkpoint(tmp_path / "a.pth").architecture.channels == SIZES.channels
    cfg["MODEL"]["EMBEDDER_MODEL"][name] = value
    (tmp_path / "a.pth").write_bytes(_checkpoint(cfg, _official_state()))
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
        load_official_checkpoint(tmp_path / "a.pth")


def test_an_encoder_whose_numbers_lie_elsewhere_is_refused():
    tensor = numpy_helper.from_array(torch.ones(2).numpy(), "w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(ValueError, match="a.onnx is not the encoder.*lie in another file, which is not read"):
        read_encoder(model.SerializeToString(), "a.onnx")


def test_every_field_of_an_architecture_is_of_a_kind_that_is_checked():
    assert {type(value) for value in vars(Architecture()).values()} <= {int, float, str, bool, tuple}
