"""Import of official checkpoints: equal numbers, and no code run."""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch

from mvf.models import MVFormer, load_official_checkpoint, load_weights
from mvf.models.official import read_checkpoint, rename_backbone
from tests.golden import GOLDEN

CHECKPOINT, VALUES = GOLDEN / "official_mvf_cls3.pth", GOLDEN / "model_mvf_cls3.npz"


@pytest.mark.parametrize("case", ["train_len", "longer"])
def test_equals_the_published_code(case):
    golden = {name: torch.from_numpy(value) for name, value in np.load(VALUES).items()}
    model = load_official_checkpoint(CHECKPOINT)
    valid = golden[f"{case}_mask"] > 0
    with torch.inference_mode():
        out = model.fuse(golden[f"{case}_tokens"], valid, golden[f"{case}_cls"])
    for name, value in (
        ("entities", out.entities),
        ("attention", out.attention),
        ("raw_embedding", out.raw_embeddings),
        ("embedding", out.embeddings),
        ("projection", out.projections),
    ):
        assert (value - golden[f"{case}_{name}"]).abs()[valid].max() <= 1e-5, name


def test_checkpoint_without_backbone_gives_a_model_without_one():
    model = load_official_checkpoint(CHECKPOINT)
    assert model.backbone is None and not model.training and model.architecture.num_frames == 12
    with pytest.raises(ValueError, match="no backbone"):
        model(torch.rand(1, 2, 3, 32, 32))


def test_imported_model_is_saved_and_read_back(tmp_path):
    model = load_official_checkpoint(CHECKPOINT)
    model.save_pretrained(tmp_path)
    found = MVFormer.from_pretrained(tmp_path)
    patches = torch.randn(1, 5, 4, 48)
    torch.testing.assert_close(found.fuse(patches).embeddings, model.fuse(patches).embeddings, rtol=0, atol=0)
    target = MVFormer(model.architecture)
    load_weights(target, CHECKPOINT)
    assert torch.equal(target.pooling.query, model.pooling.query)


@pytest.fixture
def tiny(tmp_path):
    """A copy of the golden checkpoint with the tensors of a tiny ViT, whose patches have 2 x 64 channels."""
    contents = read_checkpoint(CHECKPOINT)
    contents["cfg"]["IMAGE_SIZE"] = 32
    base = contents["cfg"]["MODEL"]["BASE_MODEL"]
    base["NETWORK"], base["OUT_CHANNEL"] = "TIMM-test_vit", 128
    contents["cfg"]["MODEL"]["EMBEDDER_MODEL"]["SMART_FEATS"] = "1,5"
    for name in ("K", "V"):
        contents["model_state"][f"embed.pooling.cross_att.linear_{name}2d.weight"] = torch.randn(24, 128)
    torch.manual_seed(7)
    contents["network"] = timm.create_model("test_vit", img_size=160)
    contents["path"] = tmp_path / "tiny.pth"
    return contents


def save(contents):
    torch.save({name: contents[name] for name in ("epoch", "model_state", "cfg")}, contents["path"])
    return contents["path"]


def test_backbone_tensors_are_loaded_and_kept(tiny, tmp_path):
    network = tiny["network"]
    tiny["model_state"] |= {f"backbone.model.{name}": tensor for name, tensor in network.state_dict().items()}
    model = load_official_checkpoint(save(tiny))
    assert model.backbone.layers == (2, 6) and model.backbone.weights_source == "checkpoint"
    for name, tensor in model.backbone.model.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    frames = torch.rand(1, 3, 3, 32, 32)
    model.save_pretrained(tmp_path / "run")
    found = MVFormer.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(found(frames).embeddings, model(frames).embeddings, rtol=0, atol=0)
    assert found.backbone.weights_sha256 == model.backbone.weights_sha256
    tiny["model_state"].pop("backbone.model.blocks.0.attn.qkv.weight")
    with pytest.raises(ValueError, match="missing model.blocks.0.attn.qkv.weight"):
        load_official_checkpoint(save(tiny))


def test_backbone_can_come_from_elsewhere(tiny):
    model = load_official_checkpoint(save(tiny), backbone_weights="random")
    assert model(torch.rand(1, 2, 3, 32, 32)).embeddings.shape == (1, 2, 16)
    assert load_official_checkpoint(save(tiny)).backbone is None


def test_resnet_tensors_get_timm_s_names():
    network = timm.create_model("resnet50", num_classes=0)
    parts = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    for layer4 in ("backbone.7.", "res_finetune."):
        official = {}
        for name, tensor in network.state_dict().items():
            part, rest = name.split(".", 1)
            official[(layer4 if part == "layer4" else f"backbone.{parts[part]}.") + rest] = tensor
        assert rename_backbone(official).keys() == {f"model.{name}" for name in network.state_dict()}
    with pytest.raises(ValueError, match="backbone.9.weight"):
        rename_backbone({"backbone.9.weight": torch.zeros(1)})


# files that are not what they seem ------------------------------------------------------------------------------------


class Payload:
    """Unpickling it without care makes the file it names."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class PlainTensor:
    """Pickles as torch pickles tensors outside `torch.save`, around bytes of our choosing."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def pickled(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "cfg", "state", "tensor"])
def test_code_in_a_checkpoint_is_refused_by_name_and_not_run(tmp_path, place, zipped):
    mark, path = tmp_path / "ran", tmp_path / "checkpoint.pth"
    payload = Payload(mark)
    contents = {
        "top": payload,
        "cfg": {"model_state": OrderedDict(), "cfg": {"MODEL": payload}},
        "state": {"model_state": OrderedDict(weight=payload), "cfg": {}},
        "tensor": {"model_state": {"weight": PlainTensor(pickled(payload))}, "cfg": {}},
    }[place]
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"(posix|nt|os)\.system, which was refused and not run"):
        load_official_checkpoint(path)
    assert not mark.exists()


def test_plain_pickle_with_code_is_refused_by_name_and_not_run(tmp_path):
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model_state": Payload(tmp_path / "ran")}, protocol=2))
    with pytest.raises(ValueError, match=r"system"):
        load_official_checkpoint(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


def test_plainly_pickled_tensors_and_easydicts_are_read(tmp_path):
    inner = PlainTensor(pickled(torch.arange(3.0)))
    torch.save({"model_state": {"w": inner}, "cfg": {}, "epoch": 3}, tmp_path / "plain.pth")
    contents = read_checkpoint(tmp_path / "plain.pth")
    assert contents["model_state"]["w"].tolist() == [0.0, 1.0, 2.0] and contents["epoch"] == 3
    cfg = read_checkpoint(CHECKPOINT)["cfg"]
    assert type(cfg) is type(cfg["MODEL"]["BASE_MODEL"]) is dict


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    with pytest.raises(FileNotFoundError, match="file.pth"):
        load_official_checkpoint(path)
    for data in (
        b"",
        b"not a checkpoint",
        pickled({"weights": 1}),
        pickled([1, 2]),
        pickled({"cfg": 1, "model_state": 2}),
        pickled({"cfg": {}})[:-100],
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not a checkpoint of the official code"):
            load_official_checkpoint(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="is not a checkpoint of the official code"):
        load_official_checkpoint(path)


def test_unknown_tensors_are_refused_by_name(tmp_path):
    contents = read_checkpoint(CHECKPOINT)
    contents["model_state"]["embed.wings.weight"] = torch.zeros(1)
    torch.save(contents, tmp_path / "winged.pth")
    with pytest.raises(ValueError, match="left over embed.wings.weight"):
        load_official_checkpoint(tmp_path / "winged.pth")
