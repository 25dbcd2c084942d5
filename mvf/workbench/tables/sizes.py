"""Costs of training on the paper's data sets: frames, GPU hours, size of the bank, money, and the bottleneck."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mvf.config import DATA_FIELDS, VIT_BLOCKS, Config, load_config, make_config

if TYPE_CHECKING:  # the shell's parser reads `Assumptions` without loading torch
    from mvf.cost import Cost

BACKWARD = 3  # operations of forward and backward over those of forward, as usually estimated
VIEWS = 2  # of the paper's objective
PCA = 256  # number of channels that are kept
PATCH, WIDTH = 8, 768  # ViT-B/8, the backbone of all these presets: side of a patch in pixels, channels per layer


@dataclass(frozen=True)
class Data:
    """A training set.

    Attributes:
        name: Common name.
        preset: Preset with the paper's settings.
        videos: Number of training videos.
        frames: Mean length of a video.
        source: Source of both numbers.
    """

    name: str
    preset: str
    videos: int
    frames: float
    source: str


DATA = (
    Data("Penn Action", "penn", 1140, 70, "videos: 16 times Pouring's 70 in the paper's text give 1,120, the "
         "benchmark of the evaluation counts 1,140; frames: the same benchmark's rounded mean"),
    Data("FineGym99", "finegym99", 3150, 240, "videos: 45 times Pouring's 70 in the paper's text; frames: "
         "ESTIMATE, the T of the preset"),
    Data("FineGym288", "finegym288", 3000, 240, "ESTIMATE: about 3,000 videos of 240 frames are the size that the "
         "evaluation is built for; unlabelled events that may be added to the training set are not counted"),
    Data("Kinetics-400", "kinetics400", 240_000, 300, "ESTIMATE: 400 classes of some 600 training clips of 10 s at "
         "30 frames a second; no number in the paper"),
)  # fmt: skip


SIZED = {data.preset: data for data in DATA}  # by the name of the data set


@dataclass(frozen=True)
class Assumptions:
    """Values that are assumed, not measured.

    Attributes:
        teraflops: Peak of one GPU in bfloat16, in 10^12 operations per second.
        utilisation: Share of the peak that is reached.
        dollars: Price of one GPU hour.
        cores: CPU cores of the machine with the GPU.
    """

    teraflops: float = 312.0
    utilisation: float = 0.45
    dollars: float = 2.0
    cores: int = 16

    def __post_init__(self) -> None:
        for name in ("teraflops", "utilisation", "dollars", "cores"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.utilisation > 1:
            raise ValueError(f"utilisation is a share of the peak, at most 1, got {self.utilisation}")

    @property
    def operations(self) -> float:
        """Operations per second that one GPU reaches."""
        return self.teraflops * 1e12 * self.utilisation


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Attributes:
        per_second: Units per second.
        unit: The unit.
        machine, versions, date, command: Where, with what, when and how it was measured.
        load: Load average before the measurement; above 0.5 other processes were running, so the rate is a lower bound.
    """

    per_second: float
    unit: str
    machine: str
    versions: str
    date: str
    load: float
    command: str


def read_rates(path: str | Path) -> dict[str, Rate]:
    """Reads the measured rates of a TOML file, by name.

    Raises:
        ValueError: for a file that is not there or not TOML, or a rate with missing or unknown fields.
    """
    try:
        return {name: Rate(**values) for name, values in tomllib.loads(Path(path).read_text()).items()}
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: give --rates, a file that bench/rates.py wrote") from None
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"{path} does not hold measured rates ({error}): python bench/rates.py writes it") from None


@dataclass(frozen=True)
class Size:
    """The cost of one data set at its preset's settings.

    Attributes:
        data: The data set.
        trained_frames: Frames that pass through the model in all epochs: two views of T frames per video and epoch.
        bank_frames: Frames of the bank: every frame of every video in `bank_views` views.
        frame_operations: Operations of the backbone for one frame.
        trained_operations: Operations of the trained modules for one frame, forward and backward.
        frame_numbers: Numbers that a bank stores for one frame.
        channels: Channels of the bank.
        epochs: Epochs of training.
    """

    data: Data
    trained_frames: float
    bank_frames: float
    frame_operations: float
    trained_operations: float
    frame_numbers: int
    channels: int
    epochs: int

    def seconds_online(self, operations: float) -> float:
        """Seconds of training at a rate in operations per second, if the backbone runs for every clip."""
        return self.trained_frames * (self.frame_operations + self.trained_operations) / operations

    def seconds_banked(self, operations: float) -> float:
        """Seconds of training with a bank, including the time to make it."""
        return (self.bank_frames * self.frame_operations + self.trained_frames * self.trained_operations) / operations

    def gigabytes(self, bytes_a_number: float = 2, channels: int = 0) -> float:
        """Size of the whole bank if `channels` of each patch are kept; 0 keeps all."""
        kept = self.frame_numbers * (channels / self.channels if channels else 1)
        return self.bank_frames * kept * bytes_a_number / 1e9

    def seconds_read(self, megabytes: float, bytes_a_number: float = 2, channels: int = 0) -> float:
        """Seconds to read the frames of all clips of all epochs from disk, at a rate in megabytes per second."""
        return self.gigabytes(bytes_a_number, channels) / self.bank_frames * self.trained_frames * 1000 / megabytes


def size(data: Data) -> Size:
    """Computes the cost of a data set at its preset's settings."""
    from mvf.cost import model_cost

    config = load_config(data.preset)
    cost = model_cost(config)
    channels = WIDTH * len(config.layers)
    return Size(
        data=data,
        trained_frames=config.epochs * data.videos * VIEWS * config.num_frames,
        bank_frames=data.videos * data.frames * config.bank_views,
        frame_operations=cost.backbone_operations,
        trained_operations=BACKWARD * (cost.operations - cost.backbone_operations),
        frame_numbers=(config.image_size // PATCH) ** 2 * channels,
        channels=channels,
        epochs=config.epochs,
    )


def sizes_page(rates: Mapping[str, Rate], assumed: Assumptions, data: Sequence[Data] = DATA) -> str:
    """Writes the page as Markdown."""
    sizes = [size(one) for one in data]
    frame = sizes[0]
    parts = [
        "# What training costs",
        "Made by `python -m mvf sizes`. **No GPU hour below was measured**: they are operations counted / (peak x "
        f"utilisation), assumed {assumed.teraflops:g} teraflops x {assumed.utilisation:g}; the price is assumed, "
        f"{assumed.dollars:g} dollars an hour of one GPU. Settings are the presets' (ViT-B/8 at 224); no evaluation.",
        "## Frames, hours, dollars",
        _table(_HOURS, [_hours(one, rates, assumed) for one in sizes]),
        f"Frames: epochs x videos x {VIEWS} views x T, padding included, as it passes the backbone too. A frame costs "
        f"{frame.frame_operations / 1e9:.0f} x 10^9 operations in the backbone and, forward and backward, "
        f"{frame.trained_operations / 1e9:.1f} x 10^9 in what is trained ({frame.data.name}).",
        "## Bank",
        f"A frame of three layers is 784 patches x 768 channels x 3 layers x 2 bytes = {784 * 768 * 3 * 2 / 1e6:.1f} "
        "MB in bfloat16; sizes are those of every frame in every view of the preset. int8 is counted without its "
        f"scales, and PCA keeps {PCA} of {frame.channels} channels.",
        _table(_BANK, [_bank(one) for one in sizes]),
        "## What limits next",
        _table(_LIMITS, [_limits(one, rates, assumed) for one in sizes]),
        "Decoding: every video is decoded once an epoch, up to the last frame that is used; the rate is that of a "
        "drawn clip of 320 x 240 in H.264, and real or larger footage decodes slower. Reading: every frame of every "
        "clip. A bank that neither fits the memory nor is made smaller takes the hours of reading, and `online` may "
        "be faster.",
        "## Where the numbers are from",
        "\n".join(f"- {one.name}: {one.source}." for one in data),
        _table(["rate", "measured", "machine", "versions", "date, load", "command"], _measured(rates)),
    ]
    return "\n\n".join(parts) + "\n"


_HOURS = ["data", "videos", "epochs", "frames", "GPU hours online (NOT measured)", "GPU hours banked (NOT measured)",
          "dollars online / banked, GPU alone", "hours of the measured machine online, backbone alone"]  # fmt: skip
_BANK = ["data", "frames stored", "GB bfloat16", "GB int8", f"GB PCA-{PCA} bfloat16", f"GB PCA-{PCA} int8"]
_LIMITS = ["data", "frames/s the GPU takes online", "decoding cores wanted online", "MB/s read that a bank wants",
           f"hours to read it at the measured rate: bfloat16 / PCA-{PCA} int8", "limits online",
           "limits banked"]  # fmt: skip


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from mvf.workbench.plotting import Table

    return str(Table(tuple(map(tuple, rows)), tuple(columns)))


def _hours(one: Size, rates: Mapping[str, Rate], assumed: Assumptions) -> list[str]:
    online, banked = (f(assumed.operations) / 3600 for f in (one.seconds_online, one.seconds_banked))
    backbone = rates.get("backbone_vitb8_224_fp32")
    cpu = f"{one.trained_frames / backbone.per_second / 3600:,.0f}" if backbone else "not measured"
    money = f"{online * assumed.dollars:,.0f} / {banked * assumed.dollars:,.0f}"
    counts = [f"{one.data.videos:,}", str(one.epochs), f"{one.trained_frames / 1e6:,.1f} million"]
    return [one.data.name, *counts, f"{online:,.1f}", f"{banked:,.1f}", money, cpu]


def _bank(one: Size) -> list[str]:
    stored = (one.gigabytes(), one.gigabytes(1), one.gigabytes(2, PCA), one.gigabytes(1, PCA))
    return [one.data.name, f"{one.bank_frames / 1e6:,.2f} million", *(f"{value:,.0f}" for value in stored)]


def _limits(one: Size, rates: Mapping[str, Rate], assumed: Assumptions) -> list[str]:
    """Formats the decoding and reading that a GPU at the assumed rate needs, and the bottleneck."""
    online = one.trained_frames / one.seconds_online(assumed.operations)
    decoded = one.epochs * one.data.videos * one.data.frames / one.seconds_online(assumed.operations)
    wanted = assumed.operations / one.trained_operations * one.frame_numbers * 2 / 1e6
    decoder, disk = rates.get("decode_320x240"), rates.get("disk_read")
    cores = decoded / decoder.per_second if decoder else float("nan")
    first = "not measured" if decoder is None else "decoder" if cores > assumed.cores else "GPU"
    second = "not measured" if disk is None else "disk" if wanted > disk.per_second else "GPU"
    cells = [f"{online:,.0f}", f"{cores:,.2f}" if decoder else "not measured", f"{wanted:,.0f}"]
    reading = [one.seconds_read(disk.per_second, *kept) / 3600 for kept in ((2, 0), (1, PCA))] if disk else []
    cells.append(" / ".join(f"{hours:,.0f}" for hours in reading) or "not measured")
    return [one.data.name, *cells, first, second]


def _measured(rates: Mapping[str, Rate]) -> list[list[str]]:
    rows = []
    for name, rate in rates.items():
        alone = "" if rate.load <= 0.5 else " (not alone: a lower bound)"
        measured = f"{rate.per_second:,.2f} {rate.unit}/s{alone}"
        rows.append([name, measured, rate.machine, rate.versions, f"{rate.date}, {rate.load:.1f}", f"`{rate.command}`"])
    return rows


# ----------------------------------------------------------------------------------------------------------------------
# One run on this machine, before it is made.

START = 15.0  # seconds until a notebook has begun
SMALL = 0.3  # share of the backbone's operations per second that the small trained modules reach (`make demo`)
JUDGED = 0.014  # seconds of evaluation per frame beside its features (`make demo`), half of them for localization
# what the operations of a model depend on
MODEL = tuple(
    "backbone image_size layers trainable_blocks pooling entities entity_width entity_id entity_competition "
    "token_width fusion_width fusion_blocks fusion_heads fusion_feedforward positions token_merge readout "
    "embedding_size num_frames velocity motion_offsets features".split()
)
# what a bank depends on
BANK = (*"dataset data_root data_seed data_options fps backbone backbone_weights image_size layers".split(),
        *"crop_area flip jitter jitter_probability blur_probability bank_views bank_dtype bank_channels".split(),
        *"compile engine precision".split())  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a run will take, by operations and frames.

    Attributes:
        seconds: Time on this machine, without making its banks.
        bank_seconds: Time to make its banks, as if nothing were stored yet; 0 where features are not stored.
        gigabytes: Size of its banks.
        bank: Equal for runs that share their banks.
        assumed: Whether the rate is that of `Assumptions`, not of this machine: no GPU is measured.
    """

    seconds: float
    bank_seconds: float
    gigabytes: float
    bank: str
    assumed: bool = False


def estimate(config: Config) -> Estimate:
    """Estimates the time and the banks of one run; of published data sets it takes the numbers of `DATA`."""
    from mvf.device import resolve_device
    from mvf.losses import build_config_loss

    values = config.as_dict()
    cost = _cost(json.dumps({name: values[name] for name in MODEL}))
    videos, train, val = _frames(json.dumps({name: values[name] for name in DATA_FIELDS}))
    seen = config.epochs * videos * build_config_loss(config).views * config.num_frames
    banked = config.features == "banked"
    trained_blocks = 1 + (BACKWARD - 1) * config.trainable_blocks / VIT_BLOCKS
    assumed = resolve_device(config.device).type != "cpu"
    rate = Assumptions().operations if assumed else operations_here(config)
    backbone = cost.backbone_operations / rate  # seconds per frame
    fused = seen * BACKWARD * (cost.operations - cost.backbone_operations) / (SMALL * rate)
    online = (seen * trained_blocks + train + val) * backbone
    judged = JUDGED * (train + val) * (1 if config.localization else 0.5)
    made = (train * config.bank_views + train + val) * backbone
    views, clean = _stored_bytes(config)
    return Estimate(
        seconds=START + fused + judged + (0 if banked else online),
        bank_seconds=made if banked else 0,
        gigabytes=(train * config.bank_views * views + (train + val) * clean) / 1e9 if banked else 0,
        bank=json.dumps({name: values[name] for name in BANK}),
        assumed=assumed,
    )


def duration(seconds: float) -> str:
    """Minutes, or hours from three hours on.

    Example:
        >>> duration(40), duration(5400), duration(100_000)
        ('1 min', '90 min', '28 h')
    """
    return f"{seconds / 3600:,.0f} h" if seconds > 10_800 else f"{max(1, seconds / 60):.0f} min"


def operations_here(config: Config) -> float:
    """Operations of a frozen backbone per second on this CPU, measured once (`mvf env` shows it)."""
    from mvf.models.engine import block_operations, config_compute, measured_rates

    measured, chosen = measured_rates(), config_compute(config)
    return block_operations() / measured.get(chosen, min(measured.values()))


@cache
def _cost(settings: str) -> Cost:
    from mvf.cost import model_cost

    return model_cost(make_config(json.loads(settings)))


@cache
def _frames(settings: str) -> tuple[int, float, float]:
    """Training videos, their frames, and the frames of validation videos, in published data sets as many."""
    from mvf.data import find_config_videos

    config = make_config(json.loads(settings))
    if data := SIZED.get(config.dataset):
        return data.videos, data.videos * data.frames, data.videos * data.frames
    train, val = (find_config_videos(config, split, allow_empty=True) for split in ("train", "val"))
    return len(train), sum(r.num_frames for r in train), sum(r.num_frames for r in val)


def _stored_bytes(config: Config) -> tuple[int, int]:
    """Bytes per frame in the bank of augmented views, and in that of the clean view, which keeps all channels."""
    from mvf.bank_files import row_bytes
    from mvf.cost import backbone_shape

    backbone = backbone_shape(config.backbone, config.image_size, config.layers, config.trainable_blocks)
    patches, cls = backbone.grid[0] * backbone.grid[1], 2 * (backbone.cls_channels or 0)
    views = row_bytes(config.bank_dtype, patches, config.bank_channels or backbone.channels)
    return views + cls, row_bytes("bf16", patches, backbone.channels) + cls
