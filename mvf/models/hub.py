"""Weights from the model hub, without waiting for a hub that does not answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError
from timm.models import get_pretrained_cfg

HUB_SECONDS = 5.0  # the hub's own client retries an unreachable host for about 25 s, and longer behind some firewalls
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class WeightsUnavailableError(OSError, RuntimeError):
    """Weights could not be fetched from where they were looked for."""


def hub_weights(timm_name: str) -> Path:
    """The weights file in the hub's cache, downloaded where the hub answers within `HUB_SECONDS`."""
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
    """Whether the hub has a file; bounded in time, name look-up included, which no client's timeout covers."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            url = huggingface_hub.hf_hub_url(repository, file)
            answer.append(huggingface_hub.get_hf_file_metadata(url, timeout=HUB_SECONDS))
        except Exception as error:  # as above; each is judged below
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    result = answer[0] if answer else TimeoutError(f"no answer in {HUB_SECONDS:g} s")
    if isinstance(result, Exception) and not isinstance(result, EntryNotFoundError):
        raise WeightsUnavailableError(f"{repository} cannot be reached ({result})")
    return not isinstance(result, Exception)
