from __future__ import annotations

import json
import shutil

import cv2
import pytest

from mvf.data import find_videos
from mvf.data.records import changed_clips, changed_labels, digest, manifest, sides

from .footage import write_images, write_video


@pytest.fixture
def clips(tmp_path):
    for i in range(5):
        write_video(tmp_path / "clips" / f"c{i}.mp4", 8 + i)
    write_images(tmp_path / "clips" / "d", 6)
    return tmp_path / "clips"


def listed(root):
    found = manifest(**{split: find_videos("folder", split, root) for split in ("train", "val")})
    assert json.loads(json.dumps(found)) == found
    return found


def test_nothing_has_changed_in_a_copy_of_the_folder(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "copy")
    before, now = listed(clips), listed(tmp_path / "copy")
    assert before == now and digest(before) == digest(now)
    assert changed_clips(before, now) == changed_labels(before, now) == []
    assert sides(before) == {"c0": "train", "c1": "train", "c2": "train", "c3": "train", "c4": "val", "d": "train"}


def test_added_removed_and_replaced_clips_are_named(clips):
    before = listed(clips)
    write_video(clips / "b.mp4", 9)
    (clips / "c1.mp4").unlink()
    write_video(clips / "c2.mp4", 10, width=80)  # as long as before
    (clips / "d" / sorted(p.name for p in (clips / "d").iterdir())[0]).unlink()
    now = listed(clips)
    assert changed_clips(before, now) == [
        "1 clip added (b)", "1 clip removed (c1)", "2 clips replaced by other footage (c2, d)"
    ]  # fmt: skip
    assert digest(before) != digest(now)


def test_labels_are_told_from_clips(clips):
    before = listed(clips)
    table = "path,split,action,phases\n" + "".join(
        f"{name},{'val' if name == 'c4.mp4' else 'train'},squat,{phases}\n"
        for name, phases in (("c0.mp4", "0;4"), ("c1.mp4", ""), ("c2.mp4", "0;5"), ("c3.mp4", ""), ("c4.mp4", "0;3"))
    )
    (clips / "videos.csv").write_text(table + "d,train,squat,\n")
    now = listed(clips)
    assert changed_clips(before, now) == []
    assert changed_labels(before, now) == [
        "the action of 6 clips changed (c0, c1, c2, c3, d, ...)", "labels of 3 clips changed (c0, c2, c4)"
    ]  # fmt: skip
    (clips / "videos.csv").write_text(table.replace("0;4", "0;5") + "d,train,squat,\n")
    assert changed_labels(now, listed(clips)) == ["labels of 1 clip changed (c0)"]
    assert changed_labels(now, listed(clips), ("action",)) == []


def test_masks_and_boxes_count_too(clips):
    write_images(clips.parent / "masks", 8)
    (clips / "boxes.csv").write_text("0,0,9,9\n" * 8)
    rows = "c0.mp4,train,boxes.csv,../masks\nc1.mp4,val,,\n"
    (clips / "videos.csv").write_text("path,split,boxes,masks\n" + rows)
    before = listed(clips)
    (clips / "boxes.csv").write_text("0,0,9,8\n" * 8)
    mask = sorted((clips.parent / "masks").iterdir())[3]
    cv2.imwrite(str(mask), 255 - cv2.imread(str(mask)))
    assert changed_labels(before, listed(clips)) == ["boxes of 1 clip changed (c0)", "masks of 1 clip changed (c0)"]


def test_clips_keep_the_side_that_is_given(clips):
    write_video(clips / "a.mp4", 9)  # by rule, another clip is in val now
    kept = {"c4": "val", "c3": "train"}
    found = {split: [r.name for r in find_videos("folder", split, clips, sides=kept)] for split in ("train", "val")}
    assert found == {"train": ["a", "c0", "c1", "c2", "c3", "d"], "val": ["c4"]}


def test_every_fifth_readable_clip_is_in_val(clips):
    for name in ("a", "b", "c"):
        (clips / f"{name}.mp4").write_bytes(b"nothing")
    assert [r.name for r in find_videos("folder", "val", clips)] == ["c4"]
    assert sorted(find_videos("folder", "train", clips).coverage.unreadable) == ["a", "b", "c"]
