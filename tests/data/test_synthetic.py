"""The synthetic videos: reproducible, consistently annotated, and not solved by counting frames."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mvf.data.datasets.synthetic import find_videos
from mvf.data.datasets.synthetic.actions import ACTIONS
from mvf.data.datasets.synthetic.motion import Build, skeleton

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = {"repeats": 1, "idle": (0, 8)}
HASH = """
import hashlib
from mvf.data.datasets.synthetic import find_videos
options = {"height": 64, "repeats": 1, "idle": (0, 8)}
video = find_videos("train", data_seed=3, actions=("tennis_serve",), train_videos=1, **options)[0]
print(hashlib.sha256(video.load().tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def videos():
    return find_videos("val", val_videos=len(ACTIONS), height=96, width=108, **SHORT)


@pytest.fixture(scope="module")
def masks(videos):
    return [video.actor_mask() for video in videos]


def test_pixels_are_equal_in_another_process():
    video = find_videos("train", data_seed=3, actions=("tennis_serve",), train_videos=1, height=64, **SHORT)[0]
    run = subprocess.run([sys.executable, "-c", HASH], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert hashlib.sha256(video.load().tobytes()).hexdigest() == run.stdout.strip()


def test_a_video_does_not_depend_on_how_many_there_are():
    few = find_videos("train", actions=("squat",), train_videos=1)[0]
    many = find_videos("train", actions=("pushup", "squat"), train_videos=9)[1]
    assert few.source.identity == many.source.identity
    assert np.array_equal(next(few.frames(5, 6)), next(many.frames(5, 6)))


def test_streaming_equals_loading(videos):
    whole = videos[0].load()
    assert whole.dtype == np.uint8 and whole.shape == (videos[0].num_frames, 96, 108, 3)
    some = np.stack(list(videos[0].frames(4, 30, 5)))
    assert np.array_equal(some, whole[4:30:5])


def test_every_option_changes_identity():
    options = {"data_seed": 1, "height": 96, "width": 96, "repeats": 2, "idle": 5, "bystanders": 1, "noise": 1.0}
    usual = find_videos("val", val_videos=1)[0].source.identity
    assert (
        len({usual, *(find_videos("val", val_videos=1, **{k: v})[0].source.identity for k, v in options.items())}) == 8
    )


def test_seeds_and_splits_differ():
    first = [find_videos(split)[0].source for split in ("train", "dev", "val")] + [
        find_videos("train", data_seed=1)[0].source
    ]
    frames = [next(source.frames(0, 1)) for source in first]
    assert len({frame.tobytes() for frame in frames}) == 4


def test_annotations_agree_with_each_other(videos, masks):
    for video, mask in zip(videos, masks, strict=True):
        box, joints = video.actor_box(), video.joints()
        assert mask.shape == (video.num_frames, 96, 108) and mask.dtype == bool
        assert joints.shape == (video.num_frames, 13, 2) and box.shape == (video.num_frames, 4)
        rows, columns = np.nonzero(mask[7])
        assert box[7].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        inside = (joints >= box[:, None, :2] - 1) & (joints <= box[:, None, 2:] + 1)
        assert inside.all(axis=-1).mean() > 0.85
        assert 0.01 < mask.mean() < 0.15


def test_objects_have_masks_of_their_own(videos, masks):
    for video, mask in zip(videos, masks, strict=True):
        things = video.object_mask()
        assert (things is None) == (ACTIONS[video.action].thing == "")
        if things is not None:
            assert things.any(axis=(1, 2)).mean() > 0.9
            assert not (things & mask).any()


def test_bystanders_are_never_in_the_mask():
    alone, crowd = (
        find_videos("val", val_videos=1, actions=("squat",), height=64, bystanders=people, **SHORT)[0]
        for people in (0, 4)
    )
    assert not (crowd.actor_mask() & ~alone.actor_mask()).any()
    assert np.array_equal(alone.joints(), crowd.joints())


def test_phases_run_in_order_and_repeat():
    for video in find_videos("train", train_videos=2 * len(ACTIONS), repeats=2):
        action, phases = ACTIONS[video.action], video.phases
        labelled = phases[phases >= 0]
        runs = labelled[np.flatnonzero(np.diff(labelled, prepend=-1))]
        assert runs.tolist() == 2 * list(range(len(action.names)))
        assert len(video.phase_names) == len(video.phase_kinds) == len(action.names)
        assert len(phases) == video.num_frames


def test_idle_time_is_alive_and_unlabelled():
    video = find_videos("train", train_videos=1, actions=("squat",), idle=40, repeats=1)[0]
    assert (video.phases[:40] == -1).all() and (video.phases[-40:] == -1).all() and (video.phases[40:-40] >= 0).all()
    steps = np.abs(np.diff(video.joints()[:40], axis=0)).max(axis=(1, 2))
    assert (steps > 0.05).mean() > 0.9


def test_bones_keep_their_length():
    build = Build()
    for action in ACTIONS.values():
        points = skeleton(np.stack([key for keys in action.keys for key in keys]), build, action.hands)
        shin = np.linalg.norm(points["left_knee"] - points["left_ankle"], axis=1)
        forearm = np.linalg.norm(points["right_elbow"] - points["right_wrist"], axis=1)
        assert np.allclose(shin, build.shin, atol=1e-3) and np.allclose(forearm, build.forearm, atol=1e-3)


def test_videos_travel_between_processes(videos):
    assert pickle.loads(pickle.dumps(videos[0])).source.identity == videos[0].source.identity


def test_position_says_little_about_phase():
    scores = [_position_accuracy(action) for action in ACTIONS]
    assert np.mean(scores) <= 0.6


def _position_accuracy(action: str) -> float:
    train = [video.phases for video in find_videos("train", train_videos=10, actions=(action,))]
    val = [video.phases for video in find_videos("val", val_videos=5, actions=(action,))]
    clocks = [np.concatenate([_clock(len(p))[p >= 0] for p in part]) for part in (train, val)]
    labels = [np.concatenate([p[p >= 0] for p in part]) for part in (train, val)]
    return LogisticRegression(max_iter=100000).fit(clocks[0], labels[0]).score(clocks[1], labels[1])


def _clock(length: int, width: int = 256, frames: int = 32) -> np.ndarray:
    """The position table of the temporal transformer, stretched over a video, each row of unit norm."""
    channel = np.arange(width)
    angle = np.linspace(0, frames - 1, length)[:, None] / 10000 ** (channel / width)
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return table / np.linalg.norm(table, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ("squats",)}, 'unknown action "squats"; did you mean "squat"'),
        ({"val_videos": 0}, "val_videos must be at least 1, got 0"),
        ({"repeats": 0}, "repeats must be two numbers from 1 up, the smaller first, got 0"),
        ({"idle": (9, 3)}, "idle must be two numbers"),
        ({"idle": (-4, 3)}, "idle must be two numbers"),
        ({"noise": -1}, "noise must be at least 0"),
        ({"height": 8}, "height must be at least 32, got 8"),
        ({"data_seed": -1}, "data_seed must be at least 0, got -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        find_videos("val", **options)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match='unknown split "vall"; did you mean "val"'):
        find_videos("vall")
