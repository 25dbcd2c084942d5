"""What is chosen and fitted on training videos before attention is judged: entity, head, constant answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from mvf.attention import Candidate, rival_layers
from mvf.attention import SampledMaps as Look
from mvf.attention import sampled_maps as look
from mvf.data.records import VideoRecord
from mvf.evaluation.regions import Regions, is_annotated, read_regions
from mvf.metrics import attention_auroc
from mvf.models.mvformer import ModelPerAction, MVFormer, model_of

TRAINING_VIDEOS = 24  # at most, drawn with a fixed seed: enough to choose one of a dozen maps
CENTRE_SPREAD = 0.25  # standard deviation of the `centre` answer, in image sides
UNDEFINED = (
    "no training video defines AUROC: its actor covers half of a patch in no frame, or of all patches; "
    "use a finer grid (a larger image_size)"
)

Scores = Mapping[Candidate, float]  # of one video, NaN where it does not define them


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
        chosen: The map behind `entity_best`, `head_best` of the last layer, `head_best_any_layer`, `background`,
            `untrained_entity_best`, where there are such.
        constants: (h, w) answers that have seen no image.
        component: (C,) direction of `backbone_pca`.
        skipped: Reasons, by name, for what is missing.
    """

    chosen: dict[str, Candidate]
    constants: dict[str, np.ndarray]
    component: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)

    def answers(self, seen: Look, actor: np.ndarray) -> dict[str, np.ndarray]:
        """(n, h, w) of every row of the table but the oracles."""
        maps = {name: map_ for name, map_ in seen.named.items() if name.startswith("entity_")}
        maps |= {name: seen.maps[candidate] for name, candidate in self.chosen.items()}
        maps |= {name: np.broadcast_to(map_, actor.shape) for name, map_ in self.constants.items()}
        projected = (seen.patches @ self.component).reshape(actor.shape)
        maps["backbone_pca"] = projected - projected.min(axis=(1, 2), keepdims=True)  # the lowest patch is zero
        # where no actor is seen any map has the same score, and a map of zeros is none
        maps["actor_mask"] = np.where(actor.any(axis=(1, 2), keepdims=True), actor, 1.0)
        return maps


def oracles(seen: Look, actor: np.ndarray) -> dict[str, Candidate]:
    """The heads with the best AUROC on this very video, of the last layer and of all; none where none is defined."""
    scores = [_aurocs(seen, actor)]
    found = {"head_oracle": _best(scores, "head", seen.last), "head_oracle_any_layer": _best(scores, "head")}
    return {name: candidate for name, candidate in found.items() if candidate}


def choose(model: MVFormer, records: Sequence[VideoRecord], untrained: MVFormer | None = None) -> Choice:
    """Chooses on training videos by AUROC; the background is the entity with the lowest.

    Raises:
        ValueError: when no training video has a usable mask or boxes.
    """
    scores: list[Scores] = []
    moments, actors = Moments(), []

    def add(seen: Look, regions: Regions) -> None:
        scores.append(_aurocs(seen, regions.actor))
        moments.add(seen.patches, regions.actor)
        actors.append(regions.actor.mean(axis=0))

    skipped = _look_at_training(model, records, add, rival_layers(model), untrained)
    several = sum(candidate.kind == "entity" for candidate in scores[0]) > 1
    rows = {
        "entity_best": _best(scores, "entity"),
        "head_best": _best(scores, "head", model.backbone.num_blocks),
        "head_best_any_layer": _best(scores, "head"),
        "untrained_entity_best": _best(scores, "untrained_entity"),
        "background": _best(scores, "entity", sign=-1) if several else None,
    }
    kinds = {candidate.kind for candidate in scores[0]}
    for name in ("entity", "head", "untrained_entity"):
        if name in kinds and rows[f"{name}_best"] is None:
            skipped[f"localization.{name}_best"] = f"no {name.replace('_', ' ')} can be chosen: {UNDEFINED}"
    chosen = {name: candidate for name, candidate in rows.items() if candidate}
    return Choice(chosen, _constants(np.mean(actors, axis=0)), moments.component(), skipped)


def choose_head(model: MVFormer | ModelPerAction, records: Sequence[VideoRecord], layer: int = -1) -> int:
    """Number (from 1) of the head of a block with the best AUROC on training videos.

    Raises:
        ValueError: when no training video has a usable mask or boxes, or defines AUROC, or the backbone has no class
            token.
    """
    scores: list[Scores] = []
    _look_at_training(model, records, lambda seen, regions: scores.append(_aurocs(seen, regions.actor)), (layer,))
    head = _best(scores, "head")
    if head is None and any(candidate.kind == "head" for candidate in scores[0]):
        raise ValueError(f"no head of {model.backbone.name} can be chosen: {UNDEFINED}")
    if head is None:
        raise ValueError(f"{model.backbone.name} has no class token: there is no head to choose")
    return head.number


def best_map(maps: Sequence[np.ndarray], actor: np.ndarray) -> int | None:
    """Position of the map with the best AUROC on the actor of one video; None where none is defined."""
    scores = np.array([defined(attention_auroc, map_, actor) for map_ in maps])
    return int(np.nanargmax(scores)) if np.isfinite(scores).any() else None


def _aurocs(seen: Look, actor: np.ndarray) -> Scores:
    return {candidate: defined(attention_auroc, map_, actor) for candidate, map_ in seen.maps.items()}


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
    layers: Sequence[int],
    untrained: MVFormer | None = None,
) -> dict[str, str]:
    """Calls `add` with each of the drawn videos; returns reasons for those left out."""
    skipped: dict[str, str] = {}
    records = drawn([record for record in records if is_annotated(record)])
    for record in tqdm(records, unit="video", desc="localization, training", disable=len(records) < 2):
        network = model_of(model, record.action)
        seen = look(network, record, layers, untrained=untrained)
        try:
            regions = read_regions(record, seen.index, seen.size, network.backbone.grid, parts=False)
        except ValueError as error:
            skipped[f"localization.train.{record.name}"] = str(error)
            continue
        add(seen, regions)
    if len(skipped) == len(records):
        raise ValueError("; ".join(["no training video has an actor mask or actor boxes", *skipped.values()]))
    return skipped


def _best(scores: Sequence[Scores], kind: str, layer: int | None = None, sign: int = 1) -> Candidate | None:
    """The candidate of a kind, and of a layer, with the highest mean score (lowest for `sign` -1), if any has one."""
    means = {}
    for candidate in scores[0]:
        if candidate.kind == kind and layer in (None, candidate.layer):
            finite = [row[candidate] for row in scores if np.isfinite(row[candidate])]
            means |= {candidate: sign * np.mean(finite)} if finite else {}
    return max(means, key=means.get) if means else None


def _constants(mean_region: np.ndarray) -> dict[str, np.ndarray]:
    """(h, w) answers that have seen no image."""
    height, width = mean_region.shape
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    centre = np.exp(-(y[:, None] ** 2 + x**2) / (2 * CENTRE_SPREAD**2))
    return {"mean_training_mask": mean_region, "centre": centre, "uniform": np.ones_like(mean_region)}
