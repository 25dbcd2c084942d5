import numpy as np
import pytest

from mvf.embedding import EmbeddedVideo
from mvf.evaluation.scoring import (
    Protocol,
    alignment,
    compact,
    count_phases,
    kept_frames,
    kind_accuracy,
    label_fractions,
    score_rounds,
    standardiser,
)
from mvf.metrics import (
    alignment_error,
    event_times,
    kendall_tau,
    phase_classification,
    phase_progression,
    predict_phases,
    predict_progression,
    retrieval_precision,
)
from tests.golden import GOLDEN


def make_videos(split, actions=("squat", "serve"), count=4, width=6, noise=0.7, seed=0, idle=True):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(actions), 3, width))
    rng = np.random.default_rng([seed, len(split)])
    videos = []
    for number in range(count * len(actions)):
        action = number % len(actions)
        phases = np.repeat(
            [-1, 0, 1, 2, -1], [rng.integers(0, 9) if idle else 0, *rng.integers(6, 12, 3), 2 if idle else 0]
        )
        embeddings = np.where(phases[:, None] < 0, 0, centres[action][phases]) + noise * rng.normal(
            size=(len(phases), width)
        )
        videos.append(EmbeddedVideo(f"{split}-{number}", actions[action], embeddings.astype(np.float32), phases))
    return videos


TRAIN, VAL = make_videos("train"), make_videos("val")
PROTOCOL = Protocol(count_phases(TRAIN + VAL), stride=2)


def of(videos, action):
    return kept_frames([video for video in videos if video.action == action])


def test_scores_equal_the_metrics_action_by_action():
    scored = score_rounds([TRAIN], [VAL], PROTOCOL)
    for action, scores in scored.per_action().items():
        arrays = (*of(TRAIN, action), *of(VAL, action))
        wanted = {
            "classification": phase_classification(*arrays),
            "progression": phase_progression(*arrays, 3),
            "kendall_tau": kendall_tau(arrays[2], 2),
            **{f"retrieval@{k}": retrieval_precision(*arrays[2:], k, 2) for k in (5, 10, 15)},
        }
        assert scores == pytest.approx(wanted)
    assert scored.means()["classification"] == pytest.approx(
        np.mean([scores["classification"] for scores in scored.per_action().values()])
    )


def test_golden_scores():
    golden = np.load(GOLDEN / "metrics_clean_and_jerk.npz", allow_pickle=False)
    splits = []
    for split in ("train", "val"):
        cuts = np.cumsum(golden[f"{split}_lengths"])[:-1]
        arrays = [np.split(golden[f"{split}_{kind}"], cuts) for kind in ("embs", "labels")]
        splits.append([EmbeddedVideo(f"{split}{i}", "a", e, p) for i, (e, p) in enumerate(zip(*arrays))])
    protocol = Protocol({"a": int(golden["num_phases"])}, int(golden["stride"]))
    scored = score_rounds([splits[0]], [splits[1]], protocol)
    means = scored.means()
    assert means["classification"] == pytest.approx(float(golden["expected_class_1.0"]), abs=2e-3)
    assert means["progression"] == pytest.approx(float(golden["expected_prog_1.0"]), abs=1e-6)
    assert means["kendall_tau"] == pytest.approx(float(golden["expected_tau_val"]), abs=1e-6)
    assert means["retrieval@10"] == pytest.approx(float(golden["expected_ap_10"]), abs=1e-6)
    table, skipped = label_fractions(*splits, protocol, scored)
    assert not skipped
    for fraction in ("0.1", "0.5", "1.0"):
        assert table[fraction]["progression"] == pytest.approx(float(golden[f"expected_prog_{fraction}"]), abs=1e-6)
        assert table[fraction]["classification"] == pytest.approx(float(golden[f"expected_class_{fraction}"]), abs=2e-3)


def test_windows_share_a_probe_and_are_not_compared_with_each_other():
    scored = score_rounds([TRAIN, TRAIN], [VAL, VAL], PROTOCOL)
    once = score_rounds([TRAIN], [VAL], PROTOCOL)
    assert scored.means()["kendall_tau"] == pytest.approx(once.means()["kendall_tau"])
    assert scored.means()["retrieval@5"] == pytest.approx(once.means()["retrieval@5"])
    assert len(scored.sums["kendall_tau"]["squat"]) == 4


def test_refitted_rounds_are_averaged():
    other = [make_videos(split, seed=1, noise=2.0) for split in ("train", "val")]
    # same labels, other embeddings
    swap = lambda videos, donors: [  # noqa: E731
        EmbeddedVideo(v.name, v.action, np.resize(d.embeddings, v.embeddings.shape), v.phases)
        for v, d in zip(videos, donors)
    ]
    train, val = swap(TRAIN, other[0]), swap(VAL, other[1])
    both = score_rounds([TRAIN, train], [VAL, val], PROTOCOL, refit=True).means()
    parts = [score_rounds([t], [v], PROTOCOL).means() for t, v in ((TRAIN, VAL), (train, val))]
    for score, value in both.items():
        assert value == pytest.approx(np.mean([part[score] for part in parts]), abs=1e-9), score


def test_compacting_wide_features_changes_no_prediction():
    rng = np.random.default_rng(0)
    train, val = [rng.normal(size=(9, 80)) for _ in range(3)], [rng.normal(size=(7, 80)) for _ in range(2)]
    phases = [np.repeat([0, 1, 2], 3)] * 3
    small = compact(train, val)
    assert small[0][0].shape == (9, 27)
    for a, b in zip(predict_phases(train, phases, val), predict_phases(small[0], phases, small[1])):
        np.testing.assert_array_equal(a, b)
    val_phases = [np.repeat([0, 1, 2], [3, 2, 2])] * 2
    wide, narrow = (predict_progression(t, phases, v, val_phases, 3)[0] for t, v in ((train, val), small))
    np.testing.assert_allclose(np.concatenate(wide), np.concatenate(narrow), atol=1e-9)


def test_standardised_channels_have_unit_scale_on_training_frames():
    train = [np.random.default_rng(0).normal(3, 5, (20, 4))]
    train[0][:, 3] = 7  # never changes
    found = standardiser(train)(train[0])
    np.testing.assert_allclose(found[:, :3].std(axis=0), 0.5)
    assert not found[:, 3].any()


def test_unlabelled_videos_keep_the_scores_that_need_no_labels():
    train, val = ([EmbeddedVideo(v.name, v.action, v.embeddings, None) for v in videos] for videos in (TRAIN, VAL))
    scored = score_rounds([train], [val], Protocol(count_phases(val)))
    assert list(scored.means()) == ["kendall_tau"]
    assert {"classification", "progression", "retrieval@5"} <= scored.skipped().keys()
    assert "labelled" in scored.skipped()["classification"]


def test_an_action_without_training_videos_is_named():
    scored = score_rounds([[v for v in TRAIN if v.action == "squat"]], [VAL], PROTOCOL)
    assert "classification: serve" in scored.skipped() and "squat" in scored.sums["classification"]


def test_alignment_error_equals_the_metric():
    videos = [v for v in VAL if v.action == "squat"]
    arrays, times = [v.embeddings for v in videos], [event_times(v.phases, 3) for v in videos]
    wanted = alignment_error(arrays, arrays, times, times)
    assert alignment([(v, 0) for v in videos], videos, PROTOCOL) == pytest.approx(wanted)
    start = 6
    windows = [EmbeddedVideo(v.name, v.action, v.embeddings[start:], v.phases[start:]) for v in videos]
    found = alignment([(w, start) for w in windows], videos, PROTOCOL)
    assert found == pytest.approx(
        alignment_error([a[start:] for a in arrays], arrays, [t[start:] for t in times], times)
    )


def test_accuracy_by_kind_of_phase():
    scored = score_rounds([TRAIN], [VAL], PROTOCOL)
    kinds = {"squat": ("pose", "pose", "pose"), "serve": ("direction", "direction", "direction")}
    found = kind_accuracy(scored, kinds)
    assert found["pose"] == pytest.approx(scored.per_action()["squat"]["classification"])
    assert found["direction"] == pytest.approx(scored.per_action()["serve"]["classification"])
