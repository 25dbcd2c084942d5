"""The cost of a model: parameters and operations, counted without weights, and measured milliseconds per frame."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mvf.bank import FRAMES_AT_ONCE
from mvf.config import Config
from mvf.device import autocast
from mvf.embedding import backbone_of, evaluating, pool_features
from mvf.losses import build_config_loss
from mvf.models import build_model
from mvf.models.backbone import Backbone
from mvf.models.mvformer import MVFormer

REPEATS = 5  # largest number of timings, whose median is taken
SECONDS = 1.0  # no further timing begins after this


@dataclass(frozen=True)
class Cost:
    """Size and arithmetic of one model.

    Attributes:
        parameters: Number of trained parameters, including trained blocks of the backbone and the training-only head.
        backbone_parameters: Number of frozen parameters of the backbone.
        operations: Floating-point operations to embed one frame of a clip of T0 frames: those of convolutions and
            matrix products, attention included. A multiplication and an addition count as two.
        backbone_operations: The backbone's share of `operations`.
    """

    parameters: int
    backbone_parameters: int
    operations: float
    backbone_operations: float


def model_cost(config: Config) -> Cost:
    """Counts the parameters and operations of the model of a configuration, without its weights.

    Raises:
        ValueError: for a model that cannot be built.

    Example:
        >>> from mvf.config import load_config
        >>> model_cost(load_config("penn", backbone="vit_tiny_patch16_224", image_size=32)).backbone_parameters
        5524416
    """
    backbone = backbone_shape(config.backbone, config.image_size, config.layers, config.trainable_blocks)
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, backbone, project="projection" in build_config_loss(config).reads).eval()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return Cost(trained, frozen, *_operations(model))


@cache
def backbone_shape(name: str, image_size: int, layers: tuple[int, ...], trainable_blocks: int) -> Backbone:
    """A backbone on the device `meta`, which has shapes but no weights."""
    with torch.device("meta"):
        return Backbone(name, "random", image_size, layers, trainable_blocks)


@torch.inference_mode()
def _operations(model: MVFormer) -> tuple[float, float]:
    """Operations per frame: of the whole model (with the frame's share of the fusion), and of the backbone alone."""
    backbone, length = backbone_of(model), model.architecture.num_frames
    # everything after the backbone is small enough to be run
    patches = torch.zeros(1, 1, backbone.grid[0] * backbone.grid[1], backbone.channels)
    cls = None if backbone.cls_channels is None else torch.zeros(1, 1, backbone.cls_channels)
    tokens, _ = model.pool(patches, cls)
    clip = F.pad(tokens, (0, model.velocity_width)).expand(-1, length, -1, -1)
    frozen = backbone_operations(backbone)
    pooling = _count_operations(lambda: model.pool(patches, cls))
    fusion = _count_operations(lambda: model.fuse_tokens(clip, project=False))
    return frozen + pooling + fusion / length, frozen


def backbone_operations(backbone: Backbone) -> float:
    """Floating-point operations of a backbone on the device `meta` for one frame."""
    frame = torch.empty(1, 3, backbone.image_size, backbone.image_size, device="meta")
    return _count_operations(lambda: backbone(frame))


def _count_operations(run: Callable[[], object]) -> float:
    """Operations of the convolutions and matrix products that a call makes.

    Attention is computed by plain matrix products while counting, because the fused kernels that torch's counter knows
    differ from version to version.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@torch.inference_mode()
def milliseconds_per_frame(model: MVFormer, config: Config) -> float:
    """Time to embed one frame of a clip of T0 frames on the model's device, from pixels in memory.

    Backbone and pooling are timed on as many frames as a fifth of a second allows, from one to `FRAMES_AT_ONCE`; the
    fusion is timed on the whole clip. Each time is a median without the warm-up call.

    Args:
        model: A model with its backbone; its training mode is left as it was.
        config: `precision` is read.

    Raises:
        ValueError: if the model has no backbone.
    """
    backbone = backbone_of(model)
    device, size = next(model.parameters()).device, backbone.image_size
    precision = backbone.resolve_precision(config.precision)
    pixels = torch.rand(FRAMES_AT_ONCE, 3, size, size, device=device)

    def pool(frames: int) -> None:
        with autocast(precision, device):
            patches, cls = backbone(pixels[:frames])
        pool_features(model, patches, cls)

    length = model.architecture.num_frames
    clip = torch.rand(1, length, model.pooling.entities, model.token_channels, device=device)
    with evaluating(model):
        pooling = _median_seconds(lambda: pool(1), device)
        frames = min(FRAMES_AT_ONCE, int(SECONDS / REPEATS / pooling))
        if frames > 1:
            pooling = _median_seconds(lambda: pool(frames), device) / frames
        fusion = _median_seconds(lambda: model.fuse_tokens(clip, project=False), device) / length
    return 1000 * (pooling + fusion)


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median duration of up to `REPEATS` calls after a warm-up call; fewer if they take long."""
    seconds: list[float] = []
    while len(seconds) <= REPEATS and sum(seconds) < SECONDS or len(seconds) < 2:
        started = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
