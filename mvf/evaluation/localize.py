"""Where entities and attention heads look, against masks or boxes of the actor and against constant answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from mvf.attention import SampledMaps as Look
from mvf.attention import rival_layers
from mvf.attention import sampled_maps as look
from mvf.data.records import VideoRecord
from mvf.evaluation.choosing import TRAINING_VIDEOS, Choice, choose, defined, drawn, oracles
from mvf.evaluation.descriptions import STEP, describe, mean_description
from mvf.evaluation.localization_table import Judged, assemble
from mvf.evaluation.regions import Regions, is_annotated, read_regions
from mvf.metrics import (
    attention_auroc,
    attention_average_precision,
    attention_jaccard,
    attention_lift,
    attention_mass,
    attention_set_size,
    density_share,
    pointing_game,
)
from mvf.models.mvformer import ModelPerAction, MVFormer

METRICS = {
    "mass": attention_mass,
    "lift": attention_lift,
    "auroc": attention_auroc,
    "average_precision": attention_average_precision,
    "pointing": pointing_game,
}


def localize(
    model: MVFormer | ModelPerAction,
    train_records: Sequence[VideoRecord],
    val_records: Sequence[VideoRecord],
    untrained: MVFormer | None = None,
) -> dict:
    """What entities, CLS heads and constant answers look at, in a few frames of each video.

    Entity and head are chosen by one rule, AUROC on the training videos; the first principal component of the
    patches is fitted, and given its sign, on the training videos too. Oracles alone pick on the video judged, by AUROC.
    Heads are those of the last block and, in the rows `_any_layer`, of all blocks.

    Args:
        model: With its backbone.
        train_records: Videos to choose on.
        val_records: Videos to judge on.
        untrained: The same model before training; its entities are a control.

    Returns:
        A part of a report: `localization`, the table; `localization_differences`, paired, with 95 % intervals over
        validation videos; `localization_videos`, scores by map and video; `attention`, what needs no mask; `skipped`,
        reasons for what is missing.
    """
    if isinstance(model, ModelPerAction):
        reason = "every action has a model with entities of its own: evaluate the runs of single actions"
        return {"skipped": {"localization": reason, "attention": reason}}
    report: dict = {"skipped": {}}
    try:
        choice = choose(model, train_records, untrained)
        report["skipped"] |= choice.skipped
    except ValueError as error:
        choice, report["skipped"]["localization"] = None, str(error)
    described, judged = _look_at_validation(model, val_records, choice, untrained, report["skipped"])
    report |= _described(described, report["skipped"])
    if judged:
        report |= assemble(judged, choice.chosen, report["skipped"])
    elif choice is not None:
        reasons = [reason for name, reason in report["skipped"].items() if name.startswith("localization.val.")]
        reason = "; ".join(["no validation video has an actor mask or actor boxes", *reasons])
        report["skipped"]["localization"] = reason
    return report


def _look_at_validation(
    model: MVFormer,
    records: Sequence[VideoRecord],
    choice: Choice | None,
    untrained: MVFormer | None,
    skipped: dict[str, str],
) -> tuple[list[dict], list[Judged]]:
    """Descriptions, and scores of the videos with masks or boxes; all of these, and some of the others."""
    judged, described = [], []
    others = drawn([record for record in records if not is_annotated(record)], TRAINING_VIDEOS)
    records = [record for record in records if is_annotated(record)] + others
    for record in tqdm(records, unit="video", desc="localization, validation", disable=len(records) < 2):
        seen = look(model, record, rival_layers(model), untrained=untrained)
        if seen.named:
            later = look(model, record, later=STEP) if record.num_frames > STEP else None
            described.append(describe(seen, later, skipped))
        if choice is None or not is_annotated(record):
            continue
        try:
            regions = read_regions(record, seen.index, seen.size, model.backbone.grid)
        except ValueError as error:
            skipped[f"localization.val.{record.name}"] = str(error)
            continue
        judged.append(_judge(record.name, seen, regions, choice))
    return described, judged


def _judge(name: str, seen: Look, regions: Regions, choice: Choice) -> Judged:
    """Every metric of every answer for one video."""
    picked = oracles(seen, regions.actor)
    answers = choice.answers(seen, regions.actor) | {row: seen.maps[candidate] for row, candidate in picked.items()}
    scores = {}
    for answer, map_ in answers.items():
        behind = answer == "background"
        found = _scores(map_, regions, 1 - regions.actor if behind else regions.actor)
        scores |= {answer: found} if found else {}
    return Judged(name, float(regions.actor.mean()), scores, picked)


def _scores(map_: np.ndarray, regions: Regions, target: np.ndarray) -> dict[str, float]:
    """The metrics that this video defines; Jaccard only on masks, as on boxes it measures how diffuse a map is."""
    found = {name: defined(metric, map_, target) for name, metric in METRICS.items()}
    if regions.masked:
        found["jaccard"] = defined(attention_jaccard, map_, target)
        found["jaccard_size"] = defined(attention_set_size, map_)
    if regions.limbs is not None:
        found["limbs"] = defined(density_share, map_, regions.limbs, regions.torso)
    if regions.object is not None:
        found["object_auroc"] = defined(attention_auroc, map_, regions.object)
        found["object_lift"] = defined(attention_lift, map_, regions.object)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _described(videos: list[dict], skipped: dict[str, str]) -> dict:
    if not videos:
        skipped["attention"] = "neither pooling nor backbone has attention, or there are no validation videos"
        return {}
    if not any(video["steadiness"] for video in videos):
        skipped.setdefault("attention.steadiness", "no validation video has two frames")
    return {"attention": mean_description(videos)}
