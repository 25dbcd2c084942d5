"""The training data set: clips of one video each, as pixels or as stored backbone features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mvf.clip import Clip
from mvf.config import Config
from mvf.data.augment import build_augmentation, derive_seed
from mvf.data.records import VideoRecord, frame_batches
from mvf.data.sampling import Drawn, Sampler, Settings, find_sampler
from mvf.data.video import VideoError

CHUNK = 16  # decoded frames in memory at once
Augment = Callable[[Tensor, int], Tensor]  # (uint8 frames (T, 3, H, W), seed) -> float (T, 3, S, S)
DRAWS = 100  # attempts to draw a clip whose views all have enough valid frames


def collate(clips: Sequence[Clip | RawClip]) -> Clip | RawClip:
    """Joins clips of one video each, all of the same type, into a batch."""
    raw = [clip for clip in clips if isinstance(clip, RawClip)]
    return RawClip.stack(raw) if raw else Clip.stack([clip for clip in clips if isinstance(clip, Clip)])


class FeatureStore(Protocol):
    """Precomputed backbone features of augmented views of every video."""

    views: int

    def read(self, index: int, view: int, frame_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reads patches (T, P, C) and class tokens (T, C0), or None, for the given frames of a stored view."""

    def velocity(self, index: int, frame_index: Tensor) -> Tensor | None:
        """Velocity (..., channels) of the given frames, in any shape, of a video; or None."""


class Needs(Protocol):
    """The requirements of an objective on its clips; see `mvf.losses.objective.Objective`."""

    views: int
    sampler: str
    labels: str
    fewest: int


class VideoDataset(Dataset["Clip | RawClip"]):
    """A data set of clips of one video in V views, each a pure function of (seed, epoch, video, view).

    Items are indexed by `(epoch, index)`, so that every process, worker or resumed run draws the same clip. Without a
    store, frames are decoded and each view is augmented separately; with one, each view reads a different stored view.

    Args:
        records: The videos.
        length: Number of frames of a view, T.
        views: Number of views, V.
        sampler: Name in `mvf.data.sampling.SAMPLERS`.
        fewest: Minimum number of valid frames in every view.
        seed: Seed of the run.
        augmentation: Function of (uint8 frames (T, 3, H, W), seed) -> float (T, 3, S, S); needed without a store.
        store: Stored features, in the order of `records`.
        raw_pixels: If not 0, items are `RawClip`s, and frames of at most this many pixels are augmented on the device.
        **sampling: Other fields of `mvf.data.sampling.Settings`.

    Attributes:
        actions: Sorted names of the videos' actions; `Clip.action` holds indices into it.

    Shape:
        dataset[(epoch, index)] -> Clip (or RawClip) with B = 1; padding has phase -1 and the pixels of the last frame.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        length: int,
        *,
        views: int = 2,
        sampler: str = "views",
        fewest: int = 1,
        seed: int = 1,
        augmentation: Augment | None = None,
        store: FeatureStore | None = None,
        raw_pixels: int = 0,
        **sampling: Any,
    ) -> None:
        if (augmentation is None) == (store is None):
            raise ValueError("a dataset needs either an augmentation (for pixels) or a store (of features)")
        if store is not None and store.views < views:
            raise ValueError(f"{views} different views are needed, the store holds {store.views}; raise bank_views")
        self.records, self.length, self.views, self.seed = records, length, views, seed
        self.settings = Settings(views, **sampling)
        self.sampler, self.fewest = find_sampler(sampler), fewest
        self.augmentation, self.store, self.raw_pixels = augmentation, store, raw_pixels
        self.actions = sorted({record.action for record in records})
        self.has_phases = any("phases" in record.annotations for record in records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: tuple[int, int]) -> Clip | RawClip:
        epoch, index = item
        record = self.records[index]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, record.name, "sampling"))
        frame_index, valid = draw_clip(self.sampler, record, self.length, generator, self.settings, self.fewest)
        clip = Clip(
            frame_index=frame_index[None],
            num_frames=torch.tensor([record.num_frames]),
            valid=valid[None],
            phase=_phase(record, frame_index, valid)[None] if self.has_phases else None,
            action=torch.tensor([self.actions.index(record.action)]),
        )
        if self.store is not None:
            patches, cls = self._features(self.store, index, frame_index, generator)
            return replace(clip, patches=patches, cls=cls, velocity=self.store.velocity(index, frame_index[None]))
        seeds = tuple(derive_seed(self.seed, epoch, record.name, view) for view in range(len(frame_index)))
        assert self.augmentation is not None  # there is no store
        video = self._video(record, frame_index, seeds, self.augmentation)
        if self.raw_pixels or isinstance(video, RawVideo):
            return RawClip(clip, (video,), self.augmentation)
        return replace(clip, frames=video.pixels[None])

    def _video(
        self, record: VideoRecord, frame_index: Tensor, seeds: tuple[int, ...], augmentation: Augment
    ) -> RawVideo | AugmentedVideo:
        """Reads small frames as they are; augments large ones in batches, so that they are never all in memory."""
        distinct, slots = frame_index.unique(return_inverse=True)
        small: list[Tensor] = []
        augmented: list[list[Tensor]] = [[] for _ in seeds]
        for positions, frames in wanted_frames(record, distinct):
            if frames[0, 0].numel() <= self.raw_pixels:
                small.append(frames)
                continue
            for view, seed in enumerate(seeds):
                shown = torch.isin(positions, frame_index[view])
                if shown.any():
                    augmented[view].append(augmentation(frames[shown], seed))
        if small:
            return RawVideo(torch.cat(small), slots, seeds)
        own = [index.unique(return_inverse=True)[1] for index in frame_index]
        return AugmentedVideo(torch.stack([torch.cat(frames)[slot] for frames, slot in zip(augmented, own)]))

    def _features(
        self, store: FeatureStore, index: int, frame_index: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Reads patches (1, V, T, P, C) and class tokens (1, V, T, C0), or None, from different stored views."""
        stored = torch.randperm(store.views, generator=generator)[: len(frame_index)].tolist()
        read = [store.read(index, view, frames) for view, frames in zip(stored, frame_index)]
        cls = [tokens for _, tokens in read if tokens is not None]
        return torch.stack([patches for patches, _ in read])[None], torch.stack(cls)[None] if cls else None


def build_dataset(
    config: Config,
    records: Sequence[VideoRecord],
    needs: Needs,
    store: FeatureStore | None = None,
    raw: bool = False,
) -> VideoDataset:
    """Builds the training data set of a configuration for an objective with `needs`: pixels, or features from a store.

    With `raw`, frames that take no more bytes than their augmented float frames are augmented on the device.
    """
    return VideoDataset(
        records,
        config.num_frames,
        views=needs.views,
        sampler=needs.sampler,
        fewest=needs.fewest,
        seed=config.seed,
        augmentation=None if store is not None else build_augmentation(config),
        store=store,
        raw_pixels=torch.float32.itemsize * config.image_size**2 if raw else 0,
        sampling=config.sampling,
        block_rule=config.block_rule,
        region=config.region,
        overlap=config.overlap,
    )


def draw_clip(
    sampler: Sampler, record: VideoRecord, length: int, generator: torch.Generator, settings: Settings, fewest: int
) -> Drawn:
    """Draws the frames of a clip repeatedly until every view has `fewest` valid frames.

    Raises:
        ValueError: if a video cannot give such a clip; the message names it.
    """
    if min(record.num_frames, length) >= fewest:
        try:
            for _ in range(DRAWS):
                frame_index, valid = sampler.draw(record.num_frames, length, generator, settings, record.phases)
                if valid.sum(-1).min() >= fewest:
                    return frame_index, valid
        except ValueError as error:
            raise ValueError(f"{record.name}: {error}") from None
    raise ValueError(
        f"{record.name} has {record.num_frames} frames, num_frames is {length}, and the objective needs {fewest} in "
        "every view: leave the video out, raise num_frames, or choose another objective"
    )


def _phase(record: VideoRecord, frame_index: Tensor, valid: Tensor) -> Tensor:
    if record.phases is None:
        return torch.full_like(frame_index, -1)
    return torch.from_numpy(record.phases)[frame_index].masked_fill(~valid, -1)


def wanted_frames(record: VideoRecord, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the frames at sorted distinct positions in batches: positions (n,), uint8 (n, 3, H, W); n <= CHUNK."""
    found = 0
    for batch in frame_batches(record.frames_at(wanted.tolist()), CHUNK):
        yield wanted[found : found + len(batch)], batch
        found += len(batch)
    if found < len(wanted):
        raise VideoError(f"{record.name} gave {found} of {len(wanted)} requested frames up to frame {int(wanted[-1])}")


# ----------------------------------------------------------------------------------------------------------------------
# Clips that are augmented on the device, to which each uint8 frame is sent once.
#
# A uint8 frame of S x S pixels takes a quarter of the bytes of its float frame. Frames of more than 4 S x S pixels are
# augmented before they are sent, so that a batch never takes more bytes than its float frames.


@dataclass(frozen=True)
class RawVideo:
    """The frames of one video, and which of them each view shows.

    Attributes:
        frames: (n, 3, H, W) uint8, every needed frame once.
        slots: For each view (T,) indices into `frames`.
        seeds: For each view the seed of its augmentation.
    """

    frames: Tensor
    slots: Tensor
    seeds: tuple[int, ...]

    def views(self, augmentation: Augment, device: torch.device | str) -> Tensor:
        """Returns (V, T, 3, S, S) on `device`; padding repeats a frame, which is augmented once."""
        frames = self.frames.to(device, non_blocking=True)
        shown = []
        for slots, seed in zip(self.slots, self.seeds):
            distinct, places = slots.unique(return_inverse=True)
            distinct, places = (index.to(device, non_blocking=True) for index in (distinct, places))
            shown.append(augmentation(frames[distinct], seed)[places])
        return torch.stack(shown)

    def pin_memory(self) -> RawVideo:
        """Copies to pinned memory, which a GPU can read while the CPU continues."""
        return replace(self, frames=self.frames.pin_memory())


@dataclass(frozen=True)
class AugmentedVideo:
    """The augmented views of one video whose frames are too large to be sent unaugmented.

    Attributes:
        pixels: (V, T, 3, S, S) float.
    """

    pixels: Tensor

    def views(self, augmentation: Augment, device: torch.device | str) -> Tensor:
        """Returns (V, T, 3, S, S) on `device`; the views are augmented already."""
        return self.pixels.to(device, non_blocking=True)

    def pin_memory(self) -> AugmentedVideo:
        """Copies to pinned memory, which a GPU can read while the CPU continues."""
        return AugmentedVideo(self.pixels.pin_memory())


@dataclass(frozen=True)
class RawClip:
    """A batch of clips without pixels, and the videos from which their pixels are made."""

    clip: Clip
    videos: tuple[RawVideo | AugmentedVideo, ...]
    augmentation: Augment

    @property
    def valid(self) -> Tensor:
        """(B, V, T), True where a frame is not padding."""
        return self.clip.valid

    def to(self, device: torch.device | str) -> Clip:
        """Moves the frames to `device` and augments those that are not yet augmented."""
        frames = torch.stack([video.views(self.augmentation, device) for video in self.videos])
        return replace(self.clip, frames=frames).to(device)

    def pin_memory(self) -> RawClip:
        """Copies to pinned memory, which a GPU can read while the CPU continues."""
        videos = tuple(video.pin_memory() for video in self.videos)
        return replace(self, clip=self.clip.pin_memory(), videos=videos)

    @staticmethod
    def stack(clips: list[RawClip]) -> RawClip:
        """Joins clips of one video into a batch."""
        videos = tuple(video for clip in clips for video in clip.videos)
        return RawClip(Clip.stack([clip.clip for clip in clips]), videos, clips[0].augmentation)
