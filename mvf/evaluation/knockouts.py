"""Which entity, and which part of the picture, carries a result: scores redone with parts removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mvf.bank import FeatureBank
from mvf.config import Config
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo, evaluating, pool_features, pool_video, video_features
from mvf.evaluation.controls import apply_clock, fuse_batch, windows
from mvf.evaluation.protocol import clocks_of, grouped
from mvf.evaluation.regions import is_annotated
from mvf.evaluation.removal import patch_removals, pool_without, remove_entities
from mvf.evaluation.scoring import KEPT, Scored, score_rounds
from mvf.evaluation.tasks import Rounds
from mvf.evaluation.verdicts import combine, paired_interval
from mvf.models.mvformer import MVFormer
from mvf.models.per_action import ModelPerAction, model_of

NOTHING, CLOCK = "nothing", "position_only"
Key = tuple[str, str]  # knock-out, and "whole" or "cropped"


@dataclass
class _Split:
    """The videos of a split embedded with every knock-out, and how much of them each took away."""

    rounds: dict[Key, Rounds] = field(default_factory=dict)
    removed: dict[str, list[float]] = field(default_factory=dict)  # share of the patches of each video
    blank: dict[str, list[float]] = field(default_factory=dict)  # share of its frames that lost all patches


def knock_outs(
    model: MVFormer | ModelPerAction,
    train_records: Sequence[VideoRecord],
    val_records: Sequence[VideoRecord],
    config: Config,
    cache: FeatureBank | None = None,
) -> dict:
    """The four scores with parts of what the model sees removed, probes fitted anew each time.

    - `nothing`: nothing is removed.
    - `without_entity_i`: what was pooled for entity i is replaced by its mean over all training frames. Its token
      stays, with its id and position, so that the readout can still gather from the other entities; what varies from
      frame to frame is gone. `only_entity_i`: all other entities are replaced.
    - `without_actor`, `without_background`: patches of which mask or box cover at least half, or all others, are left
      out of LSTP's softmax, so that the rest share their weight. A frame that loses all patches gets the mean
      entities. `without_random_background`: as many random background patches of every frame as its actor has, which
      is what `without_actor` has to be compared with.
    - `position_only`: the clock, which sees no picture at all.

    The backbone saw whole frames, and in a transformer a patch beside the actor has looked at the actor: these scores
    say from which patches the model takes what it needs, not that nothing is known elsewhere.

    Args:
        model: With its backbone.
        train_records: Videos that means are taken of and probes are fitted on; each is read twice.
        val_records: Videos that are scored.
        config: Of the run.
        cache: Clean feature bank, or None to run the backbone.

    Returns:
        Plain values. `scores`: by knock-out, `whole` (videos) or `cropped` (the protocol's windows), and score;
        `differences`: from `nothing` in the same order, each with `mean` and `interval`, a paired 95 % bootstrap over
        validation videos (None with too few); `removed` and `blank`: by knock-out of patches, the share of patches
        removed and of frames left without any, means over validation videos; `skipped`: reasons for what is missing.

    Raises:
        ValueError: for a video that has not one mask or box a frame.
    """
    lacking = _lacking(model, train_records, val_records)
    if lacking:
        return {"scores": {}, "differences": {}, "removed": {}, "blank": {}, "skipped": {"knock_outs": lacking}}
    skipped = _skipped(model, [*train_records, *val_records])
    means = _mean_tokens(model, train_records, config, cache)
    patches = "without_actor" not in skipped
    train, val = (_embed(model, records, means, config, cache, patches) for records in (train_records, val_records))
    if patches and not any(val.removed["without_actor"]):
        reason = "in no validation frame does the actor cover half of a patch: use a finer grid, or check the masks"
        skipped |= dict.fromkeys(val.removed, reason)
        val = _Split({key: rounds for key, rounds in val.rounds.items() if key[0] not in val.removed})
    scored = _score(model, train, val, config)
    for (name, group), found in scored.items():
        skipped |= {f"{group}.{name}.{score}": reason for score, reason in found.skipped().items() if score in KEPT}
    return {
        "scores": _nested({key: _kept(found) for key, found in scored.items()}),
        "differences": _nested({key: _differences(found, scored[NOTHING, key[1]]) for key, found in scored.items()}),
        "removed": {name: float(np.mean(shares)) for name, shares in val.removed.items()},
        "blank": {name: float(np.mean(shares)) for name, shares in val.blank.items()},
        "skipped": skipped,
    }


def _lacking(model: MVFormer | ModelPerAction, train: Sequence, val: Sequence) -> str:
    if not train or not val:
        return f"both splits need videos, there are {len(train)} for training and {len(val)} for validation"
    return "" if model.backbone is not None else "the model came without a backbone"


def _skipped(model: MVFormer | ModelPerAction, records: Sequence[VideoRecord]) -> dict[str, str]:
    """Why knock-outs cannot be had, by name."""
    pooling, skipped = model.architecture.pooling, {}
    if pooling not in ("lstp", "fixed_width"):
        skipped["without_entity"] = f'pooling "{pooling}" makes no entities'
    bare = sum(not is_annotated(record) for record in records)
    reason = f"{bare} of {len(records)} videos have neither a mask nor boxes of the actor" if bare else ""
    if pooling != "lstp":
        reason = f'pooling "{pooling}" has no attention to take patches from'
    named = ("without_actor", "without_random_background", "without_background")
    return skipped | (dict.fromkeys(named, reason) if reason else {})


def _owner(model: MVFormer | ModelPerAction, action: str) -> str:
    """Entities mean the same in all videos that one model reads."""
    return action if isinstance(model, ModelPerAction) else ""


def _mean_tokens(
    model: MVFormer | ModelPerAction, records: Sequence[VideoRecord], config: Config, cache: FeatureBank | None
) -> dict[str, Tensor]:
    """(N, D) mean token of every entity over all frames of the training videos, by owner."""
    sums: dict[str, Tensor] = {}
    frames: dict[str, int] = {}
    for record in tqdm(records, unit="video", desc="mean entities", disable=len(records) < 2):
        tokens = pool_video(model_of(model, record.action), record, cache, config.precision)
        owner = _owner(model, record.action)
        sums[owner] = sums.get(owner, 0) + tokens.double().sum(dim=0)
        frames[owner] = frames.get(owner, 0) + len(tokens)
    return {owner: (total / frames[owner]).float() for owner, total in sums.items()}


@torch.inference_mode()
def _embed(
    model: MVFormer | ModelPerAction,
    records: Sequence[VideoRecord],
    means: Mapping[str, Tensor],
    config: Config,
    cache: FeatureBank | None,
    patches: bool,
) -> _Split:
    """Every video with every knock-out, whole and on its windows."""
    split = _Split()
    for record in tqdm(records, unit="video", desc="knock-outs", disable=len(records) < 2):
        network, mean = model_of(model, record.action), means[_owner(model, record.action)]
        with evaluating(network):
            variants = _variants(network, record, mean, split, config, cache, patches)
            tokens = torch.stack(list(variants.values()))  # (knock-outs, T, N, D)
            whole, cropped = [slice(None)], windows(record.name, tokens.shape[1])
            for group, crops in (("whole", whole), ("cropped", cropped)):
                for i, crop in enumerate(crops):
                    phases = None if record.phases is None else record.phases[crop]
                    fused = fuse_batch(network, tokens[:, crop], config.chunk)
                    for name, embeddings in zip(variants, fused, strict=True):
                        rounds = split.rounds.setdefault((name, group), [[] for _ in crops])
                        rounds[i].append(EmbeddedVideo(record.name, record.action, embeddings, phases))
    return split


def _variants(
    model: MVFormer,
    record: VideoRecord,
    mean: Tensor,
    split: _Split,
    config: Config,
    cache: FeatureBank | None,
    patches: bool,
) -> dict[str, Tensor]:
    """Tokens (T, N, D) of one video by knock-out; counts in `split` what is removed."""
    features = video_features(model, record, cache, config.precision)
    tokens = pool_features(model, *features)
    variants = {NOTHING: tokens} | dict(remove_entities(tokens, mean) if model.pooling.makes_entities else ())
    for name, removed in (patch_removals(record, model.backbone.grid) if patches else {}).items():
        variants[name] = pool_without(model, features[0], removed, mean)
        split.removed.setdefault(name, []).append(removed.float().mean().item())
        split.blank.setdefault(name, []).append(removed.all(dim=1).float().mean().item())
    return variants


def _score(model: MVFormer | ModelPerAction, train: _Split, val: _Split, config: Config) -> dict[Key, Scored]:
    clock = clocks_of(config, model)[CLOCK]
    pairs = {key: (train.rounds[key], val.rounds[key]) for key in val.rounds}
    for group in ("whole", "cropped"):
        pairs[CLOCK, group] = tuple(apply_clock(rounds, clock) for rounds in pairs[NOTHING, group])
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
    """By score, what a knock-out changes on the actions that both have."""
    table = {}
    for score in KEPT:
        ours, theirs = (side.pieces.get(score, {}) for side in (found, reference))
        shared = sorted(ours.keys() & theirs.keys())
        if not shared or found is reference:
            continue
        sides = [{action: side[action] for action in shared} for side in (ours, theirs)]
        first, second = (float(np.mean([combine(pieces.sum(axis=0)) for pieces in side.values()])) for side in sides)
        interval = paired_interval(*sides)
        table[score] = {"mean": first - second, "interval": None if interval is None else list(interval)}
    return table


def _nested(flat: Mapping[Key, dict]) -> dict[str, dict[str, dict]]:
    """Knock-outs without any value are left out."""
    table: dict[str, dict[str, dict]] = {}
    for (name, group), values in flat.items():
        if values:
            table.setdefault(name, {})[group] = values
    return table
