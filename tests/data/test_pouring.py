from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mvf.data import find_videos
from mvf.data.datasets.pouring import LAYOUT, PHASE_NAMES, SOURCE
from mvf.data.formats import read_records

from .footage import number_of
from .penn_disk import (
    POURING,
    bytes_feature,
    field,
    phases_of,
    sequence_example,
    text_map,
    write_index,
    write_pouring_prepared,
    write_pouring_tfrecords,
    write_tfrecord,
)
from .test_formats import Payload


@pytest.fixture(scope="module")
def shards_once(tmp_path_factory) -> Path:
    return write_pouring_tfrecords(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def shards(shards_once, tmp_path) -> Path:
    """The TFRecord form, to be damaged."""
    return shutil.copytree(shards_once, tmp_path / "data")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return write_pouring_prepared(tmp_path_factory.mktemp("prepared"))


def _shard(root: Path, number: int = 0) -> Path:
    return root / "pouring" / f"pouring_train-{number}-of-2.tfrecord"


def _names(videos) -> list[str]:
    return [record.name for record in videos]


# both forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("form", ["prepared", "tfrecord"])
def test_both_forms_give_the_same_videos(shards_once, prepared, form, split):
    videos = find_videos("pouring", split, {"prepared": prepared, "tfrecord": shards_once}[form])
    assert [(r.name, r.num_frames) for r in videos] == list(POURING[split])
    assert videos.coverage.as_dict() == {"found": len(videos), "expected": len(videos), "unreadable": {}}
    for record in videos:
        assert record.action == "pouring" and record.phase_names == PHASE_NAMES and len(PHASE_NAMES) == 5
        assert record.phases.tolist() == phases_of(record.num_frames, 5).tolist()
        assert [number_of(frame) for frame in record.frames(1, None, 5)] == list(range(1, record.num_frames, 5))


def test_dev_and_the_folder_itself(shards_once):
    train, dev = (find_videos("pouring", split, shards_once / "pouring") for split in ("train", "dev"))
    assert len(dev) == 1 and set(_names(dev)) < set(_names(train))


def test_the_form_can_be_chosen(shards, prepared):
    shutil.copytree(prepared / "pouring", shards / "pouring", dirs_exist_ok=True)
    sources = {form: find_videos("pouring", "val", shards, form=form)[0].source for form in ("prepared", "tfrecord")}
    assert type(sources["prepared"]).__name__ == "VideoFile" and type(sources["tfrecord"]).__name__ == "RecordFrames"
    assert type(find_videos("pouring", "val", shards)[0].source).__name__ == "VideoFile"


def test_missing_data_says_where_it_looked_then_the_layouts_then_the_source(tmp_path):
    with pytest.raises(ValueError, match="holds none of the accepted layouts; looked for") as error:
        find_videos("pouring", "train", tmp_path)
    looked, layout, source = (
        str(error.value).index(text) for text in (f"{tmp_path}/pouring/train.pkl", "prepared", SOURCE)
    )
    assert looked < layout < source and LAYOUT.format(root=tmp_path) in str(error.value)


def test_a_prepared_index_that_would_run_code_is_refused(tmp_path):
    write_index(tmp_path / "pouring" / "val.pkl", [{"name": "a", "frame_label": Payload(tmp_path / "ran")}])
    with pytest.raises(ValueError, match=r"val.pkl: it would call \w+\.system, which was refused and not run"):
        find_videos("pouring", "val", tmp_path)
    assert not (tmp_path / "ran").exists()


# TFRecords ----------------------------------------------------------------------------------------------------------


def test_frames_are_read_one_at_a_time_and_only_when_asked_for(shards):
    video = find_videos("pouring", "train", shards)[0]
    frames = video.frames()
    next(frames)
    assert video.source.images and not any(
        isinstance(value, (bytes, np.ndarray)) for value in vars(video.source).values()
    )
    before = video.source.identity
    assert before == find_videos("pouring", "train", shards)[0].source.identity
    assert before != find_videos("pouring", "train", shards)[1].source.identity
    with pytest.raises(ValueError, match="step must be at least 1"):
        next(video.frames(step=0))


def test_labels_may_be_absent_unpacked_negative_or_of_another_length(shards):
    labels = [None, [], [-1, 0, 1, 2, 3, 4], [4] * 20]
    write_tfrecord(_shard(shards), [sequence_example(f"v{i}", 12, part, packed=False) for i, part in enumerate(labels)])
    absent, empty, shorter, longer = find_videos("pouring", "train", shards)[:4]
    assert absent.phases is empty.phases is None
    assert shorter.phases.tolist() == [-1, 0, 1, 2, 3, 4]
    assert [number_of(frame) for frame in shorter.frames()] == [0, 2, 4, 6, 8, 10]
    assert longer.phases.tolist() == [4] * 12


@pytest.mark.parametrize("part", ["frames", "footer", "context", "header"])
def test_of_a_shard_cut_short_the_whole_videos_are_used_and_the_cut_one_is_named(shards, part):
    path = _shard(shards)
    first, second = read_records(path)
    cut = {
        "frames": second.stop - 100,
        "footer": second.stop + 2,
        "context": second.start + 5,
        "header": second.start - 3,
    }
    path.write_bytes(path.read_bytes()[: cut[part]])
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_a", "pour_c"] and videos[0].load().shape[0] == 14
    ((name, reason),) = videos.coverage.unreadable.items()
    assert name == ("pour_b" if part in ("frames", "footer") else f"{path.name}, record 1")
    assert reason == f"{path.name}, record 1: the shard is cut short there"
    assert (videos.coverage.found, videos.coverage.expected) == (2, 3)


def test_an_empty_shard_is_named(shards):
    _shard(shards).write_bytes(b"")
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_c"] and list(videos.coverage.unreadable) == [f"{_shard(shards).name}, record 0"]


def test_a_damaged_record_is_named_and_those_behind_it_are_used(shards):
    path = _shard(shards)
    data = bytearray(path.read_bytes())
    first, second = read_records(path)
    data[first.stop - 50] ^= 1
    path.write_bytes(data)
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_b", "pour_c"]
    assert videos.coverage.unreadable == {"pour_a": f"{path.name}, record 0: the shard is damaged there"}
    data[0] ^= 1  # without the length nothing behind can be found
    path.write_bytes(data)
    assert _names(find_videos("pouring", "train", shards)) == ["pour_c"]


def test_a_missing_shard_is_named(shards):
    _shard(shards, 1).unlink()
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_a", "pour_b"]
    assert list(videos.coverage.unreadable) == ["pouring_train, shard 1 of 2"]


def test_duplicated_names_are_named(shards):
    shutil.copy(_shard(shards, 0), _shard(shards, 1))
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_a", "pour_b"] and set(videos.coverage.unreadable) == {"pour_a", "pour_b"}
    assert "listed 2 times; the first is used" in videos.coverage.unreadable["pour_a"]


@pytest.mark.parametrize(
    "record, name, reason",
    [
        (b"no example at all", "pouring_train-1-of-2.tfrecord, record 0", "is no SequenceExample with name and video"),
        (b"", "pouring_train-1-of-2.tfrecord, record 0", "is no SequenceExample"),
        (field(1, text_map({"name": bytes_feature(b"bare")})), "bare", "is no SequenceExample"),
        (sequence_example("short", 1, None), "short", "too short: 1 frames"),
        (sequence_example("none", 0, [0]), "none", "too short: 0 frames"),
        (sequence_example("wild", 3, [5, 5, 5]), "wild", "phase 5, but its action has only the phases 0 to 4"),
        (
            field(1, text_map({"name": bytes_feature(b"junk")}))
            + field(2, text_map({"video": field(1, bytes_feature(b"no jpeg")) * 3})),
            "junk",
            "image 0 of the record at byte 12 is not an image, or is damaged",
        ),
    ],
    ids=["noise", "empty", "context only", "one frame", "no frame", "sixth phase", "no images"],
)
def test_records_that_make_no_sense_are_named(shards, record, name, reason):
    write_tfrecord(_shard(shards, 1), [record])
    videos = find_videos("pouring", "train", shards)
    assert _names(videos) == ["pour_a", "pour_b"]
    assert list(videos.coverage.unreadable) == [name] and reason in videos.coverage.unreadable[name]
