"""`videos.csv` gets labels that the folder dataset reads, and loses nothing."""

import cv2
import numpy as np
import pytest

from mvf.data.datasets.folder import find_videos
from mvf.workbench.widgets.phase_table import PhaseTable, phases_of

FRAMES = 12


@pytest.fixture
def folder(tmp_path):
    """Four videos as folders of numbered images, one of them in a subfolder."""
    for name in ("a", "b", "more/c", "d"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(FRAMES):
            cv2.imwrite(str(tmp_path / name / f"{i:02}.png"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def read_back(folder):
    return {v.name: v.phases for split in ("train", "val") for v in find_videos(split, folder)}


@pytest.mark.parametrize(
    "segments",
    [
        ((0, 0),),
        ((0, 0), (4, 1), (9, 2)),
        ((3, 0), (4, 1)),
        ((0, 1), (4, 0)),
        ((0, 0), (4, 1), (6, 0), (8, 1)),
        ((0, 0), (4, -1), (6, 1)),
        ((0, 0), (4, 1), (11, -1)),
        ((2, 1), (5, 4)),
    ],
)
def test_every_form_of_label_is_read_back_by_the_folder_dataset(folder, segments):
    table = PhaseTable(folder / "videos.csv")
    table.write("more/c", segments, FRAMES)
    assert table.read("more/c").segments == segments
    found = read_back(folder)
    assert found["more/c"].tolist() == phases_of(segments, np.arange(FRAMES)).tolist()
    assert sorted(found) == ["a", "b", "d", "more/c"] and found["a"] is None  # a new table hides no video


def test_other_cells_rows_and_columns_stay(tmp_path):
    path = tmp_path / "videos.csv"
    before = '\ufeffaction,path, split,notes\r\n"pull, up",a.mp4,train,"two\nlines"\r\nrow,./b.mov\r\n\r\n'
    path.write_text(before, newline="", encoding="utf-8")
    PhaseTable(path).write("b", ((0, 0), (5, 1)), None)
    after = 'action,path,split,notes,phases\r\n"pull, up",a.mp4,train,"two\nlines"\r\nrow,./b.mov,,,0;5\r\n\r\n'
    assert path.read_bytes().decode("utf-8") == "\ufeff" + after
    assert [file.name for file in tmp_path.iterdir()] == ["videos.csv"]  # nothing half-written is left


def test_an_unchanged_label_changes_no_byte(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text("path, phases\na.mp4, 0; 5;\n")
    np.save(tmp_path / "b.npy", [0, 0, 1])
    PhaseTable(path).write("a", ((0, 0), (5, 1)), 9)
    assert path.read_text() == "path, phases\na.mp4, 0; 5;\n"


def test_label_files_of_others_are_never_overwritten(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text("path,phases\na.mp4,old.npy\n")
    np.save(tmp_path / "old.npy", [0, 0, 1, 0])
    (tmp_path / "a.phases.csv").write_text("somebody's")
    table = PhaseTable(path)
    assert table.read("a").segments == ((0, 0), (2, 1), (3, 0)) and table.read("a").length == 4
    table.write("a", ((0, 1), (2, 0)), 4)
    assert path.read_text() == "path,phases\na.mp4,a.phases2.csv\n"
    table.write("a", ((0, 1), (3, 0)), 4)  # its own file is replaced
    assert path.read_text() == "path,phases\na.mp4,a.phases2.csv\n"
    assert (tmp_path / "a.phases2.csv").read_text() == "1\n1\n1\n0\n"
    assert np.load(tmp_path / "old.npy").tolist() == [0, 0, 1, 0]
    assert (tmp_path / "a.phases.csv").read_text() == "somebody's"


def test_a_failed_write_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "videos.csv"
    path.write_text("path,phases\na.mp4,0;3\n")
    monkeypatch.setattr(
        "mvf.workbench.widgets.phase_table.csv.writer", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        PhaseTable(path).write("a", ((0, 0), (4, 1)), 9)
    assert path.read_text() == "path,phases\na.mp4,0;3\n" and len(list(tmp_path.iterdir())) == 1


def test_wrong_tables_and_labels_are_refused(tmp_path):
    path = tmp_path / "videos.csv"
    with pytest.raises(ValueError, match='must be a table like "videos.csv"'):
        PhaseTable(tmp_path)
    path.write_text("file,phases\na,0\n")
    with pytest.raises(ValueError, match="no column path; its columns are file, phases"):
        PhaseTable(path)
    path.write_text("path,phases\na.mp4,x;y\nb.mp4,3;3\nc.mp4,no.npy\nd.mp4,\nd.mov,\ne.mp4,e.csv\n")
    (tmp_path / "e.csv").write_text("phase\n0\n0.5\n")
    table = PhaseTable(path)
    for name, problem in {
        "a": "neither first frames",
        "b": "later than the one before",
        "c": "cannot read",
        "e": "integers",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: .*{problem}"):
            table.read(name)
    with pytest.raises(ValueError, match='lists "d" 2 times'):
        table.read("d")
    with pytest.raises(ValueError, match=r"d.mp4: phases \[1, 0\] are not 0, 1, 2.*lengths="):
        table.write("d.mp4", ((0, 1), (2, 0)), None)


def test_a_table_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_bytes("path,phases\nkür.mp4,0;3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"videos\.csv is not a UTF-8 table .byte 0xfc at 13.: save it as CSV, UTF-8"):
        PhaseTable(path)


def test_the_folder_is_made_by_the_first_label(tmp_path):
    table = PhaseTable(tmp_path / "new" / "deeper" / "videos.csv")
    assert table.read("a.mp4") is None and not (tmp_path / "new").exists()
    table.write("a.mp4", ((0, 0), (4, 1)), 9)
    assert table.read("a.mp4").segments == ((0, 0), (4, 1))


NAMES = ("down, slowly", 'the "hold"', "вверх", "הרמה", "保持")


@pytest.mark.parametrize(
    "start", ["path,phases\na,0;3\nb,\n", "path;phases\na;0\nb;\n", "path\tsplit\na\tval\nb\tval\n"]
)
def test_names_of_any_alphabet_survive_in_any_table(folder, start):
    path = folder / "videos.csv"
    path.write_text(start)
    table = PhaseTable(path)
    table.write_names(("a", "b"), NAMES)
    assert table.read_names("ab") == NAMES
    assert {video.phase_names for split in ("train", "val") for video in find_videos(split, folder)} == {NAMES}
    table.write("b", ((0, 0), (4, 1)), FRAMES)
    assert table.read_names("ab") == NAMES and table.read("b").segments == ((0, 0), (4, 1))


def test_names_change_no_other_cell(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text('path,notes,phases\na.mp4,"two\nlines",0;3\nb.mp4,,\n')
    PhaseTable(path).write_names(["b"], ["down", "up"])
    assert path.read_text() == 'path,notes,phases,phase_names\na.mp4,"two\nlines",0;3\nb.mp4,,,down;up\n'
    with pytest.raises(ValueError, match="the name 'a;b' has a ';'"):
        PhaseTable(path).write_names(["b"], ["a;b"])
    path.write_text("path,phase_names\na.mp4,down;up\nb.mp4,up;down\n")
    with pytest.raises(ValueError, match='names the phases of b "up; down", those of a "down; up"'):
        PhaseTable(path).read_names("ab")


def test_parts_are_listed_once(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text("path,split\nset.mp4,train\nb.mp4,val\n")
    (tmp_path / "set.mp4").write_bytes(b"")
    PhaseTable(path).write_parts("set", [(0.0, 0.5), (0.5, 1.0)])
    before = path.read_text()
    assert before.splitlines()[1:3] == ["set.mp4,train,0.000,0.500", "set.mp4,train,0.500,1.000"]
    with pytest.raises(ValueError, match="lists parts of set already; remove their rows first"):
        PhaseTable(path).write_parts("set", [(0.0, 1.0)])
    assert path.read_text() == before


def test_a_label_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text("path,phases,split\na.mp4,0;3,val\nb.mp4,0;4,train\n")
    table = PhaseTable(path)
    table.write("a", (), 9)
    assert path.read_text() == "path,phases,split\na.mp4,,val\nb.mp4,0;4,train\n" and table.read("a") is None
    table.write("c", (), 9)
    assert path.read_text() == "path,phases,split\na.mp4,,val\nb.mp4,0;4,train\n", "nothing to remove adds no row"
