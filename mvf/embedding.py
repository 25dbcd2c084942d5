"""Whole videos to embeddings: a video is embedded alone and unpadded (paper, section 4)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mvf.bank import FRAMES_AT_ONCE, FeatureBank, in_chunks
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.files import atomic, save_array
from mvf.models.mvformer import MVFormer
from mvf.models.per_action import ModelPerAction, model_of
from mvf.precision import autocast


@dataclass(frozen=True)
class EmbeddedVideo:
    """One video as a sequence of vectors.

    Attributes:
        name: Of the video.
        action: Class of the whole video.
        embeddings: (T, E) float32, unit norm.
        phases: (T,) integers, -1 where unlabelled; None without labels.
    """

    name: str
    action: str
    embeddings: np.ndarray
    phases: np.ndarray | None


def embed(
    model: MVFormer | ModelPerAction,
    records: Sequence[VideoRecord],
    out: str | Path | None = None,
    chunk: int = 1000,
    overlap: int = 0,
    cache: FeatureBank | None = None,
    precision: str = "auto",
) -> list[EmbeddedVideo]:
    """Embeds every frame of every video.

    Args:
        model: Trained model; it is used in eval mode and left in the mode it had.
        records: The videos.
        out: Folder that gets one `.npy` a video as soon as it is done; the list then holds memory maps, and a
            second call with the same model goes on where the first stopped.
        chunk: Frames that MTF sees at once.
        overlap: Frames that neighbouring chunks share; each keeps its half.
        cache: Clean bank to read backbone features from (and to fill).
        precision: In which the backbone computes: `auto`, `fp32`, `bf16`, `fp16`.

    Raises:
        ValueError: when `overlap` is not smaller than `chunk`, or `out` holds embeddings of another model.
    """
    if chunk < 1 or not 0 <= overlap < chunk:
        raise ValueError(f"chunk must be at least 1 and overlap in [0, chunk), got chunk={chunk}, overlap={overlap}")
    shards = Shards(Path(out), model, chunk, overlap) if out is not None else None
    if cache is not None:
        cache.ensure(records)
    embedded = []
    for record in tqdm(records, unit="video", desc="embed", disable=len(records) < 2):
        embeddings = shards.load(record.name) if shards else None
        if embeddings is None:
            network = model_of(model, record.action)
            pooled = pool_video(network, record, cache, precision)
            embeddings = fuse_video(network, pooled, chunk, overlap)
            embeddings = shards.save(record.name, embeddings) if shards else embeddings
        embedded.append(EmbeddedVideo(record.name, record.action, embeddings, record.phases))
    return embedded


@torch.inference_mode()
def pool_video(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None = None, precision: str = "auto"
) -> Tensor:
    """(T, N, D) pooled tokens of all frames; memory does not grow with the patches of a long video."""
    chunks = _feature_chunks(model, record, cache, precision)
    with evaluating(model):
        return torch.cat([pool_features(model, patches, cls) for patches, cls in chunks])


@torch.inference_mode()
def fuse_video(model: MVFormer, tokens: Tensor, chunk: int = 1000, overlap: int = 0) -> np.ndarray:
    """(T, N, D) pooled tokens -> (T, E) unit-norm embeddings, `chunk` frames at a time."""
    with evaluating(model):
        pieces = [
            model.fuse_tokens(tokens[None, start:stop], project=False).embeddings[0, first:last]
            for start, stop, first, last in chunk_bounds(len(tokens), chunk, overlap)
        ]
    return torch.cat(pieces).float().cpu().numpy()


def embed_features(
    model: MVFormer, patches: Tensor, cls: Tensor | None = None, chunk: int = 1000, overlap: int = 0
) -> np.ndarray:
    """(T, P, C) backbone features of a video -> (T, E) unit-norm embeddings."""
    with torch.inference_mode(), evaluating(model):
        tokens = pool_features(model, patches, cls)
    return fuse_video(model, tokens, chunk, overlap)


def video_features(
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None = None, precision: str = "auto"
) -> tuple[Tensor, Tensor | None]:
    """(T, P, C) patches and (T, C0) class tokens (or None) of the clean view, float32 on the CPU."""
    chunks = list(_feature_chunks(model, record, cache, precision))
    patches = torch.cat([p.float().cpu() for p, _ in chunks])
    return patches, None if chunks[0][1] is None else torch.cat([c.float().cpu() for _, c in chunks])


def chunk_bounds(length: int, chunk: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """(start, stop, first kept, end kept) of every chunk; neighbours split their overlap in the middle.

    Example:
        >>> chunk_bounds(10, 6, 2)
        [(0, 6, 0, 5), (4, 10, 1, 6)]
    """
    bounds, start, done = [], 0, 0
    while done < length:
        stop = min(start + chunk, length)
        end = stop if stop == length else stop - overlap + overlap // 2
        bounds.append((start, stop, done - start, end - start))
        start, done = stop - overlap, end
    return bounds


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode inside, the mode of before after."""
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
    model: MVFormer, record: VideoRecord, cache: FeatureBank | None, precision: str
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Features of the clean view, `FRAMES_AT_ONCE` frames at a time, from the bank or from the backbone."""
    if cache is not None:
        patches, cls = cache.read(record)
        for start in range(0, len(patches), FRAMES_AT_ONCE):
            part = slice(start, start + FRAMES_AT_ONCE)
            yield patches[part], None if cls is None else cls[part]
        return
    if model.backbone is None:
        raise ValueError(
            "this model came without a backbone: name one, e.g. load_official_checkpoint(path, backbone_weights='')"
        )
    device = next(model.backbone.parameters()).device
    for frames in in_chunks(record, FRAMES_AT_ONCE):
        pixels = evaluation_view(frames, model.backbone.image_size).to(device)
        with torch.inference_mode(), evaluating(model.backbone), autocast(precision, device):
            patches, cls = model.backbone(pixels)
        yield patches, cls


class Shards:
    """One `.npy` a video in a folder that remembers which model wrote it."""

    def __init__(self, folder: Path, model: MVFormer | ModelPerAction, chunk: int, overlap: int) -> None:
        self.folder = folder
        made_by = json.dumps({"model": fingerprint(model), "chunk": chunk, "overlap": overlap})
        note = folder / "made_by.json"
        if note.exists() and note.read_text() != made_by:
            raise ValueError(
                f"{folder} holds embeddings of another model or chunking: choose another folder, or delete it"
            )
        with atomic(note) as path:
            path.write_text(made_by)

    def _path(self, name: str) -> Path:
        return self.folder / (
            re.sub(r"[^\w.-]", "_", name) + "-" + hashlib.sha256(name.encode()).hexdigest()[:8] + ".npy"
        )

    def load(self, name: str) -> np.ndarray | None:
        """The stored embeddings of a video as a memory map, or None."""
        path = self._path(name)
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    def save(self, name: str, embeddings: np.ndarray) -> np.ndarray:
        """Stores and gives back as a memory map."""
        with atomic(self._path(name)) as path:
            save_array(path, embeddings)
        return self.load(name)


def fingerprint(model: MVFormer | ModelPerAction) -> str:
    """sha256 of the trained weights and of the backbone's file."""
    digest = hashlib.sha256(str(model.backbone and model.backbone.weights_sha256).encode())
    for name, tensor in sorted(model.trained_state().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
