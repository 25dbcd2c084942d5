"""Files of network weights: read without running code, freed from the wrappers of training codes."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Where training codes put the network inside a checkpoint; DINO's own downstream weights are the teacher's.
WRAPPERS = ("teacher", "state_dict", "model_state", "model", "online_backbone")
PREFIXES = ("module.", "backbone.")

logger = logging.getLogger(__name__)


def read_state(path: Path) -> dict[str, Tensor]:
    """The network's tensors in a weights file, freed from the wrappers and prefixes of training codes.

    Raises:
        ValueError: for a file that is not one of weights, or that would run code.
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
    """What `torch.save` stored: tensors, numbers, text and containers of them.

    Raises:
        ValueError: naming the file, when it is damaged or would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its unpickler raise many kinds for damaged files
        refused = isinstance(error, pickle.UnpicklingError)  # its text tells how to load unsafely
        reason = "its pickle was refused" if refused else in_short(error)
        raise ValueError(f"{path} is damaged, or not of plain tensors: {reason}") from error


def _unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by name, from under the keys of `WRAPPERS`; empty where there are none."""
    if not isinstance(content, Mapping):
        return {}
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key])
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without `PREFIXES`; where some names have one, those without belong to another part and go."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return _strip({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    return state


def in_order(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `own` where a file has other names in the same order, as BYOL's ResNet-50 has.

    Unchanged where all names are there or the shapes do not agree in order. A classifier's two tensors at the end
    are left out. Only networks with batch norms are read so, since a wrong order shows in their statistics.

    Args:
        state: Tensors of a file.
        own: Those of the network.

    Raises:
        ValueError: where shapes agree, but names or a negative variance tell that the order is another.
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
            reason = "which its name denies" if other else "which has no negative values"
            raise ValueError(f"by order {name} would be {wanted}, {reason}; expected names or order of timm's tensors")
    logger.warning("unknown names in the weights file: its %d tensors were taken by their order", len(own))
    return dict(zip(own, state.values()))


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def in_short(error: Exception, length: int = 300) -> str:
    """Kind and beginning of an error's message, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:length]}"
