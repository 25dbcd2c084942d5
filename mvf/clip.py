"""The tensors of a training batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

INDICES = ("frame_index", "num_frames", "valid", "phase", "action")
SHORTEST_RUN = 3  # frames of a phase that can be learned from: a start, an inside and an end


@dataclass(frozen=True)
class Clip:
    """A batch of B videos in V views of T frames.

    Attributes:
        frame_index: (B, V, T) positions of the frames in their source video, 0-based.
        num_frames: (B,) lengths of the source videos, in frames.
        valid: (B, V, T) True where a frame is real, False where it is padding.
        phase: (B, V, T) phase of each frame, -1 where unlabelled; or None.
        action: (B,) index of each video's action; or None.
        frames: (B, V, T, 3, H, W) float pixels in [0, 1]; or None when features are given.
        patches: (B, V, T, P, C) backbone patch features; or None when frames are given.
        cls: (B, V, T, C0) class token of the backbone; or None.
        velocity: (B, V, T, C·O) differences of the mean patches of the source video around each frame; or None.
    """

    frame_index: Tensor
    num_frames: Tensor
    valid: Tensor
    phase: Tensor | None = None
    action: Tensor | None = None
    frames: Tensor | None = None
    patches: Tensor | None = None
    cls: Tensor | None = None
    velocity: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frame_index.ndim != 3 or self.valid.shape != self.frame_index.shape:
            raise ValueError(
                "frame_index and valid must both be (B, V, T), got "
                f"{tuple(self.frame_index.shape)} and {tuple(self.valid.shape)}"
            )
        if self.num_frames.shape != self.frame_index.shape[:1]:
            raise ValueError(
                f"num_frames must be ({self.frame_index.shape[0]},), one per video, got {tuple(self.num_frames.shape)}"
            )

    def map(self, function: Callable[[Tensor], Tensor]) -> Clip:
        """Applies `function` to every tensor that is present."""
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in present.items() if v is not None})

    def to(self, device: torch.device | str) -> Clip:
        """Moves every tensor to `device`; `host` stays."""
        no_wait = torch.device(device).type == "cuda"  # a copy from there must have arrived before it is read
        return self.map(lambda tensor: tensor.to(device, non_blocking=no_wait))._with_host(self.host)

    @cached_property
    def host(self) -> Clip:
        """The index tensors on the CPU, where values are read, since a read from a GPU waits until its work is done.

        `to` keeps them, otherwise they are fetched in one copy.
        """
        found = {name: tensor for name in INDICES if (tensor := getattr(self, name)) is not None}
        return Clip(**(found if self.valid.device.type == "cpu" else _fetch(found)))

    def _with_host(self, host: Clip) -> Clip:
        self.__dict__["host"] = host  # where cached_property keeps it
        return self

    def one_view(self, view: int) -> Clip:
        """The index tensors of one of the views."""
        one = slice(view, view + 1)
        phase = None if self.phase is None else self.phase[:, one]
        found = Clip(self.frame_index[:, one], self.num_frames, self.valid[:, one], phase, self.action)
        return found if self.valid.device.type == "cpu" else found._with_host(self.host.one_view(view))

    def pin_memory(self) -> Clip:
        """In memory from which a GPU copies by itself."""
        return self.map(Tensor.pin_memory)

    @staticmethod
    def stack(clips: list[Clip]) -> Clip:
        """Joins single-video clips, each with B = 1, into one batch."""
        present = [f.name for f in fields(Clip) if getattr(clips[0], f.name) is not None]
        return Clip(**{name: torch.cat([getattr(c, name) for c in clips]) for name in present})


def _fetch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors of whole numbers to the CPU, as one."""
    joined = torch.cat([tensor.flatten().long() for tensor in tensors.values()]).cpu()
    parts = joined.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape).to(tensor.dtype) for (name, tensor), part in zip(tensors.items(), parts)}


def phase_runs(phases: Sequence[int]) -> list[tuple[int, int]]:
    """First frame and end (exclusive) of every run of one phase from 0 up that has at least `SHORTEST_RUN` frames.

    Example:
        >>> phase_runs([-1, 0, 0, 0, 1, 1, 2, 2, 2, 2])
        [(1, 4), (6, 10)]
    """
    runs, start = [], 0
    for phase, members in groupby(phases):
        stop = start + len(list(members))
        if phase >= 0 and stop - start >= SHORTEST_RUN:
            runs.append((start, stop))
        start = stop
    return runs


def example_clip(videos: int, views: int, frames: int) -> Clip:
    """A clip without pixels whose views all show frames 0, 1, ...: for examples and tests."""
    index = torch.arange(frames).expand(videos, views, frames).clone()
    return Clip(
        frame_index=index,
        num_frames=torch.full((videos,), frames),
        valid=torch.ones_like(index, dtype=torch.bool),
    )
