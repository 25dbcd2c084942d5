"""Validation videos with their attention maps, frame by frame, and the head that a figure shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mvf.data import VideoList, VideoRecord, find_config_videos
from mvf.maps import attention_maps
from mvf.models.mvformer import MVFormer
from mvf.models.per_action import model_of
from mvf.workflow import Subject


@dataclass(frozen=True)
class LookedVideo:
    """A video with its maps, frame by frame.

    Attributes:
        name: Of the video.
        frames: (T, H, W, 3) uint8.
        entities: (T, N, h, w), or None.
        heads: (T, heads, h, w) of one block, or None.
        layer: Number of that block.
        entity_layers: Blocks that the entities read.
        head: Which head the figure shows, from 0.
        head_rule: How it was chosen.
        numbers: Position of every frame in the video.
    """

    name: str
    frames: np.ndarray
    entities: np.ndarray | None
    heads: np.ndarray | None
    layer: int
    entity_layers: tuple[int, ...]
    head: int
    head_rule: str
    numbers: np.ndarray

    @property
    def head_names(self) -> list[str]:
        return [] if self.heads is None else [f"head {i + 1}" for i in range(self.heads.shape[1])]

    @property
    def head_name(self) -> str:
        return "no class token" if self.heads is None else f"CLS head {self.head + 1} ({self.head_rule})"


def look_at(subject: Subject, report: Mapping, look: Mapping) -> list[LookedVideo]:
    """Maps of validation videos (of training videos where there are none), of different actions as far as there are."""
    found = find_config_videos(subject.config, "val") or find_config_videos(subject.config, "train")
    records = _one_an_action(found, look["videos"])
    return [_look(subject.model, record, report, look) for record in records]


def _look(model: MVFormer, record: VideoRecord, report: Mapping, look: Mapping) -> LookedVideo:
    model = model_of(model, record.action)
    maps = attention_maps(model, record, (look["layer"],), look["image_size"])
    step = -(-record.num_frames // look["stored_frames"])
    frames = np.stack(list(record.frames(step=step)))
    entities = None if maps.entities is None else maps.entities[::step]
    heads = None if maps.heads is None else maps.heads[0, ::step]
    head, rule = _choose_head(entities, heads, report, model.backbone.num_blocks in maps.layers)
    layer = maps.layers[0] if maps.layers else 0
    return LookedVideo(
        record.name,
        frames,
        entities,
        heads,
        layer,
        tuple(model.backbone.layers),
        head,
        rule,
        np.arange(len(frames)) * step,
    )


def _choose_head(entities: np.ndarray | None, heads: np.ndarray | None, report: Mapping, last: bool) -> tuple[int, str]:
    """The head chosen on training videos; without masks or boxes the one most like entity 1."""
    if heads is None:
        return 0, ""
    chosen = report.get("localization", {}).get("head_best", {}).get("index")
    if chosen is not None and last:
        return chosen - 1, "chosen by AUROC on training videos"
    if entities is None:
        return 0, "the first: nothing to choose by"
    shares = heads / heads.sum((-1, -2), keepdims=True)
    overlap = np.minimum(shares, entities[:, :1]).sum((-1, -2)).mean(0)  # (heads,)
    return int(overlap.argmax()), "closest to entity 1"


def _one_an_action(records: VideoList, count: int) -> list[VideoRecord]:
    """`count` records, going round the actions."""
    turn: dict[str, int] = {}
    order = []
    for record in records:
        turn[record.action] = turn.get(record.action, -1) + 1
        order.append((turn[record.action], len(order)))
    return [records[i] for _, i in sorted(order)[:count]]
