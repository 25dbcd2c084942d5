from __future__ import annotations

import json

import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from mvf.models import MVFormer, load_official_checkpoint
from mvf.models.mvformer import Architecture
from mvf.models.wheel_weights import read_encoder

from ..fuzz.models import CFG, SIZES, _checkpoint, _official_state
from .stored import forget_checksums


@pytest.fixture
def stored(tmp_path):
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
    ],
)
def test_a_size_that_the_tensors_have_not_is_refused_before_memory_is_taken(stored, name, value, message):
    with pytest.raises(ValueError) as error:
        MVFormer.from_pretrained(stored(**{name: value}))
    assert message in str(error.value) and str(stored()) in str(error.value)


def test_comparing_shapes_draws_nothing(stored):
    """Numbers of runs that start from a stored model stay what they were."""
    torch.manual_seed(1)
    MVFormer.from_pretrained(stored())
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
    assert {type(value) for value in vars(Architecture()).values()} <= {int, float, str, bool}
