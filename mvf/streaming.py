"""A video of any length through the temporal fusion: chunk after chunk in bounded memory, and what the seams show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

LEAST_BESIDE = 30  # changes on each side of a seam that it is compared with


@dataclass(frozen=True)
class Chunking:
    """How the frames of a video are dealt to the fusion.

    The fusion stretches every clip onto its position table, so the length of a chunk sets its clock, and where it
    begins sets the time. A trained model gives one frame two very different embeddings at the end of a chunk and at the
    start of the next: 1.1 to 1.4 apart (a run of preset `synthetic`; 1.41 is a right angle). A cut is a jump of that
    size wherever it lies, and a fade between vectors so far apart enlarges what changes in both, up to 1.41 times. With
    `one_clock` a frame has one time in all chunks. What still differs is what the chunks see, 0.6 apart; faded over
    200 frames, changes across a seam are those beside it (figures/benchmarks.md, seams).

    Attributes:
        chunk: Frames that the fusion sees at once.
        overlap: Frames that neighbours share. With 0, as published, the last chunk is what remains; otherwise it starts
            earlier, so that all chunks have one length and one clock.
        fade: Pass gradually from chunk to chunk over the shared frames; else cut in their middle.
        one_clock: Stretch the whole video onto the position table, not every chunk.

    Raises:
        ValueError: for an overlap not smaller than the chunk, and a fade without overlap.
    """

    chunk: int = 1000
    overlap: int = 0
    fade: bool = False
    one_clock: bool = False

    def __post_init__(self) -> None:
        if self.chunk < 1 or not 0 <= self.overlap < self.chunk:
            raise ValueError(
                f"chunk must be at least 1 and overlap in [0, chunk), got chunk={self.chunk}, overlap={self.overlap}"
            )
        if self.fade and not self.overlap:
            raise ValueError(f"fade passes over shared frames: give it an overlap, like {self.chunk // 2}, or leave it")

    def bounds(self, length: int) -> list[tuple[int, int, int, int]]:
        """`chunk_bounds` of a video of `length` frames."""
        return chunk_bounds(length, self.chunk, self.overlap)


@dataclass(frozen=True)
class Piece:
    """Finished embeddings.

    Attributes:
        start: Frame of the first.
        embeddings: (n, E) float32, unit norm.
        disagreement: Mean distance between the two embeddings of the frames that this chunk shares with the one
            before it; NaN where there are none.
    """

    start: int
    embeddings: np.ndarray
    disagreement: float

    @property
    def stop(self) -> int:
        return self.start + len(self.embeddings)


@dataclass(frozen=True)
class Seam:
    """What is seen where two chunks meet; distances between unit vectors, 0 to 2.

    Attributes:
        frame: First frame of the later chunk.
        shared: Frames in both chunks.
        disagreement: Mean distance between the two embeddings of a shared frame, NaN without shared frames.
        jump: Mean change from frame to frame across the seam: over the shared frames, or at the cut.
        peak: Largest of these changes.
        ordinary: Mean change over as many frames beside the seam (at least 30 a side).
        ordinary_peak: Largest of those changes.
    """

    frame: int
    shared: int
    disagreement: float
    jump: float
    peak: float
    ordinary: float
    ordinary_peak: float


def chunk_bounds(length: int, chunk: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """(start, stop, first kept, end kept) of every chunk; neighbours split their overlap in the middle.

    Example:
        >>> chunk_bounds(10, 6, 2), chunk_bounds(9, 6, 2)
        ([(0, 6, 0, 5), (4, 10, 1, 6)], [(0, 6, 0, 4), (3, 9, 1, 6)])
        >>> chunk_bounds(9, 6, 0)
        [(0, 6, 0, 6), (6, 9, 0, 3)]
    """
    starts, last = [0], length - chunk if overlap else length - 1
    while starts[-1] + chunk < length:
        starts.append(min(starts[-1] + chunk - overlap, last) if overlap else starts[-1] + chunk)
    spans = [(start, min(start + chunk, length)) for start in starts if start < length]
    cuts = [start + (stop - start) // 2 for (_, stop), (start, _) in zip(spans, spans[1:])]
    edges = [0, *cuts, length]
    return [(start, stop, a - start, b - start) for (start, stop), a, b in zip(spans, edges, edges[1:])]


def chunks_from(bounds: Sequence[tuple[int, int, int, int]], frame: int) -> int:
    """Index of the first chunk that the embeddings from `frame` on depend on.

    Example:
        >>> chunks_from(chunk_bounds(30, 10, 4), 12), chunks_from(chunk_bounds(30, 10, 0), 20)
        (1, 2)
    """
    return next(index for index, (_, stop, *_) in enumerate(bounds) if stop > frame)


def fused_pieces(
    model: torch.nn.Module, tokens: Iterator[Tensor], length: int, chunking: Chunking, start: int = 0
) -> Iterator[Piece]:
    """Pooled tokens of a video, batch by batch -> its embeddings, a chunk at a time.

    No more than the tokens of one chunk and one batch are held. A frame is finished when no later chunk shows it.

    Args:
        model: In eval mode; its `fuse_tokens` is called.
        tokens: (n, N, D) batches without gaps; the first begins where the first chunk needed does.
        length: Frames of the video.
        chunking: See `Chunking`.
        start: Frames already finished, the `stop` of an earlier piece; those from there on are the same to the bit.
    """
    bounds = chunking.bounds(length)
    bounds = bounds[chunks_from(bounds, start) :]
    ends = [first for first, *_ in bounds[1:]] + [length]
    unfinished, before = np.zeros((0, 1), np.float32), None
    for bound, end, window in zip(bounds, ends, token_windows(tokens, bounds)):
        first, stop, *_ = bound
        whole = _fuse(model, window, (first, length) if chunking.one_clock else None)
        sums = _weights(bound, length, chunking)[:, None] * whole
        sums[: len(unfinished)] += unfinished
        finished, unfinished = sums[: end - first], sums[end - first :]
        if first >= start:
            shared = 0 if before is None else max(0, before[0] - first)
            apart = np.linalg.norm(before[1][-shared:] - whole[:shared], axis=1).mean() if shared else np.nan
            yield Piece(first, unit_norm(finished) if chunking.fade else finished, float(apart))
        before = stop, whole


def token_windows(tokens: Iterator[Tensor], bounds: Sequence[tuple[int, int, int, int]]) -> Iterator[Tensor]:
    """The tokens of every chunk, from batches that begin with the first chunk.

    Example:
        >>> batches = iter(torch.arange(10).split(4))
        >>> [window.tolist() for window in token_windows(batches, chunk_bounds(10, 6, 2))]
        [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9]]
    """
    held: list[Tensor] = []
    at = bounds[0][0]  # frame of the first token held
    for start, stop, *_ in bounds:
        while sum(map(len, held)) < stop - at:
            batch = next(tokens, None)
            if batch is None:
                raise ValueError(
                    f"the video ended after {at + sum(map(len, held))} frames, {bounds[-1][1]} were counted: "
                    "it changed while it was read; run again"
                )
            held.append(batch)
        joined = torch.cat(held)[start - at :]
        held, at = [joined], start
        yield joined[: stop - start]


def seam_jumps(embeddings: np.ndarray, chunking: Chunking, disagreement: Sequence[float] | None = None) -> list[Seam]:
    """For every seam the two embeddings of its shared frames, and its jump beside ordinary change.

    Args:
        embeddings: (T, E) of a whole video, a memory map too: only what lies near seams is read.
        chunking: With which it was embedded.
        disagreement: `Piece.disagreement` of all pieces but the first; by default NaN.
    """
    bounds = chunking.bounds(len(embeddings))
    seams = []
    for index, ((_, stop, *_), (start, _, kept, _)) in enumerate(zip(bounds, bounds[1:])):
        shared = stop - start
        first, last = (start, stop) if chunking.fade else (start + kept, start + kept)  # frames that change into
        beside = max(LEAST_BESIDE, last - first + 1)
        low, high = max(0, first - 1 - beside), last + 1 + beside
        changes = np.linalg.norm(np.diff(embeddings[low:high], axis=0), axis=1)
        across = np.zeros(len(changes), bool)
        across[first - 1 - low : last - low] = True
        seam, others = changes[across], changes[~across]
        others = others if len(others) else np.array([np.nan])
        apart = np.nan if disagreement is None else disagreement[index]
        seams.append(Seam(start, shared, apart, *map(float, (seam.mean(), seam.max(), others.mean(), others.max()))))
    return seams


def seam_summary(seams: Sequence[Seam]) -> str:
    """One line on all seams of a video.

    Example:
        >>> seam_summary([Seam(6, 2, 0.5, 0.2, 0.3, 0.1, 0.4)])
        '1 seams: mean change 0.200 across, 0.100 beside; largest 0.300 and 0.400; shared frames 0.500 apart'
    """
    mean = {f.name: np.mean([getattr(seam, f.name) for seam in seams]) for f in fields(Seam)}
    largest = {name: max(getattr(seam, name) for seam in seams) for name in ("peak", "ordinary_peak")}
    return (
        f"{len(seams)} seams: mean change {mean['jump']:.3f} across, {mean['ordinary']:.3f} beside; "
        f"largest {largest['peak']:.3f} and {largest['ordinary_peak']:.3f}; "
        f"shared frames {mean['disagreement']:.3f} apart"
    )


def unit_norm(embeddings: np.ndarray) -> np.ndarray:
    """(T, E) rows of length 1."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _fuse(model: torch.nn.Module, window: Tensor, place: tuple[int, int] | None) -> np.ndarray:
    with torch.inference_mode():
        return model.fuse_tokens(window[None], project=False, place=place).embeddings[0].float().cpu().numpy()


def _weights(bound: tuple[int, int, int, int], length: int, chunking: Chunking) -> np.ndarray:
    """(stop - start,) share that a chunk has in its frames: 1 where it is kept, or ramps over `overlap` at both ends.

    Of two ramps that share `overlap` frames the sum is constant, so it is a linear cross-fade.
    """
    start, stop, first, end = bound
    frames = np.arange(stop - start)
    if not chunking.fade:
        return ((frames >= first) & (frames < end)).astype(np.float32)
    rising = frames + 1 if start else np.full_like(frames, chunking.overlap + 1)
    falling = frames[::-1] + 1 if stop < length else np.full_like(frames, chunking.overlap + 1)
    return np.minimum(np.minimum(rising, falling), chunking.overlap + 1).astype(np.float32)
