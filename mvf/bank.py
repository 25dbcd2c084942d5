"""Stored patch features of whole videos, so that a frozen backbone sees every view only once.

A bank is keyed by what its features are made from (backbone, weights, image size, augmentation, precision)
and, video by video, by the pixels; never by the model, its layers or its seed. Each view, layer and class
token is a file of its own, so that all runs on the same data share them and a killed build goes on where
it stopped. Features are memory-mapped: bfloat16, or int8 with scales (`mvf.bank_codec`), of all channels or of the
largest directions (`mvf.bank_basis`), which then belongs to the key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from mvf.bank_basis import fit_basis
from mvf.bank_codec import decode
from mvf.bank_files import bfloat16, check_room, digest, growing, is_to_be_made, is_whole, write_checked
from mvf.bank_key import made_from
from mvf.bank_maker import FeatureMaker
from mvf.data.augment import Augmentation
from mvf.data.pieces import in_pieces
from mvf.data.records import VideoRecord
from mvf.files import atomic, cache_folder
from mvf.loading import read_ahead
from mvf.models.backbone import Backbone

logger = logging.getLogger(__name__)
FRAMES_AT_ONCE = 32
TRIES = 3  # of a file that is damaged or gone whenever it was made


class FeatureBank:
    """Features of augmented views (or, without augmentation, of the clean view) of videos.

    Args:
        backbone: The frozen network; its chosen layers are what `read` returns.
        augmentation: One draw per view; None for the clean evaluation view.
        precision: `auto`, `fp32`, `bf16` or `fp16`, in which the backbone computes.
        root: Folder of all banks; by default `$MVF_CACHE/banks`.
        dtype: `bf16`, or `int8` with a scale a frame and channel.
        channels: Directions of the patches that are kept; 0: the channels as they are.
        fitted_on: Training videos, on a sample of which the directions are fitted.
        rolling: Seed and rhythm of a run whose views are renewed, and are its own; None: views are shared and kept.
        run: What else tells that run from others, for the key alone.
        compiled: Whether the backbone will be compiled when it makes features; None: as it is now.
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
        rolling: tuple[int, ...] | None = None,
        run: Mapping[str, Any] | None = None,
        compiled: bool | None = None,
    ) -> None:
        if channels > backbone.channels or channels and not fitted_on:
            raise ValueError(
                f"bank_channels must be at most the {backbone.channels} channels of layers {backbone.layers}, "
                f"got {channels}, and needs training videos to fit on, got {len(fitted_on)}"
            )
        self.backbone, self.dtype, self.channels = backbone, dtype, channels
        self._width = channels or backbone.channels // len(backbone.layers)  # numbers a patch in one file
        self.fitted_on, self.rolling = fitted_on, rolling
        compiled = backbone.compiled if compiled is None else compiled
        self.maker = FeatureMaker(backbone, augmentation, precision, dtype, rolling or (), compiled)
        self.made_from = made_from(self.maker, channels, fitted_on, rolling, run)
        self.folder = (root or cache_folder() / "banks") / digest(json.dumps(self.made_from, sort_keys=True))
        self._basis = self.folder / "basis"
        self._checked: set[Path] = set()  # and not their maps, each of which keeps a file open

    def predicted_bytes(self, records: Sequence[VideoRecord], views: int, first: int = 0, whole: bool = False) -> int:
        """Bytes that `ensure` would still write, or all of a `whole` bank: features, scales, directions; exact."""
        size = sum(
            record.num_frames * self.maker.row_bytes(name, self._width)
            for record in records
            for view in range(first, first + views)
            for name in (self._names() if whole else self._missing(record, view))
        )
        unfitted = bool(self.channels) and (whole or not self._basis.exists())
        return size + unfitted * 4 * self.channels * self.backbone.channels

    def ensure(self, records: Sequence[VideoRecord], views: int = 1, first: int = 0) -> None:
        """Computes what is missing of `views` views from `first` on, under locks, with progress; says the size first.

        Raises:
            OSError: when the disk has no room for it.
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
            # a lock a video: runs that make the same bank at once share the work, and then wait for each other
            for patience in (0, -1):
                left = [(record, n) for record, n in left if not self._make(record, shown, n, bar, patience)]

    def keep_only(self, records: Sequence[VideoRecord], first: int, views: int) -> None:
        """Deletes all views but `views` from `first` on; only a rolling bank, which belongs to one run, may."""
        if self.rolling is None:
            raise ValueError("views of a bank that runs share are never deleted: only those of a rolling one")
        for record in records:
            with self._locked(record):
                for path in self._video_folder(record).glob("view*"):
                    if int(path.name.split(".")[0].removeprefix("view")) not in range(first, first + views):
                        self._checked.discard(path)
                        path.unlink()

    def read(
        self, record: VideoRecord, view: int = 0, frame_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(T, P, C) bfloat16 patches of the backbone's layers, and (T, C0) class tokens or None."""
        patches, cls = self.read_stored(record, view, frame_index)
        return (patches.float() @ self.basis).bfloat16() if self.channels else patches, cls

    def read_stored(
        self, record: VideoRecord, view: int = 0, frame_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same with the channels as they are stored: where there is a `basis`, (T, P, K) along its directions."""
        _ = self.basis  # the files are named after it
        pick = range(record.num_frames) if frame_index is None else frame_index.tolist()
        *names, cls_name = self._names() if self.backbone.cls_channels else (*self._names(), None)
        patches = np.empty((len(pick), self.maker.patches, self._width * len(names)), np.int16)
        for place, name in enumerate(names):
            part = patches[..., place * self._width : (place + 1) * self._width]
            decode(self.dtype, self._open(record, view, name), pick, part)
        if cls_name is None:
            return bfloat16(patches), None
        cls = np.empty((len(pick), 1, self.backbone.cls_channels), np.int16)
        decode("bf16", self._open(record, view, cls_name), pick, cls)
        return bfloat16(patches), bfloat16(cls[:, 0])

    def trust(self, record: VideoRecord, view: int) -> None:
        """Spares the checksums of a view: another process has read it."""
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
        if is_whole(self._basis):  # no lock: the folder may be another's, that is only read
            return
        self._begin()
        with FileLock(self.folder / ".basis.lock"):
            if is_to_be_made(self._basis, "training videos"):
                write_checked(self._basis, fit_basis(self.maker.sample(self.fitted_on), self.channels).numpy())

    def _names(self) -> list[str]:
        names = [f"layer{layer:02d}" for layer in self.backbone.layers]
        if self.channels:
            # views made with directions that are no longer there must not be read with others
            made = self._basis.with_name("basis.sha256")
            names = [f"reduced-{made.read_text()[:8] if made.exists() else 'unfitted'}"]
        return names + ([f"cls{max(self.backbone.layers):02d}"] if self.backbone.cls_channels else [])

    def _video_folder(self, record: VideoRecord) -> Path:
        return self.folder / digest(f"{record.name}\n{record.source.identity}")  # the name seeds the augmentation

    def _view_path(self, record: VideoRecord, view: int, name: str) -> Path:
        return self._video_folder(record) / f"view{view}.{name}"

    def _begin(self) -> None:
        """Makes the folder, with a note of what the features are made from."""
        if not (note := self.folder / "made_from.json").exists():
            with atomic(note) as path:
                path.write_text(json.dumps(self.made_from, indent=1))

    def _locked(self, record: VideoRecord, patience: float = -1) -> FileLock:
        """A lock to enter, which raises Timeout after `patience` seconds, with -1 never."""
        self._begin()
        folder = self._video_folder(record)
        folder.mkdir(exist_ok=True)
        return FileLock(folder / ".lock", timeout=patience)

    def _missing(self, record: VideoRecord, view: int) -> list[str]:
        return [name for name in self._names() if not self._view_path(record, view, f"{name}.sha256").exists()]

    def _make(self, record: VideoRecord, views: Sequence[int], frames: int, bar: tqdm, patience: float) -> bool:
        """Makes what is missing of a video, `frames` when it was counted; False while another process is at it."""
        with suppress(Timeout), self._locked(record, patience):
            end = bar.n + frames
            self._write_video(record, views, bar)
            bar.update(end - bar.n)  # what another has made since
            return True
        return False

    def _write_video(self, record: VideoRecord, views: Sequence[int], bar: tqdm) -> None:
        """Computes what is missing of a video; it is decoded once for all its views, while the piece before is used."""
        missing = {view: names for view in views if (names := self._missing(record, view))}
        if not missing:
            return
        paths = {(view, name): self._view_path(record, view, name) for view in missing for name in missing[view]}
        with growing(paths.values()) as write, closing(read_ahead(in_pieces(record.frames(), FRAMES_AT_ONCE))) as parts:
            for frames in parts:
                for view, names in missing.items():
                    rows = self.maker.rows(self.maker.pixels(record, view, frames), names, self.basis)
                    for name in names:
                        write(paths[view, name], rows[name])
                    bar.update(len(frames))

    def _open(self, record: VideoRecord, view: int, name: str) -> np.ndarray:
        """(num_frames, bytes) memory-mapped rows, checked against their checksum when first opened."""
        path = self._view_path(record, view, name)
        for _ in range(2 * TRIES):  # one to make it, one to check and open it
            if path not in self._checked:
                if is_to_be_made(path, record.name):
                    self._remake(record, view, path)
                    continue
                self._checked.add(path)
            with suppress(FileNotFoundError):  # a run of the same settings deletes views that it is past
                return np.memmap(path, np.uint8, "r").reshape(record.num_frames, -1)
            self._checked.discard(path)
        raise OSError(
            f"{path} was damaged or gone again each of {TRIES} times it was made: check the disk, and let no other run "
            "with the same settings use this bank now; then start again"
        )

    def _remake(self, record: VideoRecord, view: int, path: Path) -> None:
        try:
            self.ensure([record], first=view)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a worker has no GPU
            raise OSError(f"{path} is missing or damaged and cannot be made again: {error}; start again") from error
