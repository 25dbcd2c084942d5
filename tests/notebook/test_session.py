"""Which run a notebook opens where nothing, or a relative path, is given."""

import csv
import os

import numpy as np
import pytest

import mvf
from mvf.config import config_text, load_config
from mvf.data import find_videos
from mvf.embedding import EmbeddedVideo
from mvf.workbench import notebook
from mvf.workbench.notebook import session
from mvf.workbench.notebook.session import find_run
from tests.conftest import TINY
from tests.data.footage import number_of, write_video


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "default_folder", lambda config: tmp_path / "runs" / "synthetic-1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def make_run(folder, age, epochs=2, done=2):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config_text(load_config("demo", epochs=epochs)))
    with open(folder / "history.csv", "w", newline="") as file:
        csv.writer(file).writerows([["epoch", "loss"], *([epoch, 1.0] for epoch in range(1, done + 1))])
    os.utime(folder / "history.csv", (1e9 - age, 1e9 - age))
    return folder


def test_nothing_given_is_the_newest_finished_run_and_the_others_are_listed(repository):
    runs = repository / "runs"
    make_run(runs / "old", 300)
    newest = make_run(runs / "batch" / "penn-1", 20)
    make_run(newest / "actions" / "squat", 10)
    make_run(runs / "killed", 0, epochs=3)
    (make_run(runs / "damaged", 0) / "config.json").write_text("{")
    found, choice = find_run()
    assert found == newest
    assert choice == "run_dir is empty: runs/batch/penn-1 is the newest; other finished runs: runs/old"


def test_a_relative_path_is_taken_from_here_and_then_from_the_repository(repository):
    run = make_run(repository / "runs" / "mine", 0)
    for given in ("runs/mine", run, "../runs/mine"):
        found, choice = find_run(given)
        assert found.resolve() == run and not choice
    with pytest.raises(
        ValueError, match="runs/other is not a run folder .*finished runs: runs/mine; released heads: drawn$"
    ):
        find_run("runs/other")


def test_training_writes_where_the_other_notebooks_look(repository, monkeypatch):
    config = load_config("demo")
    assert session.run_folder("", config) == repository / "runs" / "synthetic-1"
    make_run(repository / "runs" / "old", 0)
    assert session.run_folder("runs/mine", config) == repository / "runs" / "mine"
    (repository / "elsewhere" / "out").mkdir()
    assert session.run_folder("out/mine", config).resolve() == repository / "elsewhere" / "out" / "mine"
    assert session.run_folder("../runs/mine", config).resolve() == repository / "runs" / "mine"


@pytest.mark.parametrize(
    "done, said", [(None, "new"), (0, "begun, goes on"), (1, "begun, goes on"), (2, "finished, is only judged")]
)
def test_the_run_to_be_trained_says_what_is_there(repository, done, said):
    if done is not None:
        history = make_run(repository / "runs" / "mine", 0, done=done) / "history.csv"
        if not done:
            history.unlink()
    table = session.run_table(load_config("demo", epochs=2), repository / "runs" / "mine")
    assert f"runs/mine ({said})" in str(table) and "epochs" in str(table) and "learning_rate" not in str(table)
    html = table._repr_html_()
    assert "<details>" in html and html.index("<details>") < html.index("learning_rate")


def test_without_a_run_it_says_how_to_get_one(repository):
    with pytest.raises(ValueError, match="holds no finished run: make demo, or run train.ipynb first"):
        find_run()


# reports of clips that changed ---------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    for i in range(6):
        write_video(tmp_path / "clips" / f"c{i}.mp4", 20 + 2 * i)
    settings = {name: value for name, value in TINY.items() if name != "data_options"}
    config = mvf.load_config("folder", **{**settings, "epochs": 1, "fps": 15, "data_root": str(tmp_path / "clips")})
    return mvf.train(config, tmp_path / "run")


def report_of(run):
    opened = notebook.open_session(run.folder)
    return notebook.stored_or_new_report(opened)


def label(clips, start):
    rows = "".join(f"c{i}.mp4,{'val' if i in (2, 5) else 'train'},video,0;{start}\n" for i in range(6))
    (clips / "videos.csv").write_text("path,split,action,phases\n" + rows)


def test_the_report_follows_labels_and_clips_and_says_so(trained, tmp_path, monkeypatch):
    clips = tmp_path / "clips"
    first = report_of(trained)
    assert not first["scores"] and not first["made_anew"]
    assert report_of(trained) == first, "it is stored"
    label(clips, 10)
    second = report_of(trained)
    assert second["scores"] and second["coverage"]["val"]["found"] == 2
    assert "labels of 6 clips changed" in second["made_anew"] and "moved to the other split" in second["made_anew"]
    assert "made anew: " in notebook.summary(second) and not report_of(trained)["made_anew"]
    label(clips, 8)
    assert report_of(trained)["made_anew"].startswith("labels of 6 clips changed")
    write_video(clips / "c0.mp4", 20, width=80)
    assert report_of(trained)["made_anew"] == "1 clip replaced by other footage (c0)"
    path = trained.folder / "metrics.clips.json"
    assert path.exists()
    path.unlink()
    assert "does not list its clips" in report_of(trained)["made_anew"]
    monkeypatch.setattr(session, "PROTOCOL", "the next")
    assert "of an older version" in report_of(trained)["made_anew"]


@pytest.mark.parametrize("fps", [15, 7, 60])
def test_a_label_is_of_the_frame_of_the_file_whatever_the_rate(trained, tmp_path, fps):
    opened = notebook.open_session(trained.folder, fps=fps)
    splits = notebook.embed_splits(opened.model, opened.config, one_is_enough=True)
    labeler = notebook.phase_labeler(opened, splits)
    record = next(r for r in splits.train_records if r.name == "c0")
    shown = labeler._numbers["c0"]
    assert set(shown) <= set(record.frame_numbers)
    at = int(shown[len(shown) // 2])
    labeler.accept("c0", [[0, 0], [at, 1]])
    again = next(r for r in opened.find_videos("train") if r.name == "c0")
    assert number_of(list(again.frames())[int(np.argmax(again.phases == 1))]) == at
    assert [v.numbers.tolist() for v in splits.train if v.name == "c0"] == [record.frame_numbers.tolist()]


def test_labels_of_the_usual_data_folder_go_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_DATA", str(tmp_path))
    opened = session.Session(tmp_path, None, load_config("folder"), tmp_path / "figures")
    write_video(tmp_path / "a.mp4", 9)
    (record,) = records = find_videos("folder", "train", tmp_path, sides={"a": "train"})
    videos = [EmbeddedVideo("a", record.action, np.ones((9, 2), np.float32), None)]
    splits = session.Splits(records, [], videos, [], None)
    notebook.phase_labeler(opened, splits).accept("a", [[0, 0], [4, 1]])
    assert "0;4" in (tmp_path / "videos.csv").read_text()


def test_all_videos_of_an_action_are_labelled_and_two_of_one_name_stay_two(tmp_path):
    records = {}
    for split, names in {"train": "abcdefghijklmn", "val": "a"}.items():
        for name in names:
            write_video(tmp_path / split / f"{name}.mp4", 9)
        records[split] = find_videos("folder", "train", tmp_path / split, sides=dict.fromkeys(names, "train"))
    embedded = {
        split: [EmbeddedVideo(record.name, record.action, np.eye(9), None) for record in found]
        for split, found in records.items()
    }
    splits = session.Splits(records["train"], records["val"], embedded["train"], embedded["val"], None)
    opened = session.Session(tmp_path, None, load_config("demo"), tmp_path)
    labeler = notebook.phase_labeler(opened, splits)
    assert [strip["name"] for strip in labeler.strips] == [*"abcdefghijklmn", "val/a"]
    assert all(len(numbers) == 9 for numbers in labeler._numbers.values())
    labeler.accept("a", [[0, 0], [4, 1]])
    labeler.accept("val/a", [[0, 0], [5, 1]])
    said = labeler._write_segments(labeler)
    assert said == f"30 segments of 2 labelled videos and 13 others: {tmp_path / 'segments.csv'}"
    written = list(csv.DictReader((tmp_path / "segments.csv").open()))
    human = [(row["video"], row["start_frame"]) for row in written if row["by"] == "human"]
    assert human == [("a", "0"), ("a", "4"), ("val/a", "0"), ("val/a", "5")] and len(written) == 30
    rows = list(csv.DictReader((tmp_path / "labels" / "videos.csv").open()))
    assert {row["path"]: row["phases"] for row in rows if row["phases"]} == {"a": "0;4", "val/a": "0;5"}
