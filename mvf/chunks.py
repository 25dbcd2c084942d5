"""Embeds long videos chunk by chunk in bounded memory, and keeps the files of their embeddings."""

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
from mvf.files import atomic, explained, locked, short_name
from mvf.models.mvformer import MVFormer

logger = logging.getLogger(__name__)

LEAST_BESIDE = 30  # least number of frame-to-frame changes on each side that a boundary is compared with


@dataclass(frozen=True)
class Chunking:
    """How a video is divided into the chunks that the fusion sees.

    The fusion stretches every chunk onto its position table, so the start and length of a chunk set the positions of
    its frames. A trained model gives one frame two very different embeddings at the end of a chunk and at the start of
    the next, at a distance of 1.1 to 1.4 (a run of preset `synthetic`; 1.41 is a right angle). A cut is a jump of that
    size wherever it lies, and a fade between such distant vectors enlarges the changes in both, up to 1.41 times. With
    `one_clock` a frame has the same position in all chunks. The distance is then 0.6, because the chunks still see
    different frames; after a fade over 200 frames, changes across a boundary are as large as those beside it
    (figures/benchmarks.md, seams).

    Attributes:
        chunk: Frames that the fusion sees at once.
        overlap: Frames that neighbouring chunks share. With 0, as published, the last chunk is shorter; otherwise it
            starts earlier, so that all chunks are equally long.
        fade: Cross-fade the embeddings of the shared frames; by default the cut is in the middle of these frames.
        one_clock: Stretch the whole video onto the position table, instead of every chunk.

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
            raise ValueError(f"fade needs shared frames: give an overlap, like {self.chunk // 2}, or leave fade out")

    def bounds(self, length: int) -> list[tuple[int, int, int, int]]:
        """`chunk_bounds` of a video of `length` frames."""
        return chunk_bounds(length, self.chunk, self.overlap)


@dataclass(frozen=True)
class FusedChunk:
    """The finished embeddings of one chunk.

    Attributes:
        start: The frame of the first embedding.
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
    """Changes where two chunks meet, as distances between unit vectors, 0 to 2.

    Attributes:
        frame: First frame of the later chunk.
        shared: Frames in both chunks.
        disagreement: Mean distance between the two embeddings of a shared frame, NaN without shared frames.
        jump: Mean change from frame to frame across the boundary: over the shared frames, or at the cut.
        peak: Largest of these changes.
        ordinary: Mean change over as many frames beside the boundary (at least 30 a side).
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
    """Turns the pooled tokens of a video, batch by batch, into its embeddings, a chunk at a time.

    At most the tokens of one chunk and one batch are in memory. A frame is finished when no later chunk contains it.

    Args:
        model: A model in eval mode; its `fuse_tokens` is called.
        tokens: (n, N, D) batches without gaps, from the beginning of the first chunk that is needed.
        length: Frames of the video.
        chunking: See `Chunking`.
        start: Number of finished frames, the `stop` of an earlier chunk. The remaining embeddings are bit-identical.
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
    """The changes at every boundary of two chunks, with the ordinary changes around it.

    Args:
        embeddings: (T, E) of a whole video; only the frames near boundaries are read from a memory map.
        chunking: The chunking with which it was embedded.
        disagreement: `FusedChunk.disagreement` of all chunks but the first; by default NaN.
    """
    bounds = chunking.bounds(len(embeddings))
    boundaries = []
    for index, ((_, stop, *_), (start, _, kept, _)) in enumerate(zip(bounds, bounds[1:])):
        shared = stop - start
        # changes into frames `first` to `last` cross the boundary
        first, last = (start, stop) if chunking.fade else (start + kept, start + kept)
        beside = max(LEAST_BESIDE, last - first + 1)
        low, high = max(0, first - 1 - beside), last + 1 + beside
        changes = np.linalg.norm(np.diff(embeddings[low:high], axis=0), axis=1)
        across = np.zeros(len(changes), bool)
        across[first - 1 - low : last - low] = True
        inside, others = changes[across], changes[~across]
        others = others if len(others) else np.array([np.nan])
        apart = np.nan if disagreement is None else disagreement[index]
        boundaries.append(
            ChunkBoundary(start, shared, apart, *map(float, (inside.mean(), inside.max(), others.mean(), others.max())))
        )
    return boundaries


def unit_norm(embeddings: np.ndarray) -> np.ndarray:
    """(T, E) rows of length 1."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _fuse(model: MVFormer, window: Tensor, place: tuple[int, int] | None) -> np.ndarray:
    with torch.inference_mode():
        return model.fuse_tokens(window[None], project=False, place=place).embeddings[0].float().cpu().numpy()


def _weights(bound: tuple[int, int, int, int], length: int, chunking: Chunking) -> np.ndarray:
    """(stop - start,) weights of a chunk's frames: 1 where they are kept, or ramps over `overlap` at both ends.

    Two ramps over the same `overlap` frames have a constant sum, which makes a linear cross-fade.
    """
    start, stop, first, end = bound
    frames = np.arange(stop - start)
    if not chunking.fade:
        return ((frames >= first) & (frames < end)).astype(np.float32)
    rising = frames + 1 if start else np.full_like(frames, chunking.overlap + 1)
    falling = frames[::-1] + 1 if stop < length else np.full_like(frames, chunking.overlap + 1)
    return np.minimum(np.minimum(rising, falling), chunking.overlap + 1).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# Embeddings on disk: one `.npy` per video, which grows chunk by chunk under a hidden name until it is complete.


class EmbeddingFolder:
    """A folder with one `.npy` per video; the folder and every file in it remember which model wrote them.

    Args:
        folder: The folder; it is made if it does not exist.
        model: Fingerprint of the model.
        chunking: The chunking with which videos are embedded.

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
                with self.lock():  # if two models start in a new folder, the second sees the note of the first
                    _write_new(note, self.made_by)
        if note.read_bytes() != self.made_by.encode():
            raise ValueError(
                f"{folder} holds embeddings of another model or chunking, or of an older version of mvf: "
                "choose another folder, or delete it"
            )

    def lock(self) -> AbstractContextManager[object]:
        """The lock that is held while a video is embedded: two processes that fill one folder take turns."""
        return locked(self.folder / ".lock")

    def file(self, record: VideoRecord, features: str) -> EmbeddingFile:
        """The file of a video, which may be incomplete.

        Videos that share a name (names are unique only within a split) have separate files.

        Args:
            record: The video.
            features: Text that changes whenever the backbone's features of the same video may change.
        """
        identity = record.source.identity
        readable, mark = short_name(re.sub(r"[^\w.-]", "_", record.name)), _digest(record.name, identity)[:8]
        made_from = _digest(self.made_by, identity, features, str(record.num_frames))
        return EmbeddingFile(self.folder / f"{readable}-{mark}.npy", made_from, record.num_frames, self.chunking)


class EmbeddingFile:
    """The `.npy` of one video, which grows under a hidden name, with a note beside it that counts its good frames.

    The note is renamed into place after a chunk has reached the disk, so the frames that it counts are there whenever
    the process is killed; what follows them is overwritten. A finished `.npy` keeps a hidden note of what it was made
    from. A file that was made from something else, or that has no note (older versions wrote none), is deleted.

    Args:
        path: Path of the finished file.
        made_from: Text that changes whenever the embeddings may change, so also with model and chunking; a file that
            was made from something else is started over, whatever the note of the folder says.
        length: Frames of the video.
        chunking: The chunking with which it is embedded.

    Attributes:
        frames: How many frames, from the first on, are known to be good.
        disagreement: `FusedChunk.disagreement` of their chunks.
    """

    def __init__(self, path: Path, made_from: str, length: int, chunking: Chunking) -> None:
        self.path, self.made_from, self.length, self.chunking = path, made_from, length, chunking
        self.data, self.note = path.with_name(f".{path.stem}.part"), path.with_name(f".{path.stem}.progress.json")
        self.finished_note = path.with_name(f".{path.stem}.made_from")
        if self.path.exists() and not self._is_finished():
            logger.warning(
                "%s is of another model, chunking or precision, or does not name them: it is made again", path
            )
            path.unlink()
        self.frames, self.disagreement = (length, []) if path.exists() else self._progress()

    def load(self) -> np.ndarray:
        """The finished embeddings as a memory map."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def append(self, chunk: FusedChunk) -> None:
        """Adds the next chunk and notes it.

        Raises:
            OSError: if the disk is full; frames written before stay good.
        """
        assert chunk.start == self.frames, f"frame {self.frames} comes next, not {chunk.start}"
        try:
            if not self.frames:
                self.note.unlink(missing_ok=True)  # it counts frames of the data that is overwritten here
            with open(self.data, "r+b" if self.frames else "wb") as file:
                width = chunk.embeddings.shape[1]
                if self.frames:
                    _read_shape(file)
                    file.seek(self.frames * width * 4, os.SEEK_CUR)
                else:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (self.length, width)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(chunk.embeddings, "<f4").tobytes())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            seen = [*self.disagreement, chunk.disagreement]
            with atomic(self.note) as path:
                path.write_text(json.dumps({"made_from": self.made_from, "frames": chunk.stop, "disagreement": seen}))
        except OSError as error:
            raise OSError(
                f"cannot write {self.data}: {error.strerror or error}; {self.frames} of {self.length} frames are kept: "
                "make room and run the same command again"
            ) from error
        self.frames, self.disagreement = chunk.stop, seen

    def finish(self) -> None:
        """Gives the file its name, and writes its boundaries and what it was made from beside it."""
        if self.path.exists():
            return
        embeddings = np.load(self.data, mmap_mode="r", allow_pickle=False)
        boundaries = boundary_changes(embeddings, self.chunking, self.disagreement[1:])
        write_boundaries(_boundaries_file(self.path), [astuple(boundary) for boundary in boundaries])
        with atomic(self.finished_note) as path:  # before the rename: a kill in between leaves a complete `.part`
            path.write_text(self.made_from)
        os.replace(self.data, self.path)
        self.note.unlink(missing_ok=True)

    def _is_finished(self) -> bool:
        return self.finished_note.exists() and self.finished_note.read_bytes() == self.made_from.encode()

    def _progress(self) -> tuple[int, list[float]]:
        """Frames known to be good, and the disagreement of their chunks."""
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
    """Writes a CSV with one row per boundary, the columns `named` first; without boundaries there is no file."""
    if not rows:
        path.unlink(missing_ok=True)  # left by an earlier call, or by other chunks
        return
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*named, *(field.name for field in fields(ChunkBoundary))], *rows])


def read_boundaries(path: Path) -> list[ChunkBoundary]:
    """The boundaries in the finished embeddings `path`; none for a video of a single chunk."""
    if not _boundaries_file(path).exists():
        return []
    with open(_boundaries_file(path), newline="") as file:
        return [ChunkBoundary(int(row[0]), int(row[1]), *map(float, row[2:])) for row in list(csv.reader(file))[1:]]


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(text)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read_shape(file: IO[bytes]) -> tuple[int, int]:
    """Reads the shape in the header of an `.npy`, up to the beginning of its data."""
    np.lib.format.read_magic(file)
    length, width = np.lib.format.read_array_header_1_0(file)[0]
    return length, width


def _boundaries_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.seams.csv")
