"""Frames of a video piece by piece, in memory that neither its length nor its size decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

PIECE_BYTES = 192 * 2**20  # of pixels in memory: 32 frames of 1920 x 1080, 8 of 3840 x 2160, 2 of 7680 x 4320


def in_pieces(frames: Iterable[np.ndarray], size: int) -> Iterator[Tensor]:
    """uint8 (n, 3, H, W) of a video's (H, W, 3) frames, `size` at a time; of large ones half as many, and so on.

    So a piece takes `PIECE_BYTES` at most (or is one frame), and where `size` is a power of two, pieces meet at its
    multiples. It is a (n, H, W, 3) array seen otherwise: the layout that resizes fastest.
    """
    frames = iter(frames)
    for first in frames:
        while size > 1 and size * first.nbytes > PIECE_BYTES:
            size //= 2
        piece = np.empty((size, *first.shape), first.dtype)
        filled = 0
        for filled, frame in enumerate(chain([first], islice(frames, size - 1)), 1):
            piece[filled - 1] = frame
        del first, frame  # while the piece is used there is nothing beside it
        yield torch.from_numpy(piece[:filled]).permute(0, 3, 1, 2)
        del piece


def joined(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The rows of `parts`, `size` at a time: parts that end at a multiple of it, or at the end.

    Example:
        >>> [len(rows) for rows in joined(torch.zeros(7, 2).split(2), 4)]
        [4, 3]
    """
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= size:
            yield torch.cat(held)
            held.clear()
    if held:
        yield torch.cat(held)
