"""The settings of an official checkpoint, in our words; what this model cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mvf.models.mvformer import Architecture
from mvf.models.stored_settings import LARGEST, checked
from mvf.models.weight_files import in_short

REFUSED = ("VAL_PASS", "SMART_DYNAMIC_TOKENS", "SMART_DISJOINT", "SMART_LN_KEYS", "CLS_RES", "FUSION_CLS")
FINAL = {"one": "cls", "avg": "mean"}
FLATTEN = {"max_pool": "max", "avg_pool": "mean"}


def read_architecture(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> Architecture:
    """The numbers of the trained parts, from `cfg` and, where `cfg` leaves them open, from the tensors.

    Raises:
        ValueError: for an entry that this model does not know, or that has no default.
    """
    for name, value in _entries(cfg):
        if name in REFUSED and value:
            raise ValueError(f"the checkpoint has {name} = {value}, which this model does not have")
    try:
        return _architecture(cfg, state)
    except KeyError as error:
        raise ValueError(f"the checkpoint lacks {error}, which is needed to build its model") from None
    except (TypeError, AttributeError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"the checkpoint has a cfg that describes no model: {in_short(error)}") from error


def _architecture(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> Architecture:
    embedder = cfg["MODEL"]["EMBEDDER_MODEL"]
    channels, layers = cfg["MODEL"]["BASE_MODEL"]["OUT_CHANNEL"], chosen_layers(cfg)
    widths = {int(layer[0] * embedder.get("CAPACITY_SCALAR", 1)) for layer in embedder["FC_LAYERS"]}
    if len(embedder["FC_LAYERS"]) != 2 or len(widths) > 1:
        raise ValueError(f"FC_LAYERS must be two layers of one width, got {embedder['FC_LAYERS']}")
    values = {
        "channels": channels,
        "cls_channels": channels // len(layers) if _is_vit(cfg) else None,
        "token_width": widths.pop(),
        "fusion_width": embedder["HIDDEN_SIZE"],
        "fusion_blocks": embedder["NUM_LAYERS"],
        "fusion_heads": embedder["NUM_HEADS"],
        "fusion_feedforward": embedder["D_FF"],
        "dropout": embedder.get("FC_DROPOUT_RATE", 0.1),
        "embedding_size": embedder["EMBEDDING_SIZE"],
        "projection_width": cfg["MODEL"]["PROJECTION_SIZE"] if _has_projection(state) else 0,
        "num_frames": cfg["TRAIN"]["NUM_FRAMES"],
    }
    return checked(
        Architecture, values | (_smart(embedder, state) if _is_smart(embedder) else _late(embedder, cfg)), "cfg"
    )


def _smart(embedder: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Entries of LSTP (or the fixed-width baseline) with Multi-entity Temporal Fusion."""
    entities, width = embedder.get("SMART_TOKENS", 5), embedder.get("SMART_POOL_CHANNELS", 384)
    identity = embedder.get("SMART_ONE_HOT")
    if identity not in ("pool", "none", None):
        raise ValueError(f'the checkpoint has SMART_ONE_HOT = "{identity}", which this model does not have')
    if embedder.get("SMART_FINAL") not in FINAL:
        raise ValueError(f"SMART_FINAL must be one of {', '.join(FINAL)}, got {embedder.get('SMART_FINAL')}")
    inputs = state["embed.fc_layers.1.weight"].shape[1]
    return {
        "pooling": "fixed_width" if embedder.get("FIXED_WIDTH_BASELINE") else "lstp",
        "entities": entities,
        "entity_width": width,
        "entity_id": identity == "pool" if identity else inputs == width + entities,
        "readout": FINAL[embedder["SMART_FINAL"]],
    }


def _late(embedder: Mapping[str, Any], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the models that fuse one token a frame."""
    kind = embedder.get("LATE_TYPE", "cls" if _is_vit(cfg) else "spatial")
    if kind not in ("cls", "spatial"):
        raise ValueError(f"LATE_TYPE must be cls or spatial, got {kind}")
    if kind == "cls" and _is_vit(cfg):
        return {"pooling": "cls", "entity_id": False}
    flatten = embedder.get("FLATTEN_METHOD")
    if flatten not in FLATTEN:
        raise ValueError(f"FLATTEN_METHOD must be one of {', '.join(FLATTEN)}, got {flatten}")
    return {"pooling": FLATTEN[flatten], "entity_id": False}


def _entries(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in cfg.items():
        yield name, value
        if isinstance(value, Mapping):
            yield from _entries(value)


def _is_smart(embedder: Mapping[str, Any]) -> bool:
    kind = embedder.get("FUSION_TYPE", "late")
    if kind not in ("smart", "late"):
        raise ValueError(f"FUSION_TYPE must be smart or late, got {kind}")
    return kind == "smart"


def _is_vit(cfg: Mapping[str, Any]) -> bool:
    return cfg["MODEL"]["BASE_MODEL"]["NETWORK"].startswith("TIMM-")


def network_name(cfg: Mapping[str, Any]) -> str:
    """Name of the backbone, as `mvf.models.backbone.Backbone` takes it."""
    name = cfg["MODEL"]["BASE_MODEL"]["NETWORK"]
    if _is_vit(cfg):
        return name.removeprefix("TIMM-")
    if name == "Resnet50_byol":
        return "resnet50"
    raise ValueError(f"NETWORK must be TIMM-<timm name> or Resnet50_byol, got {name}")


def image_size(cfg: Mapping[str, Any]) -> int:
    """Side of the square frames, in pixels."""
    size = cfg.get("IMAGE_SIZE", 224)
    if type(size) is not int or not 1 <= size <= LARGEST["image_size"]:
        raise ValueError(f"IMAGE_SIZE must be a number of pixels up to {LARGEST['image_size']}, got {size!r}")
    return size


def chosen_layers(cfg: Mapping[str, Any]) -> tuple[int, ...]:
    """1-based blocks; the official numbers count from 0."""
    if not _is_vit(cfg):
        return (4,)
    blocks = str(cfg["MODEL"]["EMBEDDER_MODEL"].get("SMART_FEATS", "11"))
    return tuple(int(block) + 1 for block in blocks.split(","))


def _has_projection(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("ssl_projection.") for name in state)
