"""What the features of a bank are made from: banks made from the same are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvf.bank_files import digest
from mvf.bank_maker import FeatureMaker
from mvf.config import Config
from mvf.data.records import VideoRecord
from mvf.precision import resolve_precision
from mvf.run_folder import ANYWHERE


def made_from(
    maker: FeatureMaker,
    channels: int,
    fitted_on: Sequence[VideoRecord],
    rolling: tuple[int, ...] | None,
    run: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """All but the videos; plain JSON values. What is not asked for is not named, so that plain banks keep their key."""
    backbone, augmentation = maker.backbone, maker.augmentation
    made: dict[str, Any] = {
        "backbone": backbone.timm_name,
        "weights": backbone.weights_sha256,
        "image_size": backbone.image_size,
        "augmentation": augmentation.identity if augmentation else "clean",
        "precision": resolve_precision(maker.precision, next(backbone.parameters()).device),
    }
    if maker.dtype != "bf16":
        made["dtype"] = maker.dtype
    if channels:
        names = digest("\n".join(f"{r.name}\n{r.source.identity}" for r in fitted_on))
        made |= {"channels": channels, "layers": backbone.layers, "fitted_on": names}
    if rolling is not None:
        made["rolling"] = rolling
    if run is not None:
        made["run"] = dict(run)
    return made | ({"compiled": True} if maker.compiled else {})


def run_settings(config: Config) -> dict[str, Any]:
    """What tells a run from others, wherever it goes on: its settings but those that every run has by default.

    Settings that a later version adds are at their default in the runs of before, whose banks are then found again.

    Example:
        >>> from mvf.config import load_config
        >>> run_settings(load_config("penn", seed=2, workers=4))
        {'dataset': 'penn', 'seed': 2}
    """
    usual = Config().as_dict()
    return {k: v for k, v in config.as_dict().items() if v != usual[k] and k not in ANYWHERE}
