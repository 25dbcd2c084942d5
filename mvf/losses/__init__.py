"""Training objectives: one file each, one signature `loss(embeddings (B, V, T, E), clip, generator=None)`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mvf.config import Config, nearest
from mvf.losses.dtw import dtw_path, sinkhorn, soft_dtw, soft_dtw_alignment
from mvf.losses.gta import GlobalTemporalAlignmentLoss, accumulated_cost, contrastive_cost
from mvf.losses.lav import LearningByAligningVideosLoss, inverse_difference
from mvf.losses.lrprop import PositionPropagationLoss
from mvf.losses.objective import READABLE, SUPERVISION, CombinedObjective, Objective, parse_objective
from mvf.losses.sal import ShuffleAndLearnLoss
from mvf.losses.scl import SequenceContrastiveLoss
from mvf.losses.tcc import TemporalCycleConsistencyLoss
from mvf.losses.tcn import TimeContrastiveLoss
from mvf.losses.vava import VideoAlignmentByOptimalTransportLoss, temporal_transport
from mvf.losses.vsp import (
    FrameProcessContrastiveLoss,
    PhaseProcessContrastiveLoss,
    ProcessContrastiveLoss,
    process_contrast,
)

OBJECTIVES: Mapping[str, type[Objective]] = {
    "scl": SequenceContrastiveLoss,
    "tcc": TemporalCycleConsistencyLoss,
    "tcn": TimeContrastiveLoss,
    "sal": ShuffleAndLearnLoss,
    "lav": LearningByAligningVideosLoss,
    "gta": GlobalTemporalAlignmentLoss,
    "vava": VideoAlignmentByOptimalTransportLoss,
    "lrprop": PositionPropagationLoss,
    "vsp": ProcessContrastiveLoss,
    "vsp_p": PhaseProcessContrastiveLoss,
    "vsp_f": FrameProcessContrastiveLoss,
}
COUNTERPART = 5.0  # frames within which `content` sampling requires a counterpart in the other view

__all__ = [
    "OBJECTIVES",
    "CombinedObjective",
    "accumulated_cost",
    "build_config_loss",
    "build_loss",
    "contrastive_cost",
    "dtw_path",
    "inverse_difference",
    "process_contrast",
    "sinkhorn",
    "soft_dtw",
    "soft_dtw_alignment",
    "temporal_transport",
    *(c.__name__ for c in OBJECTIVES.values()),
]


def build_loss(name: str, embedding_size: int | None = None, **options: Any) -> Objective | CombinedObjective:
    """The objective called `name`, or a weighted sum of several.

    Args:
        name: One of `OBJECTIVES`, or a sum like `scl+0.1*lav`.
        embedding_size: Channels E of an embedding, for objectives that have parameters of that size.
        **options: Arguments of the objective; for a sum, a mapping of arguments by the member's name.

    Raises:
        ValueError: for an unknown objective or option (the nearest valid one is named), or members of a sum whose
            samplers exclude each other.

    Example:
        >>> build_loss("scl", temperature=0.2).reads
        'projection'
        >>> build_loss("scl+0.1*lav", lav={"gamma": 0.2}).labels
        'video'
    """
    if "+" not in name and "*" not in name:
        return _build_one(name, embedding_size, options)
    weights = parse_objective(name)
    for member, given in options.items():
        if member not in weights:
            raise ValueError(f'unknown member "{member}" of objective "{name}"; {nearest(member, weights)}')
        if not isinstance(given, Mapping):
            raise ValueError(f'options of "{name}" must be mappings by member, like {member}={{...}}, got {given!r}')
    members = {member: _build_one(member, embedding_size, options.get(member, {})) for member in weights}
    return CombinedObjective(members, weights)


def build_config_loss(config: Config) -> Objective | CombinedObjective:
    """The objective of a configuration; `content` sampling drops frames without a counterpart in the other view."""
    options = dict(config.objective_options)
    if config.sampling == "content":
        combined = "+" in config.objective or "*" in config.objective
        for member in parse_objective(config.objective):
            if "max_distance" in _arguments(member):
                options = _with_default(options, member if combined else "", "max_distance", COUNTERPART)
    return build_loss(config.objective, config.embedding_size, **options)


def _build_one(name: str, embedding_size: int | None, options: Mapping[str, Any]) -> Objective:
    known = _arguments(name)
    allowed = [option for option in known if option != "embedding_size"]
    for option in options:
        if option not in allowed:
            raise ValueError(f'unknown option "{option}" of objective "{name}"; {nearest(option, allowed)}')
    sized = {"embedding_size": embedding_size} if "embedding_size" in known else {}
    objective = OBJECTIVES[name](**options, **sized)
    for attribute, names in (("reads", READABLE), ("labels", SUPERVISION)):
        if (value := getattr(objective, attribute)) not in names:
            raise ValueError(f'{type(objective).__name__}.{attribute} is unknown: "{value}"; {nearest(value, names)}')
    return objective


def _arguments(name: str) -> Mapping[str, inspect.Parameter]:
    if name not in OBJECTIVES:
        raise ValueError(f'unknown objective "{name}"; {nearest(name, OBJECTIVES)}')
    return inspect.signature(OBJECTIVES[name]).parameters


def _with_default(options: Mapping[str, Any], member: str, name: str, value: Any) -> dict[str, Any]:
    """`options` with `value` as the default of `name`; for a sum, among the options of `member`."""
    if not member:
        return {name: value, **options}
    return {**options, member: {name: value, **options.get(member, {})}}
