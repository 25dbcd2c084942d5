"""What a model sees in a few frames of a video: maps by name, and the patches that they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating
from mvf.metrics import (
    attention_entropy,
    attention_overlap,
    attention_steadiness,
    effective_share,
)
from mvf.models.mvformer import MVFormer

FRAMES = 8  # evenly spaced, of every video: neighbouring frames say the same
STEP = 1  # frames, between the two maps whose overlap is called steadiness


@dataclass(frozen=True)
class Look:
    """The sampled frames of one video, and what each candidate answers.

    Attributes:
        index: (n,) positions in the video.
        size: (H, W) of the frames.
        patches: (n, h * w, C) features.
        maps: (n, h, w) by candidate: `entity_1`, ..., `head_1`, ...
        untrained: (n, h, w) of the entities of the untrained model, `entity_1`, ...
    """

    index: np.ndarray
    size: tuple[int, int]
    patches: np.ndarray
    maps: dict[str, np.ndarray]
    untrained: dict[str, np.ndarray]


def sampled(num_frames: int) -> np.ndarray:
    """Positions of at most `FRAMES` evenly spaced frames.

    Example:
        >>> sampled(100).tolist(), sampled(2).tolist()
        ([6, 18, 30, 42, 54, 66, 78, 90], [0, 1])
    """
    step = max(1, num_frames // FRAMES)
    return np.arange(step // 2, num_frames, step)[:FRAMES]


@torch.inference_mode()
def look(
    model: MVFormer, record: VideoRecord, layer: int = -1, later: int = 0, untrained: MVFormer | None = None
) -> Look:
    """Maps of the sampled frames, or of those `later` frames after them, as far as the video goes.

    Args:
        model: With its backbone.
        record: At least `later` + 1 frames.
        layer: Block of the heads.
        later: Frames.
        untrained: Another model whose entities are wanted too.
    """
    index = sampled(record.num_frames)
    index = index[index + later < record.num_frames] + later
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    frames = np.stack([frame for _, frame in zip(index, record.frames(int(index[0]), None, step))])
    device = next(model.parameters()).device
    pixels = evaluation_view(torch.from_numpy(frames).permute(0, 3, 1, 2), model.backbone.image_size).to(device)
    grid = model.backbone.grid
    with evaluating(model):
        patches, cls, heads = model.backbone.cls_attention(pixels, (layer,))
        maps = _entities(model, patches, cls, grid)
    if heads is not None:
        maps |= _named("head", heads[0], grid)
    before = {}
    if untrained is not None:
        same = untrained.backbone is model.backbone
        with evaluating(untrained):
            before = _entities(untrained, *((patches, cls) if same else untrained.backbone(pixels)), grid)
    return Look(index, frames.shape[1:3], patches.float().cpu().numpy(), maps, before)


def _entities(model: MVFormer, patches: Tensor, cls: Tensor | None, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    attention = model.pool(patches[None].float(), None if cls is None else cls[None].float())[1]
    return {} if attention is None else _named("entity", attention[0], grid)


def _named(kind: str, maps: Tensor, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """(n, K, P) -> K maps (n, h, w)."""
    maps = maps.float().cpu().numpy()
    return {f"{kind}_{i + 1}": maps[:, i].reshape(len(maps), *grid) for i in range(maps.shape[1])}


def describe(seen: Look, later: Look | None) -> dict:
    """What maps say without any mask: `overlap` (N, N) of entities; entropy, effective share, steadiness by map."""
    found: dict = {name: {} for name in ("entropy", "effective_share", "steadiness")}
    entities = [map_ for name, map_ in seen.maps.items() if name.startswith("entity_")]
    if entities:
        found["overlap"] = attention_overlap(np.stack(entities, axis=1)).tolist()
    for name, map_ in seen.maps.items():
        found["entropy"][name] = attention_entropy(map_)
        found["effective_share"][name] = effective_share(map_)
        if later is not None:
            found["steadiness"][name] = attention_steadiness(map_[: len(later.index)], later.maps[name])
    return found


def mean_description(videos: Sequence[Mapping]) -> dict:
    """Mean over videos of what `describe` gives: `report["attention"]`."""
    report: dict = {"videos": len(videos), "step": STEP}
    overlaps = [video["overlap"] for video in videos if "overlap" in video]
    report |= {"overlap": np.mean(overlaps, axis=0).tolist()} if overlaps else {}
    for kind in ("entropy", "effective_share", "steadiness"):
        names = dict.fromkeys(name for video in videos for name in video[kind])
        means = {name: float(np.mean([v[kind][name] for v in videos if name in v[kind]])) for name in names}
        report |= {kind: means} if means else {}
    return report
