"""Segments through every format and back to the frame; what is malformed is named with its line."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from mvf.data import labels
from mvf.data.datasets.folder import find_videos
from mvf.data.labels import SEGMENT_COLUMNS, read_elan
from mvf.segments import NO_TIMES, Segment, read_segments, video_segments, write_segments
from mvf.workbench.widgets.phase_table import PhaseTable
from tests.data.footage import write_images, write_video

NAMES = ("hang", 'up & "over" <top>', "вниз")
PHASES = np.array([-1, 0, 0, 1, 1, 1, -1, 2, 2, 0, 0, 0])
UNEVEN = [0, 1, 2, 5, 6, 7, 8, 20, 21, 22, 30, 31]  # in frames of 30 per second


@pytest.fixture
def record(tmp_path):
    write_video(tmp_path / "clip.mp4", times=UNEVEN)
    (found,) = find_videos("train", tmp_path)
    return found


@pytest.fixture
def segments(record):
    return video_segments(record, PHASES, NAMES, np.linspace(0, 1, 12), "model", "runs/a")


def labelled(folder, phases, names=None):
    """The phases that a folder data set reads where `videos.csv` names a file."""
    with (folder / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["path", "phases", "phase_names"], ["clip.mp4", phases, ";".join(NAMES) if names is None else names]]
        )
    return find_videos("train", folder)[0].phases.tolist()


def test_segments_have_the_files_own_seconds(segments):
    assert [(s.start_frame, s.end_frame, s.phase) for s in segments] == [(1, 3, 0), (3, 6, 1), (7, 9, 2), (9, 12, 0)]
    assert [round(30 * s.start) for s in segments] == [1, 5, 20, 22]
    assert [round(30 * s.end) for s in segments[:3]] == [5, 8, 22]
    assert segments[3].end == pytest.approx((31 + 31 / 11) / 30)  # the last frame stays as long as frames do on average
    assert segments[0].confidence == pytest.approx(1.5 / 11) and segments[1].name == NAMES[1]


def test_the_table_comes_back(segments, record, tmp_path):
    write_segments(segments, tmp_path / "segments.csv", [record])
    found = read_segments(tmp_path / "segments.csv")
    assert [(s.video, s.start_frame, s.end_frame, s.phase, s.name, s.by, s.model) for s in found] == [
        (s.video, s.start_frame, s.end_frame, s.phase, s.name, s.by, s.model) for s in segments
    ]
    assert all(
        abs(a.start - b.start) < 1e-3 and abs(a.confidence - b.confidence) < 1e-3 for a, b in zip(found, segments)
    )
    assert labelled(tmp_path, "segments.csv") == PHASES.tolist()


def test_every_file_of_labels_is_read_once(tmp_path, monkeypatch):
    read = []
    original = labels.split_csv
    monkeypatch.setattr(labels, "split_csv", lambda path: read.append(path.name) or original(path))
    rows = [SEGMENT_COLUMNS[:6], *([name, 0, 6, "", "", i % 2] for i, name in enumerate("abcd"))]
    (tmp_path / "all.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    (tmp_path / "e.csv").write_text("0\n" * 9)
    for name in "abcde":
        write_video(tmp_path / f"{name}.mp4", 9)
    lines = ["path,split,phases", *(f"{name}.mp4,train,all.csv" for name in "abcd"), "e.mp4,train,e.csv"]
    (tmp_path / "videos.csv").write_text("\n".join(lines))
    found = find_videos("train", tmp_path)
    assert [int(record.phases[0]) for record in found] == [0, 1, 0, 1, 0]
    assert sorted(read) == ["all.csv", "e.csv", "videos.csv"]
    read.clear()
    table = PhaseTable(tmp_path / "videos.csv", {record.name: record.source for record in found})
    assert table.read_all("abcde")["b"].segments == ((0, 1), (6, -1))
    assert read.count("all.csv") == 1 and read.count("e.csv") == 1


def test_elan_comes_back_to_the_frame(segments, record, tmp_path):
    (file,) = write_segments(segments, tmp_path, [record], "elan")
    assert file.name == "clip.eaf" and labelled(tmp_path, "clip.eaf") == PHASES.tolist()
    assert [text for _, _, text in read_elan(file)] == [s.name for s in segments]
    assert labelled(tmp_path, "clip.eaf#phases") == PHASES.tolist()


@pytest.mark.parametrize("name", ["{}/clip", "../clip", "a/../../clip"])
def test_elan_files_stay_in_their_folder(segments, record, tmp_path, name):
    name = name.format(tmp_path)
    moved = [replace(segment, video=name) for segment in segments]
    (file,) = write_segments(moved, tmp_path / "out", [replace(record, name=name)], "elan")
    assert (tmp_path / "out") in file.resolve().parents and file.name == "clip.eaf"


def test_a_resampled_video_counts_the_files_frames(tmp_path):
    write_video(tmp_path / "clip.mp4", count=30)
    (record,) = find_videos("train", tmp_path, fps=10)
    found = video_segments(record, np.repeat([0, 1], [4, record.num_frames - 4]))
    assert found[0].end_frame == found[1].start_frame == record.frame_numbers[4]
    assert found[1].end_frame == 30


def test_boris_has_a_line_for_each_start_and_stop(segments, record, tmp_path):
    write_segments(segments, tmp_path / "boris.csv", [record], "boris")
    rows = list(csv.DictReader((tmp_path / "boris.csv").open(encoding="utf-8")))
    assert [row["Status"] for row in rows] == ["START", "STOP"] * 4 and len(rows[0]) == 10
    assert rows[2]["Behavior"] == NAMES[1] and float(rows[2]["Time"]) == pytest.approx(5 / 30, abs=1e-3)
    assert float(rows[0]["FPS"]) * float(rows[0]["Total length"]) == pytest.approx(12, abs=0.01)


def test_label_studio_counts_from_one_and_includes_the_end(segments, record, tmp_path):
    write_segments(segments, tmp_path / "tasks.json", [record], "label-studio")
    (task,) = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert task["data"]["video"].endswith("clip.mp4")
    (prediction,) = task["predictions"]
    values = [one["value"] for one in prediction["result"]]
    assert values[0] == {"ranges": [{"start": 2, "end": 3}], "timelinelabels": ["hang"]}
    assert {one["type"] for one in prediction["result"]} == {"timelinelabels"} and 0 <= prediction["score"] <= 1


def test_without_times_the_reason_stands_there(tmp_path):
    write_images(tmp_path / "pictures")
    (record,) = find_videos("train", tmp_path)
    found = video_segments(record, PHASES)
    assert found[0].start is None
    write_segments(found, tmp_path / "segments.csv", [record])
    assert (tmp_path / "segments.csv").read_text().count(NO_TIMES) == 8
    assert read_segments(tmp_path / "segments.csv")[0] == found[0]
    with pytest.raises(ValueError, match="pictures: the video has no time stamps, and elan needs seconds"):
        write_segments(found, tmp_path / "elan", [record], "elan")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("clip,0,5,0\nclip,4,9,1", "line 3: frames 4 to 9 of clip overlap those of line 2, 0 to 5"),
        ("clip,5,5,0", "line 2: end_frame is the first frame after"),
        ("clip,x,5,0", 'line 2: start_frame must be the number of a frame, got "x"'),
        ("clip,0,5,-1", 'phase must be 0, 1, 2, ..., got "-1"'),
        (",0,5,0", "line 2: the video is empty"),
        ("clip,0,13,0", "a segment ends at frame 13, clip has only 12"),
        ("clap,0,5,0", 'no segment of clip; did you mean "clap"'),
    ],
)  # fmt: skip
def test_a_malformed_table_is_named(rows, message, record, tmp_path):
    (tmp_path / "s.csv").write_text(f"video,start_frame,end_frame,phase\n{rows}\n")
    with pytest.raises(ValueError, match=message.replace("...", r"\.\.\.")):
        labelled(tmp_path, "s.csv", "")


def test_touching_segments_and_names_without_numbers_are_read(record, tmp_path):
    (tmp_path / "s.csv").write_text("video,start_frame,end_frame,name\nclip,0,5,down\nclip,5,12,up\n")
    assert labelled(tmp_path, "s.csv", "up;down") == [1] * 5 + [0] * 7
    with pytest.raises(ValueError, match='unknown phase "down"; did you mean "dawn"'):
        labelled(tmp_path, "s.csv", "up;dawn")
    with pytest.raises(ValueError, match="column phase_names"):
        labelled(tmp_path, "s.csv", "")


def test_a_malformed_elan_file_is_named(record, segments, tmp_path):
    (file,) = write_segments(segments, tmp_path, [record], "elan")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("</ANNOTATION_DOCUMENT>", ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"clip\.eaf, line \d+: not an ELAN file"):
        labelled(tmp_path, "clip.eaf")
    file.write_text("<html></html>")
    with pytest.raises(ValueError, match=r"clip\.eaf is not an ELAN file"):
        labelled(tmp_path, "clip.eaf")
    file.write_text(text.replace('TIER_ID="phases"', 'TIER_ID="a"').replace("</TIER>", "</TIER>" + _tier(text), 1))
    with pytest.raises(ValueError, match=r"tiers a, phases: name one, like clip\.eaf#a"):
        labelled(tmp_path, "clip.eaf")
    with pytest.raises(ValueError, match="column phase_names, like hang;"):
        labelled(tmp_path, "clip.eaf#a", "")


def test_the_labeler_shows_labels_of_elan_and_replaces_them(record, segments, tmp_path):
    from mvf.workbench.widgets import PhaseLabeler

    write_segments(segments, tmp_path, [record], "elan")
    labelled(tmp_path, "clip.eaf")
    labeler = PhaseLabeler({"clip": record}, tmp_path / "videos.csv")
    assert labeler.labels == {"clip": [[1, 0], [3, 1], [6, -1], [7, 2], [9, 0]]}
    labeler.accept("clip", [[0, 0], [4, 1], [8, 2]])
    assert find_videos("train", tmp_path)[0].phases.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def _tier(text):
    return text[text.index("<TIER") : text.index("</TIER>") + len("</TIER>")]


def test_overlapping_annotations_are_named(record, tmp_path):
    overlapping = [Segment("clip", 0, 5, 0.0, 0.5, 0, "down"), Segment("clip", 3, 9, 0.3, 0.9, 1, "up")]
    write_segments(overlapping, tmp_path, [record], "elan")
    with pytest.raises(ValueError, match=r'"down" \(0.000 to 0.500 s\) and "up" \(0.300 to 0.900 s\) overlap'):
        labelled(tmp_path, "clip.eaf", "down;up")
