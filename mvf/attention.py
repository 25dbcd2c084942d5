"""Where a model looks: entity attention and class-token attention of the backbone, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from mvf.bank import FeatureBank
from mvf.chunks import chunk_bounds
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord, frame_batches
from mvf.embedding import evaluating, pool_video
from mvf.models.mvformer import ModelPerAction, MVFormer, model_of

FRAMES_AT_ONCE = 32

_Attention = tuple[Tensor | None, Tensor | None]  # of M frames: entities (M, N, P), heads (layers, M, heads, P)


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

    def passes(self, record: VideoRecord, step: int = 1) -> Iterator[tuple[list[np.ndarray], _Attention]]:
        """Pictures (H, W, 3) and what the model makes of them, at most `FRAMES_AT_ONCE` at a time."""
        piece = None
        for piece in frame_batches(record.frames(step=step), FRAMES_AT_ONCE):
            yield list(piece.permute(0, 2, 3, 1).numpy()), self._look(piece)
        if piece is None:
            raise ValueError(f"{record.name} has no frames")

    @torch.no_grad()
    def _look(self, frames: Tensor) -> _Attention:
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

    def join(self, looks: list[_Attention]) -> AttentionMaps:
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


# ----------------------------------------------------------------------------------------------------------------------
# Which frames and entities a frame looks at: the attention of Multi-entity Temporal Fusion, on request.


@dataclass(frozen=True)
class TemporalAttention:
    """Temporal attention of one video in one block.

    Attributes:
        name: Of the video.
        weights: (F, T, N) float32: how much the readout of each asked frame looks at every entity of every frame;
            mean over heads, each row sums to 1.
        frames: (F,) the asked frames.
        bounds: (F, 2) first frame, and the one after the last, of the chunk that MTF saw each of them in.
        block: Number of the block, from 1.
        blocks: How many blocks there are.
    """

    name: str
    weights: np.ndarray
    frames: np.ndarray
    bounds: np.ndarray
    block: int
    blocks: int


@torch.inference_mode()
def temporal_attention(
    model: MVFormer | ModelPerAction,
    record: VideoRecord,
    block: int = -1,
    frames: Sequence[int] | None = None,
    chunk: int = 1000,
    cache: FeatureBank | None = None,
    precision: str = "auto",
) -> TemporalAttention:
    """How much the readout of each frame looks at every entity of every frame of a video.

    The readout token is that of entity 1, or with readout "mean" all of a frame's, averaged. What it reads in a block
    is already mixed over time by the blocks below: only the first block's weights point at single frames.

    Args:
        model: Trained model; it is used in eval mode and left in the mode it had.
        record: The video.
        block: 1-based, negative from the end.
        frames: Frames that look; all by default. The result holds F x T x N numbers, 1.2 GB for all frames of a video
            of 10,000: ask for a few hundred evenly spaced ones of long videos.
        chunk: Frames that MTF sees at once, as in `mvf.embed`: frames of other chunks get weight 0.
        cache: Clean bank to read backbone features from.
        precision: In which the backbone computes: `auto`, `fp32`, `bf16`, `fp16`.

    Raises:
        ValueError: for a block or frame that is not there.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    network = model_of(model, record.action)
    number = network.fusion.block_index(block) + 1
    tokens = pool_video(network, record, cache, precision)
    asked = np.arange(len(tokens)) if frames is None else np.asarray(frames, dtype=np.int64)
    if not asked.size or asked.min() < 0 or asked.max() >= len(tokens):
        raise ValueError(f"frames must be numbers from 0 to {len(tokens) - 1} of {record.name}, got {asked.tolist()}")
    weights = np.zeros((len(asked), *tokens.shape[:2]), dtype=np.float32)
    bounds = np.zeros((len(asked), 2), dtype=np.int64)
    with evaluating(network):
        for start, stop, *_ in chunk_bounds(len(tokens), chunk, 0):
            rows = np.flatnonzero((asked >= start) & (asked < stop))
            bounds[rows] = start, stop
            inside = torch.from_numpy(asked[rows] - start).to(tokens.device)
            found = network.temporal_attention(tokens[None, start:stop], block=block, frames=inside)[0]
            weights[rows, start:stop] = found.float().cpu().numpy()
    return TemporalAttention(record.name, weights, asked, bounds, number, len(network.fusion.blocks))


# ----------------------------------------------------------------------------------------------------------------------
# What a model sees in a few frames of a video: maps by name, and the patches that they were made of.

SAMPLED_FRAMES = 8  # evenly spaced, of every video: neighbouring frames say the same


class Candidate(NamedTuple):
    """A map that may be chosen: an `entity`, an `untrained_entity` or a `head` by its number from 1."""

    kind: str
    number: int
    layer: int = 0  # of a head

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.number}"


@dataclass(frozen=True)
class SampledMaps:
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
    """Middle frames of `SAMPLED_FRAMES` equal parts of a video; all frames of a shorter one.

    In videos of four times as many frames or more they keep one distance, and lie at most 2 from the middles.

    Example:
        >>> sampled(100).tolist(), sampled(15).tolist(), sampled(2).tolist()
        ([7, 19, 31, 43, 55, 67, 79, 91], [0, 2, 4, 6, 8, 10, 12, 14], [0, 1])
    """
    if num_frames >= 4 * SAMPLED_FRAMES:
        step = round(num_frames / SAMPLED_FRAMES)  # without one step all frames would have to be read
        return (num_frames - 1 - (SAMPLED_FRAMES - 1) * step) // 2 + step * np.arange(SAMPLED_FRAMES)
    return np.unique((np.arange(SAMPLED_FRAMES) + 0.5) * num_frames // SAMPLED_FRAMES).astype(int)


def rival_layers(model: MVFormer) -> tuple[int, ...]:
    """Layers whose heads rival the entities: all of them."""
    return tuple(range(1, model.backbone.num_blocks + 1))


@torch.inference_mode()
def sampled_maps(
    model: MVFormer,
    record: VideoRecord,
    layers: Sequence[int] = (-1,),
    later: int = 0,
    untrained: MVFormer | None = None,
) -> SampledMaps:
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
    return SampledMaps(index, frames.shape[1:3], patches.float().cpu().numpy(), maps, last)


def _entities(
    model: MVFormer, patches: Tensor, cls: Tensor | None, grid: tuple[int, int], kind: str
) -> dict[Candidate, np.ndarray]:
    attention = model.pool(patches[None].float(), None if cls is None else cls[None].float())[1]
    return {} if attention is None else _keyed(kind, attention[0], grid)


def _keyed(kind: str, maps: Tensor, grid: tuple[int, int], layer: int = 0) -> dict[Candidate, np.ndarray]:
    """(n, K, P) -> K maps (n, h, w)."""
    maps = maps.float().cpu().numpy()
    return {Candidate(kind, i + 1, layer): maps[:, i].reshape(len(maps), *grid) for i in range(maps.shape[1])}
