"""From frames to the rows of a bank: one view of a video through the frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvf.bank_basis import sample_frames
from mvf.bank_codec import encode, row_bytes
from mvf.data.augment import Augmentation, derive_seed, evaluation_view
from mvf.data.dataset import wanted_frames
from mvf.data.records import VideoRecord
from mvf.models.backbone import Backbone
from mvf.precision import autocast


@dataclass(frozen=True)
class FeatureMaker:
    """Makes the features of views.

    Attributes:
        backbone: The frozen network.
        augmentation: One draw per view; None for the clean evaluation view.
        precision: In which the backbone computes.
        dtype: Of the rows, see `mvf.bank_codec`.
        seeds: That a view's draw depends on besides video and view.
        compiled: Whether the backbone is to be compiled when it computes.
    """

    backbone: Backbone
    augmentation: Augmentation | None
    precision: str
    dtype: str
    seeds: tuple[int, ...] = ()
    compiled: bool = False

    @property
    def patches(self) -> int:
        """Of a frame."""
        return self.backbone.grid[0] * self.backbone.grid[1]

    def row_bytes(self, name: str, channels: int) -> int:
        """Bytes a frame in file `name`; of patches, `channels` numbers each."""
        if name.startswith("cls"):
            return row_bytes("bf16", 1, self.backbone.cls_channels)
        return row_bytes(self.dtype, self.patches, channels)

    def pixels(self, record: VideoRecord, view: int, frames: Tensor) -> Tensor:
        """(n, 3, S, S) of uint8 (n, 3, H, W) frames; one draw of the augmentation serves all frames of a video."""
        if self.augmentation is None:
            return evaluation_view(frames, self.backbone.image_size)
        return self.augmentation(frames, derive_seed("bank", *self.seeds, record.name, view))

    def rows(self, pixels: Tensor, names: Sequence[str], basis: Tensor | None = None) -> dict[str, np.ndarray]:
        """Rows of bytes of (n, 3, S, S) frames by file name: of each layer, or of all along the directions `basis`."""
        layers = self.backbone.layers
        if basis is None:
            layers = sorted({int(name.removeprefix("layer").removeprefix("cls")) for name in names})
        patches, cls = self._features(pixels, layers)
        stored = {f"layer{layer:02d}": part for layer, part in zip(layers, patches)}
        if basis is not None:
            whole = torch.cat(patches, -1).float()
            reduced = whole @ basis.T.to(whole.device)  # the pixels may lie elsewhere
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
                f"this bank is named for a backbone with compiled={self.compiled}, this one has "
                f"compiled={self.backbone.compiled}: call compile_network() just where the configuration says compile"
            )
        device = next(self.backbone.parameters()).device
        with torch.inference_mode(), autocast(self.precision, device):
            return self.backbone.intermediates(pixels.to(device), layers)
