"""Clips augmented where they are trained on: uint8 frames travel, a quarter of the bytes and no frame twice."""

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


@dataclass(frozen=True)
class RawClip:
    """A batch of clips without their pixels, and the videos they are to be made from."""

    clip: Clip
    videos: tuple[RawVideo, ...]
    augmentation: Callable[[Tensor, int], Tensor]

    @property
    def valid(self) -> Tensor:
        """(B, V, T) True where a frame is real."""
        return self.clip.valid

    def to(self, device: torch.device | str) -> Clip:
        """Moves the frames to `device` and augments them there."""
        frames = torch.stack([video.views(self.augmentation, device) for video in self.videos])
        return replace(self.clip.to(device), frames=frames)

    def pin_memory(self) -> RawClip:
        """In memory from which a GPU copies by itself."""
        videos = tuple(replace(video, frames=video.frames.pin_memory()) for video in self.videos)
        return replace(self, clip=self.clip.pin_memory(), videos=videos)

    @staticmethod
    def stack(clips: list[RawClip]) -> RawClip:
        """Joins clips of one video into a batch."""
        videos = tuple(video for clip in clips for video in clip.videos)
        return RawClip(Clip.stack([clip.clip for clip in clips]), videos, clips[0].augmentation)
