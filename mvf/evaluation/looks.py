"""What a model sees in a few frames of a video: maps by name, and the patches that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating
from mvf.evaluation.verdicts import mean_interval
from mvf.metrics import (
    attention_entropy,
    attention_overlap,
    attention_steadiness,
    effective_share,
)
from mvf.models.mvformer import MVFormer

FRAMES = 8  # evenly spaced, of every video: neighbouring frames say the same
STEP = 1  # frames, between the two maps whose overlap is called steadiness


class Candidate(NamedTuple):
    """A map that may be chosen: an `entity`, an `untrained_entity` or a `head` by its number from 1."""

    kind: str
    number: int
    layer: int = 0  # of a head

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.number}"


@dataclass(frozen=True)
class Look:
    """The sampled frames of one video, and what each candidate answers.

    Attributes:
        index: (n,) positions in the video.
        size: (H, W) of the frames.
        patches: (n, h * w, C) features.
        maps: (n, h, w) by candidate.
        last: Deepest layer whose heads are there; 0 without heads.
    """

    index: np.ndarray
    size: tuple[int, int]
    patches: np.ndarray
    maps: dict[Candidate, np.ndarray]
    last: int

    @property
    def named(self) -> dict[str, np.ndarray]:
        """Entities, and the heads of the deepest layer: `entity_1`, ..., `head_1`, ..."""
        return {key.name: map_ for key, map_ in self.maps.items() if (key.kind, key.layer) in
                (("entity", 0), ("head", self.last))}  # fmt: skip


def sampled(num_frames: int) -> np.ndarray:
    """Middle frames of `FRAMES` equal parts of a video; all frames of a shorter one.

    In videos of four times as many frames or more they keep one distance, and lie at most 2 from the middles.

    Example:
        >>> sampled(100).tolist(), sampled(15).tolist(), sampled(2).tolist()
        ([7, 19, 31, 43, 55, 67, 79, 91], [0, 2, 4, 6, 8, 10, 12, 14], [0, 1])
    """
    if num_frames >= 4 * FRAMES:
        step = round(num_frames / FRAMES)  # without one step all frames would have to be read
        return (num_frames - 1 - (FRAMES - 1) * step) // 2 + step * np.arange(FRAMES)
    return np.unique((np.arange(FRAMES) + 0.5) * num_frames // FRAMES).astype(int)


def rival_layers(model: MVFormer) -> tuple[int, ...]:
    """Layers whose heads rival the entities: all of them."""
    return tuple(range(1, model.backbone.num_blocks + 1))


@torch.inference_mode()
def look(
    model: MVFormer,
    record: VideoRecord,
    layers: Sequence[int] = (-1,),
    later: int = 0,
    untrained: MVFormer | None = None,
) -> Look:
    """Maps of the sampled frames, or of those `later` frames after them, as far as the video goes.

    Args:
        model: With its backbone.
        record: At least `later` + 1 frames.
        layers: Blocks of the heads, ascending.
        later: Frames.
        untrained: Another model whose entities are wanted too.
    """
    index = sampled(record.num_frames)
    index = index[index + later < record.num_frames] + later
    frames = np.stack([*record.frames_at(index.tolist())])
    device = next(model.parameters()).device
    pixels = evaluation_view(torch.from_numpy(frames).permute(0, 3, 1, 2), model.backbone.image_size).to(device)
    grid = model.backbone.grid
    with evaluating(model):
        patches, cls, heads = model.backbone.cls_attention(pixels, layers)
        maps = _entities(model, patches, cls, grid, "entity")
    for layer, of in zip(layers, () if heads is None else heads):
        maps |= _keyed("head", of, grid, layer)
    if untrained is not None:
        same = untrained.backbone is model.backbone
        with evaluating(untrained):
            features = (patches, cls) if same else untrained.backbone(pixels)
            maps |= _entities(untrained, *features, grid, "untrained_entity")
    last = 0 if heads is None else layers[-1]
    return Look(index, frames.shape[1:3], patches.float().cpu().numpy(), maps, last)


def _entities(
    model: MVFormer, patches: Tensor, cls: Tensor | None, grid: tuple[int, int], kind: str
) -> dict[Candidate, np.ndarray]:
    attention = model.pool(patches[None].float(), None if cls is None else cls[None].float())[1]
    return {} if attention is None else _keyed(kind, attention[0], grid)


def _keyed(kind: str, maps: Tensor, grid: tuple[int, int], layer: int = 0) -> dict[Candidate, np.ndarray]:
    """(n, K, P) -> K maps (n, h, w)."""
    maps = maps.float().cpu().numpy()
    return {Candidate(kind, i + 1, layer): maps[:, i].reshape(len(maps), *grid) for i in range(maps.shape[1])}


def describe(seen: Look, later: Look | None, skipped: dict[str, str]) -> dict:
    """What maps say without any mask: `overlap` (N, N) of entities; entropy, effective share, steadiness by map.

    What a video's maps do not define is left out, and its reason goes to `skipped`.
    """
    found: dict = {name: {} for name in ("entropy", "effective_share", "steadiness")}

    def tell(into: dict, key: str, kind: str, measure: Callable, *maps: np.ndarray) -> None:
        try:
            into[key] = measure(*maps)
        except ValueError as error:
            skipped.setdefault(f"attention.{kind}", str(error))

    entities = [map_ for name, map_ in seen.named.items() if name.startswith("entity_")]
    if entities:
        tell(found, "overlap", "overlap", attention_overlap, np.stack(entities, axis=1))
    for name, map_ in seen.named.items():
        tell(found["entropy"], name, "entropy", attention_entropy, map_)
        tell(found["effective_share"], name, "effective_share", effective_share, map_)
        if later is not None:
            pair = map_[: len(later.index)], later.named[name]
            tell(found["steadiness"], name, "steadiness", attention_steadiness, *pair)
    return found


def mean_description(videos: Sequence[Mapping]) -> dict:
    """Means over videos of what `describe` gives, and under `interval` where they lie: `report["attention"]`."""
    report: dict = {"videos": len(videos), "step": STEP, "interval": {}}
    overlaps = np.array([video["overlap"] for video in videos if "overlap" in video])
    if len(overlaps):
        report["overlap"] = overlaps.mean(axis=0).tolist()
    if len(overlaps) > 1:
        ends = [[mean_interval(pair) for pair in row] for row in overlaps.transpose(1, 2, 0)]
        report["interval"]["overlap"] = np.array(ends).tolist()
    for kind in ("entropy", "effective_share", "steadiness"):
        names = dict.fromkeys(name for video in videos for name in video[kind])
        values = {name: np.array([v[kind][name] for v in videos if name in v[kind]]) for name in names}
        if values:
            report[kind] = {name: float(of.mean()) for name, of in values.items()}
        ends = {name: list(mean_interval(of)) for name, of in values.items() if len(of) > 1}
        report["interval"] |= {kind: ends} if ends else {}
    return report
