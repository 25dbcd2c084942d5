"""Embeddings on disk as they are made: one `.npy` a video, grown chunk by chunk, never half-written under its name."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
from filelock import FileLock

from mvf.data.records import VideoRecord
from mvf.files import atomic, explained
from mvf.streaming import Chunking, Piece, Seam, seam_jumps

logger = logging.getLogger(__name__)


class Shards:
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

    def lock(self) -> FileLock:
        """Held while a video is made: two processes that fill one folder take turns."""
        return FileLock(self.folder / ".lock")

    def part(self, record: VideoRecord, features: str) -> Part:
        """What there is of a video; see `Part`.

        Videos of one name (names are unique in a split only) have files of their own.

        Args:
            record: The video.
            features: Changes whenever the backbone's features of the same video may.
        """
        identity = record.source.identity
        readable, mark = re.sub(r"[^\w.-]", "_", record.name), _digest(record.name, identity)[:8]
        made_from = _digest(self.made_by, identity, features, str(record.num_frames))
        return Part(self.folder / f"{readable}-{mark}.npy", made_from, record.num_frames, self.chunking)


class Part:
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

    def append(self, piece: Piece) -> None:
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
        seams = seam_jumps(embeddings, self.chunking, self.disagreement[1:])
        write_seams(_seams_file(self.path), [astuple(seam) for seam in seams])
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


def write_seams(path: Path, rows: Sequence[tuple], named: Sequence[str] = ()) -> None:
    """A CSV of a row a seam, after columns `named`; no file where there are none."""
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier call, or of other chunks
        return
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([[*named, *(field.name for field in fields(Seam))], *rows])


def read_seams(path: Path) -> list[Seam]:
    """What the seams of the finished embeddings `path` show; none for a video of a single chunk."""
    if not _seams_file(path).exists():
        return []
    with open(_seams_file(path), newline="") as file:
        return [Seam(int(row[0]), int(row[1]), *map(float, row[2:])) for row in list(csv.reader(file))[1:]]


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(text)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read_shape(file) -> tuple[int, int]:
    """Shape in the header of an `.npy`; leaves the file at its data."""
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)[0]


def _seams_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.seams.csv")
