"""Proposals of phases for new videos: `mvf apply` writes them, and scores them where labels exist."""

import csv
import json

import numpy as np
import pytest

import mvf
from mvf.__main__ import main
from mvf.alignment import phase_confidence
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.segments import propose, segment_scores
from tests.conftest import TINY
from tests.data.footage import write_video


def video(name, values, phases=None, action="squat"):
    angles = np.array(values, np.float32)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1)
    return EmbeddedVideo(name, action, embeddings, None if phases is None else np.array(phases))


@pytest.mark.parametrize("method", ["dtw", "nearest", "probe"])
def test_phases_are_carried_with_a_confidence(method):
    known = video("known", [0, 0.2, 0.4, 2, 2.2, 2.4], [0, 0, 0, 1, 1, 1])
    (found,) = propose([known], [video("new", [0, 0.1, 0.4, 1.2, 2.1, 2.4])], method)
    assert found.phases[[0, 1, 2, 4, 5]].tolist() == [0, 0, 0, 1, 1]
    assert found.confidence[[0, 1, 2, 4, 5]].min() > 0.99 > 0.6 > found.confidence[3]


def test_confidence_falls_where_labelled_videos_disagree():
    agree = [video("a", [0, 2], [0, 1]), video("b", [0.1, 2.1], [0, 1])]
    differ = [agree[0], video("b", [0.1, 2.1], [1, 0])]
    new = video("new", [0.05, 2.05])
    assert phase_confidence(agree, new, np.array([0, 1])).min() > 0.99
    assert phase_confidence(differ, new, np.array([0, 1])) == pytest.approx([0.5, 0.5], abs=0.01)
    assert phase_confidence(agree, new, np.array([-1, 1]))[0] == 0


def test_what_cannot_be_proposed_is_named():
    known = video("known", [0, 2], [0, 1])
    with pytest.raises(ValueError, match='new shows "jump"; labelled videos show squat'):
        propose([known], [video("new", [0, 1], action="jump")])
    with pytest.raises(ValueError, match='unknown method "dwt".*did you mean "dtw"'):
        propose([known], [video("new", [0, 1])], "dwt")
    with pytest.raises(ValueError, match="label a clip first"):
        propose([video("known", [0, 1])], [video("new", [0, 1])])


def test_scores_of_a_perfect_and_a_shifted_proposal():
    true = [np.repeat([0, 1], 5)]
    assert set(segment_scores(true, true).values()) == {0, 1}
    shifted = segment_scores([np.repeat([0, 1], [7, 3])], true, [np.arange(10) / 5])
    assert shifted["accuracy"] == 0.8 and shifted["boundary error"] == 2
    assert shifted["boundary error, s"] == pytest.approx(0.4)
    assert segment_scores([np.zeros(10, int)], true)["missed boundaries"] == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return mvf.train(mvf.load_config("synthetic", **TINY | {"epochs": 1}), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def clips(tmp_path):
    for name in ("a", "b", "c"):
        write_video(tmp_path / "clips" / f"{name}.mp4", count=20)
    (tmp_path / "clips" / "videos.csv").write_text(
        "path,phases,phase_names\na.mp4,0;10,dark;bright\nb.mp4,,\nc.mp4,,\n"
    )
    return tmp_path / "clips"


def test_apply_labels_the_rest_of_a_folder(run, clips, tmp_path, capsys):
    command = ["apply", str(run.folder), str(clips), "--labels", str(clips / "videos.csv")]
    assert main([*command, "--out", str(tmp_path / "s.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open(encoding="utf-8")))
    assert [row["video"] for row in rows] == ["a", "a", "b", "b", "c", "c"]
    assert [row["by"] for row in rows] == ["human"] * 2 + ["model"] * 4
    assert {(row["start_frame"], row["name"]) for row in rows} == {("0", "dark"), ("10", "bright")}  # equal videos
    assert rows[2]["model"] == str(run.folder) and float(rows[2]["confidence"]) > 0.5
    assert rows[3]["start"] == "0.333" and rows[3]["end"] == "0.667"
    assert "2 of them labelled by the model" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "t.json"), "--format", "label-studio"]) == 0
    assert len(json.loads((tmp_path / "t.json").read_text())) == 3
    assert main([*command, "--out", str(tmp_path / "elan"), "--format", "elan"]) == 0
    assert sorted(path.name for path in (tmp_path / "elan").iterdir()) == ["a.eaf", "b.eaf", "c.eaf"]


def test_apply_to_one_file_and_to_labelled_videos(run, clips, tmp_path, capsys):
    other = tmp_path / "other"
    write_video(other / "d.mp4", count=20)
    (other / "videos.csv").write_text("path,phases\nd.mp4,0;12\n")
    labels = ["--labels", str(clips / "videos.csv"), "--out", str(tmp_path / "s.csv")]
    assert main(["apply", str(run.folder), str(other), *labels]) == 0
    out = capsys.readouterr().out
    assert "position only (clock)" in out and "f1@50 1.000" in out and "boundary error 2.000" in out
    assert main(["apply", str(run.folder), str(other / "d.mp4"), *labels]) == 0
    assert {row["video"] for row in csv.DictReader((tmp_path / "s.csv").open())} == {"d"}


def test_labelled_videos_are_known_however_their_folder_is_written(run, clips, tmp_path):
    (tmp_path / "link").symlink_to(clips)
    labels = ["--labels", str(clips / "videos.csv"), "--out", str(tmp_path / "s.csv")]
    for given in (tmp_path / "link", clips / ".." / "clips"):
        assert main(["apply", str(run.folder), str(given), *labels]) == 0
        rows = list(csv.DictReader((tmp_path / "s.csv").open()))
        assert [row["by"] for row in rows if row["video"] == "a"] == ["human"] * 2


def test_apply_names_what_is_wrong(run, clips, tmp_path, capsys):
    command = ["apply", str(run.folder), str(clips), "--out", str(tmp_path / "s.csv"), "--labels"]
    for labels, message in (
        (clips / "labels.csv", "must be the videos.csv"),
        (clips, f"is a folder; name its table, {clips / 'videos.csv'}"),
        (tmp_path / "videos.csv", "does not exist: label a clip in align.ipynb"),
    ):
        assert main([*command, str(labels)]) == 1
        assert message in capsys.readouterr().err
    (clips / "videos.csv").write_text("path\na.mp4\nb.mp4\n")
    assert main([*command, str(clips / "videos.csv")]) == 1
    assert "labels no video" in capsys.readouterr().err and not (tmp_path / "s.csv").exists()


def test_segments_do_not_replace_a_table_of_labels(run, clips, capsys):
    table = clips / "videos.csv"
    before = table.read_text()
    assert main(["apply", str(run.folder), str(clips), "--labels", str(table), "--out", str(table)]) == 1
    assert "is the name of a table of labels" in capsys.readouterr().err and table.read_text() == before


def test_a_table_that_lists_one_clip_leaves_the_others_out_and_says_so(run, clips, tmp_path, capsys, caplog):
    (clips / "videos.csv").write_text("path,phases\na.mp4,0;10\n")
    labels = ["--labels", str(clips / "videos.csv"), "--out", str(tmp_path / "s.csv")]
    assert main(["apply", str(run.folder), str(clips), *labels]) == 0
    assert "2 segments of 1 videos, all labelled in the table" in capsys.readouterr().out
    assert "not used: 2 videos: not listed in videos.csv, such as b.mp4; add a row" in caplog.text


def test_repetitions_are_listed_and_written_as_parts(run, tmp_path, monkeypatch, capsys):
    from mvf.evaluation.repetitions import Repetitions
    from mvf.workbench.notebook import segments

    write_video(tmp_path / "set.mp4", count=30)
    write_video(tmp_path / "other.mp4", count=30)
    command = ["repetitions", str(run.folder), str(tmp_path / "set.mp4")]
    assert main(command) == 0 and "set: 1 repetition of 1.00 s" in capsys.readouterr().out  # nothing repeats there
    cut = Repetitions(np.array([0, 9, 18, 30]), np.array([0.9, 0.8]))
    monkeypatch.setattr(segments, "find_repetitions", lambda embeddings: cut)
    assert main([*command, "--out", str(tmp_path / "videos.csv")]) == 0
    out = capsys.readouterr().out
    assert "set: 3 repetitions of 0.33 s ± 0.06 s, 17%" in out and "0.60 to     1.00 s     0.40 s  +20%" in out
    found = [r for split in ("train", "val") for r in mvf.data.find_videos("folder", split, tmp_path)]
    assert {r.name: r.num_frames for r in found} == {
        "other": 30, "set@0.000-0.300": 9, "set@0.300-0.600": 9, "set@0.600-1.001": 12,
    }  # fmt: skip


def test_repetitions_do_not_replace_labels(run, clips, capsys):
    table = clips / "videos.csv"
    before = table.read_text()
    assert main(["repetitions", str(run.folder), str(clips / "a.mp4"), "--out", str(table)]) == 1
    assert "holds phases of the whole file" in capsys.readouterr().err and table.read_text() == before
