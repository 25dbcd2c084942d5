"""Embeddings of whole videos: each video is embedded alone and without padding (paper, section 4)."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvf.bank import FRAMES_AT_ONCE, FeatureBank
from mvf.chunks import (
    Chunking,
    EmbeddingFolder,
    FusedChunk,
    chunks_from,
    fuse_chunks,
    read_boundaries,
    write_boundaries,
)
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord, frame_batches, joined, read_ahead
from mvf.device import autocast
from mvf.files import allow_open_files, atomic, check_output, hidden_beside
from mvf.models.backbone import Backbone
from mvf.models.motion import velocity_at
from mvf.models.mvformer import FrameEmbedder, MVFormer
from mvf.models.stored import checksum
from mvf.progress import tqdm


@dataclass(frozen=True)
class EmbeddedVideo:
    """One video as a sequence of vectors.

    Attributes:
        name: Name of the video.
        action: Class of the whole video.
        embeddings: (T, E) float32, unit norm.
        phases: (T,) integers, -1 where unlabelled; None without labels.
        numbers: (T,) number in the file of each row's frame; None: 0, 1, ..., T - 1.
    """

    name: str
    action: str
    embeddings: np.ndarray
    phases: np.ndarray | None
    numbers: np.ndarray | None = None

    def __repr__(self) -> str:
        size = " frames of ".join(map(str, self.embeddings.shape))
        known = 0 if self.phases is None else len(np.unique(self.phases[self.phases >= 0]))
        labels = f"{known} phase{'s' * (known != 1)}" if known else "no phases"
        return f"EmbeddedVideo({self.name!r}: {self.action or 'no action'}, {size} numbers, {labels})"

    def number(self, row: int) -> int:
        """The number in the file of a row's frame."""
        return row if self.numbers is None else int(self.numbers[row])


def embed(
    model: FrameEmbedder,
    records: Sequence[VideoRecord],
    out: str | Path | None = None,
    chunk: int = 1000,
    overlap: int = 0,
    cache: FeatureBank | None = None,
    precision: str = "auto",
    fade: bool = False,
    one_clock: bool = False,
    bank: bool = True,
) -> list[EmbeddedVideo]:
    """Embeds every frame of every video; apart from the result, memory does not grow with the length of a video.

    A motion skip (`MVFormer.motion`) needs the mean over the video, and velocity as input its later frames: then memory
    grows by a mean patch a frame, with velocity by its pooled tokens too, and a video that was stopped in the middle is
    read from its beginning again.

    Args:
        model: Trained model; it is used in eval mode, and its own mode is restored.
        records: The videos.
        out: Folder that gets one `.npy` per video, chunk by chunk. The list then holds memory maps, and a second call
            with the same model resumes where the first stopped, even inside a video, with bit-identical results.
            Embeddings of another precision, or from other stored features, are computed again; a video that has changed
            gets a new file, and videos with the same name have separate files. A video of several chunks gets a
            `.seams.csv` (`mvf.chunks.ChunkBoundary`).
        chunk: Frames that the temporal fusion sees at once.
        overlap: Frames that neighbouring chunks share. With 0, as published, the last chunk is shorter, so that its
            positions advance faster; otherwise it starts earlier, so that all chunks are equally long.
        cache: Bank of the clean view, from which backbone features are read and to which missing ones are added.
        precision: Precision of the backbone: `auto`, `fp32`, `bf16`, `fp16`.
        fade: Cross-fade neighbouring chunks over the shared frames; by default each keeps its half of them.
        one_clock: Count positions from the start of the video; by default, as published, from the start of each chunk.
        bank: Without `cache`, read the features of videos that the bank in `$MVF_CACHE` holds already, as training with
            `features="banked"` leaves it; nothing is added. It holds bfloat16: the unit embeddings of a demo run move
            by at most 0.002 from those that are computed. False computes all.

    Raises:
        ValueError: if `overlap` is not smaller than `chunk`, or `out` holds embeddings of another model.
        OSError: if there are more videos than files that may be open at once.
    """
    chunking = Chunking(chunk, overlap, fade, one_clock)
    folder = None
    if out is not None:
        allow_open_files(len(records))
        folder = EmbeddingFolder(Path(out), fingerprint(model), chunking)
    if cache is not None:
        cache.ensure(records)
    frames = sum(record.num_frames for record in records)
    embedded = []
    with tqdm(total=frames, unit="frame", desc="embedding", disable=len(records) < 2 and frames <= chunk) as bar:
        for record in records:
            own = model.of(record.action)
            stored = cache or (stored_bank(own, record, precision) if bank else None)
            work = (own, record, chunking, stored, precision)
            if folder is None:
                embeddings = np.concatenate([_counted(chunk, bar).embeddings for chunk in embed_chunks(*work)])
            else:
                embeddings = _embed_to_disk(folder, *work, bar)
            embedded.append(EmbeddedVideo(record.name, record.action, embeddings, record.phases, record.frame_numbers))
    return embedded


def stored_bank(model: MVFormer, record: VideoRecord, precision: str = "auto") -> FeatureBank | None:
    """The bank of the clean view in `$MVF_CACHE` if it holds all that `model` reads of a video, else None."""
    if model.backbone is None or model.backbone.trained_parts:
        return None
    bank = FeatureBank(model.backbone, None, precision)
    return bank if bank.holds(record) else None


def embed_chunks(
    model: MVFormer,
    record: VideoRecord,
    chunking: Chunking,
    cache: FeatureBank | None = None,
    precision: str = "auto",
    start: int = 0,
) -> Iterator[FusedChunk]:
    """Yields the embeddings of a video chunk by chunk, from frame `start` (the end of an earlier chunk) on."""
    length = record.num_frames
    if not length:
        raise ValueError(f"{record.name} has no frames: leave it out")
    if model.motion is not None:
        means: list[np.ndarray] = []
        batches = _tokens(model, record, cache, precision, 0, means)
        with evaluating(model):
            chunks = list(fuse_chunks(model, batches, length, chunking))
        whole = add_motion(model, np.concatenate([c.embeddings for c in chunks]), np.concatenate(means)[:length])
        yield from (replace(c, embeddings=whole[c.start : c.stop]) for c in chunks if c.start >= start)
        return
    first, *_ = chunking.bounds(length)[chunks_from(chunking.bounds(length), start)]
    batches = _tokens(model, record, cache, precision, first)
    with evaluating(model):
        yield from fuse_chunks(model, batches, length, chunking, start)


def add_motion(model: MVFormer, embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(T, E) embeddings of a whole clip and (T, C) its mean patches -> (T, E) with the model's motion skip, if any."""
    return embeddings if model.motion is None else model.motion.add_to(embeddings, mean)


def add_velocity(model: MVFormer, tokens: Tensor, mean: np.ndarray, frames: np.ndarray | None = None) -> Tensor:
    """Tokens (n, N, D) of `frames` (by default all) of a clip with mean patches (T, C) -> those that the model reads.

    With velocity as input these are (n, N, D + C·O); differences stay within the clip, in the order in which it is fed.
    """
    if not model.velocity_width:
        return tokens
    frames = np.arange(len(mean)) if frames is None else frames
    velocity = torch.from_numpy(velocity_at(mean, frames, model.architecture.velocity_offsets))
    with torch.inference_mode():
        return model.with_velocity(tokens[None], velocity[None].to(tokens.device))[0]


def _tokens(
    model: MVFormer,
    record: VideoRecord,
    cache: FeatureBank | None,
    precision: str,
    first: int,
    means: list[np.ndarray] | None = None,
) -> Iterator[Tensor]:
    """Tokens (n, N, D) from frame `first` on as the fusion reads them, bit-identical whatever `first` is.

    Mean patches (n, C) are appended to `means`. With velocity, all frames are pooled before the first is returned.
    """
    if not model.velocity_width:
        yield from _pooled(model, record, cache, precision, first, means)
        return
    means = [] if means is None else means
    tokens = torch.cat([*_pooled(model, record, cache, precision, 0, means)])[: record.num_frames]
    mean = np.concatenate(means)[: len(tokens)]
    for start in range(first, len(tokens), FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, len(tokens))
        yield add_velocity(model, tokens[start:stop], mean, np.arange(start, stop))


def _pooled(
    model: MVFormer,
    record: VideoRecord,
    cache: FeatureBank | None,
    precision: str,
    first: int,
    means: list[np.ndarray] | None,
) -> Iterator[Tensor]:
    """Like `_tokens`, without velocity."""
    skipped = first % FRAMES_AT_ONCE
    for patches, cls in _feature_chunks(model, record, cache, precision, first - skipped):
        if means is not None:
            means.append(mean_patch(patches))
        with torch.inference_mode():
            tokens = pool_features(model, patches, cls)[skipped:]
        yield tokens  # not inside: a generator kept alive by a traceback would leave its caller without gradients
        skipped = 0


def _embed_to_disk(
    folder: EmbeddingFolder,
    model: MVFormer,
    record: VideoRecord,
    chunking: Chunking,
    cache: FeatureBank | None,
    precision: str,
    bar: tqdm,
) -> np.ndarray:
    """The embeddings of a video as a memory map; missing ones are computed."""
    with folder.lock():
        if cache is None:
            numbers = _numbers(backbone_of(model), precision)
        else:
            numbers = cache.folder.name  # digest of everything that a bank is computed from
        file = folder.file(record, numbers)
        bar.update(file.frames)
        if file.frames < file.length:
            for chunk in embed_chunks(model, record, chunking, cache, precision, file.frames):
                file.append(_counted(chunk, bar))
        file.finish()
        return file.load()


def _numbers(backbone: Backbone, precision: str) -> str:
    """Names the arithmetic of features, which the last digits of embeddings depend on."""
    engine = backbone.engine_on(backbone.mean.device)
    return backbone.resolve_precision(precision) + ("" if engine == "torch" else f"-{engine}")


def _counted(chunk: FusedChunk, bar: tqdm) -> FusedChunk:
    bar.update(len(chunk.embeddings))
    return chunk


@torch.inference_mode()
def pool_video(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None = None, precision: str = "auto"
) -> Tensor:
    """(T, N, D) tokens of all frames, with velocity where the model reads it; memory does not grow with the patches."""
    with evaluating(model):
        return torch.cat([*_tokens(model, record, cache, precision, 0)])


def fuse_video(model: MVFormer, tokens: Tensor, chunk: int = 1000, overlap: int = 0, **seams: bool) -> np.ndarray:
    """(T, N, D) of `pool_video` -> (T, E) unit-norm embeddings, `chunk` frames at a time; `seams`: see `Chunking`.

    A motion skip is not added: see `add_motion`.
    """
    with evaluating(model):
        chunks = fuse_chunks(model, iter([tokens]), len(tokens), Chunking(chunk, overlap, **seams))
        return np.concatenate([chunk.embeddings for chunk in chunks])


def embed_features(
    model: MVFormer, patches: Tensor, cls: Tensor | None = None, chunk: int = 1000, overlap: int = 0
) -> np.ndarray:
    """(T, P, C) backbone features of a video -> (T, E) unit-norm embeddings."""
    mean = mean_patch(patches)
    with torch.inference_mode(), evaluating(model):
        tokens = add_velocity(model, pool_features(model, patches, cls), mean)
    return add_motion(model, fuse_video(model, tokens, chunk, overlap), mean)


def mean_patches(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None = None, precision: str = "auto"
) -> np.ndarray:
    """(T, C) float32 mean patch of every frame of the clean view; memory does not grow with the patches."""
    return np.concatenate([mean_patch(patches) for patches, _ in _feature_chunks(model, record, cache, precision)])


def mean_patch(patches: Tensor) -> np.ndarray:
    """(T, P, C) patches -> (T, C) float32."""
    return patches.float().cpu().mean(dim=1).numpy()


def video_features(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None = None, precision: str = "auto"
) -> tuple[Tensor, Tensor | None]:
    """(T, P, C) patches and (T, C0) class tokens (or None) of the clean view, float32 on the CPU."""
    chunks = list(_feature_chunks(model, record, cache, precision))
    patches = torch.cat([p.float().cpu() for p, _ in chunks])
    classes = [cls.float().cpu() for _, cls in chunks if cls is not None]
    return patches, torch.cat(classes) if classes else None


def backbone_of(model: FrameEmbedder) -> Backbone:
    """The backbone of a model.

    Raises:
        ValueError: if it has none.
    """
    if model.backbone is None:
        raise ValueError(
            "this model came without a backbone: name one, e.g. load_official_checkpoint(path, backbone_weights='')"
        )
    return model.backbone


@contextmanager
def evaluating(model: torch.nn.Module | FrameEmbedder) -> Iterator[None]:
    """Puts a model in eval mode inside the block, and restores its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def pool_features(model: MVFormer, patches: Tensor, cls: Tensor | None = None) -> Tensor:
    """(T, P, C), (T, C0) features of a video -> (T, N, D) tokens, on the model's device."""
    device = next(model.parameters()).device
    cls = None if cls is None else cls[None].to(device).float()
    return model.pool(patches[None].to(device).float(), cls)[0][0]


def _feature_chunks(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None, precision: str, first: int = 0
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Features of the clean view from frame `first` on, `FRAMES_AT_ONCE` at a time, from the bank or the backbone."""
    if cache is not None:
        for frames in torch.arange(first, record.num_frames).split(FRAMES_AT_ONCE):
            yield cache.read(record, frame_index=frames)
        return
    backbone = backbone_of(model)
    device, precision = backbone.mean.device, backbone.resolve_precision(precision)
    # map, unlike a loop, frees large frames before the next ones are decoded
    resize = partial(evaluation_view, image_size=backbone.image_size)
    views = joined(map(resize, frame_batches(record.frames(first), FRAMES_AT_ONCE)), FRAMES_AT_ONCE)
    with closing(read_ahead(views)) as batches:
        for pixels in batches:
            with torch.inference_mode(), evaluating(backbone), autocast(precision, device):
                patches, cls = backbone(pixels.to(device))
            yield patches, cls


def fingerprint(model: FrameEmbedder) -> str:
    """sha256 of everything that embeddings depend on: the trained weights and the settings of `_description`."""
    described = json.dumps(
        {action: _description(model.of(action)) for action in model.actions or ("",)}, sort_keys=True
    )
    weights = checksum({name: tensor.detach().cpu().contiguous() for name, tensor in model.trained_state().items()})
    return hashlib.sha256(f"{described}\n{weights}".encode()).hexdigest()


def _description(model: MVFormer) -> list:
    """Architecture and backbone, without the path of the backbone's weights, which may move."""
    network = model.backbone
    given = network and [network.timm_name, network.weights_sha256, network.image_size, list(network.layers)]
    return [model.architecture.as_dict(), given]


# ----------------------------------------------------------------------------------------------------------------------
# Export of per-frame embeddings to one file, `.npz` or CSV.

ROWS = 1000  # rows of a CSV that are held as text at once


def embed_to_file(
    model: FrameEmbedder,
    records: Sequence[VideoRecord],
    path: Path,
    chunking: Chunking,
    precision: str = "auto",
    bank: bool = True,
) -> None:
    """Embeds videos into `path`; finished videos are kept in `<path>.parts` until all are done, so a call can resume.

    The chunk boundaries of videos of several chunks go to `<path>.seams.csv`. `bank`: see `embed`.

    Raises:
        ValueError: for a file that is neither `.npz` nor `.csv`, and if `<path>.parts` belongs to another model or
            chunking.
    """
    check_export(path)
    parts = path.with_name(path.name + ".parts")
    embedded = embed(model, records, out=parts, precision=precision, bank=bank, **asdict(chunking))
    write_embeddings(embedded, path)
    files = [(video.name, video.embeddings.filename) for video in embedded if isinstance(video.embeddings, np.memmap)]
    rows = [(name, *astuple(found)) for name, file in files for found in read_boundaries(Path(str(file)))]
    write_boundaries(path.with_name(path.name + ".seams.csv"), rows, ("name",))
    del embedded  # on some systems open memory maps keep deleted files
    _delete(parts)


def check_export(path: Path) -> None:
    """Raises ValueError for a file that is neither `.npz` nor `.csv`, OSError if its folder cannot be written."""
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"--out must end in .npz or .csv, got {path}")
    check_output(path)


def _delete(folder: Path) -> None:
    """Renames a folder to a hidden name, then deletes it; after a kill, the next write there deletes the rest."""
    hidden = hidden_beside(folder)
    shutil.rmtree(hidden, ignore_errors=True)  # left by a killed process with the same number
    folder.rename(hidden)
    shutil.rmtree(hidden)


def write_embeddings(embedded: Sequence[EmbeddedVideo], path: Path) -> None:
    """Writes `.npz` (a (T, E) array per video) or `.csv` (name, frame, then a column per channel), block by block.

    The frame is that of the file, also where videos are resampled.
    """
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:  # savez refuses some names
                for video in embedded:
                    with archive.open(f"{video.name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, video.embeddings)
            return
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "frame", *(f"e{i}" for i in range(embedded[0].embeddings.shape[1]))])
            for video in embedded:
                for start in range(0, len(video.embeddings), ROWS):
                    rows = video.embeddings[start : start + ROWS].tolist()
                    writer.writerows([video.name, video.number(t), *row] for t, row in enumerate(rows, start))
