"""Reports: `metrics.json` (docs/design.md, section 5), and the part of it that needs only embeddings and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvf.config import Config
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.bootstrap import paired_interval, verdict
from mvf.evaluation.controls import Clock, apply_clock
from mvf.evaluation.repetitions import count_passes
from mvf.evaluation.scoring import (
    SCORES,
    Protocol,
    Scored,
    alignment,
    kind_accuracy,
    label_fractions,
    score_rounds,
    video_sums,
)
from mvf.files import atomic
from mvf.losses import build_config_loss
from mvf.models.mvformer import FrameEmbedder

ONE_PASS = ("progression", "kendall_tau")  # scores that suppose one pass through the action

# parts in files of their own: metrics.videos.json (sums of every video) and metrics.clips.json (the clips that were
# scored) are long, metrics.cost.json (timings) varies
ASIDE = ("videos", "clips", "cost")

WARNINGS = {
    "random": "the backbone has RANDOM weights: these scores say nothing about a pretrained one",
    "checkpoint": "the backbone came inside the checkpoint: if its last stage was trained there, so it was in the "
    "controls untrained, backbone_mean, backbone_motion and motion_pca",
}


def score_report(
    train: list[EmbeddedVideo],
    val: list[EmbeddedVideo],
    protocol: Protocol,
    clocks: Mapping[str, Clock],
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> dict:
    """Makes the part of a report that needs only embeddings and labels.

    Args:
        train: Training videos.
        val: Validation videos.
        protocol: See `Protocol`.
        clocks: Controls that need no pixels; verdicts compare with `position_only`.
        kinds: By action, the kind of each phase.

    Raises:
        ValueError: if a split is empty.
    """
    if not train or not val:
        raise ValueError(f"both splits need videos to score, got {len(train)} for training, {len(val)} for validation")
    model = score_rounds([train], [val], protocol)
    controls = {
        name: score_rounds(apply_clock([train], clock), apply_clock([val], clock), protocol)
        for name, clock in clocks.items()
    }
    fractions, skipped = label_fractions(train, val, protocol, model)
    report: dict[str, Any] = {
        "scores": model.means(),
        "per_action": model.per_action(),
        "label_fractions": fractions,
        "controls": {name: scored.means() for name, scored in controls.items()},
        "verdicts": verdicts(model, controls["position_only"]),
        "videos": {"whole": video_sums(model, val)},
        "alignment_error": {},
        "alignment_error_controls": {name: {} for name in clocks},
        "skipped": model.skipped() | skipped,
    }
    several = sum(count_passes(video.embeddings, video.phases) > 1 for video in val) if protocol.ordered else 0
    for score in ONE_PASS:
        if several and score in report["verdicts"]:
            report["verdicts"][score] += (
                f"; {several} of {len(val)} videos hold several repetitions, taken for one pass"
            )
    add_kinds(report, {"model": model, **controls}, kinds or {})
    try:
        report["alignment_error"]["whole"] = alignment([(video, 0) for video in val], val, protocol)
        for name, clock in clocks.items():
            (videos,) = apply_clock([val], clock)
            report["alignment_error_controls"][name]["whole"] = alignment([(v, 0) for v in videos], videos, protocol)
    except ValueError as error:
        report["skipped"]["alignment_error"] = str(error)
    return report


def empty_report(train: int, val: int, more: Sequence[str] = ()) -> dict:
    """The report of an empty split: no scores, and the reason."""
    reason = f"both splits need videos, there are {train} for training and {val} for validation"
    tables = ("scores", "per_action", "label_fractions", "controls", "verdicts", "alignment_error")
    return {name: {} for name in tables} | {"skipped": dict.fromkeys((*SCORES, "label_fractions", *more), reason)}


def verdicts(model: Scored, clock: Scored, controls: Mapping[str, Scored] | None = None) -> dict[str, str]:
    """For each score of the model, what the pixels add to the clock; names the strongest of `controls` too."""
    sentences = {}
    for score, value in model.means().items():
        reference = clock.means().get(score)
        if reference is None:
            continue
        rivals = {name: scored.means()[score] for name, scored in (controls or {}).items() if score in scored.sums}
        strongest = max(rivals, key=rivals.__getitem__, default="")
        is_r_squared = score == "progression"
        best = rivals.get(strongest, 0.0)
        named = f"{strongest} {'below the mean' if is_r_squared and best < 0 else f'{best:.3f}'}" if strongest else ""
        sentences[score] = verdict(value, reference, _interval(model, clock, score), named, is_r_squared)
    return sentences


def differences(model: Scored, control: Scored) -> dict[str, list[float]]:
    """For each score that both have: model minus control, and the ends of its interval where there is one."""
    ours, theirs = model.means(), control.means()
    shared = [score for score in ours if score in theirs]
    return {score: [ours[score] - theirs[score], *(_interval(model, control, score) or ())] for score in shared}


def _interval(model: Scored, control: Scored, score: str) -> tuple[float, float] | None:
    shared = model.sums[score].keys() & control.sums[score].keys()
    ours, theirs = ({action: scored.sums[score][action] for action in shared} for scored in (model, control))
    return paired_interval(ours, theirs)


def in_plain_words(report: Mapping) -> str:
    """What the test that counts shows and what it does not, in two sentences; empty if it could not be made."""
    scores, gaps = (
        {name: values.get("classification") for name, values in (report.get(part) or {}).items()}
        for part in ("cropped", "cropped_differences")
    )
    rivals = ("position_only", "backbone_motion", "motion_skip" if "motion_skip" in scores else "motion_pca")
    if any(scores.get(name) is None or len(gaps.get(name) or ()) < 3 for name in rivals):
        return ""
    sides = {name: "above" if gaps[name][1] > 0 else "below" if gaps[name][2] < 0 else "level" for name in rivals}
    share = {name: f"{100 * score:.0f} %" for name, score in scores.items() if score is not None}
    clock, motion, closed = rivals
    seen = (
        "the embedding sees what happens"
        if sides[clock] == "above"
        else "that the embedding sees more than the time was not shown"
    )
    trained = {sides[motion], sides[closed]}
    pays = "training pays" if trained == {"above"} else "what training adds was not shown"
    if "below" in trained:
        pays = "training has not paid"
    return (
        f"On parts of new videos that begin anywhere, the phase of {share['model']} of the frames is told rightly, and "
        f"of {share[clock]} by counting frames alone: {seen}. Without training, frozen features with their changes "
        f"over time reach {share[motion]} (the model is {sides[motion]}) and movement in closed form {share[closed]} "
        f"(the model is {sides[closed]}): {pays}."
    )


def header(config: Config, model: FrameEmbedder | None, records: Sequence[VideoRecord] | None) -> dict:
    """Describes what was scored: data, backbone and the source of its weights, objective and its supervision."""
    weights = "random" if config.backbone_weights == "random" else "file" if config.backbone_weights else "unknown"
    if (backbone := getattr(model, "backbone", None)) is not None:
        weights = backbone.weights_source
    supervision = build_config_loss(config).labels
    if supervision == "video" and getattr(records, "action_assumed", False):
        supervision = "video, assumed"
    names = (
        "dataset", "preset", "seed", "data_seed", "epochs", "backbone", "objective", "sampling", "features",
        "entity_competition", "overlap_penalty", "token_merge", "motion_skip", "motion_weighting",
        "velocity",
    )  # fmt: skip
    found = {name: getattr(config, name) for name in names}
    found |= {"backbone_weights": weights, "supervision": supervision}
    if weights in WARNINGS:
        found["warning"] = WARNINGS[weights]
    return found


def write_report(report: Mapping, path: str | Path) -> None:
    """Writes `metrics.json`: sorted, so that equal reports are equal files; `ASIDE` parts go to files beside it."""
    path = Path(path)
    for part in ASIDE:
        if part not in report:  # that of an earlier report would be read as this one's
            _aside(path, part).unlink(missing_ok=True)
        else:
            with atomic(_aside(path, part)) as temporary:
                temporary.write_text(json.dumps(report[part], sort_keys=True, allow_nan=False), encoding="utf-8")
    shown = {name: value for name, value in report.items() if name not in ASIDE}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(shown, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_report(path: str | Path) -> dict:
    """Reads what `write_report` wrote.

    Raises:
        ValueError: if the file is absent or not a report; the message names it.
    """
    path = Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        parts = [part for part in ASIDE if _aside(path, part).exists()]
        aside = {part: json.loads(_aside(path, part).read_text(encoding="utf-8")) for part in parts}
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: evaluate the run first") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a report: {error}") from None
    if not isinstance(report, dict) or "scores" not in report:
        raise ValueError(f'{path} is not a report: it has no "scores"')
    return report | aside


def _aside(path: Path, part: str) -> Path:
    return path.with_suffix(f".{part}.json")


def add_kinds(report: dict, scored: Mapping[str, Scored], kinds: Mapping[str, Sequence[str]]) -> None:
    for name, part in scored.items():
        for kind, accuracy in kind_accuracy(part, kinds).items():
            report.setdefault("phase_kinds", {}).setdefault(kind, {}).setdefault("classification", {})[name] = accuracy
