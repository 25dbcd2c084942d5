from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mvf.data import find_videos, video
from mvf.data.video import Excerpt, VideoError, VideoFile

from .footage import damage, number_of, write_video
from .gym_disk import (
    CLASSES,
    EVENT_LABELS,
    UNLABELLED,
    event_names,
    write_finegym99_prepared,
    write_finegym99_raw,
    write_finegym288_prepared,
    write_finegym288_raw,
    write_pickle,
)

WRITERS = {
    ("finegym99", "raw"): write_finegym99_raw,
    ("finegym99", "prepared"): write_finegym99_prepared,
    ("finegym288", "raw"): write_finegym288_raw,
    ("finegym288", "prepared"): write_finegym288_prepared,
}
FORMS = pytest.mark.parametrize("name, form", WRITERS)


def _home(root: Path) -> Path:
    return root / "FineGym"


def _events(root: Path) -> Path:
    return _home(root) / "finegym_annotation_info_v1.0.json"


def _train(root: Path) -> Path:
    return _home(root) / "gym99_train_element_v1.0.txt"


def _names(videos) -> list[str]:
    return [video.name for video in videos]


def _left_out(root: Path, split: str = "train") -> dict[str, str]:
    """Why events of FineGym99 are left out; the others are there."""
    videos = find_videos("finegym99", split, root)
    unreadable = videos.coverage.unreadable
    assert videos.coverage.found == len(videos) == videos.coverage.expected - len(unreadable) > 0
    return unreadable


# both forms -----------------------------------------------------------------------------------------------------------


@FORMS
def test_events_are_found_with_their_frame_labels(tmp_path, name, form):
    root = WRITERS[name, form](tmp_path)
    for split in ("train", "val"):
        labelled = find_videos(name, split, root)[: len(event_names(split))]
        assert _names(labelled) == event_names(split)
        assert [(video.num_frames, video.phases.tolist()) for video in labelled] == [(24, EVENT_LABELS)] * len(labelled)
        assert len(list(labelled[0].frames())) == 24


@FORMS
def test_the_folder_itself_its_parent_and_other_versions_will_do(tmp_path, name, form):
    root = WRITERS[name, form](tmp_path)
    assert _names(find_videos(name, "train", _home(root))) == _names(find_videos(name, "train", root))
    for path in [*_home(root).glob("*.pkl"), *_home(root).glob("*.txt"), *_home(root).glob("*.json")]:
        path.rename(path.with_stem(path.stem.split("_v1")[0] + "_v2.0"))
    _home(root).rename(tmp_path / "finegym")
    assert _names(find_videos(name, "val", root)) == event_names("val")


def test_the_newest_version_is_read(tmp_path):
    root = write_finegym99_raw(tmp_path)
    (_home(root) / "gym99_train_element_v1.10.txt").write_text(f"{event_names('train')[1]}_A_0000_0001 9\n")
    (video,) = find_videos("finegym99", "train", root)
    assert set(video.phases) == {-1, 9}


def test_dev_is_a_part_of_the_labelled_train_events(tmp_path):
    root = write_finegym288_raw(tmp_path)
    assert set(_names(find_videos("finegym288", "dev", root))) < set(event_names("train"))


def test_prepared_files_win_and_a_form_can_be_chosen(tmp_path):
    root = write_finegym99_raw(write_finegym99_prepared(tmp_path))
    actions = {form: find_videos("finegym99", "val", root, form=form)[0].action for form in ("auto", "prepared", "raw")}
    assert actions == {"auto": "event 2", "prepared": "event 2", "raw": "balance beam"}
    with pytest.raises(ValueError, match='unknown form "Raw"; .*raw'):
        find_videos("finegym99", "val", root, form="Raw")


@FORMS
def test_missing_data_says_where_it_looked_what_it_accepts_and_where_to_get_it(tmp_path, name, form):
    for options in ({}, {"form": form}):
        with pytest.raises(ValueError) as caught:
            find_videos(name, "train", tmp_path, **options)
        first, *layout, last = str(caught.value).splitlines()
        assert str(tmp_path) in first and f"{name.replace('finegym', 'gym')}_val" in "".join(layout) and "https" in last


@FORMS
def test_a_split_whose_index_is_absent_is_named(tmp_path, name, form):
    root = WRITERS[name, form](tmp_path)
    for path in _home(root).glob("gym*_val*"):
        path.unlink()
    videos = find_videos(name, "val", root)
    assert not videos and "does not exist" in "".join(videos.coverage.unreadable.values())
    assert find_videos(name, "train", root)


@pytest.mark.parametrize("writer", [write_finegym288_raw, write_finegym288_prepared])
def test_additional_events_are_unlabelled_and_for_training_only(tmp_path, writer):
    root = writer(tmp_path)
    videos = find_videos("finegym288", "train", root)
    assert _names(videos) == [*event_names("train"), UNLABELLED]
    assert videos[-1].phases is None and len(videos[-1].load()) == videos[-1].num_frames > 2
    assert UNLABELLED not in _names(find_videos("finegym288", "val", root))
    assert _names(find_videos("finegym288", "train", root, additional=False)) == event_names("train")


def test_additional_events_without_their_source_video_are_read_from_their_own_file(tmp_path):
    root = write_finegym288_raw(tmp_path)
    write_pickle(_home(root) / "additional_v1.0.pkl", [{"name": "more_E_1_2", "video_file": "more.mp4"}])
    write_video(_home(root) / "more.mp4", 9)
    assert (find_videos("finegym288", "train", root)[-1].num_frames) == 9


# raw ------------------------------------------------------------------------------------------------------------------


def test_events_are_cut_from_their_source_video(tmp_path):
    first, second = find_videos("finegym99", "val", write_finegym99_raw(tmp_path))
    assert [number_of(frame) for frame in first.frames()] == list(range(5, 29))
    assert [number_of(frame) for frame in second.frames(3, 9, 2)] == [33, 35, 37]
    assert (first.action, second.action) == ("balance beam", "uneven bars")


@pytest.mark.parametrize("stage, frames", [("all", range(9, 16)), ("first", (9, 10)), ("last", (14, 15))])
def test_stage_chooses_among_the_time_stamps_of_an_element(tmp_path, stage, frames):
    video = find_videos("finegym99", "val", write_finegym99_raw(tmp_path), stage=stage)[0]
    assert np.flatnonzero(video.phases == CLASSES[1]).tolist() == list(frames)
    with pytest.raises(ValueError, match='unknown stage "second"'):
        find_videos("finegym99", "val", tmp_path, stage="second")


def test_other_names_of_the_video_folder_and_other_containers_will_do(tmp_path):
    root = write_finegym99_raw(tmp_path)
    (_home(root) / "videos").rename(_home(root) / "source_videos")
    (source,) = (_home(root) / "source_videos").glob("_A_2b.*")
    source.unlink()
    write_video(source.with_suffix(".mkv"), 64, fps=10)
    assert _names(find_videos("finegym99", "val", root)) == event_names("val")


def test_annotations_may_lie_in_a_folder_of_their_own(tmp_path):
    root = write_finegym99_raw(tmp_path)
    (_home(root) / "annotations").mkdir()
    for path in [_events(root), *_home(root).glob("*.txt")]:
        path.rename(path.parent / "annotations" / path.name)
    assert _names(find_videos("finegym99", "val", root)) == event_names("val")


def test_without_times_or_source_videos_it_says_where_it_looked(tmp_path):
    root = write_finegym99_raw(tmp_path)
    (_home(root) / "videos").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="none were found in .*FineGym/videos and .*source_videos"):
        find_videos("finegym99", "val", root)
    _events(root).unlink()
    with pytest.raises(ValueError, match=r"none were found in .*FineGym/finegym_annotation_info\*.json"):
        find_videos("finegym99", "val", root)


def test_an_event_or_element_absent_from_the_json_is_left_out(tmp_path):
    root = write_finegym99_raw(tmp_path)
    videos = json.loads(_events(root).read_text())
    first, second, third, _ = event_names("train")
    del videos["0Lt_S9w"]["E_000000_000003"], videos["E_1-x"]["E_000000_000003"]["segments"]["A_0002_0002"]
    videos["0Lt_S9w"]["E_000003_000006"]["segments"] = None
    _events(root).write_text(json.dumps(videos))
    reasons = _left_out(root)
    assert list(reasons) == [first, second, third]
    assert f"v1.0.json has no E_000000_000003 of {first}" in reasons[first] and "damaged" in reasons[second]
    assert f"has no A_0002_0002 of {third}" in reasons[third]


@pytest.mark.parametrize("times", [[], [[3.0]], [["a", 4.0]], [[4.0, 3.0]], [[float("nan"), 3.0]], [[10**400, 3]], 5])
def test_an_event_whose_times_are_wrong_is_left_out(tmp_path, times):
    root = write_finegym99_raw(tmp_path)
    videos = json.loads(_events(root).read_text())
    videos["E_1-x"]["E_000003_000006"]["timestamps"] = times
    _events(root).write_text(json.dumps(videos))
    assert list(_left_out(root)) == [event_names("train")[3]]


def test_absent_damaged_and_short_source_videos_cost_only_their_events(tmp_path):
    root = write_finegym99_raw(tmp_path)
    absent, present = sorted({name[:-16] for name in event_names("train")})
    (_home(root) / "videos" / f"{absent}.mp4").unlink()
    assert [*_left_out(root)] == [name for name in event_names("train") if name.startswith(absent)]
    write_video(_home(root) / "videos" / f"{absent}.mp4", 40, fps=10)
    (reason,) = _left_out(root).values()
    assert "from 3 to 5.4 s: the video ends at 3.9 s, is it complete?" in reason
    (_home(root) / "videos" / f"{absent}.mp4").write_bytes(b"no video")
    assert len(_left_out(root)) == 2


def test_an_element_with_several_classes_costs_its_event_and_a_repeated_line_nothing(tmp_path):
    root = write_finegym99_raw(tmp_path)
    text = _train(root).read_text()
    _train(root).write_text(text + text)
    assert not _left_out(root)
    _train(root).write_text(f"{text}{event_names('train')[2]}_A_0000_0001 6\n")
    assert list(_left_out(root)) == [event_names("train")[2]] and "several classes" in "".join(_left_out(root).values())


LINES = ["", " -1", f" {10**30}"]


@pytest.mark.parametrize(
    "line", ["0Lt_S9w_E_000000_000003 5", *("0Lt_S9w_E_1_2_A_1_2" + label for label in LINES), "?"]
)
def test_a_malformed_line_is_named_with_its_number(tmp_path, line):
    root = write_finegym99_raw(tmp_path)
    _train(root).write_text(f"{_train(root).read_text()}\n{line}\n")
    with pytest.raises(ValueError) as caught:
        find_videos("finegym99", "train", root)
    assert 'gym99_train_element_v1.0.txt, line 14: expected "VIDEO_E_START' in str(caught.value)
    assert f'found "{line}"' in str(caught.value)


@pytest.mark.parametrize(
    "text, reason",
    [("{half", "is not JSON"), ("[" * 99999, "is not JSON"), ("[]", "must map video ids to their events")],
)
def test_a_json_that_is_none_is_named(tmp_path, text, reason):
    root = write_finegym99_raw(tmp_path)
    _events(root).write_text(text)
    with pytest.raises(ValueError, match=f"v1.0.json {reason}"):
        find_videos("finegym99", "train", root)


def test_elements_that_are_no_text_are_named(tmp_path):
    root = write_finegym99_raw(tmp_path)
    _train(root).write_bytes(b"\xff\xfe0")
    with pytest.raises(ValueError, match=r"gym99_train_element_v1.0.txt is not UTF-8 text"):
        find_videos("finegym99", "train", root)


# prepared -------------------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("file_name", ["gym288_train_v1.0.pkl", "additional_v1.0.pkl"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, file_name):
    root = write_finegym288_prepared(tmp_path)
    write_pickle(
        _home(root) / file_name, [{"name": "a", "video_file": "a.mp4", "frame_label": Payload(tmp_path / "x")}]
    )
    with pytest.raises(ValueError, match=rf"{file_name}: it would call \w+\.system"):
        find_videos("finegym288", "train", root)
    assert not (tmp_path / "x").exists()


def test_absent_and_doubled_prepared_events_are_left_out(tmp_path):
    root = write_finegym99_prepared(tmp_path)
    first, second = event_names("val")
    entry = {"name": first, "video_file": f"{first}.mp4", "event_label": "floor_exercise"}
    gone = {**entry, "name": second, "video_file": f"{second}.mp4"}
    (_home(root) / "videos" / gone["video_file"]).unlink()
    write_pickle(_home(root) / "gym99_val.pkl", [entry, entry, gone, {**entry, "name": "b", "event_label": [1, 2]}, {}])
    videos = find_videos("finegym99", "val", root)
    assert [(video.name, video.action) for video in videos] == [(first, "floor exercise")]
    assert (videos.coverage.found, videos.coverage.expected) == (1, 5)
    doubled, absent, no_class, no_entry = videos.coverage.unreadable.values()
    assert "listed 2 times" in doubled and "absent" in absent and "found [1, 2]" in no_class and "no name" in no_entry


# excerpts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("ts", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx")])
def test_an_excerpt_has_the_frames_of_its_time_wherever_seeking_lands(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"a.{suffix}", 63, width=32, height=32, fps=10, codec=codec)
    whole = [number_of(frame) for frame in VideoFile(path).frames()]
    for start, stop in ((0, 1), (0.35, 1.3), (2.9, 3.1), (4.5, 6.25), (5.5, 7.2)):
        excerpt = Excerpt(path, start, stop)
        kept = [number for number, time in enumerate(np.arange(63) / 10) if start - 1e-6 <= time < stop - 1e-6]
        assert [number_of(frame) for frame in excerpt.frames()] == whole[kept[0] : kept[-1] + 1]
        assert excerpt.count() == len(kept)
        assert np.allclose(excerpt.times, np.array(kept) / 10 - start, atol=2e-3)


def test_an_excerpt_decodes_only_around_its_range_and_ignores_damage_elsewhere(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.avi", 600, width=32, height=32, fps=10, codec="mpeg4")
    decoded, decode = [], video._decode
    monkeypatch.setattr(video, "_decode", lambda *args: (decoded.append(0) or item for item in decode(*args)))
    assert len(list(Excerpt(path, 50, 52).frames())) == 20
    assert len(decoded) < 2 * 50
    damage(path)
    with pytest.raises(VideoError, match="damaged"):
        VideoFile(path).count()
    assert Excerpt(path, 50, 52).count() == 20


def test_excerpts_of_one_file_are_different_videos(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, fps=10)
    assert Excerpt(path, 0, 1).identity != Excerpt(path, 0, 2).identity != VideoFile(path).identity
    assert (Excerpt(path, 0, 1).count(), Excerpt(path, 0, 2).count(), VideoFile(path).count()) == (10, 20, 40)


def test_a_range_may_reach_a_second_beyond_the_end_but_not_more(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, fps=10)
    assert Excerpt(path, 3, 4.8).count() == 10
    for start, stop in ((3, 5), (20, 30)):
        with pytest.raises(VideoError, match=rf"from {start} to {stop} s: the video ends at 3.9 s"):
            Excerpt(path, start, stop).count()
    for start, stop in ((2, 2), (3, 2), (-1, 2), (0, float("inf")), (float("nan"), 2)):
        with pytest.raises(ValueError, match="0 <= start < stop"):
            Excerpt(path, start, stop)
