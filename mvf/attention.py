"""Attention maps: of the entities and of the backbone's class token over patches, and of the fusion over frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from mvf.bank import FRAMES_AT_ONCE, FeatureBank
from mvf.chunks import chunk_bounds
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord, frame_batches
from mvf.embedding import backbone_of, evaluating, pool_video
from mvf.models.mvformer import FrameEmbedder, MVFormer


@dataclass(frozen=True)
class FrameMaps:
    """Features and attention maps that a model computes for n frames.

    Attributes:
        patches: (n, P, C) features, on the model's device.
        cls: (n, C0) class tokens, on the model's device; None without class token.
        entities: (n, N, h, w) float32 maps of the entities, on the CPU; None without LSTP.
        heads: (layers, n, heads, h, w) float32 maps of the class token, on the CPU; None without class token.
    """

    patches: Tensor
    cls: Tensor | None
    entities: Tensor | None
    heads: Tensor | None


@torch.inference_mode()
def frame_maps(model: MVFormer, frames: Tensor, layers: Sequence[int], image_size: int | None = None) -> FrameMaps:
    """Computes the maps of uint8 (n, 3, H, W) frames.

    Args:
        model: A model with its backbone; it is used in eval mode, and its own mode is restored.
        frames: The frames.
        layers: Blocks whose class-token attention is wanted.
        image_size: Side of the frames that the backbone sees; None: the size that it was built for.
    """
    backbone = backbone_of(model)
    size, grid = backbone.image_size, backbone.grid
    if image_size is not None:
        size, grid = image_size, backbone.grid_of(image_size)
    pixels = evaluation_view(frames, size).to(next(model.parameters()).device)
    with evaluating(model):
        patches, cls, heads = backbone.cls_attention(pixels, layers)
        entities = _entities(model, patches, cls, grid)
    return FrameMaps(patches, cls, entities, None if heads is None else heads.float().cpu().unflatten(-1, grid))


def _entities(model: MVFormer, patches: Tensor, cls: Tensor | None, grid: tuple[int, int]) -> Tensor | None:
    attention = model.pool(patches[None].float(), None if cls is None else cls[None].float())[1]
    return None if attention is None else attention[0].float().cpu().unflatten(-1, grid)


@dataclass(frozen=True)
class AttentionMaps:
    """Attention over the h x w patches of T frames.

    Attributes:
        entities: (T, N, h, w) float32 weights of the N entities, each map sums to 1; None without LSTP.
        heads: (layers, T, heads, h, w) float32 weights of the class token in each head of the chosen blocks;
            a map sums to less than 1, as class and register tokens take the rest. None without class token.
        layers: 1-based numbers of those blocks; empty where `heads` is None.
    """

    entities: np.ndarray | None
    heads: np.ndarray | None
    layers: tuple[int, ...]


@dataclass(frozen=True)
class MappedFrames:
    """Frames and their maps from one decoding pass: map i was computed from frame i.

    Attributes:
        frames: (T, H, W, 3) uint8.
        numbers: (T,) position of every frame in the video.
        size: (H, W) of the video; `frames` may be smaller.
        maps: The maps of these frames.
    """

    frames: np.ndarray
    numbers: np.ndarray
    size: tuple[int, int]
    maps: AttentionMaps


def attention_maps(
    model: FrameEmbedder,
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
        ValueError: if the model has no backbone, or neither entities nor a class token; for a layer or an
            image size that the backbone does not have; and for a video without frames.
    """
    request = _MapRequest.of(model, record, backbone_layers, image_size)
    return request.join([maps for _, maps in request.batches(record)])


def map_frames(
    model: FrameEmbedder,
    record: VideoRecord,
    backbone_layers: Sequence[int] = (-1,),
    image_size: int | None = None,
    step: int = 1,
    longest_side: int | None = None,
) -> MappedFrames:
    """Every `step`-th frame with its maps, in one decoding pass; the frames between are skipped.

    Args:
        model: As in `attention_maps`, which raises the same errors.
        record: The video.
        backbone_layers: Blocks whose class-token attention is wanted.
        image_size: Side of the frames that the model sees.
        step: Distance between the frames.
        longest_side: Longest side of the frames that are returned, in pixels; None keeps them as they are.
    """
    request = _MapRequest.of(model, record, backbone_layers, image_size)
    frames: list[np.ndarray] = []
    made, size = [], (0, 0)
    for pictures, maps in request.batches(record, step):
        size = pictures[0].shape[:2]
        frames += [_shrunk(picture, longest_side) for picture in pictures]
        made.append(maps)
    return MappedFrames(np.stack(frames), np.arange(len(frames)) * step, size, request.join(made))


_Maps = tuple[Tensor | None, Tensor | None]  # entities and heads of `FrameMaps`


@dataclass(frozen=True)
class _MapRequest:
    """A model, the layers whose heads are wanted, and the size of the frames it sees."""

    model: MVFormer
    layers: tuple[int, ...]
    size: int | None

    @classmethod
    def of(cls, model: FrameEmbedder, record: VideoRecord, layers: Sequence[int], size: int | None) -> _MapRequest:
        """Makes a request and checks it, before anything is decoded."""
        network = model.of(record.action)
        backbone = backbone_of(network)
        if size is not None:
            backbone.grid_of(size)
        return cls(network, backbone.resolve_layers(layers), size)

    def batches(self, record: VideoRecord, step: int = 1) -> Iterator[tuple[list[np.ndarray], _Maps]]:
        """Yields images (H, W, 3) and their maps, at most `FRAMES_AT_ONCE` at a time."""
        batch = None
        for batch in frame_batches(record.frames(step=step), FRAMES_AT_ONCE):
            maps = frame_maps(self.model, batch, self.layers, self.size)
            if maps.entities is None and maps.heads is None:
                raise ValueError(
                    f'pooling "{self.model.architecture.pooling}" has no attention and {backbone_of(self.model).name} '
                    "has no class token: nothing to map; use pooling=lstp or a vision transformer"
                )
            yield list(batch.permute(0, 2, 3, 1).numpy()), (maps.entities, maps.heads)
        if batch is None:
            raise ValueError(f"{record.name} has no frames")

    def join(self, maps: Sequence[_Maps]) -> AttentionMaps:
        """Joins the maps of all frames."""
        entities = [of for of, _ in maps if of is not None]
        heads = [of for _, of in maps if of is not None]
        return AttentionMaps(
            entities=torch.cat(entities).numpy() if entities else None,
            heads=torch.cat(heads, dim=1).numpy() if heads else None,
            layers=self.layers if heads else (),
        )


def _shrunk(picture: np.ndarray, longest_side: int | None) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = 1.0 if longest_side is None else longest_side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


# ----------------------------------------------------------------------------------------------------------------------
# Temporal attention: which frames and entities a frame attends to in Multi-entity Temporal Fusion.


@dataclass(frozen=True)
class TemporalAttention:
    """Temporal attention of one video in one block.

    Attributes:
        name: Name of the video.
        weights: (F, T, N) float32: how much the readout of each query frame attends to every entity of every frame;
            mean over heads, each row sums to 1.
        frames: (F,) the query frames.
        bounds: (F, 2) first frame, and the one after the last, of the chunk that each of them was fused in.
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
    model: FrameEmbedder,
    record: VideoRecord,
    block: int = -1,
    frames: Sequence[int] | None = None,
    chunk: int = 1000,
    cache: FeatureBank | None = None,
    precision: str = "auto",
) -> TemporalAttention:
    """How much the readout of each frame attends to every entity of every frame of a video.

    The readout token is that of entity 1; with readout "mean" the weights of a frame's tokens are averaged. The blocks
    below have already mixed the tokens over time, so only the first block's weights point at single frames.

    Args:
        model: Trained model; it is used in eval mode, and its own mode is restored.
        record: The video.
        block: 1-based, negative from the end.
        frames: Query frames; all by default. The result holds F x T x N numbers, 1.2 GB for all frames of a video of
            10,000: for long videos ask for a few hundred evenly spaced ones.
        chunk: Frames that the fusion sees at once, as in `mvf.embed`; frames of other chunks get weight 0.
        cache: Bank of the clean view, from which backbone features are read.
        precision: Precision of the backbone: `auto`, `fp32`, `bf16`, `fp16`.

    Raises:
        ValueError: for a block or frame that does not exist.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    network = model.of(record.action)
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
# Maps of a few frames of a video, by name, as localization compares them.

SAMPLED_FRAMES = 8  # evenly spaced frames of every video; neighbouring frames have nearly the same maps


class Candidate(NamedTuple):
    """The key of a map: an `entity`, an `untrained_entity` or a `head`, by its number from 1."""

    kind: str
    number: int
    layer: int = 0  # only for a head

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.number}"


@dataclass(frozen=True)
class SampledMaps:
    """The sampled frames of one video, and the map of each candidate.

    Attributes:
        index: (n,) positions in the video.
        size: (H, W) of the frames.
        patches: (n, h * w, C) features.
        maps: (n, h, w) by candidate.
        last: Deepest layer whose heads are in `maps`; 0 without heads.
    """

    index: np.ndarray
    size: tuple[int, int]
    patches: np.ndarray
    maps: dict[Candidate, np.ndarray]
    last: int

    @property
    def named(self) -> dict[str, np.ndarray]:
        """Entities and the heads of the deepest layer, as `entity_1`, ..., `head_1`, ..."""
        return {key.name: map_ for key, map_ in self.maps.items() if (key.kind, key.layer) in
                (("entity", 0), ("head", self.last))}  # fmt: skip


def sampled(num_frames: int) -> np.ndarray:
    """Middle frames of `SAMPLED_FRAMES` equal parts of a video; all frames of a shorter one.

    In videos of at least four times as many frames they are equally spaced, at most 2 frames from the middles.

    Example:
        >>> sampled(100).tolist(), sampled(15).tolist(), sampled(2).tolist()
        ([7, 19, 31, 43, 55, 67, 79, 91], [0, 2, 4, 6, 8, 10, 12, 14], [0, 1])
    """
    if num_frames >= 4 * SAMPLED_FRAMES:
        step = round(num_frames / SAMPLED_FRAMES)  # without a constant step all frames would have to be read
        return (num_frames - 1 - (SAMPLED_FRAMES - 1) * step) // 2 + step * np.arange(SAMPLED_FRAMES)
    return np.unique((np.arange(SAMPLED_FRAMES) + 0.5) * num_frames // SAMPLED_FRAMES).astype(int)


def rival_layers(model: FrameEmbedder) -> tuple[int, ...]:
    """Layers whose heads compete with the entities: all of them."""
    return tuple(range(1, backbone_of(model).num_blocks + 1))


def sampled_maps(
    model: MVFormer,
    record: VideoRecord,
    layers: Sequence[int] = (-1,),
    later: int = 0,
    untrained: MVFormer | None = None,
) -> SampledMaps:
    """Maps of the sampled frames, or of the frames `later` frames after them, if the video has them.

    Args:
        model: A model with its backbone.
        record: A video of at least `later` + 1 frames.
        layers: Blocks of the heads, ascending.
        later: Offset, in frames.
        untrained: Another model whose entities are wanted too.
    """
    index = sampled(record.num_frames)
    index = index[index + later < record.num_frames] + later
    pictures = np.stack([*record.frames_at(index.tolist())])
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    made = frame_maps(model, frames, layers)
    maps = dict(_candidates("entity", made.entities))
    for layer, heads in zip(layers, () if made.heads is None else made.heads):
        maps |= _candidates("head", heads, layer)
    if untrained is not None:
        maps |= _candidates("untrained_entity", _untrained_entities(untrained, model, frames, made))
    last = 0 if made.heads is None else layers[-1]
    return SampledMaps(index, pictures.shape[1:3], made.patches.float().cpu().numpy(), maps, last)


@torch.inference_mode()
def _untrained_entities(untrained: MVFormer, model: MVFormer, frames: Tensor, made: FrameMaps) -> Tensor | None:
    """Entities of a second model; if both models share a backbone, the features in `made` are used."""
    backbone = backbone_of(untrained)
    with evaluating(untrained):
        if backbone is model.backbone:
            patches, cls = made.patches, made.cls
        else:
            pixels = evaluation_view(frames, backbone.image_size).to(next(untrained.parameters()).device)
            patches, cls = backbone(pixels)
        return _entities(untrained, patches, cls, backbone.grid)


def _candidates(kind: str, maps: Tensor | None, layer: int = 0) -> Mapping[Candidate, np.ndarray]:
    """(n, K, h, w) -> K maps (n, h, w)."""
    columns = () if maps is None else maps.numpy().swapaxes(0, 1)
    return {Candidate(kind, number, layer): of for number, of in enumerate(columns, start=1)}
