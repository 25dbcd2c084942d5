"""Localization: attention of entities and heads against masks or boxes of the actor, and against constant maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mvf.attention import Candidate, SampledMaps, rival_layers, sampled_maps
from mvf.data.records import VideoRecord
from mvf.embedding import backbone_of
from mvf.evaluation.bootstrap import FEWEST, mean_interval
from mvf.evaluation.regions import Regions, is_annotated, read_regions
from mvf.metrics import (
    attention_auroc,
    attention_average_precision,
    attention_entropy,
    attention_jaccard,
    attention_lift,
    attention_mass,
    attention_overlap,
    attention_set_size,
    attention_steadiness,
    density_share,
    effective_share,
    pointing_game,
)
from mvf.models.mvformer import FrameEmbedder, MVFormer
from mvf.progress import tqdm

METRICS = {
    "mass": attention_mass,
    "lift": attention_lift,
    "auroc": attention_auroc,
    "average_precision": attention_average_precision,
    "pointing": pointing_game,
}


def localize(
    model: FrameEmbedder,
    train_records: Sequence[VideoRecord],
    val_records: Sequence[VideoRecord],
    untrained: MVFormer | None = None,
) -> dict:
    """Scores where entities, CLS heads and constant maps put their weight, in a few frames of each video.

    Entity and head are chosen by the same rule, AUROC on the training videos; the first principal component of the
    patches is also fitted, and given its sign, on the training videos. Only oracles choose on the video that is scored,
    by AUROC. Heads are those of the last block and, in the rows `_any_layer`, of all blocks.

    Args:
        model: A model with its backbone.
        train_records: Videos to choose on.
        val_records: Videos to score.
        untrained: The same model before training; its entities are a control.

    Returns:
        A part of a report: `localization`, the table; `localization_differences`, paired, with 95 % intervals over
        validation videos; `localization_videos`, scores by map and video; `attention`, descriptions that need no mask;
        `skipped`, reasons for missing values.
    """
    if model.actions:
        reason = "every action has a model with entities of its own: evaluate the runs of single actions"
        return {"skipped": {"localization": reason, "attention": reason}}
    report: dict = {"skipped": {}}
    try:
        choice = choose(model, train_records, untrained)
        report["skipped"] |= choice.skipped
    except ValueError as error:
        choice, report["skipped"]["localization"] = None, str(error)
    described, scored = _score_validation(model, val_records, choice, untrained, report["skipped"])
    report |= _described(described, report["skipped"])
    if scored and choice is not None:
        report |= assemble(scored, choice.chosen, report["skipped"])
    elif choice is not None:
        reasons = [reason for name, reason in report["skipped"].items() if name.startswith("localization.val.")]
        reason = "; ".join(["no validation video has an actor mask or actor boxes", *reasons])
        report["skipped"]["localization"] = reason
    return report


def _score_validation(
    model: FrameEmbedder,
    records: Sequence[VideoRecord],
    choice: Choice | None,
    untrained: MVFormer | None,
    skipped: dict[str, str],
) -> tuple[list[dict], list[VideoLocalization]]:
    """Descriptions and scores of all videos with masks or boxes, and descriptions of some of the others."""
    scored, described = [], []
    others = drawn([record for record in records if not is_annotated(record)], TRAINING_VIDEOS)
    records = [record for record in records if is_annotated(record)] + others
    for record in tqdm(records, unit="video", desc="localization, validation", disable=len(records) < 2):
        network = model.of(record.action)
        seen = sampled_maps(network, record, rival_layers(network), untrained=untrained)
        if seen.named:
            later = sampled_maps(network, record, later=STEP) if record.num_frames > STEP else None
            described.append(describe(seen, later, skipped))
        if choice is None or not is_annotated(record):
            continue
        try:
            regions = read_regions(record, seen.index, seen.size, backbone_of(network).grid)
        except ValueError as error:
            skipped[f"localization.val.{record.name}"] = str(error)
            continue
        scored.append(_score_video(record.name, seen, regions, choice))
    return described, scored


def _score_video(name: str, seen: SampledMaps, regions: Regions, choice: Choice) -> VideoLocalization:
    """Every metric of every map for one video."""
    picked = oracles(seen, regions.actor)
    answers = choice.answers(seen, regions.actor) | {row: seen.maps[candidate] for row, candidate in picked.items()}
    scores: dict[str, Scores] = {}
    for answer, map_ in answers.items():
        behind = answer == "background"
        found = _scores(map_, regions, 1 - regions.actor if behind else regions.actor)
        scores |= {answer: found} if found else {}
    return VideoLocalization(name, float(regions.actor.mean()), scores, picked)


def _scores(map_: np.ndarray, regions: Regions, target: np.ndarray) -> dict[str, float]:
    """The metrics that this video defines; Jaccard only on masks, since on boxes it measures how diffuse a map is."""
    found = {name: defined(metric, map_, target) for name, metric in METRICS.items()}
    if regions.masked:
        found["jaccard"] = defined(attention_jaccard, map_, target)
        found["jaccard_size"] = defined(attention_set_size, map_)
    if regions.limbs is not None and regions.torso is not None:
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


# ----------------------------------------------------------------------------------------------------------------------
# Descriptions of maps that need no mask.

STEP = 1  # frames between the two maps whose overlap is called steadiness


def describe(seen: SampledMaps, later: SampledMaps | None, skipped: dict[str, str]) -> dict:
    """Describes maps without a mask: `overlap` (N, N) of entities; entropy, effective share, steadiness by map.

    Values that a video's maps do not define are left out, and the reasons go to `skipped`.
    """
    found: dict = {name: {} for name in ("entropy", "effective_share", "steadiness")}

    def tell(into: dict, key: str, kind: str, measure: Callable, *maps: np.ndarray) -> None:
        try:
            into[key] = measure(*maps)
        except ValueError as error:
            skipped.setdefault(f"attention.{kind}", str(error))

    entities = [map_ for name, map_ in seen.named.items() if name.startswith("entity_")]
    if entities:
        tell(found, "overlap", "overlap", attention_overlap, np.stack(entities, axis=1))
    for name, map_ in seen.named.items():
        tell(found["entropy"], name, "entropy", attention_entropy, map_)
        tell(found["effective_share"], name, "effective_share", effective_share, map_)
        if later is not None:
            pair = map_[: len(later.index)], later.named[name]
            tell(found["steadiness"], name, "steadiness", attention_steadiness, *pair)
    return found


def mean_description(videos: Sequence[Mapping]) -> dict:
    """Means over videos of what `describe` returns, with intervals under `interval`: `report["attention"]`."""
    report: dict = {"videos": len(videos), "step": STEP, "interval": {}}
    overlaps = np.array([video["overlap"] for video in videos if "overlap" in video])
    if len(overlaps):
        report["overlap"] = overlaps.mean(axis=0).tolist()
    if len(overlaps) > 1:
        intervals = [[mean_interval(pair) for pair in row] for row in overlaps.transpose(1, 2, 0)]
        report["interval"]["overlap"] = np.array(intervals).tolist()
    for kind in ("entropy", "effective_share", "steadiness"):
        names = dict.fromkeys(name for video in videos for name in video[kind])
        values = {name: np.array([v[kind][name] for v in videos if name in v[kind]]) for name in names}
        if values:
            report[kind] = {name: float(of.mean()) for name, of in values.items()}
        ends = {name: list(found) for name, of in values.items() if (found := mean_interval(of)) is not None}
        report["interval"] |= {kind: ends} if ends else {}
    return report


# ----------------------------------------------------------------------------------------------------------------------
# Choices on training videos: entity, head, constant maps.

TRAINING_VIDEOS = 24  # largest number, drawn with a fixed seed; enough to choose one of a dozen maps
CENTRE_SPREAD = 0.25  # standard deviation of the `centre` answer, in image sides
UNDEFINED = (
    "no training video defines AUROC: the actor covers half of a patch in no frame, or half of every patch; "
    "use a finer grid (a larger image_size)"
)

CandidateScores = Mapping[Candidate, float]  # of one video, NaN where it does not define them


@dataclass
class Moments:
    """Sums over the training patches from which the first principal component and its sign follow."""

    count: float = 0.0
    total: np.ndarray | float = 0.0  # (C,)
    product: np.ndarray | float = 0.0  # (C, C)
    covered: float = 0.0
    total_covered: np.ndarray | float = 0.0  # (C,), weighted by the region

    def add(self, patches: np.ndarray, region: np.ndarray) -> None:
        """Adds (n, P, C) patches with their (n, h, w) region."""
        flat, weight = patches.reshape(-1, patches.shape[-1]), region.ravel()
        self.count += len(flat)
        self.total = self.total + flat.sum(axis=0, dtype=np.float64)
        self.product = self.product + (flat.T @ flat).astype(np.float64)
        self.covered += weight.sum()
        self.total_covered = self.total_covered + weight @ flat

    def component(self) -> np.ndarray:
        """(C,) first principal direction, pointing to where the training actors are."""
        mean = self.total / self.count
        _, vectors = np.linalg.eigh(self.product / self.count - np.outer(mean, mean))
        direction = vectors[:, -1]
        return direction if direction @ (self.total_covered - self.covered * mean) >= 0 else -direction


@dataclass(frozen=True)
class Choice:
    """What was chosen and fitted on training videos.

    Attributes:
        chosen: The map behind `entity_best`, `head_best` of the last layer, `head_best_any_layer`, `background`,
            `untrained_entity_best`, if they exist.
        constants: (h, w) maps that do not depend on the image.
        component: (C,) direction of `backbone_pca`.
        skipped: Reasons, by name, for missing values.
    """

    chosen: dict[str, Candidate]
    constants: dict[str, np.ndarray]
    component: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)

    def answers(self, seen: SampledMaps, actor: np.ndarray) -> dict[str, np.ndarray]:
        """(n, h, w) maps of every row of the table except the oracles."""
        maps = {name: map_ for name, map_ in seen.named.items() if name.startswith("entity_")}
        maps |= {name: seen.maps[candidate] for name, candidate in self.chosen.items()}
        maps |= {name: np.broadcast_to(map_, actor.shape) for name, map_ in self.constants.items()}
        projected = (seen.patches @ self.component).reshape(actor.shape)
        maps["backbone_pca"] = projected - projected.min(axis=(1, 2), keepdims=True)  # the lowest patch is zero
        # without a visible actor every map has the same score, and a map of zeros is not allowed
        maps["actor_mask"] = np.where(actor.any(axis=(1, 2), keepdims=True), actor, 1.0)
        return maps


def oracles(seen: SampledMaps, actor: np.ndarray) -> dict[str, Candidate]:
    """The heads with the best AUROC on the scored video itself, of the last layer and of all; none if undefined."""
    scores = [_aurocs(seen, actor)]
    found = {"head_oracle": _best(scores, "head", seen.last), "head_oracle_any_layer": _best(scores, "head")}
    return {name: candidate for name, candidate in found.items() if candidate}


def choose(model: FrameEmbedder, records: Sequence[VideoRecord], untrained: MVFormer | None = None) -> Choice:
    """Chooses on training videos by AUROC; the background is the entity with the lowest AUROC.

    Raises:
        ValueError: when no training video has a usable mask or boxes.
    """
    scores: list[CandidateScores] = []
    moments, actors = Moments(), []

    def add(seen: SampledMaps, regions: Regions) -> None:
        scores.append(_aurocs(seen, regions.actor))
        moments.add(seen.patches, regions.actor)
        actors.append(regions.actor.mean(axis=0))

    skipped = _visit_training_videos(model, records, add, rival_layers(model), untrained)
    several = sum(candidate.kind == "entity" for candidate in scores[0]) > 1
    rows = {
        "entity_best": _best(scores, "entity"),
        "head_best": _best(scores, "head", backbone_of(model).num_blocks),
        "head_best_any_layer": _best(scores, "head"),
        "untrained_entity_best": _best(scores, "untrained_entity"),
        "background": _best(scores, "entity", sign=-1) if several else None,
    }
    kinds = {candidate.kind for candidate in scores[0]}
    for name in ("entity", "head", "untrained_entity"):
        if name in kinds and rows[f"{name}_best"] is None:
            skipped[f"localization.{name}_best"] = f"no {name.replace('_', ' ')} can be chosen: {UNDEFINED}"
    chosen = {name: candidate for name, candidate in rows.items() if candidate}
    return Choice(chosen, _constants(np.mean(actors, axis=0)), moments.component(), skipped)


def choose_head(model: FrameEmbedder, records: Sequence[VideoRecord], layer: int = -1) -> int:
    """Number (from 1) of the head of a block with the best AUROC on training videos.

    Raises:
        ValueError: when no training video has a usable mask or boxes, or defines AUROC, or the backbone has no class
            token.
    """
    scores: list[CandidateScores] = []
    _visit_training_videos(model, records, lambda seen, regions: scores.append(_aurocs(seen, regions.actor)), (layer,))
    head = _best(scores, "head")
    if head is None and any(candidate.kind == "head" for candidate in scores[0]):
        raise ValueError(f"no head of {backbone_of(model).name} can be chosen: {UNDEFINED}")
    if head is None:
        raise ValueError(f"{backbone_of(model).name} has no class token: there is no head to choose")
    return head.number


def best_map(maps: Sequence[np.ndarray], actor: np.ndarray) -> int | None:
    """Position of the map with the best AUROC on the actor of one video; None where none is defined."""
    scores = np.array([defined(attention_auroc, map_, actor) for map_ in maps])
    return int(np.nanargmax(scores)) if np.isfinite(scores).any() else None


def _aurocs(seen: SampledMaps, actor: np.ndarray) -> CandidateScores:
    return {candidate: defined(attention_auroc, map_, actor) for candidate, map_ in seen.maps.items()}


def defined(metric: Callable[..., float], map_: np.ndarray, *regions: np.ndarray) -> float:
    """The metric, or NaN if this video does not define it, so that means can leave it out."""
    try:
        return metric(map_, *regions)
    except ValueError:
        return float("nan")


def drawn(records: Sequence[VideoRecord], most: int = TRAINING_VIDEOS) -> list[VideoRecord]:
    """At most `most` of the videos, in order, drawn with a fixed seed."""
    # not every n-th video, because data sets list actions in turn
    chosen = np.random.default_rng(0).permutation(len(records))[:most]
    return [records[index] for index in sorted(chosen)]


def _visit_training_videos(
    model: FrameEmbedder,
    records: Sequence[VideoRecord],
    add: Callable[[SampledMaps, Regions], None],
    layers: Sequence[int],
    untrained: MVFormer | None = None,
) -> dict[str, str]:
    """Calls `add` with each of the drawn videos; returns the reasons for those left out."""
    skipped: dict[str, str] = {}
    records = drawn([record for record in records if is_annotated(record)])
    for record in tqdm(records, unit="video", desc="localization, training", disable=len(records) < 2):
        network = model.of(record.action)
        seen = sampled_maps(network, record, layers, untrained=untrained)
        try:
            regions = read_regions(record, seen.index, seen.size, backbone_of(network).grid, parts=False)
        except ValueError as error:
            skipped[f"localization.train.{record.name}"] = str(error)
            continue
        add(seen, regions)
    if len(skipped) == len(records):
        raise ValueError("; ".join(["no training video has an actor mask or actor boxes", *skipped.values()]))
    return skipped


def _best(scores: Sequence[CandidateScores], kind: str, layer: int | None = None, sign: int = 1) -> Candidate | None:
    """The candidate of a kind, and of a layer, with the highest mean score (lowest for `sign` -1), if any has one."""
    means: dict[Candidate, float] = {}
    for candidate in scores[0]:
        if candidate.kind == kind and layer in (None, candidate.layer):
            finite = [row[candidate] for row in scores if np.isfinite(row[candidate])]
            means |= {candidate: sign * float(np.mean(finite))} if finite else {}
    return max(means, key=means.__getitem__) if means else None


def _constants(mean_region: np.ndarray) -> dict[str, np.ndarray]:
    """(h, w) maps that do not depend on the image."""
    height, width = mean_region.shape
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    centre = np.exp(-(y[:, None] ** 2 + x**2) / (2 * CENTRE_SPREAD**2))
    return {"mean_training_mask": mean_region, "centre": centre, "uniform": np.ones_like(mean_region)}


# ----------------------------------------------------------------------------------------------------------------------
# The table: means with intervals, paired differences, and verdicts.

OTHERS = (
    "head_best", "head_oracle", "head_best_any_layer", "head_oracle_any_layer", "mean_training_mask",
    "centre", "uniform", "backbone_pca", "untrained_entity_best",
)  # fmt: skip
COMPARED = ("auroc", "lift")
DECIDES = ("head_best", "head_best_any_layer", "mean_training_mask")  # what entity 1 has to beat
EXPECTED = {
    "auroc": "no frame of it has both a patch that the actor covers by half and one that it does not: use a finer grid",
    "limbs": "it does not have 13 joints, or no frame shows limbs and torso within the actor",
    "object_auroc": "it has no object mask, or the object is never seen",
}

Scores = dict[str, float]


@dataclass(frozen=True)
class VideoLocalization:
    """Scores of one video.

    Attributes:
        name: Name of the video.
        area: Share of the frames that the actor covers.
        scores: Scores by map and metric; those that the video does not define are absent.
        picked: Heads that the oracles picked.
    """

    name: str
    area: float
    scores: dict[str, Scores]
    picked: Mapping[str, Candidate] = field(default_factory=dict)


def assemble(scored: Sequence[VideoLocalization], chosen: Mapping[str, Candidate], skipped: dict[str, str]) -> dict:
    """Makes the table, the differences and the scores by video; reasons for missing values go to `skipped`.

    Args:
        scored: Scores of the validation videos, at least one.
        chosen: The entity or head behind a row that was chosen on training videos.
        skipped: Reasons for missing values; more are added.
    """
    maps = list(dict.fromkeys(name for video in scored for name in video.scores))
    for kind in ("entity", "head"):
        if f"{kind}_best" not in chosen:
            what = "pooling" if kind == "entity" else "backbone"
            skipped.setdefault(f"localization.{kind}_best", f"this {what} has no attention")
    for metric, reason in EXPECTED.items():
        lacking = [video.name for video in scored if metric not in video.scores["uniform"]]
        if lacking:
            named = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            skipped[f"localization.{metric}"] = f"{len(lacking)} of {len(scored)} videos ({named}): {reason}"
    table = {name: _row([video.scores[name] for video in scored if name in video.scores]) for name in maps}
    for name in maps:
        table[name] |= _behind(name, chosen, scored)
    return {
        "localization": table | {"area": float(np.mean([video.area for video in scored]))},
        "localization_differences": _differences(scored, chosen),
        "localization_videos": {name: _by_video(scored, name) for name in maps},
    }


def _behind(name: str, chosen: Mapping[str, Candidate], scored: Sequence[VideoLocalization]) -> dict[str, int]:
    """`index` of a chosen row, and `layer` if it has several layers; for the oracle the ones picked most often."""
    if name == "head_oracle_any_layer":
        candidate = Counter(video.picked[name] for video in scored if name in video.picked).most_common(1)[0][0]
    elif name in chosen:
        candidate = chosen[name]
    else:
        return {}
    return {"index": candidate.number} | ({"layer": candidate.layer} if name.endswith("_any_layer") else {})


def _by_video(scored: Sequence[VideoLocalization], name: str) -> dict[str, Scores]:
    return {video.name: video.scores[name] for video in scored if name in video.scores}


def _row(videos: Sequence[Scores]) -> dict:
    """Means over the videos that define a metric, with their intervals under `interval`."""
    row: dict = {"interval": {}}
    for metric in dict.fromkeys(metric for scores in videos for metric in scores):
        values = np.array([scores[metric] for scores in videos if metric in scores])
        row[metric] = float(values.mean())
        interval = mean_interval(values)
        if interval is not None:
            row["interval"][metric] = list(interval)
    return row


def _differences(scored: Sequence[VideoLocalization], chosen: Mapping[str, Candidate]) -> dict[str, dict]:
    """Differences of entity 1, and of the entity chosen on training videos, from the others."""
    table: dict[str, dict] = {}
    for first in ("entity_1", "entity_best"):
        for other in OTHERS:
            if any({first, other} <= video.scores.keys() for video in scored):
                rows = {metric: _difference(scored, first, other, metric) for metric in COMPARED}
                rows = {metric: row for metric, row in rows.items() if row}
                if first == "entity_1" and other in DECIDES:
                    for metric, row in rows.items():
                        row["verdict"] = _verdict(row, metric, _words(first, chosen), _words(other, chosen))
                table[f"{first} - {other}"] = rows
    return table


def _difference(scored: Sequence[VideoLocalization], first: str, other: str, metric: str) -> dict:
    pairs = [(video.scores.get(first, {}), video.scores.get(other, {})) for video in scored]
    values = np.array([a[metric] - b[metric] for a, b in pairs if metric in a and metric in b])
    if not len(values):
        return {}
    interval = mean_interval(values)
    row = {"mean": float(values.mean()), "videos": len(values)} | ({"too_few": True} if len(values) < FEWEST else {})
    return row if interval is None else row | {"interval": list(interval)}


def _words(name: str, chosen: Mapping[str, Candidate]) -> str:
    if not name.startswith("head_best"):
        return name.replace("_", " ")
    layer = f"layer {chosen[name].layer}" if name.endswith("_any_layer") else "the last layer"
    return f"head {chosen[name].number} of {layer} (chosen on training videos)"


def _verdict(row: Mapping, metric: str, first: str, other: str) -> str:
    """One sentence: which is higher, and whether the interval excludes zero.

    Example:
        >>> _verdict({"mean": -0.02, "videos": 24, "interval": [-0.03, -0.01]}, "auroc", "entity 1", "head 6")
        'AUROC: entity 1 is below head 6 by 0.020 [0.010, 0.030] over 24 videos: the interval excludes zero'
        >>> _verdict({"mean": -0.02, "videos": 3, "interval": [-0.03, -0.01]}, "auroc", "entity 1", "head 6")
        'AUROC: entity 1 minus head 6 is -0.020: too few videos (3) to say'
    """
    name = {"auroc": "AUROC"}.get(metric, metric)
    if row["videos"] < FEWEST:
        return f"{name}: {first} minus {other} is {row['mean']:+.3f}: too few videos ({row['videos']}) to say"
    low, high = row["interval"]
    over = f"over {row['videos']} videos"
    if low <= 0 <= high:
        ends = f"[{low:.3f}, {high:.3f}]"
        return f"{name}: {first} is not distinguishable from {other}: {row['mean']:+.3f} {ends} {over} holds zero"
    side, (near, far) = ("above", (low, high)) if low > 0 else ("below", (-high, -low))
    by = f"{abs(row['mean']):.3f} [{near:.3f}, {far:.3f}]"
    return f"{name}: {first} is {side} {other} by {by} {over}: the interval excludes zero"
