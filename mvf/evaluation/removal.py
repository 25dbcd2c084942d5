"""Pooled tokens of a video with entities or parts of the picture removed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mvf.data.augment import derive_seed
from mvf.data.records import VideoRecord
from mvf.evaluation.regions import read_regions
from mvf.models.mvformer import MVFormer

REMOVALS = ("without_actor", "without_random_background", "without_strongest_background", "without_background")


def remove_entities(tokens: Tensor, mean: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Tokens (T, N, D) without each entity and, of more than two, with each alone: the others become `mean` (N, D).

    Example:
        >>> [name for name, _ in remove_entities(torch.ones(5, 2, 4), torch.zeros(2, 4))]
        ['without_entity_1', 'without_entity_2']
    """
    entity = torch.arange(tokens.shape[1], device=tokens.device)[:, None]  # (N, 1)
    for i in range(len(entity)):
        yield f"without_entity_{i + 1}", torch.where(entity == i, mean, tokens)
    for i in range(len(entity)) if len(entity) > 2 else ():
        yield f"only_entity_{i + 1}", torch.where(entity == i, tokens, mean)


def actor_patches(record: VideoRecord, grid: tuple[int, int]) -> Tensor:
    """(T, P) True on every patch that the actor's mask, or else its box, touches.

    Raises:
        ValueError: for masks or boxes of another size or number than the frames, or empty in all of them.
    """
    size = next(iter(record.frames(0, 1))).shape[:2]
    region = read_regions(record, np.arange(record.num_frames), size, grid, parts=False).actor
    return torch.from_numpy(region > 0).flatten(1)


def patch_removals(actor: Tensor, attention: Tensor, name: str) -> dict[str, Tensor]:
    """(T, P) True on the patches that each of `REMOVALS` takes away.

    Args:
        actor: (T, P) True on the actor's patches.
        attention: (T, N, P) weights of the entities with nothing removed.
        name: Of the video.
    """
    drawn, strongest = random_background(actor, name), strongest_background(actor, attention)
    return dict(zip(REMOVALS, (actor, drawn, strongest, ~actor), strict=True))


def measure_removal(removed: Tensor, actor: Tensor, attention: Tensor) -> dict:
    """How much of one video the patches `removed` (T, P) are.

    Returns:
        `removed`, the share of the patches; `blank`, the share of frames that lost all; `mass`, for each of N
        entities the share of its attention (T, N, P); `reached`, mean attention over the entities that went, in
        parts of what the actor (T, P) holds, counted up to that in each frame.
    """
    mean = attention.double().mean(dim=1)  # (T, P)
    held, gone = ((mean * part).sum(dim=1) for part in (actor, removed))
    total = held.sum()
    return {
        "removed": removed.double().mean().item(),
        "blank": removed.all(dim=1).double().mean().item(),
        "mass": (attention.double() * removed[:, None]).sum(dim=-1).mean(dim=0).tolist(),
        "reached": (gone.minimum(held).sum() / total).item() if total > 0 else 1.0,
    }


def pool_without(model: MVFormer, patches: Tensor, removed: Tensor, mean: Tensor) -> Tensor:
    """Tokens (T, N, D) of patches (T, P, C) when LSTP may not look at those `removed` (T, P).

    A frame of which nothing is left gets the `mean` tokens (N, D).
    """
    blank = removed.all(dim=1, keepdim=True)  # (T, 1)
    keep = (~removed | blank).to(mean.device)
    tokens, _ = model.pooling(patches.to(mean.device), keep=keep)
    return torch.where(blank.unsqueeze(-1).to(mean.device), mean, tokens)


def random_background(actor: Tensor, name: str) -> Tensor:
    """(T, P) True on as many random patches of each frame's background as its actor has; on all where it has fewer.

    A pure function of the name of the video and where its actor is.

    Example:
        >>> actor = torch.tensor([[True, False, False, False], [True, True, True, False]])
        >>> removed = random_background(actor, "squat-1")
        >>> removed.sum(dim=1).tolist(), bool((removed & actor).any())
        ([1, 1], False)
    """
    generator = torch.Generator().manual_seed(derive_seed("knock-outs", name))
    order = torch.rand(actor.shape, generator=generator).masked_fill(actor, 2)
    rank = order.argsort(dim=1).argsort(dim=1)
    return (rank < actor.sum(dim=1, keepdim=True)) & ~actor


def strongest_background(actor: Tensor, attention: Tensor) -> Tensor:
    """(T, P) True on the most attended patches of each frame's background that together hold what its actor holds.

    Attention (T, N, P) is averaged over the entities. Where the background holds less than the actor, all of it that
    is attended to goes.

    Example:
        >>> actor = torch.tensor([[True, False, False, False]] * 2)
        >>> attention = torch.tensor([[[0.3, 0.1, 0.35, 0.25]], [[0.7, 0.0, 0.1, 0.2]]])
        >>> strongest_background(actor, attention).tolist()
        [[False, False, True, False], [False, False, True, True]]
    """
    mean = attention.double().mean(dim=1)  # (T, P)
    held = (mean * actor).sum(dim=1, keepdim=True)
    weight, order = mean.masked_fill(actor, 0).sort(dim=1, descending=True, stable=True)
    before = weight.cumsum(dim=1) - weight
    return torch.zeros_like(actor).scatter(1, order, (before < held) & (weight > 0))
