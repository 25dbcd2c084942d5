"""Clip-consistent augmentation: random parameters are drawn once for all frames of a view."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2

from mvf.config import Config

BLUR_KERNEL = (5, 9)  # pixels across and down
BLUR_SIGMA = (0.1, 2.0)  # pixels


def derive_seed(*parts: int | str) -> int:
    """Derives a seed in [0, 2^63) from all parts and their types; it is the same on every machine.

    Example:
        >>> derive_seed(1, "squat") == derive_seed(1, "squat"), derive_seed(1, 23) == derive_seed(12, 3)
        (True, False)
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip, color jitter and blur, with the same parameters for all frames of a call.

    The parameters depend only on the frames' height and width and the seed, so calls with the same seed on consecutive
    frames of a video augment it as one clip. Global random state is neither read nor changed.

    Attributes:
        image_size: S, side of the square result in pixels.
        crop_area: Smallest and largest share of the frame's area to keep, in (0, 1]; the aspect ratio is 3/4 to 4/3.
        flip: Probability of a horizontal flip.
        jitter: Strength of brightness, contrast, saturation, hue.
        jitter_probability: Probability of the color jitter.
        blur_probability: Probability of the Gaussian blur.

    Example:
        >>> Augmentation(16)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8), seed=0).shape
        torch.Size([2, 3, 16, 16])
    """

    image_size: int
    crop_area: tuple[float, ...] = (0.8, 1.0)
    flip: float = 0.5
    jitter: tuple[float, ...] = (0.8, 0.8, 0.8, 0.2)
    jitter_probability: float = 0.8
    blur_probability: float = 0.4

    def __post_init__(self) -> None:
        for name, count in (("crop_area", 2), ("jitter", 4)):
            values = tuple(map(float, getattr(self, name)))
            if len(values) != count:
                raise ValueError(f"{name} must be {count} numbers, got {values}")
            object.__setattr__(self, name, values)  # a single type, so that equal settings have equal identities
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area must be two shares with 0 < low <= high <= 1, got {self.crop_area}")
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter must not be negative and its hue at most 0.5, got {self.jitter}")
        for name in ("flip", "jitter_probability", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}")

    @property
    def identity(self) -> str:
        """Everything that the result depends on besides frames and seed, for the key of a feature bank."""
        return f"{self!r} kernel {BLUR_KERNEL} sigma {BLUR_SIGMA}"

    def __call__(self, frames: Tensor, seed: int) -> Tensor:
        """Augments uint8 frames (T, 3, H, W) to float (T, 3, S, S) in [0, 1]."""
        _check_frames(frames)
        with _DrawnFrom(torch.Generator().manual_seed(seed)):
            out = self._transform(frames.contiguous(memory_format=torch.channels_last))
        return out.clamp(0, 1).contiguous()  # the blur's weights sum to 1 only up to rounding

    @cached_property
    def _transform(self) -> v2.Compose:
        # crop first, so that the later steps work on the small picture
        return v2.Compose(
            [
                v2.RandomResizedCrop(self.image_size, scale=self.crop_area, antialias=True),
                v2.RandomHorizontalFlip(self.flip),
                _to_float,
                v2.RandomApply([v2.ColorJitter(*self.jitter)], self.jitter_probability),
                v2.RandomApply([v2.GaussianBlur(self._kernel, BLUR_SIGMA)], self.blur_probability),
            ]
        )

    @property
    def _kernel(self) -> list[int]:
        largest = self.image_size - 1 + self.image_size % 2  # odd, and never larger than the picture
        return [max(1, min(size, largest)) for size in BLUR_KERNEL]


class _DrawnFrom(TorchFunctionMode):
    """Makes torchvision's transforms, which take no generator, draw from one, in this thread and block only."""

    DRAWS = (torch.rand, torch.randint, torch.randperm, Tensor.uniform_)

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        drawn = {"generator": self.generator} if function in self.DRAWS else {}
        return function(*args, **(kwargs or {}), **drawn)


def build_augmentation(config: Config) -> Augmentation:
    """Builds the augmentation that `config` describes."""
    return Augmentation(
        config.image_size,
        config.crop_area,
        config.flip,
        config.jitter,
        config.jitter_probability,
        config.blur_probability,
    )


def evaluation_view(frames: Tensor, image_size: int) -> Tensor:
    """Makes the clean view: uint8 frames (T, 3, H, W) resized to float (T, 3, S, S) in [0, 1], without cropping."""
    _check_frames(frames)
    frames = frames.contiguous(memory_format=torch.channels_last)  # the fast path of uint8 resizing
    return _to_float(v2.functional.resize(frames, [image_size, image_size], antialias=True))


def _to_float(frames: Tensor) -> Tensor:
    return v2.functional.to_dtype(frames.contiguous(), torch.float32, scale=True)


def _check_frames(frames: Tensor) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must be uint8 (T, 3, H, W), got {frames.dtype} {tuple(frames.shape)}")
