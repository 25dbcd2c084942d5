"""Every dataset in every form it is published in: `check`, then the training notebook, on a small copy on disk."""

import json

import numpy as np
import pytest

import mvf
from mvf.__main__ import main
from tests.conftest import TINY
from tests.data import gym_disk, penn_disk
from tests.test_notebooks import execute

FORMS = {
    "penn-raw": penn_disk.write_penn_raw,
    "penn-prepared": penn_disk.write_penn_prepared,
    "pouring-prepared": penn_disk.write_pouring_prepared,
    "pouring-tfrecords": penn_disk.write_pouring_tfrecords,
    "finegym99-raw": gym_disk.write_finegym99_raw,
    "finegym99-prepared": gym_disk.write_finegym99_prepared,
    "finegym288-raw": gym_disk.write_finegym288_raw,
    "finegym288-prepared": gym_disk.write_finegym288_prepared,
    "kinetics400-csv": gym_disk.write_kinetics_csv,
    "kinetics400-folders": gym_disk.write_kinetics_folders,
}
SCORES = {"penn": 4, "pouring": 4, "finegym99": 2, "finegym288": 2, "kinetics400": 0}


QUICK = ("penn-raw",)


@pytest.mark.parametrize("form", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FORMS])
def test_a_dataset_is_checked_and_trained_on(form, tmp_path, capsys):
    dataset = form.partition("-")[0]
    root = FORMS[form](tmp_path / "data")
    assert main(["check", dataset, "--data-root", str(root)]) == 0
    listed = capsys.readouterr().out
    run = tmp_path / "run"
    run.mkdir()
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "data_options", "layers")}
    notebook = execute(
        "train", run / "train.ipynb", dataset=dataset, data_root=str(root), run_dir=str(run), epochs=2,
        overrides=overrides | {"stride": 1},
    )  # fmt: skip
    report = json.loads((run / "metrics.json").read_text())
    assert report["dataset"] == report["preset"] == dataset
    found = report["coverage"]["train"]
    assert f"train: {found['found']} of {found['expected']} videos" in listed and found["found"] >= 2
    wanted = ("classification", "retrieval@5", "progression", "kendall_tau")[: SCORES[dataset]]
    assert all(score in report["scores"] and score in report["cropped"]["model"] for score in wanted)
    assert all(score in report["skipped"] for score in ("progression", "kendall_tau") if score not in wanted)
    assert notebook.metadata.papermill.exception is None


@pytest.mark.parametrize("split, reason", [("train", "no training video shows phase 2"), ("val", "progression")])
def test_a_phase_that_a_split_never_shows_costs_that_action_its_progression(split, reason, tmp_path):
    root = penn_disk.write_penn_raw(tmp_path)
    for number, action, part, length in penn_disk.PENN:
        if (action, part) == ("squat", split):
            phases = penn_disk.phases_of(length, 4)
            penn_disk.write_penn_phases(root, number, action, part, np.where(phases == 2, 1, phases))
    generator = np.random.default_rng(0)
    embedded = [
        [
            mvf.EmbeddedVideo(r.name, r.action, generator.normal(size=(r.num_frames, 8)), r.phases)
            for r in mvf.data.find_videos("penn", part, root)
        ]
        for part in ("train", "val")
    ]
    report = mvf.evaluate(*embedded, mvf.load_config("penn"))
    squat, pushup = (report["per_action"][action] for action in ("squat", "pushup"))
    assert (
        "progression" not in squat and "classification" in squat and reason in report["skipped"]["progression: squat"]
    )
    assert report["scores"]["progression"] == pushup["progression"]


def test_data_that_are_not_there_end_the_run_and_say_where_they_were_looked_for(tmp_path):
    config = mvf.load_config("penn", data_root=str(tmp_path / "none"), **{**TINY, "data_options": {}})
    with pytest.raises(ValueError, match=str(tmp_path / "none")) as caught:
        mvf.train(config, tmp_path / "run")
    assert all(name in str(caught.value) for name in ("Penn_Action/", "penn_action/", "published"))
    assert not (tmp_path / "run").exists()


def test_check_of_missing_data_prints_the_same(tmp_path, capsys):
    assert main(["check", "finegym99", "--data-root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert str(tmp_path) in message.splitlines()[0] and "finegym_annotation_info" in message
