"""Which frames and entities a frame looks at: the attention of Multi-entity Temporal Fusion, on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mvf.bank import FeatureBank
from mvf.data.records import VideoRecord
from mvf.embedding import evaluating, pool_video
from mvf.models.mvformer import ModelPerAction, MVFormer, model_of
from mvf.streaming import chunk_bounds


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
