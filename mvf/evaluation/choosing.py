"""What is chosen and fitted on training videos before attention is judged: entity, head, constant answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from mvf.data.records import VideoRecord
from mvf.evaluation.looks import Look, look
from mvf.evaluation.regions import Regions, is_annotated, read_regions
from mvf.metrics import attention_auroc
from mvf.models.mvformer import MVFormer
from mvf.models.per_action import ModelPerAction, model_of

TRAINING_VIDEOS = 24  # at most, drawn with a fixed seed: enough to choose one of a dozen maps
CENTRE_SPREAD = 0.25  # standard deviation of the `centre` answer, in image sides


@dataclass
class Moments:
    """Sums over the training patches from which the first principal component and its sign follow."""

    count: float = 0.0
    total: np.ndarray | float = 0.0  # (C,)
    product: np.ndarray | float = 0.0  # (C, C)
    covered: float = 0.0
    total_covered: np.ndarray | float = 0.0  # (C,), weighted by the region

    def add(self, patches: np.ndarray, region: np.ndarray) -> None:
        """Adds (n, P, C) patches with their (n, h, w) region."""
        flat, weight = patches.reshape(-1, patches.shape[-1]), region.ravel()
        self.count += len(flat)
        self.total = self.total + flat.sum(axis=0, dtype=np.float64)
        self.product = self.product + (flat.T @ flat).astype(np.float64)
        self.covered += weight.sum()
        self.total_covered = self.total_covered + weight @ flat

    def component(self) -> np.ndarray:
        """(C,) first principal direction, pointing to where the training actors are."""
        mean = self.total / self.count
        _, vectors = np.linalg.eigh(self.product / self.count - np.outer(mean, mean))
        direction = vectors[:, -1]
        return direction if direction @ (self.total_covered - self.covered * mean) >= 0 else -direction


@dataclass(frozen=True)
class Choice:
    """What training videos say.

    Attributes:
        index: Number (from 1) of `entity_best`, `head_best`, `background`, `untrained_entity_best`, where they exist.
        constants: (h, w) answers that have seen no image.
        component: (C,) direction of `backbone_pca`.
        skipped: Reasons, by name, for training videos left out.
    """

    index: dict[str, int]
    constants: dict[str, np.ndarray]
    component: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)

    def answers(self, seen: Look, actor: np.ndarray) -> dict[str, np.ndarray]:
        """(n, h, w) of every row of the table; `head_oracle` alone reads where this video's actor is."""
        maps = {name: map_ for name, map_ in seen.maps.items() if name.startswith("entity_")}
        for name, number in self.index.items():
            source = seen.untrained if name == "untrained_entity_best" else seen.maps
            maps[name] = source[f"{'head' if name.startswith('head') else 'entity'}_{number}"]
        heads = [map_ for name, map_ in seen.maps.items() if name.startswith("head_")]
        if heads:
            maps["head_oracle"] = heads[best_map(heads, actor)]
        maps |= {name: np.broadcast_to(map_, actor.shape) for name, map_ in self.constants.items()}
        projected = (seen.patches @ self.component).reshape(actor.shape)
        maps["backbone_pca"] = projected - projected.min(axis=(1, 2), keepdims=True)  # the lowest patch is zero
        return maps


def choose(model: MVFormer, records: Sequence[VideoRecord], untrained: MVFormer | None = None) -> Choice:
    """Chooses on training videos by AUROC; the background is the entity with the lowest.

    Raises:
        ValueError: when no training video has a usable mask or boxes.
    """
    scores: list[dict[str, float]] = []
    moments, actors = Moments(), []

    def add(seen: Look, regions: Regions) -> None:
        maps = seen.maps | {f"untrained_{name}": map_ for name, map_ in seen.untrained.items()}
        scores.append({name: defined(attention_auroc, map_, regions.actor) for name, map_ in maps.items()})
        moments.add(seen.patches, regions.actor)
        actors.append(regions.actor.mean(axis=0))

    skipped = _look_at_training(model, records, add, untrained=untrained)
    index = {f"{kind}_best": found for kind in ("entity", "head", "untrained_entity") if (found := _best(scores, kind))}
    if sum(name.startswith("entity_") for name in scores[0]) > 1:
        index["background"] = _best([{name: -s for name, s in row.items()} for row in scores], "entity")
    return Choice(index, _constants(np.mean(actors, axis=0)), moments.component(), skipped)


def choose_head(model: MVFormer | ModelPerAction, records: Sequence[VideoRecord], layer: int = -1) -> int:
    """Number (from 1) of the head of a block with the best AUROC on training videos.

    Raises:
        ValueError: when no training video has a usable mask or boxes, or the backbone has no class token.
    """
    scores: list[dict[str, float]] = []

    def add(seen: Look, regions: Regions) -> None:
        scores.append({name: defined(attention_auroc, map_, regions.actor) for name, map_ in seen.maps.items()})

    _look_at_training(model, records, add, layer=layer)
    head = _best(scores, "head")
    if head is None:
        raise ValueError(f"{model.backbone.name} has no class token: there is no head to choose")
    return head


def best_map(maps: Sequence[np.ndarray], actor: np.ndarray) -> int:
    """Position of the map with the best AUROC on the actor of one video; the first where none is defined."""
    return int(np.argmax(np.nan_to_num([defined(attention_auroc, map_, actor) for map_ in maps], nan=-1.0)))


def defined(metric: Callable[..., float], map_: np.ndarray, *regions: np.ndarray) -> float:
    """The metric, or NaN where this video cannot say: for means that leave it out."""
    try:
        return metric(map_, *regions)
    except ValueError:
        return float("nan")


def drawn(records: Sequence[VideoRecord], most: int = TRAINING_VIDEOS) -> list[VideoRecord]:
    """At most `most` of the videos, in order, drawn with a fixed seed."""
    # not every n-th: data sets deal actions in turn
    chosen = np.random.default_rng(0).permutation(len(records))[:most]
    return [records[index] for index in sorted(chosen)]


def _look_at_training(
    model: MVFormer | ModelPerAction,
    records: Sequence[VideoRecord],
    add: Callable[[Look, Regions], None],
    layer: int = -1,
    untrained: MVFormer | None = None,
) -> dict[str, str]:
    """Calls `add` with each of the drawn videos; returns reasons for those left out."""
    skipped: dict[str, str] = {}
    records = drawn([record for record in records if is_annotated(record)])
    for record in tqdm(records, unit="video", desc="localization, training", disable=len(records) < 2):
        network = model_of(model, record.action)
        seen = look(network, record, layer, untrained=untrained)
        try:
            regions = read_regions(record, seen.index, seen.size, network.backbone.grid, parts=False)
        except ValueError as error:
            skipped[f"localization.train.{record.name}"] = str(error)
            continue
        add(seen, regions)
    if len(skipped) == len(records):
        raise ValueError("; ".join(["no training video has an actor mask or actor boxes", *skipped.values()]))
    return skipped


def _best(scores: Sequence[Mapping[str, float]], kind: str) -> int | None:
    """Number of the candidate of a kind with the highest mean score."""
    means = {}
    for name in scores[0]:
        if name.rpartition("_")[0] == kind:
            finite = [row[name] for row in scores if np.isfinite(row[name])]
            means[name] = np.mean(finite) if finite else -np.inf
    return int(max(means, key=means.get).rpartition("_")[2]) if means else None


def _constants(mean_region: np.ndarray) -> dict[str, np.ndarray]:
    """(h, w) answers that have seen no image."""
    height, width = mean_region.shape
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    centre = np.exp(-(y[:, None] ** 2 + x**2) / (2 * CENTRE_SPREAD**2))
    return {"mean_training_mask": mean_region, "centre": centre, "uniform": np.ones_like(mean_region)}
