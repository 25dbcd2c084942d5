"""Where a model looks: entity attention and class-token attention of the backbone, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mvf.data.augment import evaluation_view
from mvf.data.pieces import in_pieces
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating
from mvf.models.mvformer import ModelPerAction, MVFormer, model_of

FRAMES_AT_ONCE = 32

Look = tuple[Tensor | None, Tensor | None]  # entity (M, N, P) and head (layers, M, heads, P) attention of M frames


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


@dataclass(frozen=True)
class MappedFrames:
    """Frames and their maps from one decoding pass: frame i is the picture that map i was made of.

    Attributes:
        frames: (T, H, W, 3) uint8.
        numbers: (T,) position of every frame in the video.
        size: (H, W) of the video, which `frames` may be smaller than.
        maps: Of these frames.
    """

    frames: np.ndarray
    numbers: np.ndarray
    size: tuple[int, int]
    maps: AttentionMaps


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
    looker = _Looker.of(model, record, backbone_layers, image_size)
    return looker.join([look for _, look in looker.passes(record)])


def map_frames(
    model: MVFormer | ModelPerAction,
    record: VideoRecord,
    backbone_layers: Sequence[int] = (-1,),
    image_size: int | None = None,
    step: int = 1,
    longest_side: int | None = None,
) -> MappedFrames:
    """Every `step`-th frame with its maps, in one decoding pass; the frames between are never looked at.

    Args:
        model: As in `attention_maps`, which has the same errors; so `record`, `backbone_layers`, `image_size`.
        record: The video.
        backbone_layers: Blocks.
        image_size: Side of what the model sees.
        step: Distance of the frames.
        longest_side: Frames are kept no larger than this, in pixels; None keeps them as they are.
    """
    looker = _Looker.of(model, record, backbone_layers, image_size)
    frames, looks, size = [], [], (0, 0)
    for pictures, look in looker.passes(record, step):
        size = pictures[0].shape[:2]
        frames += [_shrunk(picture, longest_side) for picture in pictures]
        looks.append(look)
    maps = looker.join(looks)
    return MappedFrames(np.stack(frames), np.arange(len(frames)) * step, size, maps)


@dataclass(frozen=True)
class _Looker:
    """A model with the layers and the size at which it is to look."""

    model: MVFormer
    layers: tuple[int, ...]
    size: int
    grid: tuple[int, int]

    @classmethod
    def of(
        cls, model: MVFormer | ModelPerAction, record: VideoRecord, layers: Sequence[int], size: int | None
    ) -> _Looker:
        """Checked before anything is decoded."""
        model = model_of(model, record.action)
        backbone = model.backbone
        if backbone is None:
            raise ValueError("attention maps need a model with a backbone; this one starts from patch features")
        size = backbone.image_size if size is None else size
        return cls(model, backbone.resolve_layers(layers), size, backbone.grid_of(size))

    def passes(self, record: VideoRecord, step: int = 1) -> Iterator[tuple[list[np.ndarray], Look]]:
        """Pictures (H, W, 3) and what the model makes of them, at most `FRAMES_AT_ONCE` at a time."""
        piece = None
        for piece in in_pieces(record.frames(step=step), FRAMES_AT_ONCE):
            yield list(piece.permute(0, 2, 3, 1).numpy()), self._look(piece)
        if piece is None:
            raise ValueError(f"{record.name} has no frames")

    @torch.no_grad()
    def _look(self, frames: Tensor) -> Look:
        pixels = evaluation_view(frames, self.size).to(next(self.model.parameters()).device)
        with evaluating(self.model):
            patches, cls, heads = self.model.backbone.cls_attention(pixels, self.layers)
            _, entities = self.model.pool(patches[None].float(), None if cls is None else cls[None].float())
        if entities is None and heads is None:
            raise ValueError(
                f'pooling "{self.model.architecture.pooling}" has no attention and {self.model.backbone.name} no '
                "class token: nothing to map; use pooling=lstp or a vision transformer"
            )
        entities = None if entities is None else entities[0]
        return tuple(None if part is None else part.float().cpu() for part in (entities, heads))

    def join(self, looks: list[Look]) -> AttentionMaps:
        """Maps of all frames."""
        entities, heads = (None if kind[0] is None else kind for kind in zip(*looks))
        return AttentionMaps(
            entities=None if entities is None else torch.cat(entities).unflatten(-1, self.grid).numpy(),
            heads=None if heads is None else torch.cat(heads, dim=1).unflatten(-1, self.grid).numpy(),
            layers=() if heads is None else self.layers,
        )


def _shrunk(picture: np.ndarray, longest_side: int | None) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = 1.0 if longest_side is None else longest_side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
