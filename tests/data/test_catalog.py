from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mvf.config import load_config
from mvf.data import check_lines

from .footage import write_video
from .gym_disk import write_kinetics_csv
from .penn_disk import phases_of, write_penn_label, write_penn_phases, write_penn_raw


def _check(dataset: str, root: Path) -> list[str]:
    return "\n".join(check_lines(load_config(dataset, data_root=str(root)))).splitlines()


def test_it_says_where_what_is_found_and_the_layouts(tmp_path):
    lines = _check("penn", write_penn_raw(tmp_path))
    assert lines[:4] == [
        f"penn in {tmp_path}",
        "train: 4 of 4 videos, 4 with phases, 4 with actor boxes or masks",
        "  pushup: 2",
        "  squat: 2",
    ]
    assert "accepted layouts" in lines[7] and f"{tmp_path}/Penn_Action/" in lines[8] and "published" in lines[-1]


def test_of_many_missing_videos_the_first_are_named_and_the_others_counted(tmp_path, caplog):
    write_penn_raw(tmp_path)
    write_penn_phases(tmp_path, "0001", "squat", "train", phases_of(11, 4))
    for number in range(100, 130):
        write_penn_label(tmp_path, f"{number:04}", "squat", "train", 3)
    with caplog.at_level(logging.INFO):
        lines = _check("penn", tmp_path)
    assert lines[1].startswith("train: 4 of 34 videos")
    assert (
        "  1 with different numbers of labels and frames; the longer is resampled (0001_squat: 11 labels for 16 frames)"
        in lines
    )
    named = [line for line in lines if line.startswith("  left out")]
    assert len(named) == 1 and "0100_squat: its frames are absent" in named[0]
    assert named[0].endswith("(and 29 more like it)")
    assert not caplog.records  # nothing is said twice


def test_a_split_that_a_dataset_does_not_have_is_not_missing(tmp_path):
    lines = _check("kinetics400", write_kinetics_csv(tmp_path))
    assert "val: none, kinetics400 serves only for training" in lines
    assert not any("left out" in line or line.startswith("val: 0") for line in lines)


def test_of_many_actions_only_the_range_is_said(tmp_path):
    for number in range(22):
        for clip in range(1 + number % 2):
            write_video(tmp_path / "train" / f"class {number}" / f"{clip}.mp4", 2, width=16, height=16)
    assert "  22 actions of 1 to 2 videos" in _check("kinetics400", tmp_path)


def test_missing_data_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="is not a folder; looked for"):
        _check("penn", tmp_path / "gone")
