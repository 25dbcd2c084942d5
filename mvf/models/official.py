"""Checkpoints of the official code (epoch, model_state, optimizer_state, cfg), read without running code from them."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvf.models.backbone import Backbone
from mvf.models.mvformer import Architecture, MVFormer
from mvf.models.stored import LARGEST, check_shapes, check_state, checked, with_checkpoint_weights
from mvf.models.weight_files import in_short

# official name -> ours; \1 is the part in parentheses
RENAMED = [
    (r"embed\.pooling\.cross_att\.linear_K2d\.(weight)", r"pooling.key.\1"),
    (r"embed\.pooling\.cross_att\.linear_V2d\.(.+)", r"pooling.value.\1"),
    (r"embed\.pooling\.lin_conv\.(.+)", r"pooling.expand.\1"),
    (r"embed\.fc_layers\.(.+)", r"token_mlp.\1"),
    (r"embed\.video_emb\.(.+)", r"token_mlp.8.\1"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.res_layer0\.norm\.(.+)", r"fusion.blocks.\1.attention_norm.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.res_layer1\.norm\.(.+)", r"fusion.blocks.\1.feedforward_norm.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.self_att\.linear_Q2d\.(.+)", r"fusion.blocks.\1.attention.query.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.self_att\.linear_K2d\.(.+)", r"fusion.blocks.\1.attention.key.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.self_att\.linear_V2d\.(.+)", r"fusion.blocks.\1.attention.value.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.self_att\.linear_d2Q\.(.+)", r"fusion.blocks.\1.attention.output.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.feed_forward\.fc1\.(.+)", r"fusion.blocks.\1.feedforward.0.\2"),
    (r"embed\.video_encoder\.enc_layers\.(\d+)\.feed_forward\.fc2\.(.+)", r"fusion.blocks.\1.feedforward.2.\2"),
    (r"embed\.embedding_layer\.(.+)", r"embedding.\1"),
    (r"ssl_projection\.net\.(.+)", r"projection.\1"),
]
QUERY, QUERY_BIAS = "embed.pooling.cross_att.Q_s", "embed.pooling.cross_att.Q_s_b"
KEY_BIAS = "embed.pooling.cross_att.linear_K2d.bias"  # adds one number to all scores of a query: no effect
RESNET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def load_official_checkpoint(path: str | Path, backbone_weights: str | Path | None = None) -> MVFormer:
    """An MV-Former, or a CARL model, from a checkpoint of the official code; in eval mode.

    Args:
        path: The `.pth` file.
        backbone_weights: Where the frozen backbone comes from when it is not in the checkpoint, as in
            `mvf.models.backbone.Backbone` (empty: the model hub). None: the model gets no backbone, and only
            `fuse` works.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: if it is not such a checkpoint, would run code, or holds a model that is not supported here.
    """
    checkpoint = read_checkpoint(path)
    try:
        return _build(path, checkpoint["cfg"], checkpoint["model_state"], backbone_weights).eval()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build(
    path: str | Path, cfg: Mapping[str, Any], state: Mapping[str, Tensor], backbone_weights: str | Path | None
) -> MVFormer:
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise ValueError(f"model_state must hold tensors by name, found {name!r}: {type(tensor).__name__}")
    frozen = {name: tensor for name, tensor in state.items() if re.match(r"backbone\.|res_finetune\.", name)}
    trained = {name: tensor for name, tensor in state.items() if name not in frozen}
    architecture, renamed = read_architecture(cfg, trained), rename(trained)
    check_shapes(lambda: MVFormer(architecture), renamed, check_state, "model_state")
    model = MVFormer(architecture)
    model.load_trained_state(renamed)
    weights = "random" if frozen else backbone_weights
    if weights is not None:
        network = Backbone(network_name(cfg), weights, image_size(cfg), chosen_layers(cfg))
        if frozen:
            network = with_checkpoint_weights(network, rename_backbone(frozen), _sha256(path))
        model.backbone = network
    return model


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The plain contents of an official checkpoint: tensors, numbers, text, dicts and lists.

    torch's restricted unpickler calls only what is on its list. Two entries are added: EasyDict, read as a plain
    dict, and a safe replacement for the reader of plainly pickled tensors, which itself runs a full, unsafe load.
    """
    safe: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (OrderedDict, "easydict.EasyDict"),
        (_load_from_bytes, "torch.storage._load_from_bytes"),
    ]
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: give the path of a .pth file")
    try:
        with torch.serialization.safe_globals(safe):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not checkpoints
        raise ValueError(f"{path} is not a checkpoint of the official code: {_reason(error)}") from None
    parts = contents if isinstance(contents, Mapping) else {}
    if not all(isinstance(parts.get(name), Mapping) for name in ("model_state", "cfg")):
        found = ", ".join(map(str, parts)) or type(contents).__name__
        raise ValueError(f"{path} is not a checkpoint of the official code: wanted model_state and cfg, found {found}")
    return _plain(contents)


def _load_from_bytes(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found:
        return f"it would call {found[1]}, which was refused and not run"
    # torch's own message for refused pickles advises an unsafe load, so it is not shown
    return "its pickle was refused" if isinstance(error, pickle.UnpicklingError) else f"it cannot be read ({error})"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained tensors under our names; unknown ones keep theirs, for the message that refuses them."""
    renamed = {_new_name(name): t for name, t in state.items() if name not in (QUERY, QUERY_BIAS, KEY_BIAS)}
    if QUERY in state:
        query = tuple(state[QUERY].shape)
        bias = tuple(state[QUERY_BIAS].shape) if QUERY_BIAS in state else None
        if len(query) != 3 or query[0] != 1 or bias != query[2:]:
            raise ValueError(f"{QUERY} and {QUERY_BIAS} must be (1, N, D) and (D,), got {[query, bias]}")
        renamed["pooling.query"] = state[QUERY][0] + state[QUERY_BIAS]
    return renamed


def rename_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The frozen tensors under timm's names."""
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.removeprefix("backbone.").partition(".")
        if part in ("model", "res_finetune"):
            renamed[rest if part == "model" else f"layer4.{rest}"] = tensor
        elif part in RESNET:
            renamed[f"{RESNET[part]}.{rest}"] = tensor
        else:
            raise ValueError(f"the checkpoint has a tensor {name}, which no known backbone has")
    return {f"model.{name}": tensor for name, tensor in renamed.items()}


def _new_name(name: str) -> str:
    for pattern, new in RENAMED:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(new)
    return name


# Settings of an official checkpoint

REFUSED = ("VAL_PASS", "SMART_DYNAMIC_TOKENS", "SMART_DISJOINT", "SMART_LN_KEYS", "CLS_RES", "FUSION_CLS")
FINAL = {"one": "cls", "avg": "mean"}
FLATTEN = {"max_pool": "max", "avg_pool": "mean"}


def read_architecture(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> Architecture:
    """Hyperparameters of the trained parts, from `cfg` and, where `cfg` leaves them open, from the tensors.

    Raises:
        ValueError: for an unsupported entry, or a missing one without default.
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
    """Entries of the models that fuse one token per frame."""
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
