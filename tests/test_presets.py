"""Every preset: the numbers that the paper states, and its model at full size."""

import copy
from dataclasses import asdict
from functools import cache

import pytest
import torch

from mvf.clip import example_clip
from mvf.config import load_config, presets
from mvf.losses import build_config_loss
from mvf.models import backbone, build_model
from mvf.trainer import TrainingStep

OWN = ("demo", "folder", "synthetic")  # not of the paper
PAPER = tuple(name for name in presets() if name not in OWN)
CARL = {"backbone": "resnet50", "layers": (4,), "pooling": "max", "trainable_blocks": 1}
DATA = {
    "penn": {"layers": (4, 8, 12), "entities": 3, "readout": "cls", "epochs": 500, "batch_size": 4},
    "kinetics400": {"layers": (4, 8, 12), "entities": 3, "readout": "cls", "epochs": 10, "batch_size": 8},
    "pouring": {"layers": (12,), "entities": 3, "readout": "cls", "epochs": 1000, "batch_size": 4},
    "finegym99": {"layers": (10, 11, 12), "entities": 6, "readout": "mean", "epochs": 300, "batch_size": 8},
}
DATA["finegym288"] = DATA["finegym99"]
FINEGYM = {"token_width": 1536, "embedding_size": 256, "num_frames": 240, "block_rule": "sampled"}
FINEGYM |= {"chunk": 2000, "probe": "sgd", "judge": "together"}
MORE = {
    "penn": {"token_width": 512, "embedding_size": 128, "num_frames": 80, "block_rule": "length", "stride": 2},
    "kinetics400": {"num_frames": 80, "overlap": 1.0, "objective_options": {"negatives": "batch_noself"}},
    "pouring": {"num_frames": 240, "block_rule": "length", "stride": 5, "chunk": 1000, "probe": "logistic"},
    "finegym99": FINEGYM,
    "finegym288": FINEGYM,
}
OF_PENN = {
    "penn_from_kinetics": {"init_from": "kinetics400"},
    "penn_zero_shot_kinetics": {"init_from": "kinetics400", "epochs": 0},
    "penn_carl_from_kinetics": {**CARL, "init_from": "kinetics400_carl", "entities": 1},
    "penn_carl_zero_shot_kinetics": {**CARL, "init_from": "kinetics400_carl", "entities": 1, "epochs": 0},
    "penn_mean": {"readout": "mean"},
    "penn_per_action": {"per_action": True},
    "penn_resnet50": {**CARL, "trainable_blocks": 0, "entities": 1},
    "penn_resnet50_lstp_1": {"backbone": "resnet50", "layers": (4,), "entities": 1},
    "penn_resnet50_lstp_mtf": {"backbone": "resnet50", "layers": (4,), "entities": 3},
    **{f"penn_fixed_width_{n}": {"pooling": "fixed_width", "layers": (12,), "entities": n} for n in (3, 5)},
    **{f"penn_last_{n}": {"layers": (12,), "entities": n} for n in (1, 3, 5)},
    **{f"penn_multi_{n}": {"entities": n} for n in (1, 5)},
    **{f"penn_dino_{kind}": {"pooling": kind, "layers": (12,), "entities": 1} for kind in ("max", "mean", "cls")},
}


def differences(one, other):
    one, other = (asdict(load_config(name)) for name in (one, other))
    return {name: value for name, value in one.items() if other[name] != value and name != "preset"}


@pytest.mark.parametrize("name", DATA)
def test_the_rows_of_table_1_have_the_papers_numbers(name):
    values = asdict(load_config(name))
    wanted = {"dataset": name, "backbone": "dino_vitb8", "image_size": 224, "pooling": "lstp", "objective": "scl"}
    wanted |= {"entity_width": 384, "fusion_blocks": 3, "fusion_heads": 8, "learning_rate": 1e-4, "weight_decay": 1e-5}
    wanted |= DATA[name] | MORE[name]
    assert {key: values[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", DATA)
def test_carl_shares_all_but_backbone_and_pooling(name):
    assert differences(f"{name}_carl", name) == CARL | {"entities": 1}


@pytest.mark.parametrize("name", OF_PENN)
def test_ablations_differ_from_penn_in_what_they_ablate_alone(name):
    penn = load_config("penn")
    assert differences(name, "penn") == {
        key: value for key, value in OF_PENN[name].items() if getattr(penn, key) != value
    }


def test_no_preset_is_left_out():
    assert set(PAPER) == {*DATA, *(f"{name}_carl" for name in DATA), *OF_PENN}


# at full size -------------------------------------------------------------------------------------------------------


@cache
def network(name, image_size):
    """Random weights, drawn once for all presets of a backbone."""
    return real_load_backbone(name, "random", image_size)


real_load_backbone = backbone.load_backbone


def copied(name, weights, image_size):
    return copy.deepcopy(network(name, image_size))


ORDINARY = "penn"
FULL_SIZE = [name if name == ORDINARY else pytest.param(name, marks=pytest.mark.slow) for name in presets()]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_model_runs_and_learns_at_full_size(name, monkeypatch):
    monkeypatch.setattr(backbone, "load_backbone", copied)
    config = load_config(name, backbone_weights="random")
    torch.manual_seed(1)
    step = TrainingStep(build_model(config), build_config_loss(config)).train()
    size = config.image_size
    clip = example_clip(1, 2, 2)
    clip = type(clip)(clip.frame_index, clip.num_frames, clip.valid, frames=torch.rand(1, 2, 2, 3, size, size))
    optimizer = torch.optim.Adam([p for p in step.parameters() if p.requires_grad], lr=config.learning_rate)
    loss = step(clip)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for parameter_name, parameter in step.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), parameter_name
        assert parameter.grad is None or parameter.grad.isfinite().all(), parameter_name
    with torch.inference_mode():
        out = step.model.eval()(clip.frames[0, :1, :1])
    assert out.embeddings.shape == (1, 1, config.embedding_size) and out.embeddings.isfinite().all()
    if config.pooling == "lstp":
        assert out.attention.shape == (1, 1, config.entities, step.model.backbone.grid[0] ** 2)
