"""A bank as training reads it: the one that a configuration describes, by views that may be renewed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mvf.bank import FeatureBank
from mvf.bank_key import run_settings
from mvf.config import Config
from mvf.data.augment import build_augmentation
from mvf.data.records import VideoRecord
from mvf.models.backbone import Backbone
from mvf.precision import resolve_device, resolve_precision


class BankStore:
    """What a `VideoDataset` reads in banked mode: videos by index; `views` views from `first` on.

    What a worker process has read, and so checked, is known to all others: with views renewed, workers live for as long
    as a view is the oldest, and each would check every file again.
    """

    def __init__(self, bank: FeatureBank, records: Sequence[VideoRecord], views: int, first: int = 0) -> None:
        self.bank, self.records, self.views = bank, records, views
        self._was_read = torch.full((len(records), views), -1).share_memory_()  # the view last read, by place of views
        self.move_to(first)

    def move_to(self, first: int) -> None:
        """Has views `first` to `first + views - 1` computed; of a rolling bank the others make room first."""
        if self.bank.rolling is not None:
            self.bank.keep_only(self.records, first, self.views)
            self._was_read[(self._was_read < first) | (self._was_read >= first + self.views)] = -1
        self.bank.ensure(self.records, self.views, first)

    def read(self, index: int, view: int, frame_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of frames `frame_index` of view `view` of video `index`, as they are stored."""
        record, place = self.records[index], (index, view % self.views)
        if self._was_read[place] == view:
            self.bank.trust(record, view)
        features = self.bank.read_stored(record, view, frame_index)
        self._was_read[place] = view
        return features


def build_bank(config: Config, backbone: Backbone, records: Sequence[VideoRecord]) -> FeatureBank:
    """The bank of augmented views that a configuration trains on: on its device, and compiled where it says so."""
    return FeatureBank(
        backbone,
        build_augmentation(config),
        resolve_precision(config.precision, resolve_device(config.device)),
        dtype=config.bank_dtype,
        channels=config.bank_channels,
        fitted_on=records if config.bank_channels else (),
        rolling=(config.seed, config.bank_renew) if config.bank_renew else None,
        run=run_settings(config) if config.bank_renew else None,
        compiled=config.compile,
    )
