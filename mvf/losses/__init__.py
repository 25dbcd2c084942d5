"""Training objectives: one file each, one signature `loss(embeddings (B, V, T, E), clip, generator=None)`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from mvf.config import Config, nearest
from mvf.losses.scl import SequenceContrastiveLoss

__all__ = ["OBJECTIVES", "SequenceContrastiveLoss", "build_config_loss", "build_loss"]

OBJECTIVES = {"scl": SequenceContrastiveLoss}
COUNTERPART = 5.0  # frames within which `content` sampling wants a counterpart in the other view


def build_loss(name: str, embedding_size: int | None = None, **options: Any) -> nn.Module:
    """The objective called `name`.

    Args:
        name: One of `OBJECTIVES`.
        embedding_size: Channels E of an embedding, for objectives that have parameters of that size.
        **options: Arguments of the objective.

    Raises:
        ValueError: for an unknown objective or option; the nearest valid one is named.

    Example:
        >>> build_loss("scl", temperature=0.2).reads
        'projection'
    """
    if name not in OBJECTIVES:
        raise ValueError(f'unknown objective "{name}"; {nearest(name, OBJECTIVES)}')
    known = inspect.signature(OBJECTIVES[name]).parameters
    allowed = [option for option in known if option != "embedding_size"]
    for option in options:
        if option not in allowed:
            raise ValueError(f'unknown option "{option}" of objective "{name}"; {nearest(option, allowed)}')
    if "embedding_size" in known:
        options["embedding_size"] = embedding_size
    return OBJECTIVES[name](**options)


def build_config_loss(config: Config) -> nn.Module:
    """The objective of a configuration; windows that share only a part of the video drop rows without a counterpart."""
    options = dict(config.objective_options)
    known = inspect.signature(OBJECTIVES.get(config.objective, build_loss)).parameters
    if config.sampling == "content" and "max_distance" in known:
        options.setdefault("max_distance", COUNTERPART)
    return build_loss(config.objective, config.embedding_size, **options)
