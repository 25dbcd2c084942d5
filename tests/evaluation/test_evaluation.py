import dataclasses
import json

import numpy as np
import pytest
import torch

from mvf.data import find_config_videos
from mvf.embedding import EmbeddedVideo, embed, video_features
from mvf.evaluation import evaluate, read_report, write_report
from mvf.evaluation.bootstrap import combine
from mvf.evaluation.controls import position_clock
from mvf.evaluation.report import in_plain_words
from mvf.models import build_model
from mvf.models.motion import MotionMap
from tests.evaluation.test_scoring import TRAIN, VAL

FIXED_KEYS = {
    "dataset", "preset", "seed", "data_seed", "epochs", "backbone", "backbone_weights", "objective", "supervision",
    "scores", "per_action", "label_fractions", "controls", "cropped", "alignment_error", "verdicts", "localization",
    "coverage", "skipped",
}  # fmt: skip
CONTROLS = {
    "position_only", "frame_count", "untrained", "backbone_mean", "backbone_motion", "motion_pca", "frozen_frame",
    "shuffled_order", "untrained_shuffled",
}  # fmt: skip
CROPPED_CONTROLS = ("position_only", "untrained", "backbone_motion", "motion_pca")


@pytest.fixture(scope="module")
def setting():
    from mvf.config import load_config
    from tests.conftest import TINY

    options = {**TINY["data_options"], "train_videos": 4, "idle": 2, "height": 64, "width": 64}
    config = load_config("synthetic", **{**TINY, "data_options": options, "image_size": 96, "stride": 1, "seed": 4})
    torch.manual_seed(99)
    model = build_model(config).eval()
    records = [find_config_videos(config, split) for split in ("train", "val")]
    embedded = [embed(model, videos, precision="fp32") for videos in records]
    return config, model, records, embedded


@pytest.fixture(scope="module")
def report(setting):
    config, model, records, embedded = setting
    return evaluate(*embedded, config, model, *records)


def numbers(value):
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [value] if isinstance(value, float) else []


def test_the_report_has_the_fixed_keys_and_is_plain_json(report):
    assert FIXED_KEYS <= report.keys()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report["controls"]) == CONTROLS
    assert set(report["cropped"]) == {"model", *CROPPED_CONTROLS, "reversed"}
    assert set(report["alignment_error_controls"]["motion_pca"]) == {"whole", "window"}
    assert set(report["label_fractions"]) == {"0.1", "0.5", "1.0"}
    assert {"entity_1", "entity_2", "entity_3", "entity_best", "head_best", "head_oracle", "mean_training_mask",
            "centre", "uniform", "backbone_pca", "area"} <= report["localization"].keys()  # fmt: skip
    measures = {"mass", "lift", "auroc", "average_precision", "jaccard", "pointing"}
    assert measures <= report["localization"]["entity_1"].keys()
    assert np.isfinite(numbers(report)).all()
    assert not any("second" in key or "time" == key for key in report)


def test_every_score_has_a_verdict_and_cropped_ones_name_the_strongest_control(report):
    low = "below the mean: an R² below zero is no gain over any control"
    for score, value in report["scores"].items():
        is_low = score == "progression" and value < 0
        assert report["verdicts"][score].startswith(low if is_low else f"{value:.3f}: the clock alone")
    for score, value in report["cropped"]["model"].items():
        if score == "progression" and value < 0:
            assert report["verdicts"][f"cropped.{score}"] == low
            continue
        strongest = max(CROPPED_CONTROLS, key=lambda name: report["cropped"][name].get(score, -np.inf))
        assert report["verdicts"][f"cropped.{score}"].endswith(
            f"strongest control: {strongest} {report['cropped'][strongest][score]:.3f}"
        )


def test_windows_are_compared_with_every_control(report):
    assert set(report["cropped_differences"]) == {"position_only", "untrained", "backbone_motion", "motion_pca"}
    for control, gaps in report["cropped_differences"].items():
        for score, (gap, low, high) in gaps.items():
            assert gap == report["cropped"]["model"][score] - report["cropped"][control][score] and low <= high
    sentence, gap = report["verdicts"]["cropped.classification"], report["cropped_differences"]["position_only"]
    assert "add {:.3f} [{:.3f}, {:.3f}]".format(*gap["classification"]) in sentence


@pytest.mark.parametrize(
    "clock, motion, closed, said",
    [
        (1, 1, 1, ("sees what happens", "(the model is above)", "training pays")),
        (1, 1, 0, ("sees what happens", "71 % (the model is above)", "83 % (the model is level)", "was not shown")),
        (1, 1, -1, ("83 % (the model is below): training has not paid",)),
        (0, 1, 1, ("more than the time was not shown",)),
        (-1, -1, -1, ("more than the time was not shown", "training has not paid")),
    ],
)
def test_a_report_says_in_plain_words_what_was_shown(clock, motion, closed, said):
    scores = {"model": 0.84, "position_only": 0.28, "backbone_motion": 0.71, "motion_pca": 0.83}
    signs = {"position_only": clock, "backbone_motion": motion, "motion_pca": closed}
    report = {
        "cropped": {name: {"classification": value} for name, value in scores.items()},
        "cropped_differences": {name: {"classification": [s, s - 0.5, s + 0.5]} for name, s in signs.items()},
    }
    words = in_plain_words(report)
    assert all(part in words for part in said) and "84 %" in words and "28 %" in words
    del report["cropped_differences"]["motion_pca"]["classification"][1:]  # too few videos
    assert not in_plain_words(report) and not in_plain_words({"cropped": {}})


def test_two_evaluations_are_equal_bit_for_bit(setting, report):
    config, model, records, embedded = setting
    assert json.dumps(evaluate(*embedded, config, model, *records)) == json.dumps(report)


def test_motion_is_fitted_once_on_whole_training_videos_of_all_actions(setting, report, monkeypatch):
    config, model, records, embedded = setting
    fitted, fit = [], MotionMap.fit
    monkeypatch.setattr(MotionMap, "fit", lambda videos: fitted.append(videos) or fit(videos))
    again = evaluate(*embedded, config, model, *records)
    (videos,) = fitted
    means = [video_features(model, record, precision="fp32")[0].mean(dim=1) for record in records[0]]
    assert len({record.action for record in records[0]}) > 1
    for found, wanted in zip(videos, means, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert again["cropped"]["motion_pca"] == report["cropped"]["motion_pca"]


def test_judged_together_labels_are_classes_without_an_order(setting):
    config, model, records, embedded = setting
    together = evaluate(*embedded, dataclasses.replace(config, judge="together"), model, *records)
    assert set(together["scores"]) == {"classification", "retrieval@5", "retrieval@10", "retrieval@15"}
    assert set(together["cropped"]["model"]) == set(together["scores"])
    assert set(together["per_action"]) == {"all actions"}
    assert all("without an order" in together["skipped"][name] for name in ("progression", "kendall_tau"))
    assert "alignment_error" in together["skipped"]


def test_pieces_of_the_videos_make_the_scores(report):
    for score, by_action in report["videos"]["whole"].items():
        values = [combine(np.sum(list(pieces.values()), axis=0)) for pieces in by_action.values()]
        assert np.mean(values) == pytest.approx(report["scores"][score])
    for score, by_action in report["videos"]["cropped"].items():
        values = [combine(np.sum(list(pieces.values()), axis=0)) for pieces in by_action.values()]
        assert np.mean(values) == pytest.approx(report["cropped"]["model"][score])
    assert set(report["videos"]["controls"]) == set(report["cropped_differences"])
    for name, sums in report["videos"]["controls"].items():
        for score, by_action in sums.items():
            values = [combine(np.sum(list(pieces.values()), axis=0)) for pieces in by_action.values()]
            assert np.mean(values) == pytest.approx(report["cropped"][name][score])


def test_a_random_backbone_is_said_so(report):
    assert report["backbone_weights"] == "random" and "RANDOM" in report["warning"]


def test_phases_are_scored_by_kind(report):
    for by_name in report["phase_kinds"].values():
        assert {"model", "position_only", "backbone_motion", "motion_pca", "shuffled_order"} <= by_name[
            "classification"
        ].keys()


def test_the_model_keeps_its_mode(setting):
    config, model, records, embedded = setting
    model.train()
    try:
        evaluate([embedded[0][0]], [embedded[1][0]], config, model, records[0][:1], records[1][:1])
        assert model.training
    finally:
        model.eval()


def test_without_a_model_what_needs_it_is_named(setting):
    config, _, _, embedded = setting
    report = evaluate(*embedded, config)
    for name in ("cropped", "localization", "controls.untrained", "alignment_error.window", "coverage"):
        assert "needs the model" in report["skipped"][name], name
    assert "position_only" in report["controls"] and report["alignment_error"]["whole"] >= 0


def clock_videos(videos, frames=80, width=256):
    clock = position_clock(frames, width)
    return [EmbeddedVideo(v.name, v.action, clock(len(v.phases)), v.phases) for v in videos]


def test_a_perfect_clock_is_flagged(setting):
    config = setting[0]
    videos = [clock_videos(v, config.num_frames, config.fusion_width) for v in (TRAIN, VAL)]
    report = evaluate(*videos, config)
    assert report["scores"] == report["controls"]["position_only"]
    assert all("not distinguishable" in sentence for sentence in report["verdicts"].values())


def test_an_embedding_that_sees_the_phase_beats_the_clock(setting):
    report = evaluate(TRAIN, VAL, setting[0])
    assert "not distinguishable" not in report["verdicts"]["retrieval@5"]
    assert report["scores"]["retrieval@5"] > report["controls"]["position_only"]["retrieval@5"]


def test_unlabelled_videos_get_reasons_and_no_numbers(setting):
    bare = [[EmbeddedVideo(v.name, "video", v.embeddings, None) for v in videos] for videos in (TRAIN, VAL)]
    report = evaluate(*bare, setting[0])
    assert list(report["scores"]) == ["kendall_tau"] and report["alignment_error"] == {}
    assert {"classification", "progression", "retrieval@5", "alignment_error"} <= report["skipped"].keys()
    json.dumps(report, allow_nan=False)


def test_a_single_video_and_a_single_phase_get_reasons(setting):
    flat = [EmbeddedVideo("a", "a", np.random.rand(9, 4).astype(np.float32), np.zeros(9, int))]
    report = evaluate(flat, flat, setting[0])
    assert not report["scores"] and "2 phases" in report["skipped"]["progression"]
    assert "2" in report["skipped"]["kendall_tau"] and "phase" in report["skipped"]["classification"]


def test_an_empty_split_gets_reasons(setting):
    report = evaluate(TRAIN, [], setting[0])
    assert report["scores"] == {} and "0 for validation" in report["skipped"]["kendall_tau"]
    assert "cropped" in report["skipped"]


def test_reports_are_written_and_read_and_equal_reports_are_equal_files(report, tmp_path):
    write_report(report, tmp_path / "metrics.json")
    write_report(dict(reversed(report.items())), tmp_path / "again.json")
    assert read_report(tmp_path / "metrics.json") == report
    assert "videos" not in json.loads((tmp_path / "metrics.json").read_text())  # but in a file beside it
    assert (tmp_path / "metrics.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "absent.json"):
        with pytest.raises(ValueError, match=name):
            read_report(tmp_path / name)
    with pytest.raises(ValueError):
        write_report({"scores": float("nan")}, tmp_path / "nan.json")
    assert not (tmp_path / "nan.json").exists()
    without = {name: value for name, value in report.items() if name != "videos"}
    write_report(without, tmp_path / "metrics.json")
    assert read_report(tmp_path / "metrics.json") == without
