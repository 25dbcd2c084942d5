"""Reads and writes the two files of a model, `model.safetensors` and `model_config.json`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mvf.files import atomic, expand_user
from mvf.models.backbone import Backbone
from mvf.models.weight_files import in_short

logger = logging.getLogger(__name__)

TENSORS, SETTINGS = "model.safetensors", "model_config.json"
# Two checksums share one metadata key, because safetensors writes several keys in random order: the sha256 of the
# tensors, then that of the settings' text. Older files have none, or only the first.
CHECKSUMS = "tensors_sha256"
BACKBONE = "backbone."  # prefix of its tensors
RELEASED = Path(__file__).resolve().parents[1] / "released"  # trained heads that come with the package
AGAIN = "install mvf again, from a complete wheel or clone"
CHECKPOINT = "checkpoint"  # weights source of a backbone that came inside a checkpoint: its tensors are stored too


def released_heads() -> list[str]:
    """Names of the trained heads that come with the package.

    Example:
        >>> released_heads()
        ['drawn']
    """
    return sorted(path.name for path in RELEASED.glob("*/"))


def is_released(folder: Path) -> bool:
    """Whether a folder is that of a released head."""
    return folder.resolve().parent == RELEASED


def model_folder(source: str | Path, root: str | Path = ".") -> Path:
    """The folder or file that `source` names: a path here, else one below `root`, else a released head of that name.

    What is at none of these comes back as it was given. A line says if a path hides a released head.

    Raises:
        FileNotFoundError: if files of the released head are missing.
    """
    path, released = expand_user(source), str(source) in released_heads()
    for there in (path, Path(root, path)) if str(source) else ():
        if there.exists():
            if released:
                there = there.absolute()
                logger.warning("%s is there, so it is opened, not the released head %s", there, source)
            return there
    if not released:
        return path
    head = RELEASED / path
    if missing := [name for name in ("config.json", TENSORS, SETTINGS) if not (head / name).is_file()]:
        raise FileNotFoundError(f"the released head {source} is not complete, {head / missing[0]} is missing: {AGAIN}")
    return head


def listed_heads() -> str:
    """The released heads, for messages about a model that is not there."""
    if heads := released_heads():
        return f"released heads: {', '.join(heads)}"
    return f"there are no released heads, because {RELEASED} is missing: {AGAIN}"


@dataclass(frozen=True)
class StoredModel:
    """What a model folder holds.

    Attributes:
        architecture: Constructor arguments of the trained parts.
        backbone: Name, weights, source, sha256, image size, layers and number of trained blocks of the backbone;
            None without one.
        trained: Tensors of the trained parts, the backbone's trained blocks among them, by name.
        frozen: Tensors of the frozen backbone when its weights cannot be fetched by name.
    """

    architecture: dict[str, Any]
    backbone: dict[str, Any] | None
    trained: dict[str, Tensor]
    frozen: dict[str, Tensor]

    @property
    def trained_parts(self) -> dict[str, Tensor]:
        """The trained tensors without those of the backbone's blocks."""
        return {name: tensor for name, tensor in self.trained.items() if not name.startswith(BACKBONE)}


def save_model(
    folder: str | Path, architecture: Mapping[str, Any], trained: Mapping[str, Tensor], backbone: Backbone | None
) -> None:
    """Writes both files of a model."""
    tensors = dict(trained)
    if backbone is not None and backbone.weights_source == CHECKPOINT:
        tensors |= {BACKBONE + name: tensor for name, tensor in backbone.state_dict().items()}
    described = {
        "architecture": dict(architecture),
        "backbone": None if backbone is None else describe_backbone(backbone),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = (json.dumps(described, indent=1) + "\n").encode()
    with atomic(Path(folder) / TENSORS) as path:
        path.write_bytes(safetensors.torch.save(tensors, {CHECKSUMS: f"{checksum(tensors)} {_sha256(text)}"}))
    # the settings of a run never change, so after a kill here both files still match
    with atomic(Path(folder) / SETTINGS) as path:
        path.write_bytes(text)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """What is needed to rebuild a backbone as it was before training, and to verify it."""
    return {
        "name": backbone.name,
        "weights": str(Path(backbone.weights).resolve()) if backbone.weights_source == "file" else backbone.weights,
        "source": backbone.weights_source,
        "sha256": backbone.weights_sha256,
        "image_size": backbone.image_size,
        "layers": list(backbone.layers),
        "trainable_blocks": backbone.trainable_blocks,
    }


def is_trained(name: str, backbone: nn.Module | None) -> bool:
    """Whether tensor `name` of a model is trained: every one is, except those of the backbone's frozen blocks."""
    parts = tuple(f"{BACKBONE}{part}." for part in getattr(backbone, "trained_parts", ()))
    return not name.startswith(BACKBONE) or name.startswith(parts)


def read_model(folder: str | Path) -> StoredModel:
    """Reads both files of a model; tensors in float16 become float32.

    Args:
        folder: The folder, or the name of a released head.

    Raises:
        FileNotFoundError: if there is no such folder, or a file is missing in it.
        ValueError: if `folder` is a file, or its files cannot be read.
    """
    folder = model_folder(folder)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file, wanted a folder: mvf.load_official_checkpoint reads official checkpoints"
        )
    missing = [name for name in (TENSORS, SETTINGS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} holds no model: {' and '.join(missing)} not found; give a run folder; {listed_heads()}"
        )
    tensors, noted = _read_tensors(folder / TENSORS)
    architecture, backbone = _read_settings(folder / SETTINGS, noted)
    came_inside = backbone is not None and backbone["source"] == CHECKPOINT  # then none of its blocks were trained here
    frozen = {name: tensors.pop(name) for name in list(tensors) if came_inside and name.startswith(BACKBONE)}
    return StoredModel(architecture, backbone, tensors, {k.removeprefix(BACKBONE): v for k, v in frozen.items()})


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Reads the tensors and the sha256 of the settings saved with them (None in older files)."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        of_tensors, _, of_settings = (metadata or {}).get(CHECKSUMS, "").partition(" ")
        whole = metadata is None or of_tensors == checksum(tensors)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(damaged(path, error)) from error
    if not whole:
        raise ValueError(damaged(path, "its tensors do not match their checksum"))
    return {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}, of_settings or None


def damaged(path: Path, reason: object) -> str:
    """The error message for a damaged model file."""
    return (
        f"{path.parent} holds no readable model, {path} is damaged ({reason}): in a run folder the same training "
        "command writes it anew from state.pt; elsewhere copy or save it again"
    )


def _read_settings(path: Path, noted: str | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Reads architecture and backbone after checking the text against the sha256 `noted`."""
    text = path.read_bytes()
    found = _sha256(text)
    if noted not in (None, found):
        notes = f"its sha256 begins {found[:8]}, {path.with_name(TENSORS)} notes {noted[:8]}"
        reason = f"or was edited, or is another model's: {notes}"
        raise ValueError(damaged(path, reason))
    try:
        described = json.loads(text.decode())
        architecture, backbone = dict(described["architecture"]), described["backbone"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path.parent} holds no readable model ({path.name}: {in_short(error)}): save it again, or give another"
        ) from error
    return architecture, None if backbone is None else asdict(checked(StoredBackbone, backbone, path))


def stored_settings(kind: type[Settings], values: Mapping[str, Any], folder: str | Path) -> Settings:
    """Builds a settings dataclass from stored values; see `checked`."""
    return checked(kind, values, Path(folder) / SETTINGS)


def rebuild_backbone(stored: StoredModel, folder: str | Path, weights: str | Path | None = None) -> Backbone:
    """Rebuilds the backbone that a stored model was trained on, as it was before training.

    Args:
        stored: Result of `read_model`.
        folder: Folder that messages name.
        weights: Where the weights are now, if they have moved; as in `mvf.models.backbone.Backbone`.

    Raises:
        ValueError: when the weights are not those that the model was trained on, or the settings describe no backbone.
    """
    wanted = stored.backbone
    if wanted is None:
        raise ValueError(f"{folder} holds a model without a backbone: there is none to build")
    shape = {name: wanted[name] for name in ("image_size", "layers", "trainable_blocks")}
    within = wanted["source"] == CHECKPOINT
    given = "random" if within else wanted["weights"] if weights is None else weights
    try:
        backbone = Backbone(wanted["name"], given, **shape)
    except ValueError as error:
        raise ValueError(f"{Path(folder, SETTINGS)}: {error}") from error
    if within:
        return with_checkpoint_weights(backbone, stored.frozen, wanted["sha256"])
    if backbone.weights_sha256 == wanted["sha256"]:
        return backbone
    message = (
        f"{folder} was trained on {wanted['name']} with weights of sha256 {wanted['sha256']} ({wanted['source']}), "
        f"got {backbone.weights_sha256} ({backbone.weights_source})"
    )
    if {wanted["source"], backbone.weights_source} == {"hub", "index"}:
        # the same published weights in another file
        logger.warning("%s: embeddings may differ in the last digits", message)
        return backbone
    raise ValueError(f"{message}: pass backbone_weights= with the file it was trained on, or backbone=False")


def with_checkpoint_weights(backbone: Backbone, tensors: Mapping[str, Tensor], sha256: str) -> Backbone:
    """Loads tensors that came inside a checkpoint into a backbone, and records where they came from."""
    own = backbone.state_dict()
    check_state(own, {name: tensor for name, tensor in tensors.items() if name in own})
    backbone.load_state_dict(tensors, strict=False)
    backbone.weights, backbone.weights_source, backbone.weights_sha256 = "", CHECKPOINT, sha256
    return backbone


def check_state(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises ValueError when two sets of tensors differ in names or shapes."""
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"left over {name}" for name in given if name not in own]
    problems += [
        f"{name} is {tuple(given[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(f"the tensors do not fit the model: {shown}")


# ----------------------------------------------------------------------------------------------------------------------
# Checks of stored settings

LARGEST = {"fusion_blocks": 1000, "image_size": 8192}  # beyond these a model takes minutes or all memory
LARGEST_OTHER = 2**20
ZERO_ALLOWED = ("projection_width", "trainable_blocks", "dropout", "token_merge")

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class StoredBackbone:
    """The backbone entry of `model_config.json`."""

    name: str
    weights: str
    source: str
    sha256: str
    image_size: int
    layers: tuple[int, ...]
    trainable_blocks: int = 0


def checked(kind: type[Settings], values: Any, where: str | Path) -> Settings:
    """Builds a settings dataclass from stored values, checking their types and ranges.

    Args:
        kind: The dataclass.
        values: Values by name of the field.
        where: File that messages name.

    Raises:
        ValueError: for an unknown or missing name, a value of the wrong type, or a number out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: wanted settings by name, got {type(values).__name__}")
    kinds = get_type_hints(kind)
    unknown = sorted(str(name) for name in values if name not in kinds)
    if unknown:
        raise ValueError(f"{where} has settings unknown to this version: {', '.join(unknown)}")
    for name, value in values.items():
        several = kinds[name] == tuple[int, ...]  # a list in JSON
        _check(name, value, list if several else kinds[name], where)
        for item in value if several else ():
            _check(name, item, int, where)
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:  # a name without a default is missing
        raise ValueError(f"{where}: {error}; save the model again") from None


def check_shapes(
    build: Callable[[], nn.Module], given: Mapping[str, Tensor], check: Callable, where: str | Path
) -> None:
    """Compares tensors with those of the model that `build` makes, without allocating the model.

    Args:
        build: Makes the model; it is called on the meta device.
        given: The stored tensors.
        check: Compares `(own, given)`, both by name.
        where: File that messages name.

    Raises:
        ValueError: when they differ, or when no such model can be built.
    """
    try:
        with torch.device("meta"):
            check(build().state_dict(), given)
    except (ValueError, RuntimeError, OverflowError) as error:  # torch: sizes beyond 64 bits
        raise ValueError(f"{where}, its model_config.json and model.safetensors: {error}") from error


def _check(name: str, value: Any, kind: Any, where: str | Path) -> None:
    wanted = int | float if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: {name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
    low, high = 0 if name in ZERO_ALLOWED else 1, LARGEST.get(name, LARGEST_OTHER)
    if isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
        raise ValueError(f"{where}: {name} must be from {low} to {high}, got {value!r}")
