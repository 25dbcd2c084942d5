"""Settings of official checkpoints: read in all their forms, or refused by name."""

import pytest
import torch

from mvf.models.official import chosen_layers, network_name, read_architecture


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
