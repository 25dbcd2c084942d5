"""Per-frame embeddings of new videos in one file, `.npz` or CSV, for use outside the workbench."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np

from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo, embed
from mvf.files import atomic, hidden_beside
from mvf.models.mvformer import ModelPerAction, MVFormer
from mvf.shards import read_seams, write_seams
from mvf.streaming import Chunking, Seam

ROWS = 1000  # of a CSV held as text at once


def embed_to_file(
    model: MVFormer | ModelPerAction,
    records: Sequence[VideoRecord],
    path: Path,
    chunking: Chunking,
    precision: str = "auto",
) -> dict[str, list[Seam]]:
    """Embeds videos into `path`; what is done is kept in `<path>.parts` until all is, so a killed call goes on.

    Returns:
        The seams of every video that took several chunks, which `<path>.seams.csv` gets too.

    Raises:
        ValueError: for a file that is neither `.npz` nor `.csv`, and when `<path>.parts` is of another model or
            chunking.
    """
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"--out must end in .npz or .csv, got {path}")
    parts = path.with_name(path.name + ".parts")
    embedded = embed(model, records, out=parts, precision=precision, **asdict(chunking))
    write_embeddings(embedded, path)
    seams = {video.name: found for video in embedded if (found := read_seams(Path(video.embeddings.filename)))}
    rows = [(name, *astuple(seam)) for name, found in seams.items() for seam in found]
    write_seams(path.with_name(path.name + ".seams.csv"), rows, ("name",))
    del embedded  # open memory maps would keep their files on some systems
    _delete(parts)
    return seams


def _delete(folder: Path) -> None:
    """Deletes a folder that nobody finds half-deleted under its name; what a kill leaves the next write clears."""
    hidden = hidden_beside(folder)
    shutil.rmtree(hidden, ignore_errors=True)  # of a killed process that had this one's number
    folder.rename(hidden)
    shutil.rmtree(hidden)


def write_embeddings(embedded: Sequence[EmbeddedVideo], path: Path) -> None:
    """Writes `.npz` (one (T, E) array a video) or `.csv` (name, frame, then one column a channel), block by block."""
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:  # savez refuses some names
                for video in embedded:
                    with archive.open(f"{video.name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, video.embeddings)
            return
        with open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "frame", *(f"e{i}" for i in range(embedded[0].embeddings.shape[1]))])
            for video in embedded:
                for start in range(0, len(video.embeddings), ROWS):
                    rows = video.embeddings[start : start + ROWS].tolist()
                    writer.writerows([video.name, t, *row] for t, row in enumerate(rows, start))
