"""Clips augmented where they are trained on: small uint8 frames travel, no frame twice.

A frame of S x S pixels takes a quarter of the bytes of the float frame made of it, one of 4 S x S pixels as many.
Videos of larger frames are augmented beforehand, so that a batch never takes more than one of float frames does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mvf.clip import Clip


@dataclass(frozen=True)
class RawVideo:
    """The frames of one video and what each view shows of them.

    Attributes:
        frames: (n, 3, H, W) uint8, every wanted frame once.
        slots: For each view (T,) places in `frames`.
        seeds: For each view, of its augmentation.
    """

    frames: Tensor
    slots: Tensor
    seeds: tuple[int, ...]

    def views(self, augmentation: Callable[[Tensor, int], Tensor], device: torch.device | str) -> Tensor:
        """(V, T, 3, S, S) on `device`; padding repeats a frame, which is augmented once."""
        frames = self.frames.to(device, non_blocking=True)
        shown = []
        for slots, seed in zip(self.slots, self.seeds):
            distinct, places = slots.unique(return_inverse=True)
            shown.append(augmentation(frames[distinct.to(device)], seed)[places.to(device)])
        return torch.stack(shown)

    def pin_memory(self) -> RawVideo:
        """In memory from which a GPU copies by itself."""
        return replace(self, frames=self.frames.pin_memory())


@dataclass(frozen=True)
class AugmentedVideo:
    """The views of one video whose frames are too large to travel.

    Attributes:
        pixels: (V, T, 3, S, S) float.
    """

    pixels: Tensor

    def views(self, augmentation: Callable[[Tensor, int], Tensor], device: torch.device | str) -> Tensor:
        """(V, T, 3, S, S) on `device`; nothing is left to augment."""
        return self.pixels.to(device, non_blocking=True)

    def pin_memory(self) -> AugmentedVideo:
        """In memory from which a GPU copies by itself."""
        return AugmentedVideo(self.pixels.pin_memory())


@dataclass(frozen=True)
class RawClip:
    """A batch of clips without their pixels, and the videos they are to be made from."""

    clip: Clip
    videos: tuple[RawVideo | AugmentedVideo, ...]
    augmentation: Callable[[Tensor, int], Tensor]

    @property
    def valid(self) -> Tensor:
        """(B, V, T) True where a frame is real."""
        return self.clip.valid

    def to(self, device: torch.device | str) -> Clip:
        """Moves the frames to `device` and augments there what is not yet."""
        frames = torch.stack([video.views(self.augmentation, device) for video in self.videos])
        return replace(self.clip.to(device), frames=frames)

    def pin_memory(self) -> RawClip:
        """In memory from which a GPU copies by itself."""
        videos = tuple(video.pin_memory() for video in self.videos)
        return replace(self, clip=self.clip.pin_memory(), videos=videos)

    @staticmethod
    def stack(clips: list[RawClip]) -> RawClip:
        """Joins clips of one video into a batch."""
        videos = tuple(video for clip in clips for video in clip.videos)
        return RawClip(Clip.stack([clip.clip for clip in clips]), videos, clips[0].augmentation)
