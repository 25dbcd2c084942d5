"""Stored patch features of whole videos, so that a frozen backbone sees every view only once.

Two runs share a bank when everything its features are computed from is equal: backbone, weights, image size,
augmentation and precision, and for every video its pixels. The model, its layers and its seed do not matter. Each view,
layer and class token has a file of its own, so a killed build resumes where it stopped. Features are memory-mapped:
bfloat16, or int8 with scales (`mvf.bank_files`), either of all channels or of the principal directions of the patches,
which are then a part of the key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from mvf.bank_files import (
    bfloat16,
    check_room,
    decode,
    digest,
    encode,
    growing,
    is_whole,
    needs_writing,
    row_bytes,
    write_checked,
)
from mvf.config import Config
from mvf.data.augment import Augmentation, build_augmentation, derive_seed, evaluation_view
from mvf.data.dataset import wanted_frames
from mvf.data.records import VideoRecord, frame_batches, read_ahead
from mvf.device import autocast, resolve_device
from mvf.files import atomic, cache_folder, locked, note_progress
from mvf.models.backbone import Backbone
from mvf.models.engine import resolve_compute
from mvf.models.motion import velocity_at
from mvf.progress import tqdm

logger = logging.getLogger(__name__)

FRAMES_AT_ONCE = 32
TRIES = 3  # how often a file that is damaged or gone each time is made again


class FeatureBank:
    """Features of augmented views (or, without augmentation, of the clean view) of videos.

    Args:
        backbone: The frozen network; its chosen layers are what `read` returns.
        augmentation: One draw per view; None for the clean evaluation view.
        precision: Precision of the backbone: `auto`, `fp32`, `bf16` or `fp16`.
        root: Folder of all banks; by default `$MVF_CACHE/banks`.
        dtype: `bf16`, or `int8` with a scale per frame and channel.
        channels: Number of principal directions of the patches that are kept; 0: all channels.
        fitted_on: Training videos; the directions are fitted on a sample of their frames.
        compiled: Whether the backbone will be compiled when it makes features; None: as it is now.
        device: Where the backbone will be when it makes features; None: where it is now.
    """

    def __init__(
        self,
        backbone: Backbone,
        augmentation: Augmentation | None = None,
        precision: str = "auto",
        root: Path | None = None,
        *,
        dtype: str = "bf16",
        channels: int = 0,
        fitted_on: Sequence[VideoRecord] = (),
        compiled: bool | None = None,
        device: torch.device | None = None,
    ) -> None:
        if channels > backbone.channels or channels and not fitted_on:
            raise ValueError(
                f"bank_channels must be at most the {backbone.channels} channels of layers {backbone.layers}, "
                f"got {channels}, and needs training videos to fit on, got {len(fitted_on)}"
            )
        self.backbone, self.dtype, self.channels = backbone, dtype, channels
        self._width = channels or backbone.channels // len(backbone.layers)  # numbers per patch in one file
        self.fitted_on = fitted_on
        compiled = backbone.compiled if compiled is None else compiled
        device = device or next(backbone.parameters()).device
        chosen = resolve_compute("torch" if compiled else backbone.engine_on(device), precision, device)
        self.maker = FeatureMaker(backbone, augmentation, chosen.precision, dtype, compiled, chosen.engine)
        self.made_from = made_from(self.maker, channels, fitted_on)
        self.folder = (root or cache_folder() / "banks") / digest(json.dumps(self.made_from, sort_keys=True))
        self._basis = self.folder / "basis"
        self._checked: set[Path] = set()  # not their memory maps, each of which keeps a file open

    def __repr__(self) -> str:
        return f"FeatureBank({self.folder})"

    def predicted_bytes(self, records: Sequence[VideoRecord], views: int, first: int = 0, whole: bool = False) -> int:
        """The exact number of bytes that `ensure` would still write, or that a `whole` bank takes."""
        size = sum(
            record.num_frames * self.maker.row_bytes(name, self._width)
            for record in records
            for view in range(first, first + views)
            for name in (self._names() if whole else self._missing(record, view))
        )
        unfitted = bool(self.channels) and (whole or not self._basis.exists())
        return size + unfitted * 4 * self.channels * self.backbone.channels

    def holds(self, record: VideoRecord, view: int = 0) -> bool:
        """Whether all features of a view of a video are stored."""
        return not self._missing(record, view)

    def ensure(self, records: Sequence[VideoRecord], views: int = 1, first: int = 0) -> None:
        """Computes the missing features of `views` views from `first` on, with locks and progress; logs the size first.

        Raises:
            OSError: if the disk has no room for it.
        """
        if not (size := self.predicted_bytes(records, views, first)):
            return
        logger.info("feature bank %s: %.2f GB to write", self.folder, size / 1e9)
        check_room(self.folder, size)
        if self.channels:
            self._fit()
        shown = range(first, first + views)
        counts = [r.num_frames * sum(bool(self._missing(r, v)) for v in shown) for r in records]
        left = [(record, frames) for record, frames in zip(records, counts) if frames]
        with tqdm(total=sum(counts), unit="frame", desc=f"feature bank ({size / 1e9:.2f} GB)") as bar:
            # one lock per video: runs that make the same bank at once share the work, and then wait for each other
            for patience in (0, -1):
                left = [(record, n) for record, n in left if not self._make(record, shown, n, bar, patience)]

    def read(
        self, record: VideoRecord, view: int = 0, frame_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(T, P, C) bfloat16 patches of the backbone's layers, and (T, C0) class tokens or None."""
        patches, cls = self.read_stored(record, view, frame_index)
        return patches if self.basis is None else (patches.float() @ self.basis).bfloat16(), cls

    def read_stored(
        self, record: VideoRecord, view: int = 0, frame_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Like `read`, but with patches as they are stored: with a `basis`, (T, P, K) along its directions."""
        _ = self.basis  # the files are named after it
        pick = range(record.num_frames) if frame_index is None else frame_index.tolist()
        names, cls_channels = self._names(), self.backbone.cls_channels
        cls_name = names.pop() if cls_channels else ""
        patches = np.empty((len(pick), self.maker.patches, self._width * len(names)), np.int16)
        for place, name in enumerate(names):
            part = patches[..., place * self._width : (place + 1) * self._width]
            decode(self.dtype, self._open(record, view, name), pick, part)
        if not cls_channels:
            return bfloat16(patches), None
        cls = np.empty((len(pick), 1, cls_channels), np.int16)
        decode("bf16", self._open(record, view, cls_name), pick, cls)
        return bfloat16(patches), bfloat16(cls[:, 0])

    def trust(self, record: VideoRecord, view: int) -> None:
        """Skips the checksums of a view, because another process has checked it."""
        self._checked |= {self._view_path(record, view, name) for name in self._names()}

    # directions -------------------------------------------------------------------------------------------------

    @cached_property
    def basis(self) -> Tensor | None:
        """(K, C) float32 orthonormal directions along which patches are stored; None where all channels are."""
        if not self.channels:
            return None
        self._fit()
        return torch.from_numpy(np.fromfile(self._basis, np.float32)).view(self.channels, -1)

    def _fit(self) -> None:
        if is_whole(self._basis):  # no lock: the folder may belong to another user and be read-only
            return
        self._begin()
        with locked(self.folder / ".basis.lock"):
            if needs_writing(self._basis, "training videos"):
                write_checked(self._basis, fit_basis(self.maker.sample(self.fitted_on), self.channels).numpy())

    def _names(self) -> list[str]:
        names = [f"layer{layer:02d}" for layer in self.backbone.layers]
        if self.channels:
            # views made with directions that no longer exist must not be read with others
            made = self._basis.with_name("basis.sha256")
            names = [f"reduced-{made.read_text()[:8] if made.exists() else 'unfitted'}"]
        return names + ([f"cls{max(self.backbone.layers):02d}"] if self.backbone.cls_channels else [])

    def _video_folder(self, record: VideoRecord) -> Path:
        return self.folder / digest(f"{record.name}\n{record.source.identity}")  # the name seeds the augmentation

    def _view_path(self, record: VideoRecord, view: int, name: str) -> Path:
        return self._video_folder(record) / f"view{view}.{name}"

    def _begin(self) -> None:
        """Makes the folder, with a note of what the features are computed from."""
        if not (note := self.folder / "made_from.json").exists():
            with atomic(note) as path:
                path.write_text(json.dumps(self.made_from, indent=1))

    def _locked(self, record: VideoRecord, patience: float) -> AbstractContextManager[object]:
        """The lock of a video, to be entered; see `locked`."""
        self._begin()
        folder = self._video_folder(record)
        folder.mkdir(exist_ok=True)
        return locked(folder / ".lock", patience)

    def _missing(self, record: VideoRecord, view: int) -> list[str]:
        return [name for name in self._names() if not self._view_path(record, view, f"{name}.sha256").exists()]

    def _make(self, record: VideoRecord, views: Sequence[int], frames: int, bar: tqdm, patience: float) -> bool:
        """Makes the missing features of a video (`frames` when counted); False while another process does so."""
        with suppress(Timeout), self._locked(record, patience):
            end = bar.n + frames
            self._write_video(record, views, bar)
            bar.update(end - bar.n)  # frames that another process has made since
            return True
        return False

    def _write_video(self, record: VideoRecord, views: Sequence[int], bar: tqdm) -> None:
        """Computes the missing features of a video, which is decoded once for all its views and one batch ahead."""
        missing = {view: names for view in views if (names := self._missing(record, view))}
        if not missing:
            return
        paths = {(view, name): self._view_path(record, view, name) for view in missing for name in missing[view]}
        with (
            growing(paths.values()) as write,
            closing(read_ahead(frame_batches(record.frames(), FRAMES_AT_ONCE))) as parts,
        ):
            for frames in parts:
                for view, names in missing.items():
                    rows = self.maker.rows(self.maker.pixels(record, view, frames), names, self.basis)
                    for name in names:
                        write(paths[view, name], rows[name])
                    bar.update(len(frames))
                kind = "augmented views" if self.maker.augmentation else "the clean view"
                note_progress(f"feature bank of {kind}, {bar.n:,} of {bar.total:,} frames")

    def _open(self, record: VideoRecord, view: int, name: str) -> np.ndarray:
        """(num_frames, bytes) memory-mapped rows, checked against their checksum when first opened."""
        path = self._view_path(record, view, name)
        for _ in range(2 * TRIES):  # one round makes the file, the next checks and opens it
            if path not in self._checked:
                if needs_writing(path, record.name):
                    self._remake(record, view, path)
                    continue
                self._checked.add(path)
            with suppress(FileNotFoundError):  # somebody is clearing the cache
                return np.memmap(path, np.uint8, "r").reshape(record.num_frames, -1)
            self._checked.discard(path)
        raise OSError(
            f"{path} was damaged or gone again each of {TRIES} times it was made: check the disk, and that "
            "nothing deletes files there; then start again"
        )

    def _remake(self, record: VideoRecord, view: int, path: Path) -> None:
        try:
            self.ensure([record], first=view)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a worker process has no GPU
            raise OSError(f"{path} is missing or damaged and cannot be made again: {error}; start again") from error


# ----------------------------------------------------------------------------------------------------------------------
# The key of a bank.


def made_from(maker: FeatureMaker, channels: int, fitted_on: Sequence[VideoRecord]) -> dict[str, Any]:
    """Everything that the features of a bank are computed from, except the videos, as plain JSON values.

    Settings at their defaults are left out, so that banks made before those settings existed keep their key.
    """
    backbone, augmentation = maker.backbone, maker.augmentation
    made: dict[str, Any] = {
        "backbone": backbone.timm_name,
        "weights": backbone.weights_sha256,
        "image_size": backbone.image_size,
        "augmentation": augmentation.identity if augmentation else "clean",
        "precision": maker.precision,
    }
    if maker.engine != "torch":
        made["engine"] = maker.engine
    if maker.dtype != "bf16":
        made["dtype"] = maker.dtype
    if channels:
        names = digest("\n".join(f"{r.name}\n{r.source.identity}" for r in fitted_on))
        made |= {"channels": channels, "layers": backbone.layers, "fitted_on": names}
    return made | ({"compiled": True} if maker.compiled else {})


# ----------------------------------------------------------------------------------------------------------------------
# The bank as a store for training.


class BankStore:
    """Gives a `VideoDataset` the stored features of `views` views of videos, by index.

    Workers share which files have been checked, so that each file is checked once and not once per worker. Velocity is
    computed over `offsets` frames from the mean patches (T, C) of the clean view of each video, if `means` are given.
    """

    def __init__(
        self,
        bank: FeatureBank,
        records: Sequence[VideoRecord],
        views: int,
        means: Sequence[np.ndarray] | None = None,
        offsets: Sequence[int] = (),
    ) -> None:
        self.bank, self.records, self.views, self.means, self.offsets = bank, records, views, means, offsets
        self._was_read = torch.zeros(len(records), views, dtype=torch.bool).share_memory_()
        bank.ensure(records, views)

    def read(self, index: int, view: int, frame_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of frames `frame_index` of view `view` of video `index`, as they are stored."""
        record = self.records[index]
        if self._was_read[index, view]:
            self.bank.trust(record, view)
        features = self.bank.read_stored(record, view, frame_index)
        self._was_read[index, view] = True
        return features

    def velocity(self, index: int, frame_index: Tensor) -> Tensor | None:
        """(..., C·O) velocity of frames `frame_index` of video `index`; None if training reads none."""
        if self.means is None:
            return None
        found = velocity_at(self.means[index], frame_index.flatten().numpy(), self.offsets)
        return torch.from_numpy(found).view(*frame_index.shape, -1)


def build_bank(config: Config, backbone: Backbone, records: Sequence[VideoRecord]) -> FeatureBank:
    """The bank of augmented views that a configuration trains on."""
    return FeatureBank(
        backbone,
        build_augmentation(config),
        config.precision,
        dtype=config.bank_dtype,
        channels=config.bank_channels,
        fitted_on=records if config.bank_channels else (),
        compiled=config.compile,
        device=resolve_device(config.device),
    )


# ----------------------------------------------------------------------------------------------------------------------
# Features: one view of a video through the frozen backbone.


@dataclass(frozen=True)
class FeatureMaker:
    """Computes the features of one view of a video.

    Attributes:
        backbone: The frozen network.
        augmentation: One draw per view; None for the clean evaluation view.
        precision: Precision of the backbone: `fp32`, `bf16` or `fp16`.
        dtype: Type of the rows, see `mvf.bank_files`.
        compiled: Whether the backbone must be compiled when it computes.
        engine: What computes: `torch` or `openvino`.
    """

    backbone: Backbone
    augmentation: Augmentation | None
    precision: str
    dtype: str
    compiled: bool = False
    engine: str = "torch"

    @property
    def patches(self) -> int:
        """Number of patches of a frame."""
        return self.backbone.grid[0] * self.backbone.grid[1]

    def row_bytes(self, name: str, channels: int) -> int:
        """Bytes per frame in file `name`; a patch has `channels` numbers."""
        if name.startswith("cls") and self.backbone.cls_channels is not None:
            return row_bytes("bf16", 1, self.backbone.cls_channels)
        return row_bytes(self.dtype, self.patches, channels)

    def pixels(self, record: VideoRecord, view: int, frames: Tensor) -> Tensor:
        """(n, 3, S, S) view of uint8 (n, 3, H, W) frames; all frames of a video share one draw of the augmentation."""
        if self.augmentation is None:
            return evaluation_view(frames, self.backbone.image_size)
        return self.augmentation(frames, derive_seed("bank", record.name, view))

    def rows(self, pixels: Tensor, names: Sequence[str], basis: Tensor | None = None) -> dict[str, np.ndarray]:
        """Rows of (n, 3, S, S) frames by file name: of each layer, or of all layers along the directions `basis`."""
        layers: Sequence[int] = self.backbone.layers
        if basis is None:
            layers = sorted({int(name.removeprefix("layer").removeprefix("cls")) for name in names})
        patches, cls = self._features(pixels, layers)
        stored = {f"layer{layer:02d}": part for layer, part in zip(layers, patches)}
        if basis is not None:
            whole = torch.cat(patches, -1).float()
            reduced = whole @ basis.T.to(whole.device)  # the pixels may be on another device
            stored = {name: reduced for name in names if name.startswith("reduced")}
        rows = {name: encode(self.dtype, stored[name]) for name in names if name in stored}
        return rows if cls is None else rows | {f"cls{max(layers):02d}": encode("bf16", cls[:, None])}

    def sample(self, records: Sequence[VideoRecord]) -> Iterator[Tensor]:
        """(n, P, C) patches of a fixed sample of frames of the first view."""
        for record, positions in sample_frames(records):
            for _, frames in wanted_frames(record, positions):
                yield torch.cat(self._features(self.pixels(record, 0, frames), self.backbone.layers)[0], dim=-1)

    def _features(self, pixels: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        if self.compiled != self.backbone.compiled:
            raise ValueError(
                f"this bank belongs to a backbone with compiled={self.compiled}, this one has "
                f"compiled={self.backbone.compiled}: call compile_network() only if the configuration sets compile"
            )
        device = next(self.backbone.parameters()).device
        with torch.inference_mode(), autocast(self.precision, device):
            return self.backbone.intermediates(pixels.to(device), layers)


# ----------------------------------------------------------------------------------------------------------------------
# Fewer channels: the principal directions of the patches, fitted on a sample of the training frames.

FRAMES = 256  # frames in the sample; all patches of each are used


def fit_basis(features: Iterable[Tensor], channels: int) -> Tensor:
    """Fits (channels, C) orthonormal directions to (n, P, C) patches by PCA about zero.

    PCA about zero keeps projection and reconstruction linear, so that a linear pooling (LSTP, mean) can be applied to
    the projected channels without a constant term. scikit-learn's PCA subtracts the mean; here the second moments are
    added up in a stream, since the patches do not fit in memory.

    Example:
        >>> fit_basis([torch.tensor([[[3.0, 0.0], [-2.0, 0.1]]])], 1).abs().round(decimals=1)
        tensor([[1., 0.]])
    """
    moment = sum((x := part.flatten(0, -2).double().cpu()).T @ x for part in features)
    directions = torch.linalg.eigh(moment).eigenvectors  # ascending
    return directions.flip(1)[:, :channels].T.float().contiguous()


def sample_frames(records: Sequence[VideoRecord], count: int = FRAMES) -> list[tuple[VideoRecord, Tensor]]:
    """Draws `count` frames uniformly from all videos: videos with sorted positions, which depend on nothing else."""
    generator = torch.Generator().manual_seed(derive_seed("bank basis", *(record.name for record in records)))
    ends = torch.tensor([record.num_frames for record in records]).cumsum(0)
    drawn = torch.randperm(int(ends[-1]), generator=generator)[:count].sort().values
    video = torch.searchsorted(ends, drawn, right=True)
    starts = ends - torch.tensor([record.num_frames for record in records])
    return [(records[i], drawn[video == i] - starts[i]) for i in video.unique().tolist()]
