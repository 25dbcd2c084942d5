from __future__ import annotations

from pathlib import Path

import pytest

from mvf.data import find_videos

from .footage import damage, write_video
from .gym_disk import write_kinetics_csv, write_kinetics_folders

HEADER = "label,youtube_id,time_start,time_end,split"
NAMES = ["-id_0_000000_000010", "-id_1_000001_000011", "-id_2_000002_000012", "-id_3_000003_000013"]


def _find(root: Path, split: str = "train", **options):
    return find_videos("kinetics400", split, root, **options)


def _table(root: Path, *rows: str, header: str = HEADER) -> Path:
    """The csv form with four clips on disk and this table."""
    table = write_kinetics_csv(root) / "kinetics400" / "train.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return root


@pytest.mark.parametrize("below", ["", "kinetics400"])
def test_csv_and_flat_clips_are_read(tmp_path, below):
    videos = _find(write_kinetics_csv(tmp_path) / below)
    assert [video.name for video in videos] == NAMES
    assert [video.action for video in videos] == ["riding a bike", "zumba"] * 2
    assert [(video.num_frames, video.phases) for video in videos] == [(12, None)] * 4
    assert videos.coverage.as_dict() == {"found": 4, "expected": 4, "unreadable": {}}


def test_any_file_name_with_train_and_a_folder_of_annotations_will_do(tmp_path):
    home = write_kinetics_csv(tmp_path) / "kinetics400"
    (home / "annotations").mkdir()
    (home / "train.csv").rename(home / "annotations" / "kinetics-400_train.csv")
    assert [video.name for video in _find(tmp_path)] == NAMES


def test_class_folders_are_read(tmp_path):
    videos = _find(write_kinetics_folders(tmp_path))
    assert [video.name for video in videos] == [
        f"{label}/id{n}_000000_000010" for label in ("riding_a_bike", "zumba") for n in (0, 1)
    ]
    assert [video.action for video in videos] == ["riding a bike"] * 2 + ["zumba"] * 2


def test_a_damaged_clip_is_left_out_and_named(tmp_path):
    write_kinetics_csv(tmp_path)
    damage(tmp_path / "kinetics400" / "train" / f"{NAMES[0]}.mp4")
    videos = _find(tmp_path)
    assert [video.name for video in videos] == NAMES[1:]
    assert (videos.coverage.found, videos.coverage.expected, list(videos.coverage.unreadable)) == (3, 4, NAMES[:1])
    assert f"{NAMES[0]}.mp4: damaged" in videos.coverage.unreadable[NAMES[0]]


def test_nothing_is_decoded_beforehand_if_asked(tmp_path):
    write_kinetics_csv(tmp_path)
    damage(tmp_path / "kinetics400" / "train" / f"{NAMES[0]}.mp4")
    videos = _find(tmp_path, decode=False)
    assert len(videos) == 4
    with pytest.raises(ValueError, match=f"{NAMES[0]}.mp4: damaged"):
        videos[0].load()


def test_frames_are_resampled(tmp_path):
    assert _find(write_kinetics_csv(tmp_path), fps=15)[0].num_frames == 6


def test_val_is_empty_and_looks_at_nothing(tmp_path):
    videos = _find(tmp_path / "nowhere", "val")
    assert videos == [] and videos.coverage.as_dict() == {"found": 0, "expected": 0, "unreadable": {}}


def test_a_subset_is_fixed_and_dev_is_part_of_it(tmp_path):
    for number in range(12):
        write_video(tmp_path / "train" / "zumba" / f"{number}.mp4", 2, width=16, height=16)
    train = [video.name for video in _find(tmp_path)]
    subset = [video.name for video in _find(tmp_path, max_videos=10)]
    assert len(subset) == 10 and set(subset) < set(train) and subset != train[:10]
    assert subset[:3] == [video.name for video in _find(tmp_path, max_videos=3)]
    dev = _find(tmp_path, "dev", max_videos=10)
    assert len(dev) == 2 and {video.name for video in dev} < set(subset)
    with pytest.raises(ValueError, match="max_videos must be 0"):
        _find(tmp_path, max_videos=-1)


# bad input ------------------------------------------------------------------------------------------------------------


def test_missing_data_says_where_it_looked_what_it_accepts_and_where_to_get_it(tmp_path):
    with pytest.raises(ValueError) as caught:
        _find(tmp_path)
    first, *layout, last = str(caught.value).splitlines()
    assert str(tmp_path) in first and "youtube_id" in "".join(layout) and "https://" in last


def test_a_csv_without_header_is_refused(tmp_path):
    _table(tmp_path, "zumba,abd,0,10,train", header="zumba,abc,0,10,train")
    with pytest.raises(
        ValueError, match=f"train.csv has no column label, .*its first line must be {HEADER}, found zum"
    ):
        _find(tmp_path)


@pytest.mark.parametrize(
    "row, reason",
    [
        ("zumba,abc,0,ten,train", 'train.csv, line 2: time_start and time_end must be seconds, got "0" and "ten"'),
        ("zumba,abc,0,inf,train", 'time_start and time_end must be seconds, got "0" and "inf"'),
        ('"' + "a" * 140_000, "train.csv is not a UTF-8 table .field larger than"),
        ("zumba,abc,0", "train.csv, line 2: fewer cells than columns"),
        ("zumba,abc,0,10,train,9", "train.csv, line 2: more cells than columns"),
        ("zumba,abc,0,10,test", "the csv in .*kinetics400 list no training clip"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, reason):
    with pytest.raises(ValueError, match=reason):
        _find(_table(tmp_path, row))


def test_a_table_that_is_no_text_is_named(tmp_path):
    _table(tmp_path)
    (tmp_path / "kinetics400" / "train.csv").write_bytes(b"label,\xff\xfe")
    with pytest.raises(ValueError, match="train.csv is not a UTF-8 table"):
        _find(tmp_path)


def test_absent_empty_and_doubled_clips_are_left_out_and_named(tmp_path):
    rows = [f"zumba,-id_{number},{number},{number + 10},train" for number in (0, 1, 2, 0)]
    _table(tmp_path, *rows, "zumba,gone,7.0,17.0,train")
    (tmp_path / "kinetics400" / "train" / f"{NAMES[1]}.mp4").write_bytes(b"")
    videos = _find(tmp_path)
    assert [video.name for video in videos] == [NAMES[0], NAMES[2]]
    coverage = videos.coverage
    assert (coverage.found, coverage.expected) == (2, 5)
    assert list(coverage.unreadable) == [NAMES[1], NAMES[0], "gone_000007_000017"]
    empty, doubled, absent = coverage.unreadable.values()
    assert "0 bytes" in empty and "more than once" in doubled
    assert absent == f"no video file named gone_000007_000017 is in {tmp_path}"


def test_a_train_set_of_which_nothing_is_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of the 1 kinetics400 train videos"):
        _find(_table(tmp_path, "zumba,gone,7,17,train"))
