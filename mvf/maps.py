"""Where a model looks: entity attention and class-token attention of the backbone, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvf.bank import in_chunks
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating
from mvf.models.mvformer import MVFormer
from mvf.models.per_action import ModelPerAction, model_of

FRAMES_AT_ONCE = 32


@dataclass(frozen=True)
class AttentionMaps:
    """Attention over the h x w patches of T frames.

    Attributes:
        entities: (T, N, h, w) float32 weights of the N entities, each map sums to 1; None without LSTP.
        heads: (layers, T, heads, h, w) float32 weights of the class token in each head of the chosen blocks;
            a map sums to less than 1 by what class and register tokens take. None without class token.
        layers: 1-based numbers of those blocks; empty where `heads` is None.
    """

    entities: np.ndarray | None
    heads: np.ndarray | None
    layers: tuple[int, ...]


def attention_maps(
    model: MVFormer | ModelPerAction,
    record: VideoRecord,
    backbone_layers: Sequence[int] = (-1,),
    image_size: int | None = None,
) -> AttentionMaps:
    """Attention maps of all frames of a video; memory grows with the maps only, not with the pixels.

    Args:
        model: Its backbone and pooling are used, and left as they are.
        record: The video.
        backbone_layers: Blocks whose class-token attention is wanted, 1-based, negative from the end.
        image_size: Side of the frames in pixels, for finer or coarser maps than the model was trained with.
            The backbone's positions are resized for it.

    Raises:
        ValueError: for a model without backbone, or with neither entities nor class token; a layer or an
            image size that the backbone does not have; a video without frames.
    """
    model = model_of(model, record.action)
    backbone = model.backbone
    if backbone is None:
        raise ValueError("attention maps need a model with a backbone; this one starts from patch features")
    layers = backbone.resolve_layers(backbone_layers)
    size = backbone.image_size if image_size is None else image_size
    grid = backbone.grid_of(size)
    parts = [_look(model, evaluation_view(frames, size), layers) for frames in in_chunks(record, FRAMES_AT_ONCE)]
    if not parts:
        raise ValueError(f"{record.name} has no frames")
    entities, heads = (None if kind[0] is None else kind for kind in zip(*parts))
    if entities is None and heads is None:
        raise ValueError(
            f'pooling "{model.architecture.pooling}" has no attention and {backbone.name} no class token: '
            "nothing to map; use pooling=lstp or a vision transformer"
        )
    return AttentionMaps(
        entities=None if entities is None else torch.cat(entities).unflatten(-1, grid).numpy(),
        heads=None if heads is None else torch.cat(heads, dim=1).unflatten(-1, grid).numpy(),
        layers=() if heads is None else layers,
    )


@torch.no_grad()
def _look(model: MVFormer, frames: Tensor, layers: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Entity (M, N, P) and head (layers, M, heads, P) attention of frames (M, 3, S, S), float32 on the CPU."""
    device = next(model.parameters()).device
    with evaluating(model):
        patches, cls, heads = model.backbone.cls_attention(frames.to(device), layers)
        _, entities = model.pool(patches[None].float(), None if cls is None else cls[None].float())
    entities = None if entities is None else entities[0]
    return tuple(None if part is None else part.float().cpu() for part in (entities, heads))
