"""The model: image backbone, spatial pooling and temporal fusion; and how models are built and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from mvf.config import Config
from mvf.models.backbone import Backbone
from mvf.models.engine import config_compute
from mvf.models.mvformer import Architecture, MVFormer, MVFormerOutput, without_motion
from mvf.models.official import load_official_checkpoint
from mvf.models.stored import BACKBONE, describe_backbone, read_model, stored_settings
from mvf.models.weights import resolve_name

# settings that no tensor's shape reveals
READING = ("pooling", "readout", "positions", "entity_id", "entity_competition", "velocity_offsets")
FEATURES = ("backbone", "backbone weights", "layers")

__all__ = ["Architecture", "MVFormer", "MVFormerOutput", "build_model", "load_official_checkpoint", "load_weights"]


def build_model(config: Config, backbone: Backbone | None = None, project: bool = True) -> MVFormer:
    """Builds the model of a configuration; its trained parts are drawn from torch's generator.

    Args:
        config: Every field that `Architecture` also has is used.
        backbone: A ready-made network instead of the one that `config` names.
        project: False leaves the projection head out, for objectives that do not read it.

    Raises:
        ValueError: for a layer, image size, class token or number of blocks that the backbone does not have.
    """
    if backbone is None:
        source = (config.backbone, config.backbone_weights, config.image_size, config.layers)
        backbone = Backbone(*source, config.trainable_blocks)
        backbone.use_engine(config_compute(config).engine)
    shared = {f.name: getattr(config, f.name) for f in fields(Architecture) if hasattr(config, f.name)}
    shared["velocity_offsets"] = config.motion_offsets if config.velocity else ()
    architecture = Architecture(**shared, channels=backbone.channels, cls_channels=backbone.cls_channels)
    return MVFormer(architecture if project else replace(architecture, projection_width=0), backbone)


def load_weights(model: MVFormer, source: str | Path) -> None:
    """Initialises the trained parts of `model` from a model folder, a run folder, or an official checkpoint.

    Backbone blocks that `model` trains and `source` did not train keep their pretrained weights. A motion skip is not
    taken over, since it is fitted to the training videos after training.

    Raises:
        FileNotFoundError: when `source` does not exist.
        ValueError: if its tensors do not fit the model, belong to backbone blocks that the model keeps frozen, or were
            trained on other features or with other settings of `READING`.
    """
    own = {name: t for name, t in model.trained_state().items() if name.startswith(BACKBONE)}
    if Path(source).is_dir():
        stored = read_model(source)
        architecture = asdict(stored_settings(Architecture, stored.architecture, source))
        given, theirs = without_motion(stored.trained), architecture | _features_of(stored.backbone)
    else:
        other = load_official_checkpoint(source)
        if other.backbone is not None and not own:
            raise ValueError(
                f"{source} holds a backbone that was trained too, which is frozen here: set trainable_blocks"
            )
        state, theirs = other.state_dict(), asdict(other.architecture)
        given = {name: t for name, t in state.items() if name in own or not name.startswith(BACKBONE)}
    ours = asdict(model.architecture)
    if model.backbone is not None:
        ours |= _features_of(describe_backbone(model.backbone))
    _check_same(source, theirs, ours)
    trained = [name for name in given if name.startswith(BACKBONE) and name not in own]
    if trained and model.backbone is not None:
        raise ValueError(f"{source} trained {trained[0]}, which is frozen here: set trainable_blocks as it did")
    model.load_trained_state(own | {name: tensor for name, tensor in given.items() if name not in trained})


def check_start(config: Config, source: str | Path) -> None:
    """Raises ValueError if `source` was trained on another backbone, before the weights of this one are fetched."""
    stored = read_model(source).backbone if Path(source).is_dir() else None
    if stored is not None:
        _check_same(source, *({"backbone": resolve_name(name)} for name in (stored["name"], config.backbone)))


def _check_same(source: str | Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for name in (*READING, *FEATURES):
        if name in theirs and name in ours and theirs[name] != ours[name]:
            raise ValueError(
                f"{source} has {name} {theirs[name]!r}, this model {ours[name]!r}: they must be the same, so set "
                f"{name} as there, or leave out init_from"
            )


def _features_of(backbone: dict | None) -> dict:
    """What determines the features that the trained parts read: the network, its weights, its layers."""
    if not backbone:
        return {}
    published = backbone["source"] in ("hub", "index")  # the same weights in two files
    weights = "published" if published else backbone["sha256"]
    return {"backbone": resolve_name(backbone["name"]), "backbone weights": weights, "layers": list(backbone["layers"])}
