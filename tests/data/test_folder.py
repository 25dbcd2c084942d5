from __future__ import annotations

import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import mvf
from mvf.chunks import Chunking
from mvf.data import find_videos
from mvf.data.index import reason_lines
from mvf.data.labels import read_masks
from mvf.embedding import embed_to_file
from mvf.evaluation.external import read_embeddings
from mvf.workbench.widgets.phase_table import PhaseTable

from .footage import SHARED, damage, number_of, picture, write_images, write_video

HEADER = "path,split,action,phases,boxes,masks\n"


def _folder(root: Path, names: str, count: int = 10) -> Path:
    for name in names.split():
        write_video(root / f"{name}.mp4", count)
    return root


def _table(root: Path, *rows: str, header: str = HEADER) -> Path:
    (root / "videos.csv").write_text(header + "\n".join(rows) + "\n")
    return root


def _labelled(root: Path, row: str, count: int = 10) -> Path:
    """A folder of one training video `a` with `count` frames, described by `row`."""
    return _table(_folder(root, "a", count), f"a.mp4,train,squat,{row}")


def _find(root: Path, split: str = "train", **options):
    return find_videos("folder", split, root, **options)


def _names(root: Path, split: str) -> list[str]:
    return [record.name for record in _find(root, split)]


# without a table ----------------------------------------------------------------------------------------------------


def test_videos_and_image_folders_are_found_also_below(tmp_path):
    _folder(tmp_path, "a more/b .hidden/c")
    write_images(tmp_path / "images" / "d.v2", 4)
    (tmp_path / "notes.txt").touch()
    cv2.imwrite(str(tmp_path / "poster1.png"), picture(0))
    cv2.imwrite(str(tmp_path / "more" / "poster1.png"), picture(0))
    assert sorted(_names(tmp_path, "train") + _names(tmp_path, "val")) == ["a", "images/d.v2", "more/b"]


def test_everything_is_one_assumed_action_without_labels(tmp_path):
    (record, other) = _find(_folder(tmp_path, "a b c"))
    assert (record.action, record.num_frames, record.phases) == ("video", 10, None)
    assert record.actor_mask() is record.actor_box() is record.joints() is None
    assert [number_of(frame) for frame in record.frames()] == list(range(10))
    assert _find(tmp_path).action_assumed is True


@pytest.mark.parametrize(
    "names, val",
    [("a", ""), ("a b", "b"), ("a b c d", "d"), ("a b c d e", "e"), ("a b c d e f g h i j k", "e j")],
)
def test_every_fifth_video_by_name_is_val(tmp_path, names, val):
    _folder(tmp_path, names, 2)
    assert _names(tmp_path, "val") == val.split()
    assert _names(tmp_path, "train") == [name for name in names.split() if name not in val.split()]


def test_dev_is_a_fixed_fifth_of_train(tmp_path):
    _folder(tmp_path, "a b c d e f g h i j k l m", 2)
    dev = _names(tmp_path, "dev")
    assert len(dev) == 2 and set(dev) < set(_names(tmp_path, "train"))
    assert dev == _names(tmp_path, "dev")


def test_names_that_clash_keep_their_extension(tmp_path):
    _folder(tmp_path, "a b", 4)
    write_video(tmp_path / "a.mkv", 4)
    write_images(tmp_path / "b", 4)
    names = _names(tmp_path, "train") + _names(tmp_path, "val")
    assert sorted(names) == ["a.mkv", "a.mp4", "b", "b.mp4"]


def test_records_reach_other_processes(tmp_path):
    root = _labelled(tmp_path, "0;4")
    videos = pickle.loads(pickle.dumps(_find(root)))
    assert videos[0].phases.tolist() == [0] * 4 + [1] * 6
    assert videos.coverage.found == 1 and videos.action_assumed is False


# the table ----------------------------------------------------------------------------------------------------------


def test_table_gives_split_action_and_phases(tmp_path):
    _folder(tmp_path, "a b sub/c d e", 10)
    _table(
        tmp_path, "a.mp4,val,squat,0;3;7", "sub/c.mp4,train,bowl,", "b.mp4,val,,", header="path,split,action,phases\n"
    )
    val, train = _find(tmp_path, "val"), _find(tmp_path, "train")
    assert [(r.name, r.action) for r in val + train] == [("a", "squat"), ("b", "video"), ("sub/c", "bowl")]
    assert val[0].phases.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert val[1].phases is train[0].phases is None
    assert (val.coverage.found, val.coverage.expected, val.action_assumed) == (2, 2, False)


def test_table_may_hold_paths_alone_and_come_from_a_spreadsheet(tmp_path):
    _folder(tmp_path, "a b", 4)
    (tmp_path / "videos.csv").write_text("\ufeffpath , action\r\n./a.mp4, squat\r\nb.mp4, squat\r\n", encoding="utf-8")
    assert [(r.name, r.action) for r in _find(tmp_path)] == [("a", "squat")]
    assert _names(tmp_path, "val") == ["b"]


NAMED = "path,split,action,phases,phase_names\n"


def test_phases_are_named_for_all_videos_of_an_action(tmp_path):
    rows = ("a.mp4,train,squat,0;5,down; up", "b.mp4,train,squat,0;5,", 'c.mp4,train,jump,0,"up, ""fast"""')
    found = _find(_table(_folder(tmp_path, "a b c"), *rows, header=NAMED))
    assert [record.phase_names for record in found] == [("down", "up")] * 2 + [('up, "fast"',)]
    assert [record.phase_names for record in _find(_folder(tmp_path / "other", "a b"))] == [()]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("0;5,down;up", "0;5,up;down"), 'action "squat" in two ways: "up;down" in b.mp4, "down;up" in a.mp4'),
        (("0;3;5,down;up", "0;5,"), "a: phase 2 has no name; phase_names has only down, up"),
        (("0;5,down;;up", "0,"), "a.mp4: phase 1 has no name"),
        (("0;5,up;up", "0,"), 'a.mp4: phases 0 and 1 are both named "up"'),
    ],
)
def test_names_that_do_not_fit_name_the_video(tmp_path, cells, message):
    rows = [f"{name}.mp4,train,squat,{cell}" for name, cell in zip("ab", cells)]
    with pytest.raises(ValueError, match=message):
        _find(_table(_folder(tmp_path, "a b"), *rows, header=NAMED))


def test_frames_have_the_times_of_their_file(tmp_path):
    (record,) = _find(_labelled(tmp_path, "0,,"), fps=10)
    assert record.frame_times.round(3).tolist() == [0, 0.1, 0.2, 0.3]
    write_images(tmp_path / "images" / "a", 3)
    assert _find(tmp_path / "images")[0].frame_times is None, "images have no times"


@pytest.mark.parametrize(
    "name, content",
    [("p.csv", "0\n0\n-1\n1\n1\n"), ("p.csv", "phase\n0\n0\n-1\n1\n1\n"), ("p.npy", np.array([0, 0, -1, 1, 1]))],
)
def test_phases_of_every_frame_are_read(tmp_path, name, content):
    _labelled(tmp_path, f"labels/{name},,", 5)
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / name
    path.write_text(content) if isinstance(content, str) else np.save(path, content)
    assert _find(tmp_path)[0].phases.tolist() == [0, 0, -1, 1, 1]


def test_frames_before_the_first_phase_are_unlabelled(tmp_path):
    assert _find(_labelled(tmp_path, "2;5"))[0].phases.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["boxes.npy", "boxes.csv"])
def test_boxes_are_read(tmp_path, name):
    boxes = np.arange(40).reshape(10, 4) / 2
    root = _labelled(tmp_path, f",{name},")
    np.save(root / name, boxes) if name.endswith("npy") else np.savetxt(root / name, boxes, delimiter=",")
    assert np.array_equal(_find(root)[0].actor_box(), boxes)


def test_masks_are_read_in_natural_order(tmp_path):
    root = _labelled(tmp_path, ",,masks", 12)
    (root / "masks").mkdir()
    for number in range(12):
        mask = np.zeros((48, 64), np.uint8)
        mask[: number + 1] = 1
        cv2.imwrite(str(root / "masks" / f"{number}.png"), mask)
    found = _find(root)[0].actor_mask()
    assert found.shape == (12, 48, 64) and found.dtype == bool and not _find(root).coverage.ignored
    assert found.sum((1, 2)).tolist() == [64 * (number + 1) for number in range(12)]


def test_labels_are_resampled_with_their_video(tmp_path):
    root = _labelled(tmp_path, "0;5,boxes.npy,masks")
    np.save(root / "boxes.npy", np.arange(10)[:, None] + np.zeros(4))
    (root / "masks").mkdir()
    for number in range(10):
        cv2.imwrite(str(root / "masks" / f"{number}.png"), np.full((48, 64), number % 4 == 2, np.uint8))
    (record,) = _find(root, fps=15)
    assert [number_of(frame) for frame in record.frames()] == [0, 2, 4, 6, 8]
    assert record.num_frames == 5
    assert record.phases.tolist() == [0, 0, 0, 1, 1]
    assert record.actor_box()[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert record.actor_mask()[:, 0, 0].tolist() == [False, True, False, True, False]


# what is left out ---------------------------------------------------------------------------------------------------


def test_damaged_empty_short_and_absent_videos_are_left_out_and_named(tmp_path, caplog):
    _folder(tmp_path, "good")
    damage(write_video(tmp_path / "damaged.mp4", 60))
    (tmp_path / "empty.mp4").touch()
    write_video(tmp_path / "short.mp4", 1)
    write_images(tmp_path / "single", 1)
    rows = [f"{name},train,squat" for name in "good.mp4 damaged.mp4 empty.mp4 short.mp4 single gone.mp4".split()]
    videos = _find(_table(tmp_path, *rows, header="path,split,action\n"))
    assert [record.name for record in videos] == ["good"]
    assert (videos.coverage.found, videos.coverage.expected) == (1, 6)
    reasons = videos.coverage.unreadable
    for name, reason in [
        ("damaged", "damaged after"),
        ("empty", "0 bytes"),
        ("short", "too short: 1 frames, at least 2"),
        ("single", "too short"),
        ("gone", "does not exist"),
    ]:
        assert reason in reasons[name] and name in reasons[name]
        assert f"left out {name}" in caplog.text


def test_damaged_videos_are_left_out_without_a_table_too(tmp_path):
    _folder(tmp_path, "a b c")
    (tmp_path / "b.mp4").write_bytes(b"")
    assert _names(tmp_path, "train") == ["a"]
    assert list(_find(tmp_path).coverage.unreadable) == ["b"]


def test_no_usable_video_is_an_error_with_all_reasons(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
        (tmp_path / f"{name}2.avi").write_text("text")
    with pytest.raises(ValueError, match=r"none of the 4 folder train videos(.|\n)*a: .*empty(.|\n)*a2: (.|\n)*b"):
        _find(tmp_path)


def test_a_split_that_has_no_videos_is_empty(tmp_path, caplog):
    videos = _find(_folder(tmp_path, "a"), "val")
    assert videos == [] and videos.coverage.expected == 0
    assert "has no val videos" in caplog.text


def test_image_folders_cannot_be_resampled(tmp_path):
    _folder(tmp_path, "a b")
    write_images(tmp_path / "0", 10)
    videos = _find(tmp_path, fps=15)
    assert [record.num_frames for record in videos] == [5]
    assert "no frame rate; use fps=0" in videos.coverage.unreadable["0"]


# bad input ----------------------------------------------------------------------------------------------------------


def test_a_missing_folder_shows_the_layout(tmp_path):
    for root in (tmp_path / "gone", _folder(tmp_path, "a") / "a.mp4"):
        with pytest.raises(ValueError, match=r"(does not exist|is not a folder); expected layout:(.|\n)*videos.csv"):
            _find(root)


def test_an_empty_folder_shows_the_layout(tmp_path):
    with pytest.raises(ValueError, match=r"no videos in .*; expected layout:(.|\n)*0001.jpg"):
        _find(tmp_path)
    with pytest.raises(ValueError, match="no videos in"):
        _find(_table(tmp_path))


def test_an_empty_root_means_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_DATA", str(_folder(tmp_path, "a b")))
    assert _names("", "train") == ["a"]


@pytest.mark.parametrize(
    "header, row, message",
    [
        ("path,phase\n", "a.mp4,0", 'unknown column "phase"; did you mean "phases"'),
        ("split,action\n", "val,squat", "has no column path; its columns are split, action"),
        ("path,split\n", "a.mp4,test", 'line 2: split must be train or val, got "test"'),
        ("path,split\n", ",val", "line 2: the path is empty"),
        ("path,split\n", "a.mp4,val,squat", "line 2: more cells than columns"),
        ("path\n", "a.mp4\na.mp4", "lists a.mp4 2 times"),
        ("", "", "has an unknown column|has no column path"),
    ],
)
def test_a_wrong_table_is_an_error(tmp_path, header, row, message):
    with pytest.raises(ValueError, match=message):
        _find(_table(_folder(tmp_path, "a"), row, header=header))


@pytest.mark.parametrize(
    "phases, message",
    [
        ("0;10", "a: a phase starts at frame 10, but the video has only 10 frames"),
        ("0;7;3", r"a: phases start at \[0, 7, 3\]; every start must be later"),
        ("0;3;3", "every start must be later"),
        ("-1;4", "a: a phase starts at frame -1; first frames of phases must be 0 or more"),
        ("0;x", 'a: phases "0;x" are neither first frames like 0;34;58 nor'),
        ("gone.csv", "a: cannot read numbers from .*gone.csv"),
        ("long.csv", r"a: phases have shape \(11,\), but the video has 10 frames"),
        ("short.csv", r"a: phases have shape \(9,\), but the video has 10 frames"),
        ("negative.csv", "a: phase -2 at frame 4; phases must be integers: 0, 1, ..., or -1"),
        ("half.csv", "a: phase 0.5 at frame 0"),
        ("nan.csv", "a: phase nan at frame 9"),
        ("words.csv", "a: cannot read numbers"),
        ("pickle.npy", "a: cannot read numbers from .*pickle.npy"),
    ],
)
def test_phases_that_do_not_fit_are_an_error(tmp_path, phases, message):
    zeros = ["0"] * 10
    for name, values in {
        "long": zeros + ["1"],
        "short": zeros[1:],
        "negative": zeros[:4] + ["-2"] + zeros[5:],
        "half": ["0.5"] + zeros[1:],
        "nan": zeros[1:] + ["nan"],
        "words": ["phase", "up", "down"],
    }.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(values))
    np.save(tmp_path / "pickle.npy", np.array([{}] * 10, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        _find(_labelled(tmp_path, f"{phases},,"))


@pytest.mark.parametrize(
    "boxes, message",
    [
        (np.zeros((9, 4)), r"a: boxes in .* have shape \(9, 4\), expected \(10, 4\)"),
        (np.zeros((10, 5)), r"have shape \(10, 5\)"),
        (np.zeros(40), r"have shape \(40,\)"),
        (np.tile([20.0, 5, 8, 9], (10, 1)), r"box \[20.0, 5.0, 8.0, 9.0\] of frame 0 in .* is not x0 y0 x1 y1"),
    ],
)
def test_boxes_that_do_not_fit_are_an_error(tmp_path, boxes, message):
    np.save(tmp_path / "boxes.npy", boxes)
    with pytest.raises(ValueError, match=message):
        _find(_labelled(tmp_path, ",boxes.npy,"))


@pytest.mark.parametrize(
    "count, width, message",
    [
        (9, 64, "a: 9 numbered masks in .*masks, expected a folder of 10"),
        (0, 64, "a: 0 numbered masks"),
        (10, 60, r"a: mask .*0.png has \(height, width\) \(48, 60\), its video \(48, 64\)"),
    ],
)
def test_masks_that_do_not_fit_are_an_error(tmp_path, count, width, message):
    write_images(tmp_path / "masks", count, width)
    with pytest.raises(ValueError, match=message):
        _find(_labelled(tmp_path, ",,masks"))


def test_masks_under_a_name_that_no_disk_takes_are_none(tmp_path):
    with pytest.raises(ValueError, match="a: 0 numbered masks in .*mmm, expected a folder of 10"):
        _find(_labelled(tmp_path, ",," + 5000 * "m"))


# real footage -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "real").exists(), reason="needs the real footage beside the repository")
def test_pullups_are_read_with_their_labels():
    train, val = (_find(SHARED / "real/pullups", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (60, 17)
    assert {record.action for record in train + val} == {"pull_up"}
    for record in train + val:
        assert record.phases.shape == (record.num_frames,) and set(record.phases.tolist()) == {0, 1}


@pytest.mark.skipif(not (SHARED / "real").exists(), reason="needs the real footage beside the repository")
def test_unlabelled_clips_of_mixed_sizes_are_read():
    train, val = (_find(SHARED / "real/clips", split) for split in ("train", "val"))
    assert [len(train), len(val)] == [3, 1] and train.action_assumed
    assert len({next(record.frames()).shape for record in train + val}) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path\na\xff.mp4\n", r"videos\.csv is not a UTF-8 table .*save it as CSV, UTF-8"),
        (b"path\n" + b"a" * 200_000, r"videos\.csv is not a UTF-8 table \(field larger than field limit"),
        (b"path,path\na.mp4,b.mp4\n", r"videos\.csv has the column path 2 times; keep one"),
    ],
)
def test_tables_that_are_none_are_named(tmp_path, data, message):
    (tmp_path / "videos.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        _find(tmp_path)


def _mask(kind: str, path: Path, marked: np.ndarray) -> Path:
    noise = np.random.default_rng(0).integers(0, 8, marked.shape)
    if kind == "palette":
        image = Image.fromarray(marked.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.save(path.with_suffix(".png"))
    elif kind == "jpeg":
        cv2.imwrite(str(path.with_suffix(".jpg")), np.where(marked, 250, noise).astype(np.uint8))
    else:
        zero, one = np.zeros(marked.shape, np.uint16), marked.astype(np.uint16)
        white = np.full_like(zero, 255)
        channels = {"16 bit": one, "one channel": np.dstack([one, zero, zero]).astype(np.uint8)}
        channels["alpha"] = np.dstack([white, white, white, one * 255]).astype(np.uint8)
        cv2.imwrite(str(path.with_suffix(".png")), channels[kind])
    return next(path.parent.glob(path.name + ".*"))


@pytest.mark.parametrize("kind", ["palette", "16 bit", "one channel", "alpha", "jpeg"])
def test_masks_of_all_kinds_mark_what_they_mark(tmp_path, kind, caplog):
    marked = np.zeros((2, 48, 64), bool)
    marked[0, 16:32, 16:48] = True
    files = [_mask(kind, tmp_path / str(number), part) for number, part in enumerate(marked)]
    np.testing.assert_array_equal(read_masks("a", files, (48, 64)), marked)
    assert "a: nothing is marked in 1 of 2 masks" in caplog.text


def test_every_file_is_listed_once_whatever_leads_to_it(tmp_path):
    write_video(tmp_path / "b.mp4")
    (tmp_path / "a.mp4").hardlink_to(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.mp4").hardlink_to(tmp_path / "b.mp4")
    found = find_videos("folder", "train", tmp_path)
    assert [video.name for video in found] == ["a"]
    assert found.coverage.ignored == dict.fromkeys(["b.mp4", "c.mp4", "sub/d.mp4"], "the same file as a.mp4")


def test_of_many_that_are_left_out_each_kind_is_named_once(tmp_path):
    write_video(tmp_path / "good.mp4")
    for number in range(12):
        (tmp_path / f"damaged {number}.mp4").write_bytes(b"no video")
        (tmp_path / f"gone {number}.mp4").symlink_to(tmp_path / "nowhere")
    for suffix in (".ts", ".gif"):
        for number in range(6):
            (tmp_path / f"other {number}{suffix}").touch()
    found = find_videos("folder", "train", tmp_path)
    lines = reason_lines(found.coverage.unreadable)
    assert len(lines) == 2 and all("more like it)" in line for line in lines)
    total = sum(int(line.rpartition("(and ")[2].split()[0]) + 1 for line in lines)
    assert total == len(found.coverage.unreadable) > 10
    assert {line.split(":")[0] for line in reason_lines(found.coverage.ignored)} == {"*.ts", "*.gif"}


NAMES = [
    "😀 smile",
    "שלום עולם",
    "a\nb",
    "$x_1^2$ {y} %d",
    "x" * 240,
    "ü" * 120,
    "<b>&amp;\"q'",
    "tab\there",
    "-dash",
    "a;b,c",
]


def test_names_of_all_kinds_are_labelled_embedded_and_read_again(tmp_path, tiny):
    clips = tmp_path / "clips"
    for name in NAMES:
        write_video(clips / f"{name}.mp4", 8)
    table = PhaseTable(clips / "videos.csv")
    for name in NAMES:
        table.write(name, ((0, 0), (3, 1), (5, 0)), 8, NAMES)
    found = [video for split in ("train", "val") for video in find_videos("folder", split, clips)]
    assert {video.name: video.phases.tolist() for video in found} == dict.fromkeys(NAMES, [0, 0, 0, 1, 1, 0, 0, 0])
    model = mvf.models.build_model(tiny())
    for suffix in (".npz", ".csv"):
        embed_to_file(model, found, tmp_path / f"e{suffix}", Chunking(4, 1))
        assert set(read_embeddings(tmp_path / f"e{suffix}")) == set(NAMES)


def _cut_video(folder):
    path = write_video(folder / "cut.mkv", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return "cut.mkv: cut off|damaged"


def _damaged_video(folder):
    damage(write_video(folder / "cut.ts", 60, codec="mpeg2video").rename(folder / "cut.mpg"))
    return "damaged"


def _damaged_images(folder):
    write_images(folder / "cut", 12)
    (folder / "cut" / "9.png").write_bytes(b"no image")
    return "9.png"


def _damaged_jpeg(folder):
    write_images(folder / "cut", 12, name="{}.jpg")
    path = folder / "cut" / "5.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 60] + data[-2:])
    return "5.jpg: damaged"


@pytest.mark.parametrize("make", [_cut_video, _damaged_video, _damaged_images, _damaged_jpeg])
def test_a_damaged_clip_is_left_out_or_used_with_a_line_as_chosen(tmp_path, make, caplog):
    write_video(tmp_path / "a.mp4")
    message = make(tmp_path)
    refused = find_videos("folder", "val", tmp_path), find_videos("folder", "train", tmp_path)
    assert [v.name for videos in refused for v in videos] == ["a"]
    reasons = {name: text for videos in refused for name, text in videos.coverage.unreadable.items()}
    assert list(reasons) == ["cut"] and re.search(message, reasons["cut"])
    used = find_videos("folder", "val", tmp_path, damaged="use")
    assert [v.name for v in used] == ["cut"] and used[0].num_frames >= 8
    frames = list(used[0].source.frames())
    assert len(frames) == used[0].num_frames and [number_of(f) for f in frames[:5]] == list(range(5))
    assert used.coverage.damaged == used.coverage.as_dict()["damaged"]
    assert used.coverage.damaged["cut"].startswith(f"{used[0].num_frames} frames are used; cannot read")
    assert "used although damaged: cut: " in caplog.text
    last = used[0].num_frames - 1
    assert (next(used[0].source.frames_at([last])) == frames[last]).all()


def test_an_unknown_way_with_damage_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match='unknown value "keep" of damaged; known: leave out, use'):
        find_videos("folder", "train", tmp_path, damaged="keep")


def test_what_was_left_out_and_used_is_still_named_when_one_action_is_chosen(tmp_path):
    rows = ["path,split,action", "a.mp4,train,squat", "cut.mkv,train,squat", "other.mkv,train,bowl", "b.mp4,val,squat"]
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name)
    _cut_video(tmp_path)
    (tmp_path / "other.mkv").write_bytes((tmp_path / "cut.mkv").read_bytes())
    (tmp_path / "videos.csv").write_text("\n".join(rows))
    (tmp_path / "Videos (1).csv").touch()
    config = mvf.load_config("folder", data_root=str(tmp_path), action="squat", data_options={"damaged": "use"})
    coverage = mvf.data.find_config_videos(config, "train").coverage
    assert (coverage.found, coverage.expected, list(coverage.damaged)) == (2, 2, ["cut"])
    assert list(coverage.ignored) == ["Videos (1).csv"]


def write_parts(folder, rows):
    (folder / "videos.csv").write_text("path,start,end,phases\n" + rows)


def test_parts_of_a_file_are_clips(tmp_path):
    write_video(tmp_path / "set.mp4", count=30)
    write_parts(tmp_path, "set.mp4,0,0.5,0;10\nset.mp4,0.5,0.9,\n")
    found = {r.name: r for split in ("train", "val") for r in find_videos("folder", split, tmp_path)}
    assert sorted(found) == ["set@0-0.5", "set@0.5-0.9"]
    first, second = found["set@0-0.5"], found["set@0.5-0.9"]
    assert [number_of(frame) for frame in first.frames()] == list(range(15))
    assert [number_of(frame) for frame in second.frames()] == list(range(15, 27))
    assert first.phases.tolist() == [0] * 10 + [1] * 5  # counted from the part's beginning
    assert second.frame_times[0] == pytest.approx(0.5) and first.source.identity != second.source.identity


def test_parts_are_resampled_and_labelled(tmp_path):
    write_video(tmp_path / "set.mp4", count=30)
    write_parts(tmp_path, "set.mp4,0,0.5,\nset.mp4,0.5,1,\n")
    (record,) = (r for r in find_videos("folder", "train", tmp_path, fps=10))
    assert record.num_frames == 5
    table = PhaseTable(tmp_path / "videos.csv")
    table.write("set@0.5-1", ((0, 0), (4, 1)), 15)
    assert table.read("set@0-0.5") is None and table.read("set@0.5-1").segments == ((0, 0), (4, 1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("set.mp4,0.5,0.2,\n", "the part ends at 0.2 s, which is not after its start at 0.5 s"),
        ("set.mp4,0.5,,\n", 'line 2: end must be seconds like 3.48, got ""; give both or neither'),
        ("set.mp4,a,1,\n", 'start must be seconds like 3.48, got "a"'),
        ("set.mp4,0,0.5,\nset.mp4,0.4,0.9,\n", "the parts 0 to 0.5 s and 0.4 to 0.9 s of set.mp4 overlap"),
        ("set.mp4,0,0.5,\nset.mp4,,,\n", "lists set.mp4 2 times; list each video once, or give parts start and end"),
    ],
)
def test_parts_that_are_wrong_are_named(tmp_path, rows, message):
    write_video(tmp_path / "set.mp4", count=30)
    write_parts(tmp_path, rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        find_videos("folder", "train", tmp_path)


def test_a_part_beyond_the_end_and_of_images_is_left_out(tmp_path):
    write_video(tmp_path / "set.mp4", count=30)
    write_images(tmp_path / "pictures")
    write_parts(tmp_path, "set.mp4,0,0.5,\nset.mp4,0.5,9,\npictures,0,0.2,\n")
    found = find_videos("folder", "train", tmp_path)
    assert [record.name for record in found] == ["set@0-0.5"]
    unreadable = found.coverage.unreadable | find_videos("folder", "val", tmp_path).coverage.unreadable
    assert "the video ends at" in unreadable["set@0.5-9"] and "has no times" in unreadable["pictures@0-0.2"]
