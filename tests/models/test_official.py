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
from mvf.models.official import chosen_layers, network_name, read_architecture, read_checkpoint, rename_backbone
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


# settings


def late(**embedder):
    base = {"NETWORK": "TIMM-vit_small_patch16_224.dino", "OUT_CHANNEL": 384}
    common = {"HIDDEN_SIZE": 32, "D_FF": 64, "NUM_HEADS": 4, "NUM_LAYERS": 2, "EMBEDDING_SIZE": 16}
    common |= {"CAPACITY_SCALAR": 2, "FC_LAYERS": [(16, True), (16, True)], "FLATTEN_METHOD": "max_pool"}
    model = {"BASE_MODEL": base, "EMBEDDER_MODEL": common | embedder, "PROJECTION_SIZE": 20}
    return {"MODEL": model, "TRAIN": {"NUM_FRAMES": 12}}


def smart(**embedder):
    return late(FUSION_TYPE="smart", SMART_ONE_HOT="none", SMART_FINAL="avg", **embedder)


def test_settings_are_read_in_all_their_forms():
    state = {"embed.fc_layers.1.weight": torch.zeros(32, 384)}
    for cfg, pooling in (
        (late(LATE_TYPE="cls"), "cls"),
        (late(FUSION_TYPE="late"), "cls"),  # of a ViT the published default
        (late(), "cls"),
        (late(LATE_TYPE="spatial"), "max"),
        (late(FUSION_TYPE="late", LATE_TYPE="spatial", FLATTEN_METHOD="avg_pool"), "mean"),
        (smart(), "lstp"),
        (smart(FIXED_WIDTH_BASELINE=True), "fixed_width"),
    ):
        found = read_architecture(cfg, state)
        assert found.pooling == pooling and not found.entity_id and found.projection_width == 0
    assert (found.entities, found.entity_width, found.readout, found.token_width) == (5, 384, "mean", 32)
    for resnet in (late(LATE_TYPE="cls"), late()):
        resnet["MODEL"]["BASE_MODEL"] = {"NETWORK": "Resnet50_byol", "OUT_CHANNEL": 2048}
        found = read_architecture(resnet, state)
        assert found.pooling == "max" and found.cls_channels is None


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (smart(SMART_DYNAMIC_TOKENS=2), "SMART_DYNAMIC_TOKENS = 2"),
        (smart(FUSION_CLS=True), "FUSION_CLS = True"),
        ({**smart(), "VAL_PASS": True}, "VAL_PASS = True"),
        (smart() | {"MODEL": smart()["MODEL"] | {"CLS_RES": 1}}, "CLS_RES = 1"),
        (late(FUSION_TYPE="early"), "FUSION_TYPE must be smart or late, got early"),
        (late(FUSION_TYPE="smart", SMART_ONE_HOT="enc", SMART_FINAL="one"), 'SMART_ONE_HOT = "enc"'),
        (late(FUSION_TYPE="smart", SMART_FINAL="lin"), "SMART_FINAL must be one of one, avg, got lin"),
        (late(LATE_TYPE="max"), "LATE_TYPE must be cls or spatial, got max"),
        (late(LATE_TYPE="spatial", FLATTEN_METHOD="flat"), "FLATTEN_METHOD"),
        (smart(FC_LAYERS=[(16, True)]), "FC_LAYERS"),
        ({"MODEL": {}}, "EMBEDDER_MODEL"),
    ],
)
def test_settings_of_another_model_are_refused_by_name(cfg, message):
    with pytest.raises(ValueError, match=message):
        read_architecture(cfg, {"embed.fc_layers.1.weight": torch.zeros(32, 384)})
    assert read_architecture(smart(SMART_DISJOINT=False), {"embed.fc_layers.1.weight": torch.zeros(32, 384)})


def test_layers_and_networks_are_translated():
    assert chosen_layers(smart(SMART_FEATS="3,7,11")) == (4, 8, 12) and chosen_layers(smart()) == (12,)
    assert network_name(smart()) == "vit_small_patch16_224.dino"
    resnet = late()
    resnet["MODEL"]["BASE_MODEL"]["NETWORK"] = "Resnet50_byol"
    assert network_name(resnet) == "resnet50" and chosen_layers(resnet) == (4,)
    resnet["MODEL"]["BASE_MODEL"]["NETWORK"] = "VGG"
    with pytest.raises(ValueError, match="VGG"):
        network_name(resnet)
