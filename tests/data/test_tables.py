"""Tables that people write, in the forms in which spreadsheets save them: the one reader of `mvf.data.labels`."""

import os
import unicodedata

import numpy as np
import pytest

from mvf.__main__ import main
from mvf.data import find_videos
from mvf.data.labels import existing, read_boxes, read_csv, read_phase_file
from mvf.data.video import ImageFolder
from mvf.embedding import EmbeddedVideo, write_embeddings
from mvf.evaluation.external import match, read_embeddings, read_labels, score_embeddings
from mvf.workbench.widgets.phase_table import PhaseTable

from .footage import write_images, write_video

NAMES = ["a", "kür", "ключ"]
DECOMPOSED = unicodedata.normalize("NFD", "kür")
FORMS = {
    "commas": "path,split,phases\na.mp4,train,0;4\nkür.mp4,val,0;5\nключ.mp4,train,1;6\n".encode(),
    "semicolons": 'path;split;phases\na.mp4;train;"0;4"\nkür.mp4;val;"0;5"\nключ.mp4;train;"1;6"\n'.encode(),
    "tabs of a spreadsheet": (
        "path\tsplit\tphases\r\na.mp4\ttrain\t0;4\r\nkür.mp4\tval\t0;5\r\nключ.mp4\ttrain\t1;6\r\n".encode("utf-16")
    ),
    "a mark and capitals": "Path, Split, Phases\na.mp4, train, 0;4\nkür.mp4, val, 0;5\nключ.mp4, train, 1;6".encode(
        "utf-8-sig"
    ),
    "blank lines and cells": (
        "\n,,\npath,split,phases,,\na.mp4,train,0;4,,\n\n,,,,\nkür.mp4,val,0;5,,\nключ.mp4,train,1;6,\n\n".encode()
    ),
    "other names": f"path,split,phases\n.\\a.mp4,train,0;4\n{DECOMPOSED}.mp4,val,0;5\nключ.mp4,train,1;6\n".encode(),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name in NAMES:
        write_video(folder / f"{name}.mp4", 8)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_videos_csv_is_read_in_every_form(clips, form):
    (clips / "videos.csv").write_bytes(FORMS[form])
    found = {
        split: {v.name: v.phases.tolist() for v in find_videos("folder", split, clips)} for split in ("train", "val")
    }
    assert found == {
        "train": {"a": [0] * 4 + [1] * 4, "ключ": [-1] + [0] * 5 + [1] * 2},
        "val": {"kür": [0] * 5 + [1] * 3},
    }


@pytest.mark.parametrize("form", FORMS)
def test_the_labeler_changes_one_cell_and_keeps_the_form(clips, form):
    path = clips / "videos.csv"
    path.write_bytes(FORMS[form])
    before = read_csv(path)
    PhaseTable(path).write("kür", ((0, 0), (7, 1)), 8)
    after = read_csv(path)
    assert (after.titles, after.separator, after.encoding) == (before.titles, before.separator, before.encoding)
    changed = [(a, b) for (_, a), (_, b) in zip(before.lines, after.lines, strict=True) if a != b]
    assert [pair[1][2] for pair in changed] == ["0;7"] and changed[0][0][2] == "0;5"
    assert (b"\r\n" in path.read_bytes().replace(b"\0", b"")) == (b"\r\n" in FORMS[form].replace(b"\0", b""))
    assert find_videos("folder", "val", clips)[0].phases.tolist() == [0] * 7 + [1]


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_anyones_embeddings_are_read_in_every_form(tmp_path, form):
    (tmp_path / "labels.csv").write_bytes(FORMS[form].replace(b".\\", b""))
    train, val = match({name: np.ones((8, 2), np.float32) for name in NAMES}, read_labels(tmp_path / "labels.csv"))
    assert {v.name for v in train} == {"a", "ключ"} and [v.name for v in val] == ["kür"]
    assert val[0].phases.tolist() == [0] * 5 + [1] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,split\n"a.mp4,train\nkür.mp4,val\n'.encode(), "not a UTF-8 table .unexpected end of data"),  # lost rows
        (b"path,split\na.mp4,train,0;4\n", "line 2: more cells than columns; quote text that holds commas"),
        (b"path;phases\na.mp4;0;4\n", "line 2: more cells than columns; quote text that holds semicolons"),
        (b"path,splitt\na.mp4,train\n", 'unknown column "splitt"; did you mean "split"'),
        (b"path,,split\na.mp4,x,train\n", 'line 2: "x" is in a column without a name'),
        (b"path,Path\na.mp4,b.mp4\n", "has the column path 2 times|has the column Path 2 times"),
        ("path\nkür.mp4\n".encode("cp1252"), "not a UTF-8 table .byte 0xfc at 6.: save it as CSV, UTF-8"),
        ("path\nключ.mp4\n".encode("cp1251"), "not a UTF-8 table .byte 0xea at 5."),
        ("path\na.mp4\n".encode("utf-16-le"), "not a UTF-8 table .it holds zero bytes."),
        ("path\na.mp4\n".encode("utf-16")[:-1], "not a UTF-8 table"),
        (b"path,phases\na.mp4,0;99999999999999999999\n", "no video is that long"),
    ],
)
def test_other_tables_are_refused_by_name(clips, content, message):
    (clips / "videos.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"(videos.csv|a).*({message})"):
        find_videos("folder", "train", clips)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1,2,3,4\n5,6,7.5,8\n", [[1, 2, 3, 4], [5, 6, 7.5, 8]]),
        ("x0;y0;x1;y1\n1,5;2;3;4,25\n\n5;6;7;8;\n", [[1.5, 2, 3, 4.25], [5, 6, 7, 8]]),
        ("\ufeffx0\ty0\tx1\ty1\n1,5\t2\t3\t4\n5\t6\t7\t8\n", [[1.5, 2, 3, 4], [5, 6, 7, 8]]),
        ("1,2,3,4\n5,6,7\n", "line 2 has 3 numbers, the lines before it 4"),
        ("1,2,3,4\n#5,6,7,8\n", '"#5" in line 2 is not a number'),  # no row is lost
        ("1o,2,3,4\n5,6,7,8\n", '"1o" in line 1 is not a number'),  # no header
        ("1,2,3,nan\n5,6,7,8\n", "box .*nan.* of frame 0"),
        ("1,2,3,4\n", "have shape"),
        ("", "have shape"),
    ],
)
def test_numbers_of_frames_are_read_or_refused(tmp_path, text, wanted):
    source = ImageFolder(write_images(tmp_path / "images", 2))
    (tmp_path / "boxes.csv").write_text(text, encoding="utf-8")
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=wanted):
            read_boxes("clip", tmp_path / "boxes.csv", source)
    else:
        assert read_boxes("clip", tmp_path / "boxes.csv", source).tolist() == wanted


@pytest.mark.parametrize(
    "text", ["phase\n0\n0\n1\n", "0\r\n0\r\n1", "0\n\n0\n1\n\n", "0,\n0,\n1,\n", "\ufeff0\n0\n1\n"]
)
def test_phases_of_frames_are_read(tmp_path, text):
    (tmp_path / "p.csv").write_text(text, encoding="utf-8", newline="")
    assert read_phase_file("clip", tmp_path / "p.csv").tolist() == [0, 0, 1]


def test_a_path_that_names_no_file_stays_as_it_is(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "é.mp4").touch()
    spelt = unicodedata.normalize("NFD", "é")
    assert existing(tmp_path, f"sub\\{spelt}.mp4") == "sub/é.mp4"
    for path in ("gone.mp4", "sub\\gone.mp4", "../else.mp4", str(tmp_path / "gone.mp4")):
        assert existing(tmp_path, path) == path


# The CSV that `mvf embed` writes -------------------------------------------------------------------------------------


def _embedded(rate=1):
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        vectors = rng.normal(size=(20, 4)).astype(np.float32)
        numbers = np.arange(0, 20 * rate, rate)
        made.append(
            EmbeddedVideo(f"clip, {i}", "act", vectors / np.linalg.norm(vectors, axis=1)[:, None], None, numbers)
        )
    return made


def _label(folder, frames):
    rows = [f'"clip, {i}",{"val" if i % 3 == 2 else "train"},act,0;{frames // 2}' for i in range(6)]
    (folder / "labels.csv").write_text("\n".join(["name,split,action,phases", *rows]))


def test_both_files_of_embed_are_scored_alike(tmp_path):
    _label(tmp_path, 20)
    for suffix in (".npz", ".csv"):
        write_embeddings(_embedded(), tmp_path / f"e{suffix}")
    arrays = [read_embeddings(tmp_path / f"e{suffix}") for suffix in (".npz", ".csv")]
    assert list(arrays[0]) == list(arrays[1]) and all((arrays[0][k] == arrays[1][k]).all() for k in arrays[0])
    assert main(["evaluate", str(tmp_path / "e.csv"), str(tmp_path / "labels.csv")]) == 0
    reports = [score_embeddings(tmp_path / f"e{suffix}", tmp_path / "labels.csv") for suffix in (".npz", ".csv")]
    assert reports[0]["scores"] == reports[1]["scores"] and os.path.exists(tmp_path / "e.metrics.json")


def test_labels_count_the_frames_of_the_file_that_the_csv_names(tmp_path):
    _label(tmp_path, 60)
    write_embeddings(_embedded(3), tmp_path / "e.csv")
    from mvf.evaluation.external import _read_arrays

    arrays, numbers = _read_arrays(tmp_path / "e.csv")
    train, _ = match(arrays, read_labels(tmp_path / "labels.csv"), numbers)
    assert train[0].phases.tolist() == [0] * 10 + [1] * 10 and train[0].number(19) == 57
    with pytest.raises(
        ValueError, match=r"last phase starts at frame 30, but its embeddings have 20 frames \(0 to 19\)"
    ):
        match(arrays, read_labels(tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,frame\na,0\n", "columns must be name, frame, and one for every channel"),
        ("frame,name,e0\n0,a,1\n", "columns must be name, frame"),
        ("name,frame,e0,e1\na,0,1,2\na,1,1\n", "line 3 has no column e1"),
        ("name,frame,e0\na,0,1\na,1,x\n", "line 3: could not convert"),
        ("name,frame,e0\na,1,1\na,0,1\n", 'line 3: frame 0 of video "a" is out of order'),
        ("name,frame,e0\na,0,nan\n", "values are not finite"),
        ("name,frame,e0\n", "holds no arrays"),
    ],
)
def test_a_wrong_csv_of_embeddings_is_refused(tmp_path, text, message):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_embeddings(tmp_path / "e.csv")
