"""A video of any length through the temporal fusion: chunk after chunk in bounded memory, and what the seams show."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mvf.data.records import VideoRecord
from mvf.files import atomic, explained, locked
from mvf.models.mvformer import MVFormer

logger = logging.getLogger(__name__)

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
class FusedChunk:
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
class ChunkBoundary:
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


def fuse_chunks(
    model: MVFormer, tokens: Iterator[Tensor], length: int, chunking: Chunking, start: int = 0
) -> Iterator[FusedChunk]:
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
    unfinished = np.zeros((0, 1), np.float32)
    before: tuple[int, np.ndarray] | None = None  # end and embeddings of the chunk before
    for bound, end, window in zip(bounds, ends, token_windows(tokens, bounds)):
        first, stop, *_ = bound
        whole = _fuse(model, window, (first, length) if chunking.one_clock else None)
        sums = _weights(bound, length, chunking)[:, None] * whole
        sums[: len(unfinished)] += unfinished
        finished, unfinished = sums[: end - first], sums[end - first :]
        if first >= start:
            apart = np.nan
            if before is not None and (shared := max(0, before[0] - first)):
                apart = np.linalg.norm(before[1][-shared:] - whole[:shared], axis=1).mean()
            yield FusedChunk(first, unit_norm(finished) if chunking.fade else finished, float(apart))
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


def boundary_changes(
    embeddings: np.ndarray, chunking: Chunking, disagreement: Sequence[float] | None = None
) -> list[ChunkBoundary]:
    """For every seam the two embeddings of its shared frames, and its jump beside ordinary change.

    Args:
        embeddings: (T, E) of a whole video, a memory map too: only what lies near seams is read.
        chunking: With which it was embedded.
        disagreement: `FusedChunk.disagreement` of all pieces but the first; by default NaN.
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
        seams.append(
            ChunkBoundary(start, shared, apart, *map(float, (seam.mean(), seam.max(), others.mean(), others.max())))
        )
    return seams


def unit_norm(embeddings: np.ndarray) -> np.ndarray:
    """(T, E) rows of length 1."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _fuse(model: MVFormer, window: Tensor, place: tuple[int, int] | None) -> np.ndarray:
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


# ----------------------------------------------------------------------------------------------------------------------
# Embeddings on disk as they are made: one `.npy` a video, grown chunk by chunk, never half-written under its name.


class EmbeddingFolder:
    """One `.npy` a video in a folder that remembers which model wrote it, as every file there does.

    Args:
        folder: Made where it is not there.
        model: Fingerprint of the model.
        chunking: With which videos are embedded.

    Raises:
        ValueError: when the folder holds embeddings of another model or chunking.
    """

    def __init__(self, folder: Path, model: str, chunking: Chunking) -> None:
        self.folder, self.chunking = folder, chunking
        settings = {"model": model, "chunk": chunking.chunk, "overlap": chunking.overlap}
        if chunking.overlap:
            settings["seams"] = "fade" if chunking.fade else "cut"
        if chunking.one_clock:
            settings["clock"] = "video"
        self.made_by, note = json.dumps(settings), folder / "made_by.json"
        if not note.exists():
            with explained(note):
                folder.mkdir(parents=True, exist_ok=True)
                with self.lock():  # of two models that start in a new folder the second sees the first's note
                    _write_new(note, self.made_by)
        if note.read_bytes() != self.made_by.encode():
            raise ValueError(
                f"{folder} holds embeddings of another model or chunking, or of an older version of mvf: "
                "choose another folder, or delete it"
            )

    def lock(self) -> AbstractContextManager[object]:
        """The lock that is held while a video is embedded: two processes that fill one folder take turns."""
        return locked(self.folder / ".lock")

    def part(self, record: VideoRecord, features: str) -> EmbeddingFile:
        """What there is of a video; see `EmbeddingFile`.

        Videos of one name (names are unique in a split only) have files of their own.

        Args:
            record: The video.
            features: Changes whenever the backbone's features of the same video may.
        """
        identity = record.source.identity
        readable, mark = re.sub(r"[^\w.-]", "_", record.name), _digest(record.name, identity)[:8]
        made_from = _digest(self.made_by, identity, features, str(record.num_frames))
        return EmbeddingFile(self.folder / f"{readable}-{mark}.npy", made_from, record.num_frames, self.chunking)


class EmbeddingFile:
    """A `.npy` under a hidden name that grows by pieces, and beside it how far it is known to be good.

    The note is renamed into place after the piece has reached the disk, so what it counts is there whenever the
    process is killed; what follows in the file is written over. A finished `.npy` keeps a hidden note of what it was
    made from: one of something else, or without a note (older versions wrote none), is deleted here.

    Args:
        path: Of the finished file.
        made_from: Changes whenever the embeddings may, so with model and chunking too, whatever the folder's note says:
            what was made from something else is started over.
        length: Frames of the video.
        chunking: With which it is embedded.

    Attributes:
        frames: That are known to be good, from the first on.
        disagreement: Of their pieces.
    """

    def __init__(self, path: Path, made_from: str, length: int, chunking: Chunking) -> None:
        self.path, self.made_from, self.length, self.chunking = path, made_from, length, chunking
        self.data, self.note = path.with_name(f".{path.stem}.part"), path.with_name(f".{path.stem}.progress.json")
        self.finished_note = path.with_name(f".{path.stem}.made_from")
        if self.path.exists() and not self._is_finished():
            logger.warning(
                "%s is of another model, chunking or precision, or does not say of which: it is made again", path
            )
            path.unlink()
        self.frames, self.disagreement = (length, []) if path.exists() else self._progress()

    def load(self) -> np.ndarray:
        """The finished embeddings as a memory map."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def append(self, piece: FusedChunk) -> None:
        """Adds the next piece and notes it.

        Raises:
            OSError: when the disk is full; what was there before stays good.
        """
        assert piece.start == self.frames, f"frame {self.frames} comes next, not {piece.start}"
        try:
            if not self.frames:
                self.note.unlink(missing_ok=True)  # it counts frames of what is written over here
            with open(self.data, "r+b" if self.frames else "wb") as file:
                width = piece.embeddings.shape[1]
                if self.frames:
                    _read_shape(file)
                    file.seek(self.frames * width * 4, os.SEEK_CUR)
                else:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (self.length, width)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(piece.embeddings, "<f4").tobytes())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            seen = [*self.disagreement, piece.disagreement]
            with atomic(self.note) as path:
                path.write_text(json.dumps({"made_from": self.made_from, "frames": piece.stop, "disagreement": seen}))
        except OSError as error:
            raise OSError(
                f"cannot write {self.data}: {error.strerror or error}; {self.frames} of {self.length} frames are kept: "
                "make room and run the same again"
            ) from error
        self.frames, self.disagreement = piece.stop, seen

    def finish(self) -> None:
        """Gives the file its name, and writes beside it what its seams show and what it was made from."""
        if self.path.exists():
            return
        embeddings = np.load(self.data, mmap_mode="r", allow_pickle=False)
        seams = boundary_changes(embeddings, self.chunking, self.disagreement[1:])
        write_boundaries(_seams_file(self.path), [astuple(seam) for seam in seams])
        with atomic(self.finished_note) as path:  # before the name: a kill between them leaves a whole part
            path.write_text(self.made_from)
        os.replace(self.data, self.path)
        self.note.unlink(missing_ok=True)

    def _is_finished(self) -> bool:
        return self.finished_note.exists() and self.finished_note.read_bytes() == self.made_from.encode()

    def _progress(self) -> tuple[int, list[float]]:
        """Frames known to be good, and the disagreement of their pieces."""
        try:
            note = json.loads(self.note.read_text())
            with open(self.data, "rb") as file:
                shape = _read_shape(file)
                there = (os.fstat(file.fileno()).st_size - file.tell()) // (4 * shape[1])
        except (OSError, ValueError):
            return 0, []
        good = note.get("made_from") == self.made_from and shape[0] == self.length and there >= note["frames"]
        return (note["frames"], note["disagreement"]) if good else (0, [])


def write_boundaries(path: Path, rows: Sequence[tuple], named: Sequence[str] = ()) -> None:
    """A CSV of a row a seam, after columns `named`; no file where there are none."""
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier call, or of other chunks
        return
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([[*named, *(field.name for field in fields(ChunkBoundary))], *rows])


def read_boundaries(path: Path) -> list[ChunkBoundary]:
    """What the seams of the finished embeddings `path` show; none for a video of a single chunk."""
    if not _seams_file(path).exists():
        return []
    with open(_seams_file(path), newline="") as file:
        return [ChunkBoundary(int(row[0]), int(row[1]), *map(float, row[2:])) for row in list(csv.reader(file))[1:]]


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(text)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read_shape(file: IO[bytes]) -> tuple[int, int]:
    """Shape in the header of an `.npy`; leaves the file at its data."""
    np.lib.format.read_magic(file)
    length, width = np.lib.format.read_array_header_1_0(file)[0]
    return length, width


def _seams_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.seams.csv")
