"""Stored patch features of whole videos, so that a frozen backbone sees every view only once.

A bank is keyed by what its features are made from (backbone, weights, image size, augmentation, precision)
and, video by video, by the pixels; never by the model, its layers or its seed. Each view, layer and class
token is a file of its own, so that all runs on the same data share them and a killed build goes on where
it stopped. Features are bfloat16, memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from mvf.data.augment import Augmentation, derive_seed, evaluation_view
from mvf.data.records import VideoRecord
from mvf.files import atomic, cache_folder
from mvf.models.backbone import Backbone
from mvf.precision import autocast, resolve_precision

logger = logging.getLogger(__name__)
FRAMES_AT_ONCE = 32
ROOM_LEFT = 2**30  # bytes of disk that a bank never takes


class FeatureBank:
    """Features of augmented views (or, without augmentation, of the clean view) of videos.

    Args:
        backbone: The frozen network; its chosen layers are what `read` returns.
        augmentation: One draw per view; None for the clean evaluation view.
        precision: `auto`, `fp32`, `bf16` or `fp16`, in which the backbone computes.
        root: Folder of all banks; by default `$MVF_CACHE/banks`.
    """

    def __init__(
        self,
        backbone: Backbone,
        augmentation: Augmentation | None = None,
        precision: str = "auto",
        root: Path | None = None,
    ) -> None:
        self.backbone, self.augmentation, self.precision = backbone, augmentation, precision
        self.device = next(backbone.parameters()).device
        made_from = {
            "backbone": backbone.timm_name,
            "weights": backbone.weights_sha256,
            "image_size": backbone.image_size,
            "augmentation": augmentation.identity if augmentation else "clean",
            "precision": resolve_precision(precision, self.device),
        }
        self.folder = (root or cache_folder() / "banks") / _digest(json.dumps(made_from, sort_keys=True))
        with atomic(self.folder / "made_from.json") as path:
            path.write_text(json.dumps(made_from, indent=1))
        self._maps: dict[Path, Tensor] = {}

    def predicted_bytes(self, records: Sequence[VideoRecord], views: int) -> int:
        """Bytes that `ensure` would still write."""
        missing = ((r, v, self._missing(r, v)) for r in records for v in range(views))
        return sum(r.num_frames * 2 * sum(self._width(name) for name in names) for r, v, names in missing)

    def ensure(self, records: Sequence[VideoRecord], views: int = 1) -> None:
        """Computes what is missing, under locks, with progress; says the size first.

        Raises:
            OSError: when the disk has no room for it.
        """
        size = self.predicted_bytes(records, views)
        if not size:
            return
        free = shutil.disk_usage(self.folder).free
        logger.info("feature bank %s: %.2f GB to write, %.1f GB free", self.folder, size / 1e9, free / 1e9)
        if size > free - ROOM_LEFT:
            raise OSError(
                f"the feature bank needs {size / 1e9:.1f} GB in {self.folder} and {free / 1e9:.1f} GB are free: "
                'use features="online", fewer bank_views, or a larger disk by $MVF_CACHE'
            )
        total = sum(r.num_frames for r in records for v in range(views) if self._missing(r, v))
        with tqdm(total=total, unit="frame", desc=f"feature bank ({size / 1e9:.2f} GB)") as bar:
            for record in records:
                # a lock a video: runs that make the same bank at once share the work
                folder = self._video_folder(record)
                folder.mkdir(exist_ok=True)
                with FileLock(folder / ".lock"):
                    self._write_video(record, views, bar)

    def read(
        self, record: VideoRecord, view: int = 0, frame_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(T, P, C) bfloat16 patches of the backbone's layers, and (T, C0) class tokens or None."""
        pick = slice(None) if frame_index is None else frame_index
        patches = [self._open(record, view, f"layer{layer:02d}")[pick] for layer in self.backbone.layers]
        cls = None
        if self.backbone.cls_channels:
            cls = self._open(record, view, f"cls{max(self.backbone.layers):02d}")[pick, 0]
        return torch.cat(patches, dim=-1), cls

    # files ------------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        names = [f"layer{layer:02d}" for layer in self.backbone.layers]
        return names + ([f"cls{max(self.backbone.layers):02d}"] if self.backbone.cls_channels else [])

    def _width(self, name: str) -> int:
        """Numbers a frame in file `name`."""
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        return self.backbone.cls_channels if name.startswith("cls") else patches * self._channels

    @property
    def _channels(self) -> int:
        return self.backbone.channels // len(self.backbone.layers)

    def _video_folder(self, record: VideoRecord) -> Path:
        # the name seeds the augmentation, so it belongs to the key
        return self.folder / _digest(f"{record.name}\n{record.source.identity}")

    def _missing(self, record: VideoRecord, view: int) -> list[str]:
        folder = self._video_folder(record)
        return [name for name in self._names() if not (folder / f"view{view}.{name}.sha256").exists()]

    def _write_video(self, record: VideoRecord, views: int, bar: tqdm) -> None:
        """Computes what is missing of a video; it is decoded once for all its views."""
        missing = {view: names for view in range(views) if (names := self._missing(record, view))}
        parts: dict[tuple[int, str], list[Tensor]] = {(view, name): [] for view in missing for name in missing[view]}
        for frames in in_chunks(record, FRAMES_AT_ONCE) if missing else ():
            for view, names in missing.items():
                outputs = self._compute(self._pixels(record, view, frames), names)
                for name in names:
                    parts[view, name].append(outputs[name].to("cpu", torch.bfloat16))
                bar.update(len(frames))
        for (view, name), tensors in parts.items():
            _write_checked(self._video_folder(record) / f"view{view}.{name}", torch.cat(tensors))

    def _compute(self, pixels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Features of (n, 3, S, S) frames by file name, (n, P or 1, C)."""
        layers = sorted({int(name.removeprefix("layer").removeprefix("cls")) for name in names})
        with torch.inference_mode(), autocast(self.precision, self.device):
            patches, cls = self.backbone.intermediates(pixels.to(self.device), layers)
        outputs = {f"layer{layer:02d}": p for layer, p in zip(layers, patches)}
        return outputs if cls is None else outputs | {f"cls{layers[-1]:02d}": cls.unsqueeze(1)}

    def _pixels(self, record: VideoRecord, view: int, frames: Tensor) -> Tensor:
        """(n, 3, S, S) of uint8 (n, 3, H, W) frames; one draw of the augmentation serves all frames of a video."""
        if self.augmentation is None:
            return evaluation_view(frames, self.backbone.image_size)
        return self.augmentation(frames, derive_seed("bank", record.name, view))

    def _open(self, record: VideoRecord, view: int, name: str) -> Tensor:
        """(num_frames, P or 1, C) memory-mapped bfloat16, checked against its checksum when first opened."""
        path = self._video_folder(record) / f"view{view}.{name}"
        if path not in self._maps:
            mark = path.with_name(path.name + ".sha256")
            if mark.exists() and not _is_whole(path):
                logger.warning("%s does not match its checksum: it is made again from %s", path, record.name)
                mark.unlink(missing_ok=True)  # what has no checksum counts as missing
            if not mark.exists():
                self._remake(record, view, path)
            data = np.memmap(path, dtype=np.int16, mode="c")
            shape = (record.num_frames, 1 if name.startswith("cls") else -1, data.size // self._rows(record, name))
            self._maps[path] = torch.from_numpy(data).view(torch.bfloat16).view(shape)
        return self._maps[path]

    def _remake(self, record: VideoRecord, view: int, path: Path) -> None:
        try:
            self.ensure([record], view + 1)
        except (OSError, ValueError) as error:
            raise OSError(f"{path} is missing or damaged and cannot be made again: {error}") from error
        if not _is_whole(path):
            raise OSError(f"{path} was made again and does not match its checksum: see to the disc that it lies on")

    def _rows(self, record: VideoRecord, name: str) -> int:
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        return record.num_frames * (1 if name.startswith("cls") else patches)


class BankStore:
    """What a `VideoDataset` reads in banked mode: videos by index."""

    def __init__(self, bank: FeatureBank, records: Sequence[VideoRecord], views: int) -> None:
        bank.ensure(records, views)
        self.bank, self.records, self.views = bank, records, views

    def read(self, index: int, view: int, frame_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of frames `frame_index` of view `view` of video `index`."""
        return self.bank.read(self.records[index], view, frame_index)


def in_chunks(record: VideoRecord, size: int, start: int = 0) -> Iterator[Tensor]:
    """uint8 (n, 3, H, W) frames of a video from frame `start` on, `size` at a time."""
    frames: list[np.ndarray] = []
    for frame in record.frames(start):
        frames.append(frame)
        if len(frames) == size:
            yield _to_tensor(frames)
            frames = []
    if frames:
        yield _to_tensor(frames)


def _to_tensor(frames: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _write_checked(path: Path, tensor: Tensor) -> None:
    data = tensor.contiguous().view(torch.int16).numpy()
    with atomic(path) as temporary:
        temporary.write_bytes(data)  # tofile says nothing of a full disc
    with atomic(path.with_name(path.name + ".sha256")) as temporary:
        temporary.write_text(hashlib.sha256(data).hexdigest())  # of what was meant, not of what is on the disc


def _is_whole(path: Path) -> bool:
    mark = path.with_name(path.name + ".sha256")
    return path.exists() and _checksum(path) == mark.read_text()


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
