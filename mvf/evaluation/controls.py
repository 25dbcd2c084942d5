"""Controls: embeddings that every score is compared with (docs/design.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mvf.bank import FeatureBank
from mvf.chunks import chunk_bounds
from mvf.config import Config
from mvf.data.augment import derive_seed
from mvf.data.records import VideoRecord
from mvf.embedding import (
    EmbeddedVideo,
    add_motion,
    add_velocity,
    backbone_of,
    evaluating,
    pool_features,
    stored_bank,
    video_features,
)
from mvf.evaluation.scoring import Rounds
from mvf.models import build_model
from mvf.models.motion import OFFSETS, MotionMap, differences, unit
from mvf.models.mvformer import FrameEmbedder, MVFormer
from mvf.progress import tqdm

PERMUTATIONS = 5
WINDOWS = 3
WINDOW_SHARE = (0.5, 0.8)  # range of a window's share of the frames of its video

Clock = Callable[[int], np.ndarray]  # number of frames T -> (T, width)


@dataclass(frozen=True)
class Controls:
    """The controls from one pass over the videos of a split.

    Attributes:
        whole: Rounds by control; `backbone` holds the mean patches (T, C) of the pretrained backbone, from which
            `backbone_motion` and `motion_pca` are computed.
        cropped: The same on `WINDOWS` windows of every video, one window per round; `reversed` are those of the model
            embedded from the last frame to the first, in their true order again.
        starts: By video, the first frame of each window.
    """

    whole: dict[str, Rounds] = field(default_factory=dict)
    cropped: dict[str, Rounds] = field(default_factory=dict)
    starts: dict[str, list[int]] = field(default_factory=dict)


def sine_table(times: np.ndarray, width: int) -> np.ndarray:
    """(T,) times -> (T, width) unit-norm position table: sin in even channels, cos in odd ones.

    Example:
        >>> sine_table(np.arange(3.0), 4).shape
        (3, 4)
    """
    channel = np.arange(width)
    angle = np.asarray(times, dtype=np.float64)[:, None] / 10000 ** (channel / width)
    return unit(np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)))


def position_clock(training_frames: int, width: int, chunk: int = 1000, model: FrameEmbedder | None = None) -> Clock:
    """The clock `position_only`: the position table of a model in evaluation, stretched to 0..T0-1 in every chunk.

    Args:
        training_frames: T0.
        width: Channels of the table.
        chunk: Frames embedded at once.
        model: Model whose table is used; without one the published table is computed.
    """

    def table(num_frames: int) -> np.ndarray:
        if model is not None:
            return unit(model.position_table(num_frames).detach().cpu().numpy())
        return sine_table(np.linspace(0, training_frames - 1, num_frames), width)

    return lambda length: np.concatenate([table(b - a) for a, b, *_ in chunk_bounds(length, chunk, 0)])


def frame_clock(width: int) -> Clock:
    """The clock `frame_count`: the same table at the plain frame number."""
    return lambda length: sine_table(np.arange(length), width)


def apply_clock(rounds: Rounds, clock: Clock) -> Rounds:
    """The same videos with a clock in place of their embeddings."""
    return [[replace(video, embeddings=clock(len(video.embeddings))) for video in videos] for videos in rounds]


def windows(name: str, num_frames: int) -> list[slice]:
    """`WINDOWS` random windows of 50 to 80 % of a video, a pure function of its name and length.

    Example:
        >>> windows("squat-1", 100) == windows("squat-1", 100)
        True
    """
    generator = np.random.default_rng(derive_seed("windows", name))
    lengths = np.round(generator.uniform(*WINDOW_SHARE, WINDOWS) * num_frames).astype(int).clip(1, num_frames)
    starts = [int(generator.integers(num_frames - length + 1)) for length in lengths]
    return [slice(start, start + int(length)) for start, length in zip(starts, lengths)]


def permutations(name: str, num_frames: int) -> np.ndarray:
    """(PERMUTATIONS, T) random orders of the frames, a pure function of name and length."""
    generator = np.random.default_rng(derive_seed("permutations", name))
    return np.stack([generator.permutation(num_frames) for _ in range(PERMUTATIONS)])


def backbone_motion(mean: np.ndarray) -> np.ndarray:
    """(T, C) mean patches -> (T, 4C): these and their differences over ±2, ±5, ±9 frames (edges clamped).

    Example:
        >>> backbone_motion(np.arange(6.0)[:, None])[:, 1].tolist()
        [2.0, 3.0, 4.0, 4.0, 3.0, 2.0]
    """
    return np.concatenate([mean, *differences(mean, np.arange(len(mean)), OFFSETS)], axis=1)


def add_motion_map(controls: Controls, name: str, fitted: Callable[[str], MotionMap]) -> None:
    """Adds the control `name`: the map fitted for the action of a video, of every whole video and of every window."""
    for rounds_of in (controls.whole, controls.cropped):
        rounds_of[name] = [
            [replace(video, embeddings=fitted(video.action)(video.embeddings)) for video in videos]
            for videos in rounds_of["backbone"]
        ]


def untrained_model(config: Config, model: FrameEmbedder) -> MVFormer:
    """The same model before training: initialised as training does it, on the pretrained backbone.

    It has no motion skip: with one it would score as `motion_pca` does, and no longer say what training adds. Velocity
    is scaled as in `model`, or in its first action.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        untrained = build_model(config, backbone=backbone_of(model).before_training())
    untrained.load_state_dict(model.of((*model.actions, "")[0]).velocity_scaling, strict=False)
    return untrained.to(next(model.parameters()).device).eval()


def embed_controls(
    model: FrameEmbedder,
    untrained: MVFormer,
    records: Sequence[VideoRecord],
    config: Config,
    cache: FeatureBank | None = None,
    bank: bool = True,
) -> Controls:
    """Computes every control that needs pixels, reading each video's features once.

    Pooling works frame by frame, so shuffles and windows re-order pooled tokens and only run the fusion again.
    The control `backbone` uses the pretrained network even if its last blocks have been trained; then a video is
    read twice, since the trained model's own features differ from those of `untrained`.

    Args:
        model: The trained model.
        untrained: See `untrained_model`.
        records: Videos of one split.
        config: `chunk` and `precision` are read.
        cache: Feature bank of the clean view, or None.
        bank: Read features that are stored already, see `mvf.embed`.
    """
    controls, chunk = Controls(), config.chunk
    with torch.inference_mode(), evaluating(model), evaluating(untrained):
        for record in tqdm(records, unit="video", desc="controls", disable=len(records) < 2):
            trained = model.of(record.action)
            untrained.load_state_dict(trained.velocity_scaling, strict=False)  # each action may have its own
            stored = cache or (stored_bank(trained, record, config.precision) if bank else None)
            features = before = video_features(trained, record, stored, config.precision)
            if untrained.backbone is not trained.backbone:
                before = video_features(untrained, record, None, config.precision)
            mean = before[0].mean(dim=1).numpy()
            crops = windows(record.name, len(mean))
            controls.starts[record.name] = [crop.start for crop in crops]
            _add(controls.whole, record, "backbone", [mean])
            _add(controls.cropped, record, "backbone", [mean[crop] for crop in crops], crops)
            for name, network, seen in (("model", trained, features), ("untrained", untrained, before)):
                embed = partial(
                    _embed_order, network, pool_features(network, *seen), seen[0].mean(dim=1).numpy(), chunk
                )
                frames, orders = np.arange(len(mean)), permutations(record.name, len(mean))
                whole, shuffled = ("frozen_frame", "shuffled_order") if name == "model" else (name, f"{name}_shuffled")
                steady = np.full_like(frames, len(mean) // 2) if name == "model" else frames
                _add(controls.whole, record, whole, embed(steady[None]))
                back = zip(embed(orders), orders.argsort(axis=1))
                _add(controls.whole, record, shuffled, [part[order] for part, order in back])
                _add(controls.cropped, record, name, [embed(frames[None, c])[0] for c in crops], crops)
                if name == "model":
                    backward = [embed(frames[None, c][:, ::-1].copy())[0][::-1] for c in crops]
                    _add(controls.cropped, record, "reversed", backward, crops)
    return controls


def fuse_batch(model: MVFormer, tokens: Tensor, chunk: int) -> np.ndarray:
    """(B, T, N, D) tokens of clips of equal length, as `fuse_tokens` reads them -> (B, T, E) unit-norm embeddings.

    The motion skip is not added.
    """
    bounds = chunk_bounds(tokens.shape[1], chunk, 0)
    parts = [model.fuse_tokens(tokens[:, start:stop], project=False).embeddings for start, stop, *_ in bounds]
    return torch.cat(parts, dim=1).float().cpu().numpy()


def _embed_order(model: MVFormer, tokens: Tensor, mean: np.ndarray, chunk: int, orders: np.ndarray) -> np.ndarray:
    """(B, n) frames of a video, each row a clip as it is fed -> (B, n, E), from its tokens and mean patches."""
    fed = tokens[torch.from_numpy(orders).to(tokens.device)]
    fed = torch.stack([add_velocity(model, part, mean[order]) for part, order in zip(fed, orders)])
    embeddings = fuse_batch(model, fed, chunk)
    return np.stack([add_motion(model, part, mean[order]) for part, order in zip(embeddings, orders)])


def _add(
    rounds_of: dict[str, Rounds],
    record: VideoRecord,
    name: str,
    embeddings: Sequence[np.ndarray] | np.ndarray,
    crops: Sequence[slice] | None = None,
) -> None:
    """Appends one video to every round of control `name`."""
    rounds = rounds_of.setdefault(name, [[] for _ in embeddings])
    for videos, array, crop in zip(rounds, embeddings, crops or [slice(None)] * len(embeddings)):
        phases = None if record.phases is None else record.phases[crop]
        videos.append(EmbeddedVideo(record.name, record.action, array, phases))
