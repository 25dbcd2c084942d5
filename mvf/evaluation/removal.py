"""Pooled tokens of a video with entities or parts of the picture removed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mvf.data.augment import derive_seed
from mvf.data.records import VideoRecord
from mvf.evaluation.regions import box_region, mask_region
from mvf.models.mvformer import MVFormer

COVERED = 0.5  # share of a patch from which on it is the actor's


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


def patch_removals(record: VideoRecord, grid: tuple[int, int]) -> dict[str, Tensor]:
    """(T, P) True on the patches that each knock-out takes away: the actor's, as many random others, all others."""
    region = actor_region(record, grid)
    actor = torch.from_numpy(region.reshape(len(region), -1) >= COVERED)
    return {
        "without_actor": actor,
        "without_random_background": random_background(actor, record.name),
        "without_background": ~actor,
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


def actor_region(record: VideoRecord, grid: tuple[int, int]) -> np.ndarray:
    """(T, h, w) share of each patch that the actor's mask, or else its box, covers.

    Raises:
        ValueError: when there is not one mask or box a frame.
    """
    mask = record.actor_mask()
    found = record.actor_box() if mask is None else mask
    if len(found) != record.num_frames:
        raise ValueError(
            f"{record.name} has {record.num_frames} frames and masks or boxes of {len(found)}: give one a frame"
        )
    if mask is not None:
        return mask_region(mask, grid)
    return box_region(found, next(iter(record.frames(0, 1))).shape[:2], grid)
