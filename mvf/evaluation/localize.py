"""Where entities and attention heads look, against masks or boxes of the actor and against constant answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating
from mvf.evaluation.regions import box_region, mask_region
from mvf.evaluation.verdicts import mean_interval
from mvf.metrics import (
    attention_auroc,
    attention_average_precision,
    attention_jaccard,
    attention_lift,
    attention_mass,
    pointing_game,
)
from mvf.models.mvformer import MVFormer

FRAMES = 8  # evenly spaced, of every video: neighbouring frames say the same
TRAINING_VIDEOS = 24  # at most, drawn with a fixed seed: enough to choose one of a dozen maps
CENTRE_SPREAD = 0.25  # standard deviation of the `centre` answer, in image sides
DIFFERENCES = ("head_best", "mean_training_mask")  # what entity_best is compared with

Scores = dict[str, float]


@dataclass
class Looked:
    """The sampled frames of one video: its region, and what each candidate answers.

    Attributes:
        region: (n, h, w) share of each patch that the actor covers.
        masked: The region comes from a mask, not from a box.
        patches: (n, h * w, C) features.
        maps: (n, h, w) by candidate: `entity_1`, ..., `head_1`, ...
    """

    region: np.ndarray
    masked: bool
    patches: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)


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


def localization(
    model: MVFormer, train_records: Sequence[VideoRecord], val_records: Sequence[VideoRecord]
) -> tuple[dict, dict, dict[str, str]]:
    """Scores of entities, CLS heads of the last block, and constant answers on `FRAMES` frames of each video.

    Entity and head are chosen by one rule, AUROC on the training videos; the first principal component of the
    patches is fitted, and given its sign, on the training videos too. `head_oracle` alone picks on the video judged.

    Args:
        model: With its backbone.
        train_records: Videos to choose on.
        val_records: Videos to judge on.

    Returns:
        The `localization` table; paired differences with 95 % intervals over validation videos; reasons for
        what is missing.

    Raises:
        ValueError: when a split has neither masks nor boxes.
    """
    chosen_by, moments, regions = [], Moments(), []
    for looked in _look(model, _some(train_records), "training"):
        chosen_by.append({name: _defined(attention_auroc, map_, looked.region) for name, map_ in looked.maps.items()})
        moments.add(looked.patches, looked.region)
        regions.append(looked.region.mean(axis=0))
    constants = _constants(np.mean(regions, axis=0))
    component = moments.component()
    judged, areas = [], []
    for looked in _look(model, val_records, "validation"):
        answers = looked.maps | {name: np.broadcast_to(map_, looked.region.shape) for name, map_ in constants.items()}
        answers["backbone_pca"] = _component_map(looked, component)
        judged.append({name: _scores(map_, looked) for name, map_ in answers.items()})
        areas.append(float(looked.region.mean()))
    return _assemble(judged, chosen_by, float(np.mean(areas)))


def _some(records: Sequence[VideoRecord]) -> list[VideoRecord]:
    # not every n-th: data sets deal actions in turn
    drawn = np.random.default_rng(0).permutation(len(records))[:TRAINING_VIDEOS]
    return [records[index] for index in sorted(drawn)]


def _look(model: MVFormer, records: Sequence[VideoRecord], split: str) -> Iterable[Looked]:
    """The sampled frames of every video that has a mask or boxes."""
    found = 0
    for record in tqdm(records, unit="video", desc=f"localization, {split}", disable=len(records) < 2):
        mask = record.actor_mask()
        box = record.actor_box() if mask is None else None
        if mask is None and box is None:
            continue
        found += 1
        yield _look_at(model, record, mask, box)
    if not found:
        raise ValueError(f"no {split} video has an actor mask or actor boxes")


@torch.inference_mode()
def _look_at(model: MVFormer, record: VideoRecord, mask: np.ndarray | None, box: np.ndarray | None) -> Looked:
    step = max(1, record.num_frames // FRAMES)
    index = np.arange(step // 2, record.num_frames, step)[:FRAMES]
    frames = np.stack(list(record.frames(step // 2, None, step))[: len(index)])
    device = next(model.parameters()).device
    pixels = evaluation_view(torch.from_numpy(frames).permute(0, 3, 1, 2), model.backbone.image_size).to(device)
    with evaluating(model):
        patches, cls, heads = model.backbone.cls_attention(pixels, (-1,))
        attention = model.pool(patches[None].float(), None if cls is None else cls[None].float())[1]
    grid = model.backbone.grid
    region = mask_region(mask[index], grid) if mask is not None else box_region(box[index], frames.shape[1:3], grid)
    looked = Looked(region, mask is not None, patches.float().cpu().numpy())
    if attention is not None:
        looked.maps |= _named("entity", attention[0].transpose(0, 1), grid)
    if heads is not None:
        looked.maps |= _named("head", heads[0].transpose(0, 1), grid)
    return looked


def _named(kind: str, maps: torch.Tensor, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    maps = maps.float().cpu().numpy()
    return {f"{kind}_{i}": map_.reshape(len(map_), *grid) for i, map_ in enumerate(maps, start=1)}


def _constants(mean_region: np.ndarray) -> dict[str, np.ndarray]:
    """(h, w) answers that have seen no image."""
    height, width = mean_region.shape
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    centre = np.exp(-(y[:, None] ** 2 + x**2) / (2 * CENTRE_SPREAD**2))
    return {"mean_training_mask": mean_region, "centre": centre, "uniform": np.ones_like(mean_region)}


def _component_map(looked: Looked, component: np.ndarray) -> np.ndarray:
    """Projection on the component, lifted so that the lowest patch of every frame is zero."""
    map_ = (looked.patches @ component).reshape(looked.region.shape)
    return map_ - map_.min(axis=(1, 2), keepdims=True)


def _scores(map_: np.ndarray, looked: Looked) -> Scores:
    """Every metric of one map of one video; Jaccard only on masks, as on boxes it measures how diffuse a map is."""
    metrics = {
        "mass": attention_mass,
        "lift": attention_lift,
        "auroc": attention_auroc,
        "average_precision": attention_average_precision,
        "pointing": pointing_game,
    }
    metrics |= {"jaccard": attention_jaccard} if looked.masked else {}
    return {name: _defined(metric, map_, looked.region) for name, metric in metrics.items()}


def _defined(metric: Callable[..., float], map_: np.ndarray, region: np.ndarray) -> float:
    """The metric, or NaN where this video cannot say: for means that leave it out."""
    try:
        return metric(map_, region)
    except ValueError:
        return float("nan")


def _assemble(
    judged: list[dict[str, Scores]], chosen_by: list[Scores], area: float
) -> tuple[dict, dict, dict[str, str]]:
    columns = {name: [scores[name] for scores in judged] for name in judged[0]}
    skipped, index = {}, {}
    for kind in ("entity", "head"):
        candidates = [name for name in columns if name.startswith(f"{kind}_")]
        if not candidates:
            skipped[f"localization.{kind}_best"] = (
                f"this {'pooling' if kind == 'entity' else 'backbone'} has no attention"
            )
            continue
        best = max(candidates, key=lambda name: _mean([scores[name] for scores in chosen_by], -1.0))
        columns[f"{kind}_best"], index[f"{kind}_best"] = columns[best], int(best.rpartition("_")[2])
    heads = [name for name in columns if name.startswith("head_") and name != "head_best"]
    if heads:
        columns["head_oracle"] = [
            max((scores[name] for name in heads), key=lambda s: np.nan_to_num(s["auroc"], nan=-1.0))
            for scores in judged
        ]
    table = {name: _table_row(column) for name, column in columns.items() if name not in heads}
    if not any("auroc" in row for row in table.values()):
        skipped["localization.auroc"] = (
            "in no frame does the actor cover half of a patch and leave another: use a finer grid"
        )
    for name, number in index.items():
        table[name] = table[name] | {"index": number}
    return table | {"area": area}, _differences(columns), skipped


def _table_row(column: list[Scores]) -> Scores:
    names = {name: None for scores in column for name in scores}
    means = {name: _mean([scores.get(name, float("nan")) for scores in column], None) for name in names}
    return {name: mean for name, mean in means.items() if mean is not None}


def _differences(columns: dict[str, list[Scores]]) -> dict:
    """entity_best minus others, by metric: mean over validation videos and 95 % interval."""
    table = {}
    for other in DIFFERENCES:
        if "entity_best" not in columns or other not in columns:
            continue
        table[f"entity_best - {other}"] = row = {}
        for metric in ("auroc", "lift"):
            values = np.array([a[metric] - b[metric] for a, b in zip(columns["entity_best"], columns[other])])
            values = values[np.isfinite(values)]
            interval = mean_interval(values)
            if interval is not None:
                row[metric] = {"mean": float(values.mean()), "interval": list(interval)}
    return table


def _mean(values: list[float], otherwise: float | None) -> float | None:
    """Mean of the finite values."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else otherwise
