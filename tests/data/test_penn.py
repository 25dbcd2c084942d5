from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from mvf.data import find_videos
from mvf.data.datasets.penn import KEY_EVENTS, LAYOUT, SOURCE, WITHOUT_PHASES, find_action, phase_names, read_label

from .footage import number_of, write_video
from .penn_disk import (
    PENN,
    PENN_PHASES,
    phases_of,
    prepared_entry,
    write_index,
    write_penn_frames,
    write_penn_label,
    write_penn_phases,
    write_penn_prepared,
    write_penn_raw,
)
from .test_formats import Payload


@pytest.fixture(scope="module")
def raw_once(tmp_path_factory) -> Path:
    return write_penn_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def raw(raw_once, tmp_path) -> Path:
    """The raw form, to be damaged."""
    return shutil.copytree(raw_once, tmp_path / "data")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return write_penn_prepared(tmp_path_factory.mktemp("prepared"))


def _names(videos) -> list[str]:
    return [record.name for record in videos]


def _reason(root: Path, name: str, split: str = "train") -> str:
    """Why `name` is left out, where it is the only one."""
    videos = find_videos("penn", split, root)
    assert list(videos.coverage.unreadable) == [name] and name not in _names(videos)
    assert videos.coverage.found == len(videos) == videos.coverage.expected - 1
    return videos.coverage.unreadable[name]


# both forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("form", ["raw", "prepared"])
def test_both_forms_give_the_same_videos(raw_once, prepared, form, split):
    videos = find_videos("penn", split, {"raw": raw_once, "prepared": prepared}[form])
    wanted = [(f"{number}_{action}", action, length) for number, action, part, length in PENN if part == split]
    assert [(r.name, r.action, r.num_frames) for r in videos] == wanted
    assert videos.coverage.as_dict() == {"found": 4, "expected": 4, "unreadable": {}}
    for record in videos:
        count = PENN_PHASES[record.action]
        assert record.phases.tolist() == phases_of(record.num_frames, count).tolist()
        assert record.phase_names == phase_names(record.action) and len(record.phase_names) == count
        assert [number_of(frame) for frame in record.frames(2, 9, 3)] == [2, 5, 8]


@pytest.mark.parametrize("form", ["raw", "prepared"])
def test_the_data_folder_itself_can_be_given(raw_once, prepared, form):
    folder = {"raw": raw_once / "Penn_Action", "prepared": prepared / "penn_action"}[form]
    videos = find_videos("penn", "val", folder, form=form)
    assert len(videos) == 4 and videos[0].phases is not None


@pytest.mark.parametrize("form", ["raw", "prepared"])
def test_dev_is_a_fixed_part_of_train(raw_once, prepared, form):
    root = {"raw": raw_once, "prepared": prepared}[form]
    dev = _names(find_videos("penn", "dev", root))
    assert len(dev) == 1 and set(dev) < set(_names(find_videos("penn", "train", root)))
    assert dev == _names(find_videos("penn", "dev", raw_once))


def test_raw_is_preferred_where_it_has_phases(raw, prepared):
    shutil.copytree(prepared / "penn_action", raw / "penn_action")

    def forms(**options):
        return find_videos("penn", "val", raw, **options)[0].actor_box() is not None

    assert forms() is True and forms(form="prepared") is False
    shutil.rmtree(raw / "penn_action_labels")
    assert forms() is False and forms(form="raw") is True


def test_missing_data_says_where_it_looked_then_the_layouts_then_the_source(tmp_path):
    for root, problem in ((tmp_path, "holds none of the accepted layouts"), (tmp_path / "gone", "is not a folder")):
        with pytest.raises(ValueError, match=problem) as error:
            find_videos("penn", "train", root)
        looked, layout, source = (
            str(error.value).index(text) for text in (f"{root}/Penn_Action/frames", "raw", SOURCE)
        )
        assert 0 < looked < layout < source and LAYOUT.format(root=root) in str(error.value)
        assert str(root) in str(error.value).splitlines()[0]
    with pytest.raises(ValueError, match='unknown form "raws"; did you mean "raw"'):
        find_videos("penn", "train", tmp_path, form="raws")


# words --------------------------------------------------------------------------------------------------------------


def test_phases_are_one_more_than_key_events_and_said_in_words():
    counts = (4, 3, 2, 3, 6, 3, 4, 2, 2, 2, 4, 3, 4)
    assert tuple(len(phase_names(action)) for action in KEY_EVENTS) == counts
    for action in KEY_EVENTS:
        assert len(set(phase_names(action))) == len(phase_names(action))
    assert phase_names("squat")[1] == "to hips at floor" and phase_names("pullup")[-1] == "after chin above bar"


def test_actions_are_known_however_they_are_spelled():
    for action in (*KEY_EVENTS, *WITHOUT_PHASES):
        assert find_action(action) == find_action(action.upper().replace("_", "-")) == action
    spelled = {
        "push_ups": "pushup",
        "pull_ups": "pullup",
        "sit_up": "situp",
        "squats": "squat",
        "jumping_jack": "jumping_jacks",
    }
    assert {text: find_action(text) for text in spelled} == spelled


# label files --------------------------------------------------------------------------------------------------------


def test_the_real_label_files_agree_with_their_fields(shared):
    paths = sorted((shared / "real" / "penn_labels").glob("*.mat"))
    assert len(paths) == 45
    for path in paths:
        label, fields = read_label(path), loadmat(path)
        visible = fields["visibility"] == 1
        assert label.action == fields["action"][0] == find_action(label.action)
        assert label.train == (fields["train"][0, 0] == 1)
        assert np.array_equal(label.boxes, fields["bbox"]) and len(label.boxes) == fields["nframes"][0, 0]
        assert np.array_equal(label.joints[visible], np.stack([fields["x"], fields["y"]], -1)[visible])
        assert np.isnan(label.joints[~visible]).all() and label.joints.shape == (len(label.boxes), 13, 2)
        assert (label.boxes[:, 2:] > label.boxes[:, :2]).all() and (label.boxes >= 0).all()
        assert (label.boxes <= fields["dimensions"][0, [1, 0, 1, 0]]).all()


def test_the_real_label_files_make_a_data_set(tmp_path, shared):
    root = tmp_path / "Penn_Action"
    shutil.copytree(shared / "real" / "penn_labels", root / "labels")
    for path in sorted((root / "labels").glob("*.mat"))[:6]:
        write_penn_frames(tmp_path, path.stem, 12)
    found = {split: find_videos("penn", split, tmp_path) for split in ("train", "val")}
    assert sorted(_names(found["train"])) == ["0005_baseball_pitch", "0118_baseball_pitch", "0199_baseball_swing"] + [
        "0278_baseball_swing"
    ]
    assert sum(videos.coverage.expected for videos in found.values()) == 39  # without jump_rope and strum_guitar
    assert "its frames are absent" in found["val"].coverage.unreadable["0346_bench_press"]
    assert found["train"][0].phases is None and found["train"][0].actor_box().shape == (12, 4)


def test_boxes_and_joints_have_a_row_for_every_frame(raw):
    for number, length in (("0001", 19), ("0002", 15)):  # of 16 and 20 frames
        write_penn_label(raw, number, "squat", "train", length)
    write_penn_label(raw, "0005", "pushup", "train", 12, visibility=np.ones((13, 13), np.uint8))
    videos = find_videos("penn", "train", raw)
    for record, length in zip(videos, (19, 15, 12, 15)):
        index = np.arange(record.num_frames) * length // record.num_frames
        assert record.actor_box().shape == (record.num_frames, 4)
        assert record.joints()[:, 0].tolist() == np.stack([index + 1, index + 2], -1).tolist()
    assert videos[1].actor_box()[0].tolist() == [0.75, 0.75, 32, 24]
    assert np.isnan(videos[1].joints()[:, 3]).all() and not np.isnan(videos[2].joints()).any()


def test_the_folder_of_phase_labels_decides_the_split(raw):
    write_penn_label(raw, "0001", "squat", "val", 16)
    assert "0001_squat" in _names(find_videos("penn", "train", raw))
    shutil.rmtree(raw / "penn_action_labels")
    videos = find_videos("penn", "val", raw)
    assert "0001_squat" in _names(videos) and all(record.phases is None for record in videos)


def test_phase_labels_alone_will_do(raw):
    shutil.rmtree(raw / "Penn_Action" / "labels")
    videos = find_videos("penn", "train", raw)
    assert len(videos) == 4 and videos[0].phases is not None and videos[0].actor_box() is videos[0].joints() is None


# bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 60, 200, 0.5, 0.9])
def test_damaged_label_files_are_named_in_their_split(raw, keep):
    path = raw / "Penn_Action" / "labels" / "0001.mat"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    assert "0001.mat" in _reason(raw, "0001")
    path.write_bytes(b"no label file at all")
    assert "0001.mat: damaged" in _reason(raw, "0001")
    shutil.rmtree(raw / "penn_action_labels")
    assert "0001" in find_videos("penn", "train", raw).coverage.unreadable
    assert "0001" in find_videos("penn", "val", raw).coverage.unreadable  # its split is not known


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"bbox": None, "y": None}, "0001.mat has no field y, bbox"),
        ({"bbox": np.zeros((5, 3))}, r"bbox is float64 \(5, 3\), expected numbers \(frames, 4\)"),
        ({"x": np.zeros((0, 13))}, r"x is .* \(0, \d+\), expected numbers \(frames, 13\)"),
        ({"train": 3}, r"train is \[\[3\]\], expected 1 \(train\) or -1"),
        ({"action": "juggling"}, 'unknown action "juggling"; '),
        ({"action": "tennis_serv"}, 'unknown action "tennis_serv"; did you mean "tennis_serve"'),
        ({"action": "pushup"}, "says pushup, but its phases are .*squat/0001.npy"),
    ],
)
def test_label_files_that_make_no_sense_are_named(raw, changed, reason):
    write_penn_label(raw, "0001", "squat", "train", 16, **changed)
    videos = find_videos("penn", "train", raw)
    ((name, found),) = videos.coverage.unreadable.items()
    assert name.startswith("0001") and len(videos) == 3 and videos.coverage.expected == 4
    assert re.search(reason, found)


def test_frames_missing_in_the_middle_or_all_of_them_are_noticed(raw):
    frames = raw / "Penn_Action" / "frames"
    (frames / "0001" / "000007.jpg").unlink()
    assert "frame 7 is missing in" in _reason(raw, "0001_squat")
    shutil.rmtree(frames / "0001")
    assert f"its frames are absent: {frames}/0001 does not exist" in _reason(raw, "0001_squat")
    write_penn_frames(raw, "0001", 16)
    (frames / "0001" / "000001.jpg").unlink()
    assert "frame 1 is missing" in _reason(raw, "0001_squat")
    (frames / "0001" / "000001.jpg").write_bytes(b"no picture")
    assert "000001.jpg: not an image" in _reason(raw, "0001_squat")


def test_frames_without_any_label_are_named_in_both_splits(raw):
    write_penn_frames(raw, "0099", 12)
    assert _reason(raw, "0099", "train") == _reason(raw, "0099", "val")
    assert "action and split are not known" in _reason(raw, "0099")


def test_of_more_labels_than_frames_as_many_as_frames_are_used(raw):
    phases = phases_of(29, 4)
    write_penn_phases(raw, "0001", "squat", "train", phases)
    record, *others = find_videos("penn", "train", raw)
    assert record.num_frames == len(record.load()) == 16
    assert record.phases.tolist() == [phases[j * 29 // 16] for j in range(16)]
    assert record.note == "29 labels for 16 frames" and not any(other.note for other in others)


def test_of_more_frames_than_labels_as_many_as_labels_are_used(raw):
    write_penn_phases(raw, "0001", "squat", "train", phases_of(11, 4))
    record = find_videos("penn", "train", raw)[0]
    kept = [j * 16 // 11 for j in range(11)]
    assert record.num_frames == 11 and record.phases.tolist() == phases_of(11, 4).tolist()
    assert [number_of(frame) for frame in record.frames()] == kept
    assert [number_of(frame) for frame in record.frames(2, 9, 3)] == kept[2:9:3]
    assert list(record.frames(4, 4)) == [] and len(list(record.frames(8, 99))) == 3
    assert record.joints()[:, 0, 0].tolist() == [index + 1 for index in kept] and record.actor_box().shape == (11, 4)
    assert record.note == "11 labels for 16 frames"
    assert record.source.identity != record.source.source.identity


def test_a_single_label_is_no_labelling(raw):
    write_penn_phases(raw, "0001", "squat", "train", np.zeros(1))
    assert "expected one integer per frame, at least 2" in _reason(raw, "0001_squat")


@pytest.mark.parametrize(
    "phases, reason",
    [
        (np.full(16, 4), "0001_squat: phase 4, but its action has only the phases 0 to 3"),
        (np.full(16, 0.5), "phase 0.5 at frame 0"),
        (np.full(16, np.nan), "phase nan at frame 0"),
        (np.full(16, np.inf), "phase inf at frame 0"),
        (np.full(16, 2**62), "phase 4.61169e+18 at frame 0"),
        (np.zeros((0,)), "its labels are float64 (0,)"),
        (np.zeros((16, 2)), "its labels are float64 (16, 2)"),
        (np.array([{}] * 16), "cannot read numbers from"),
    ],
)
def test_phase_labels_that_make_no_sense_are_named(raw, phases, reason):
    path = write_penn_phases(raw, "0001", "squat", "train", np.zeros(16))
    np.save(path, phases, allow_pickle=True)
    assert reason in _reason(raw, "0001_squat")


@pytest.mark.parametrize("keep", [0, 50, 130])
def test_damaged_phase_labels_are_named(raw, keep):
    path = write_penn_phases(raw, "0001", "squat", "train", np.zeros(16))
    path.write_bytes(path.read_bytes()[:keep])
    assert f"cannot read numbers from {path}" in _reason(raw, "0001_squat")


def test_a_phase_that_never_occurs_is_fine(raw):
    write_penn_phases(raw, "0001", "squat", "train", np.repeat([0, 3], 8))
    record = find_videos("penn", "train", raw)[0]
    assert sorted(set(record.phases.tolist())) == [0, 3] and len(record.phase_names) == 4


def test_two_phase_labels_for_one_video_are_a_mistake(raw):
    write_penn_phases(raw, "0001_again", "squat", "train", np.zeros(16))
    assert "it has 2 phase labels" in _reason(raw, "0001")


def test_a_frame_cut_short_is_noticed(raw):
    path = raw / "Penn_Action" / "frames" / "0001" / "000016.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    assert "000016.jpg: not an image, or damaged" in _reason(raw, "0001_squat")


def test_places_may_have_spaces_and_letters_of_any_alphabet(raw, prepared, tmp_path):
    for number, root in enumerate((raw, prepared)):
        place = shutil.copytree(root, tmp_path / "daten für {alle} [neu] 漢字" / str(number))
        videos = find_videos("penn", "train", place)
        assert len(videos) == 4 and videos[0].load().shape[0] == 16


def test_actions_without_phases_do_not_count(raw):
    write_penn_frames(raw, "0099", 12)
    write_penn_label(raw, "0099", "strum_guitar", "train", 12)
    assert find_videos("penn", "train", raw).coverage.expected == 4


# bad prepared input -------------------------------------------------------------------------------------------------


def _prepared(folder: Path, *changes: dict) -> Path:
    """A prepared training set of one video a change, all of the action squat."""
    entries = []
    for number, change in enumerate(changes):
        name = f"{number:04}_squat"
        entry = prepared_entry(folder / "penn_action", name, name, 12, 4) | change
        entries.append({key: value for key, value in entry.items() if value is not None})
    write_index(folder / "penn_action" / "train.pkl", (entries, []))
    return folder


@pytest.mark.parametrize(
    "change, name, reason",
    [
        ({"name": "0000_juggling"}, "0000_juggling", 'unknown action "juggling"'),
        ({"name": "0001_squat"}, "0001_squat", "listed 2 times; the first is used"),
        ({"video_file": "videos/gone.mp4"}, "0000_squat", "the video gone.mp4 is absent"),
        ({"video_file": None}, "entry 0", "has no video_file"),
        ({"frame_label": ["a"] * 12}, "0000_squat", "its labels are <U1 (12,)"),
        ({"frame_label": [7] * 12}, "0000_squat", "only the phases 0 to 3"),
        ({"frame_label": [[0], [1, 2]]}, "0000_squat", "0000_squat: its labels are not numbers"),
        ({"frame_label": torch.zeros(12, dtype=torch.bfloat16)}, "0000_squat", "its labels are not numbers"),
        ({"frame_label": {"a": 1}}, "0000_squat", "its labels are object ()"),
        ({"frame_label": [2**70] * 12}, "0000_squat", "its labels are object (12,)"),
        ({"video_file": "a" * 300 + ".mp4"}, "0000_squat", "File name too long"),
    ],
)
def test_prepared_entries_that_make_no_sense_are_named(tmp_path, change, name, reason):
    videos = find_videos("penn", "train", _prepared(tmp_path, change, {}))
    ((found, why),) = videos.coverage.unreadable.items()
    assert found == name and reason in why
    assert len(videos) == 1 and videos.coverage.expected == 2


def test_of_videos_of_one_name_the_first_that_can_be_used_is_used(tmp_path):
    root = _prepared(tmp_path, {"name": "0007_squat", "video_file": "gone.mp4"}, {"name": "0007_squat"})
    videos = find_videos("penn", "train", root)
    assert _names(videos) == ["0007_squat"] and "gone.mp4 is absent" in videos.coverage.unreadable["0007_squat"]


def test_prepared_labels_are_optional_and_fit_the_frames(tmp_path):
    changes = {"frame_label": None}, {"frame_label": [0, 0, -1, 1, 2, 3], "seq_len": 6}, {"name": "0009_strum_guitar"}
    unlabelled, resampled = find_videos("penn", "train", _prepared(tmp_path, *changes))
    assert unlabelled.phases is None
    assert resampled.phases.tolist() == [0, 0, -1, 1, 2, 3]
    assert [number_of(frame) for frame in resampled.frames()] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("stored", ["videos/a.mp4", "penn_action/videos/a.mp4", r"C:\data\a.mp4", "/x/a.mp4"])
def test_prepared_videos_are_found_however_their_path_was_stored(tmp_path, stored):
    root = _prepared(tmp_path, {"video_file": stored})
    write_video(root / "penn_action" / "videos" / "a.mp4", 12)
    assert find_videos("penn", "train", root)[0].num_frames == 12


def test_a_prepared_split_that_is_not_there_is_named(tmp_path):
    videos = find_videos("penn", "val", _prepared(tmp_path, {}))
    assert len(videos) == 0 and "val.pkl does not exist" in videos.coverage.unreadable["val.pkl"]


def test_a_prepared_index_that_would_run_code_is_refused(tmp_path):
    _prepared(tmp_path, {"frame_label": Payload(tmp_path / "ran")})
    with pytest.raises(ValueError, match=r"train.pkl: it would call \w+\.system, which was refused and not run"):
        find_videos("penn", "train", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_prepared_index_that_is_no_list_is_refused(tmp_path):
    write_index(tmp_path / "penn_action" / "train.pkl", {"videos": 3})
    with pytest.raises(ValueError, match=r"train.pkl must hold a list of videos, found dict"):
        find_videos("penn", "train", tmp_path)
