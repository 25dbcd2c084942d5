"""Reads files of network weights without running code, and strips the wrappers of training codes."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor

logger = logging.getLogger(__name__)

# Where training codes put the network inside a checkpoint; DINO's own downstream weights are the teacher's, and timm
# prefers averaged weights to the last ones.
WRAPPERS = ("teacher", "state_dict_ema", "model_ema", "state_dict", "model_state", "model", "online_backbone")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads the network's tensors from a weights file, without the wrappers and prefixes of training codes.

    Raises:
        ValueError: for a file that holds no weights, or that would run code.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = load_plain(path)
    except (SafetensorError, ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error) if path.suffix != ".safetensors" else in_short(error)
        raise ValueError(
            f"{path} is not a file of weights that can be read without running code: {reason}; "
            "give a .safetensors file, or a .pth file of plain tensors"
        ) from None
    state = _strip(_unwrap(state))
    if not state:
        raise ValueError(f"{path} holds no tensors by name; wanted the state dict of a network")
    return state


def load_plain(path: Path) -> Any:
    """Loads what `torch.save` stored: tensors, numbers, text and containers of them.

    Raises:
        ValueError: if it is damaged or would run code; the message names the file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its unpickler raise many kinds for damaged files
        refused = isinstance(error, pickle.UnpicklingError)  # its text tells how to load unsafely
        reason = "its pickle was refused" if refused else in_short(error)
        raise ValueError(f"{path} is damaged, or not of plain tensors: {reason}") from error


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Returns the tensors by name from below the keys `WRAPPERS`; empty when there are none."""
    if not isinstance(content, Mapping):
        return {}
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key])
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strips `PREFIXES` from names; drops tensors of other modules, which lack a prefix that others have."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return _strip({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    return state


def in_order(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames tensors by their order when a file uses other names, as that of BYOL's ResNet-50 does.

    The state is returned unchanged when it has all names, or when the shapes do not agree in order. A classifier's two
    tensors at the end are dropped. Only networks with batch norm are read this way, because their statistics reveal a
    wrong order.

    Args:
        state: Tensors of a file.
        own: Those of the network.

    Raises:
        ValueError: when the shapes agree, but names or a negative variance show that the order is wrong.
    """
    names, shapes = list(state)[: len(own)], [tensor.shape for tensor in own.values()]
    normed = any(_end(name) == "running_var" for name in own)
    alike = [state[name].shape for name in names] == shapes and len(state) <= len(own) + 2
    if own.keys() <= state.keys() or not (normed and alike):
        return state
    ends = {_end(name) for name in own}
    for name, wanted in zip(names, own):
        other = name in own and name != wanted or _end(name) in ends - {_end(wanted)}
        if other or (_end(wanted) == "running_var" and (state[name] < 0).any()):
            reason = "which its name contradicts" if other else "which has no negative values"
            raise ValueError(f"by order {name} would be {wanted}, {reason}; expected names or order of timm's tensors")
    logger.warning("unknown names in the weights file: its %d tensors were taken by their order", len(own))
    return dict(zip(own, state.values()))


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def in_short(error: Exception, length: int = 300) -> str:
    """Kind and beginning of an error's message, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:length]}"


# Weights from the model hub

HUB_SECONDS = 5.0  # the hub's own client retries an unreachable host for about 25 s, and longer behind some firewalls
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class WeightsUnavailableError(OSError, RuntimeError):
    """Weights could not be fetched."""


def hub_weights(timm_name: str) -> Path:
    """The weights file in the hub's cache, downloaded if the hub answers within `HUB_SECONDS`."""
    repository = getattr(get_pretrained_cfg(timm_name), "hf_hub_id", None)
    if not repository:
        raise WeightsUnavailableError(f"timm knows no hub repository of {timm_name}")
    for file in HUB_FILES:
        cached = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise WeightsUnavailableError(f"HF_HUB_OFFLINE is set and {repository} is not in its cache")
    for file in HUB_FILES:
        if _hub_has(repository, file):
            return _download(repository, file)
    raise WeightsUnavailableError(f"{repository} has none of {', '.join(HUB_FILES)}")


def _download(repository: str, file: str) -> Path:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the client's network errors share no base class
        raise WeightsUnavailableError(f"the download of {repository} broke off ({error})") from error


def _hub_has(repository: str, file: str) -> bool:
    """Whether the hub has a file. The wait is bounded, DNS look-up included, which no client's timeout covers."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            url = huggingface_hub.hf_hub_url(repository, file)
            answer.append(huggingface_hub.get_hf_file_metadata(url, timeout=HUB_SECONDS))
        except Exception as error:  # as above; handled below
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    result = answer[0] if answer else TimeoutError(f"no answer in {HUB_SECONDS:g} s")
    if isinstance(result, Exception) and not isinstance(result, EntryNotFoundError):
        raise WeightsUnavailableError(f"{repository} cannot be reached ({result})")
    return not isinstance(result, Exception)
