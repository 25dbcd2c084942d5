"""Knock-outs: scores with single entities, or parts of the frames, removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mvf.bank import FeatureBank
from mvf.config import Config
from mvf.data.augment import derive_seed
from mvf.data.records import VideoRecord
from mvf.embedding import (
    EmbeddedVideo,
    add_velocity,
    backbone_of,
    evaluating,
    pool_features,
    pool_video,
    video_features,
)
from mvf.evaluation.bootstrap import FEWEST, combine, paired_interval
from mvf.evaluation.controls import apply_clock, fuse_batch, windows
from mvf.evaluation.protocol import clocks_of, grouped
from mvf.evaluation.regions import is_annotated, read_regions
from mvf.evaluation.scoring import KEPT, Rounds, Scored, score_rounds
from mvf.models.lstp import LearnableSpatialTokenPooling
from mvf.models.mvformer import FrameEmbedder, MVFormer
from mvf.progress import tqdm

NOTHING, CLOCK = "nothing", "position_only"
Key = tuple[str, str]  # knock-out, and "whole" or "cropped"


@dataclass
class _Split:
    """The videos of a split embedded with every knock-out, and how much of each of them a removal took away."""

    rounds: dict[Key, Rounds] = field(default_factory=dict)
    taken: dict[str, list[dict]] = field(default_factory=dict)


def knock_outs(
    model: FrameEmbedder,
    train_records: Sequence[VideoRecord],
    val_records: Sequence[VideoRecord],
    config: Config,
    cache: FeatureBank | None = None,
) -> dict:
    """Computes the four scores with parts of the model's input removed; probes are fitted anew each time.

    - `nothing`: nothing is removed.
    - `without_entity_i`: what was pooled for entity i is replaced by its mean over all training frames. Its token
      stays, with its id and position, so that the readout can still gather from the other entities, but it no longer
      varies from frame to frame. `only_entity_i`: all other entities are replaced.
    - `without_actor`: every patch that the mask or box touches is left out of LSTP's softmax, so that the others share
      its weight; `without_background`: all other patches are. A frame that loses all patches gets the mean entities.
    - `without_random_background`: as many random background patches of every frame are left out as its actor has. It
      shows what losing that many patches costs, but not what losing attention costs: these patches hold little.
    - `without_strongest_background`: the most attended background patches of every frame are left out, by the mean over
      entities, until as much attention is removed as the actor holds. If the background holds less, all of it is
      removed, as in `without_background`, and the control is too weak: `reached` tells by how much.
    - `position_only`: the clock, which sees no pixels at all.

    The actor matters if `without_actor` loses more than both controls. Even then the reason need not be what the
    patches show: any removal gives LSTP sums that it never met in training, and removing the most attended patches
    shifts them most. Moreover the backbone saw whole frames: in a transformer a patch beside the actor has attended to
    the actor, so a small loss does not show that the model needs no actor.

    All of it is about the trained part of the model: a motion skip is left out, of `nothing` too. Velocity as input
    stays in every knock-out, and tells of the actor too.

    Args:
        model: A model with its backbone.
        train_records: Videos over which means are taken and on which probes are fitted; each is read twice.
        val_records: Videos that are scored.
        config: Configuration of the run.
        cache: Feature bank of the clean view, or None to run the backbone.

    Returns:
        Plain values. `scores`: by knock-out, `whole` (videos) or `cropped` (the protocol's windows), and score;
        `differences`: from `nothing` in the same order, each with `mean`, `interval`, a paired 95 % bootstrap over
        validation videos, and `too_few`, True if an action has fewer than `FEWEST` of them, so that the interval
        must not be read as a difference; for each removal of patches, means over validation videos: `removed`, the
        share of the patches, `mass`, the share of each entity's attention, `reached`, the share of the actor's
        attention, and `blank`, the share of frames without any patch left; `skipped`: reasons for missing values.
    """
    lacking = _lacking(model, train_records, val_records)
    if lacking:
        return {"scores": {}, "differences": {}, **_amounts({}), "skipped": {"knock_outs": lacking}}
    skipped = _skipped(model)
    actors = [] if REMOVALS[0] in skipped else _actors(model, (*train_records, *val_records), skipped)
    means = _mean_tokens(model, train_records, config, cache)
    splits = zip((train_records, val_records), (actors[: len(train_records)], actors[len(train_records) :]))
    train, val = (_embed(model, records, means, config, cache, half) for records, half in splits)
    scored = _score(model, train, val, config)
    for (name, group), found in scored.items():
        skipped |= {f"{group}.{name}.{score}": reason for score, reason in found.skipped().items() if score in KEPT}
    return {
        "scores": _nested({key: _kept(found) for key, found in scored.items()}),
        "differences": _nested({key: _differences(found, scored[NOTHING, key[1]]) for key, found in scored.items()}),
        **_amounts(val.taken),
        "skipped": skipped,
    }


def _lacking(model: FrameEmbedder, train: Sequence, val: Sequence) -> str:
    if not train or not val:
        return f"both splits need videos, there are {len(train)} for training and {len(val)} for validation"
    return "" if model.backbone is not None else "the model came without a backbone"


def _skipped(model: FrameEmbedder) -> dict[str, str]:
    """Which knock-outs this model cannot have, and why."""
    pooling, skipped = model.architecture.pooling, {}
    if pooling not in ("lstp", "fixed_width"):
        skipped["without_entity"] = f'pooling "{pooling}" makes no entities'
    if pooling != "lstp":
        skipped |= dict.fromkeys(REMOVALS, f'pooling "{pooling}" has no attention to take patches from')
    return skipped


def _actors(model: FrameEmbedder, records: Sequence[VideoRecord], skipped: dict[str, str]) -> list[Tensor]:
    """(T, P) patches of the actor of every video; none, with reasons in `skipped`, unless all videos have them."""
    bare = sum(not is_annotated(record) for record in records)
    reasons = [f"{bare} of {len(records)} videos have neither a mask nor boxes of the actor"] if bare else []
    found = []
    for record in () if bare else records:
        try:
            found.append(actor_patches(record, backbone_of(model.of(record.action)).grid))
        except ValueError as error:
            reasons.append(str(error))
    skipped |= dict.fromkeys(REMOVALS, "; ".join(reasons)) if reasons else {}
    return [] if reasons else found


def _owner(model: FrameEmbedder, action: str) -> str:
    """The key of the model that reads an action; entities mean the same in all videos of one model."""
    return action if model.actions else ""


def _mean_tokens(
    model: FrameEmbedder, records: Sequence[VideoRecord], config: Config, cache: FeatureBank | None
) -> dict[str, Tensor]:
    """(N, D) mean token of every entity over all frames of the training videos, by owner."""
    sums: dict[str, Tensor] = {}
    frames: dict[str, int] = {}
    for record in tqdm(records, unit="video", desc="mean entities", disable=len(records) < 2):
        network = model.of(record.action)
        tokens = pool_video(network, record, cache, config.precision)
        tokens = tokens[..., : network.token_channels - network.velocity_width]
        owner = _owner(model, record.action)
        sums[owner] = sums.get(owner, 0) + tokens.double().sum(dim=0)
        frames[owner] = frames.get(owner, 0) + len(tokens)
    return {owner: (total / frames[owner]).float() for owner, total in sums.items()}


@torch.inference_mode()
def _embed(
    model: FrameEmbedder,
    records: Sequence[VideoRecord],
    means: Mapping[str, Tensor],
    config: Config,
    cache: FeatureBank | None,
    actors: Sequence[Tensor],
) -> _Split:
    """Every video with every knock-out, whole and on its windows; patches are removed where there are `actors`."""
    split = _Split()
    for i, record in enumerate(tqdm(records, unit="video", desc="knock-outs", disable=len(records) < 2)):
        network, mean = model.of(record.action), means[_owner(model, record.action)]
        with evaluating(network):
            features = video_features(network, record, cache, config.precision)
            mean_patch = features[0].mean(dim=1).numpy()
            variants = _variants(network, features, mean)
            if actors:
                variants |= _without_patches(network, record.name, features[0], actors[i], mean, split.taken)
            tokens = torch.stack(list(variants.values()))  # (knock-outs, T, N, D)
            whole, cropped = [slice(None)], windows(record.name, tokens.shape[1])
            for group, crops in (("whole", whole), ("cropped", cropped)):
                for j, crop in enumerate(crops):
                    phases = None if record.phases is None else record.phases[crop]
                    fed = torch.stack([add_velocity(network, part, mean_patch[crop]) for part in tokens[:, crop]])
                    fused = fuse_batch(network, fed, config.chunk)
                    for name, embeddings in zip(variants, fused, strict=True):
                        rounds = split.rounds.setdefault((name, group), [[] for _ in crops])
                        rounds[j].append(EmbeddedVideo(record.name, record.action, embeddings, phases))
    return split


def _variants(model: MVFormer, features: tuple[Tensor, Tensor | None], mean: Tensor) -> dict[str, Tensor]:
    """Tokens (T, N, D) of one video, with nothing and with entities removed."""
    tokens = pool_features(model, *features)
    return {NOTHING: tokens} | dict(remove_entities(tokens, mean) if model.pooling.makes_entities else ())


def _without_patches(
    model: MVFormer, name: str, patches: Tensor, actor: Tensor, mean: Tensor, taken: dict[str, list[dict]]
) -> dict[str, Tensor]:
    """Tokens (T, N, D) of one video with patches removed; notes in `taken` how much was removed."""
    if not isinstance(model.pooling, LearnableSpatialTokenPooling):
        raise TypeError("only LSTP has attention to take patches from")
    attention = model.pooling.attend(patches.to(mean.device)).cpu()
    removals = patch_removals(actor, attention, name)
    for removal, removed in removals.items():
        taken.setdefault(removal, []).append(measure_removal(removed, actor, attention))
    return {removal: pool_without(model, patches, removed, mean) for removal, removed in removals.items()}


def _amounts(taken: Mapping[str, Sequence[Mapping]]) -> dict[str, dict]:
    """Means over videos of what `measure_removal` returns, by quantity and removal."""
    return {
        amount: {name: np.mean([video[amount] for video in videos], axis=0).tolist() for name, videos in taken.items()}
        for amount in ("removed", "mass", "reached", "blank")
    }


def _score(model: FrameEmbedder, train: _Split, val: _Split, config: Config) -> dict[Key, Scored]:
    clock = clocks_of(config, model)[CLOCK]
    pairs = {key: (train.rounds[key], val.rounds[key]) for key in val.rounds}
    for group in ("whole", "cropped"):
        first, second = pairs[NOTHING, group]
        pairs[CLOCK, group] = apply_clock(first, clock), apply_clock(second, clock)
    (all_train,), (all_val,) = pairs[NOTHING, "whole"]
    protocol = grouped(all_train, all_val, config)[2]
    scored = {}
    for key, pair in pairs.items():
        parts = [grouped(*videos, config)[:2] for videos in zip(*pair, strict=True)]
        scored[key] = score_rounds([part[0] for part in parts], [part[1] for part in parts], protocol)
    return scored


def _kept(found: Scored) -> dict[str, float]:
    return {score: value for score, value in found.means().items() if score in KEPT}


def _differences(found: Scored, reference: Scored) -> dict[str, dict]:
    """By score, the change by a knock-out on the actions that both have."""
    table = {}
    for score in KEPT:
        ours, theirs = (side.sums.get(score, {}) for side in (found, reference))
        shared = sorted(ours.keys() & theirs.keys())
        if not shared or found is reference:
            continue
        ours, theirs = ({action: side[action] for action in shared} for side in (ours, theirs))
        first, second = (_mean_score(side) for side in (ours, theirs))
        interval, few = paired_interval(ours, theirs), min(map(len, ours.values())) < FEWEST
        table[score] = {"mean": first - second, "interval": interval and list(interval), "too_few": few}
    return table


def _mean_score(sums_of: Mapping[str, np.ndarray]) -> float:
    """The score of every action, averaged."""
    return float(np.mean([combine(sums.sum(axis=0)) for sums in sums_of.values()]))


def _nested(flat: Mapping[Key, dict]) -> dict[str, dict[str, dict]]:
    """Nests values by knock-out and group; knock-outs without any value are left out."""
    table: dict[str, dict[str, dict]] = {}
    for (name, group), values in flat.items():
        if values:
            table.setdefault(name, {})[group] = values
    return table


# ----------------------------------------------------------------------------------------------------------------------
# Removals: pooled tokens with entities or patches removed.

REMOVALS = ("without_actor", "without_random_background", "without_strongest_background", "without_background")


def remove_entities(tokens: Tensor, mean: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Tokens (T, N, D) without each entity and, if there are more than two, with each alone; others become `mean`.

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
        ValueError: if masks or boxes have another size or number than the frames, or are empty in all of them.
    """
    size = next(iter(record.frames(0, 1))).shape[:2]
    region = read_regions(record, np.arange(record.num_frames), size, grid, parts=False).actor
    return torch.from_numpy(region > 0).flatten(1)


def patch_removals(actor: Tensor, attention: Tensor, name: str) -> dict[str, Tensor]:
    """(T, P) True on the patches that each of `REMOVALS` takes away.

    Args:
        actor: (T, P) True on the actor's patches.
        attention: (T, N, P) weights of the entities with nothing removed.
        name: Name of the video.
    """
    drawn, strongest = random_background(actor, name), strongest_background(actor, attention)
    return dict(zip(REMOVALS, (actor, drawn, strongest, ~actor), strict=True))


def measure_removal(removed: Tensor, actor: Tensor, attention: Tensor) -> dict:
    """Measures how much of one video is lost with the patches `removed` (T, P).

    Returns:
        `removed`, the share of the patches; `blank`, the share of frames that lost all; `mass`, for each of N
        entities the share of its attention (T, N, P); `reached`, the removed attention, mean over entities, as a share
        of what the actor (T, P) holds, and at most that in each frame.
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
    """Tokens (T, N, D) of patches (T, P, C) when LSTP may not attend to those `removed` (T, P).

    A frame without any patch left gets the `mean` tokens (N, D).
    """
    blank = removed.all(dim=1, keepdim=True)  # (T, 1)
    keep = (~removed | blank).to(mean.device)
    tokens, _ = model.pooling(patches.to(mean.device), keep=keep)
    return torch.where(blank.unsqueeze(-1).to(mean.device), mean, tokens)


def random_background(actor: Tensor, name: str) -> Tensor:
    """(T, P) True on as many random patches of each frame's background as its actor has, or on all if it has fewer.

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

    Attention (T, N, P) is averaged over the entities. If the background holds less than the actor, all of its attended
    patches are taken.

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
