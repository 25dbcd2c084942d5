"""The protocol: four tasks, controls beside every score, verdicts, localization (docs/design.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mvf.bank import FeatureBank
from mvf.config import Config
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.controls import (
    Clock,
    Controls,
    add_motion_map,
    apply_clock,
    backbone_motion,
    embed_controls,
    frame_clock,
    position_clock,
    untrained_model,
)
from mvf.evaluation.localization import localize
from mvf.evaluation.report import add_kinds, differences, empty_report, header, score_report, verdicts
from mvf.evaluation.scoring import (
    Features,
    Protocol,
    Rounds,
    Scored,
    alignment,
    count_phases,
    kept_frames,
    score_rounds,
    standardiser,
    video_sums,
)
from mvf.files import note_progress
from mvf.models.motion import MotionMap
from mvf.models.mvformer import FrameEmbedder, MVFormer

__all__ = ["evaluate"]

PIXEL_CONTROLS = (
    "untrained", "backbone_mean", "backbone_motion", "motion_pca", "frozen_frame", "shuffled_order",
    "untrained_shuffled",
)  # fmt: skip
NEEDS_MODEL = (
    *(f"controls.{name}" for name in PIXEL_CONTROLS), "cropped", "alignment_error.window", "localization", "attention",
    "coverage",
)  # fmt: skip

TOGETHER = "all actions"

FEATURES: Mapping[str, Features] = {"backbone_mean": lambda mean: mean, "backbone_motion": backbone_motion}


def evaluate(
    train_embedded: Sequence[EmbeddedVideo],
    val_embedded: Sequence[EmbeddedVideo],
    config: Config,
    model: FrameEmbedder | None = None,
    train_records: Sequence[VideoRecord] | None = None,
    val_records: Sequence[VideoRecord] | None = None,
    cache: FeatureBank | None = None,
    bank: bool = True,
) -> dict:
    """Scores a frozen model's embeddings, and controls that could explain the scores without any understanding.

    Nothing is chosen on the validation videos. The result is a pure function of the arguments and of `bank`, without
    timings.

    Args:
        train_embedded: Training videos, on which probes are fitted (`mvf.embed`).
        val_embedded: Validation videos, which are scored.
        config: Configuration of the run.
        model: The model that made the embeddings; with it and the records of both splits, the controls that need
            pixels, the scores on cropped windows, and the localization are computed too.
        train_records: Training videos; `.coverage` and `.action_assumed` are reported if present.
        val_records: Validation videos.
        cache: Feature bank of the clean view (`mvf.bank.FeatureBank`).
        bank: Without `cache`, read the features of videos that are stored already, as `mvf.embed` does; False runs the
            backbone on all.

    Returns:
        The content of `metrics.json` (docs/design.md, section 5), and `videos`, the sums of every video.
        Values that could not be computed are absent, and `skipped` names them with the reason.
    """
    train_embedded, val_embedded, protocol = grouped(train_embedded, val_embedded, config)
    clocks = clocks_of(config, model)
    kinds = {record.action: record.phase_kinds for record in val_records or () if record.phase_kinds}
    report = header(config, model, train_records)
    records = {"train": train_records, "val": val_records}
    coverages = {split: found.as_dict() for split, r in records.items() if (found := getattr(r, "coverage", None))}
    report |= {"coverage": coverages} if coverages else {}
    if not train_embedded or not val_embedded:
        counts = len(train_embedded or train_records or ()), len(val_embedded or val_records or ())
        return report | empty_report(*counts, NEEDS_MODEL)
    report |= score_report(train_embedded, val_embedded, protocol, clocks, kinds)
    lacking = _lacking(model, train_records, val_records)
    if lacking or model is None or train_records is None or val_records is None:
        report["skipped"] |= {name: lacking for name in NEEDS_MODEL if name != "coverage" or not coverages}
        return report
    note_progress("evaluation")
    untrained = untrained_model(config, model)
    both = [embed_controls(model, untrained, r, config, cache, bank) for r in (train_records, val_records)]
    motion = MotionMap.fit([video.embeddings for video in both[0].whole["backbone"][0]])
    skips = {action: network.motion for action in model.actions or ("",) if (network := model.of(action)).motion}
    for controls in both:
        add_motion_map(controls, "motion_pca", lambda action: motion)
        if skips and config.motion_weighting != "spread":  # else it is `motion_pca`
            add_motion_map(controls, "motion_skip", lambda action: skips[action if model.actions else ""])
    train, val = (replace(c, whole=_regroup(c.whole, protocol), cropped=_regroup(c.cropped, protocol)) for c in both)
    _add_controls(report, train, val, protocol, kinds)
    _add_cropped(report, train, val, protocol, clocks["position_only"])
    _add_alignment(report, val_embedded, train, val, protocol, clocks["position_only"])
    if config.localization:
        _add_localization(report, model, untrained, train_records, val_records)
    else:
        report["skipped"] |= dict.fromkeys(("localization", "attention"), "switched off by localization=false")
    return report


def grouped(
    train: Sequence[EmbeddedVideo], val: Sequence[EmbeddedVideo], config: Config
) -> tuple[list[EmbeddedVideo], list[EmbeddedVideo], Protocol]:
    """Groups the videos as `config.judge` says, by action or all together; returns them and their protocol."""
    ordered = config.judge == "action"
    train, val = _grouped(train, ordered), _grouped(val, ordered)
    return train, val, Protocol(count_phases([*train, *val]), config.stride, config.probe, ordered)


def _grouped(videos: Sequence[EmbeddedVideo], ordered: bool) -> list[EmbeddedVideo]:
    return list(videos) if ordered else [replace(video, action=TOGETHER) for video in videos]


def _regroup(rounds_of: Mapping[str, Rounds], protocol: Protocol) -> dict[str, Rounds]:
    return {name: [_grouped(videos, protocol.ordered) for videos in rounds] for name, rounds in rounds_of.items()}


def clocks_of(config: Config, model: FrameEmbedder | None) -> dict[str, Clock]:
    """The controls that know only the time; for a model without positions the published table is used."""
    own = model if config.positions == "sine" else None
    position = position_clock(config.num_frames, config.fusion_width, config.chunk, own)
    return {"position_only": position, "frame_count": frame_clock(config.fusion_width)}


def _lacking(model: FrameEmbedder | None, *records: Sequence[VideoRecord] | None) -> str:
    """Why controls that need pixels cannot be computed; empty if they can."""
    if model is None or any(r is None for r in records):
        return "needs the model and the records of both splits: evaluate(..., model=, train_records=, val_records=)"
    return "" if model.backbone is not None else "the model came without a backbone"


def _add_controls(report: dict, train: Controls, val: Controls, protocol: Protocol, kinds: Mapping) -> None:
    scored = {}
    for name in dict.fromkeys((*PIXEL_CONTROLS, *_closed(train))):
        features = FEATURES.get(name)
        source = "backbone" if features else name
        scored[name] = score_rounds(train.whole[source], val.whole[source], protocol, features, refit=True)
    report["controls"] |= {name: part.means() for name, part in scored.items()}
    _name_gaps(report, "controls", scored)
    add_kinds(report, {name: scored[name] for name in ("backbone_motion", "motion_pca", "shuffled_order")}, kinds)


def _add_cropped(report: dict, train: Controls, val: Controls, protocol: Protocol, clock: Clock) -> None:
    """Adds the scores on validation windows of probes fitted on training windows."""
    scored = {}
    for name in ("model", "position_only", "untrained", "backbone_motion", *_closed(train)):
        source = {"backbone_motion": "backbone", "position_only": "model"}.get(name, name)
        fitted, rounds = train.cropped[source], val.cropped[source]
        if name == "position_only":
            fitted, rounds = apply_clock(fitted, clock), apply_clock(rounds, clock)
        scored[name] = score_rounds(fitted, rounds, protocol, FEATURES.get(name))
    controls = {name: part for name, part in scored.items() if name != "model"}
    report["cropped_differences"] = {name: differences(scored["model"], part) for name, part in controls.items()}
    scored["reversed"] = score_rounds(train.cropped["model"], val.cropped["reversed"], protocol)
    report["cropped"] = {name: part.means() for name, part in scored.items()}
    report["videos"]["cropped"] = video_sums(scored["model"], val.cropped["model"][0])
    report["videos"]["controls"] = {name: video_sums(part, val.cropped["model"][0]) for name, part in controls.items()}
    _name_gaps(report, "cropped", scored)
    sentences = verdicts(scored["model"], scored["position_only"], controls)
    report["verdicts"] |= {f"cropped.{score}": sentence for score, sentence in sentences.items()}


def _add_alignment(
    report: dict, whole: list[EmbeddedVideo], train: Controls, val: Controls, protocol: Protocol, clock: Clock
) -> None:
    """Adds alignment errors: window to whole for the model and three controls; whole to whole for those of motion."""
    table, controls = report["alignment_error"], report["alignment_error_controls"]
    crops = val.cropped["model"]
    videos, windows = _motion(train.whole["backbone"][0], val.whole["backbone"][0], val.cropped["backbone"])
    try:
        table["window"] = alignment(_placed(crops, val), whole, protocol)
        positions = apply_clock(crops, clock)
        controls["position_only"]["window"] = alignment(
            _placed(positions, val), apply_clock([whole], clock)[0], protocol
        )
        controls["backbone_motion"] = {
            "whole": alignment([(video, 0) for video in videos], videos, protocol),
            "window": alignment(_placed(windows, val), videos, protocol),
        }
        for name in _closed(val):
            (videos,), windows = val.whole[name], val.cropped[name]
            controls[name] = {
                "whole": alignment([(video, 0) for video in videos], videos, protocol),
                "window": alignment(_placed(windows, val), videos, protocol),
            }
    except ValueError as error:
        report["skipped"]["alignment_error.window"] = str(error)


def _closed(controls: Controls) -> list[str]:
    """The controls that are movement in closed form."""
    return [name for name in ("motion_pca", "motion_skip") if name in controls.whole]


def _motion(
    train: list[EmbeddedVideo], val: list[EmbeddedVideo], windows: Rounds
) -> tuple[list[EmbeddedVideo], Rounds]:
    """Motion features of whole videos and windows, both z-scored with the whole training videos of their action."""
    scale = {}
    for action in {video.action for video in val}:
        scale[action] = standardiser(kept_frames([v for v in train if v.action == action], backbone_motion)[0])

    def features(video: EmbeddedVideo) -> EmbeddedVideo:
        return replace(video, embeddings=scale[video.action](backbone_motion(video.embeddings)))

    return [features(video) for video in val], [[features(video) for video in videos] for videos in windows]


def _placed(windows: Rounds, controls: Controls) -> list[tuple[EmbeddedVideo, int]]:
    """Every window with the frame at which it starts."""
    return [(video, controls.starts[video.name][i]) for i, videos in enumerate(windows) for video in videos]


def _add_localization(
    report: dict,
    model: FrameEmbedder,
    untrained: MVFormer,
    train: Sequence[VideoRecord],
    val: Sequence[VideoRecord],
) -> None:
    part = localize(model, train, val, untrained)
    report["skipped"] |= part.pop("skipped")
    videos = part.pop("localization_videos", None)
    if videos:
        report["videos"]["localization"] = videos
    report |= part


def _name_gaps(report: dict, group: str, scored: Mapping[str, Scored]) -> None:
    """Names scores that controls lack although the model has them on whole videos; other gaps are named already."""
    gaps: dict[str, dict[str, str]] = {}
    for name, part in scored.items():
        for score, reason in part.skipped().items():
            if score not in report["skipped"]:
                gaps.setdefault(score, {})[name] = reason
    for score, reasons in gaps.items():
        if len(reasons) == len(scored):  # a property of the videos, not of one control
            report["skipped"][f"{group}.{score}"] = next(iter(reasons.values()))
        else:
            report["skipped"] |= {f"{group}.{name}.{score}": reason for name, reason in reasons.items()}
