import csv
import json

import numpy as np
import pytest

from mvf.config import load_config
from mvf.evaluation.external import match, read_embeddings, read_labels, score_embeddings
from tests.evaluation.test_scoring import TRAIN, VAL, make_videos


def write(tmp_path, videos, rows):
    np.savez(tmp_path / "e.npz", **{video.name: video.embeddings for video in videos})
    return tmp_path / "e.npz", write_csv(tmp_path / "labels.csv", rows)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def split_of(video):
    return video.name.partition("-")[0]


def long_rows(videos):
    return [
        {"name": v.name, "split": split_of(v), "action": v.action, "frame": t, "phase": p}
        for v in videos
        for t, p in enumerate(v.phases)
    ]


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, TRAIN + VAL, long_rows(TRAIN + VAL))


def test_scores_equal_those_of_the_workbench(files, tiny):
    from mvf.evaluation import evaluate

    report = score_embeddings(*files, load_config("penn", stride=2, num_frames=8, fusion_width=16))
    wanted = evaluate(TRAIN, VAL, tiny(stride=2))
    for key in ("scores", "per_action", "label_fractions", "controls", "verdicts", "alignment_error"):
        assert report[key] == wanted[key], key
    assert "cropped" in report["skipped"] and "localization" in report["skipped"]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("key", ["name", "path"])
def test_starts_and_frames_mean_the_same(tmp_path, key):
    videos = make_videos("train", idle=False) + make_videos("val", idle=False)
    starts = [";".join(map(str, np.flatnonzero(np.diff(v.phases, prepend=-1)))) for v in videos]
    rows = [{key: v.name, "split": split_of(v), "action": v.action, "phases": s} for v, s in zip(videos, starts)]
    short = score_embeddings(*write(tmp_path, videos, rows))
    long = score_embeddings(*write(tmp_path, videos, long_rows(videos)))
    assert short == long


def test_phases_may_lie_in_files_beside_the_table(tmp_path):
    (tmp_path / "p").mkdir()
    rows = []
    for i, video in enumerate(TRAIN + VAL):
        name = f"p/{video.name}.{'csv' if i % 2 else 'npy'}"
        np.savetxt(tmp_path / name, video.phases, fmt="%d") if i % 2 else np.save(tmp_path / name, video.phases)
        rows.append({"name": video.name, "split": split_of(video), "action": video.action, "phases": name})
    found = match(read_embeddings(write(tmp_path, TRAIN + VAL, rows)[0]), read_labels(tmp_path / "labels.csv"))
    for video, wanted in zip(sum(found, []), TRAIN + VAL):
        np.testing.assert_array_equal(video.phases, wanted.phases)


def test_segments_may_have_gaps_and_names_a_suffix(tmp_path):
    segments = [(name, *span) for name in ("a", "b") for span in ((1, 3, 0), (4, 7, 1))]
    rows = [dict(zip(("video", "start_frame", "end_frame", "phase"), row)) for row in segments]
    write_csv(tmp_path / "segments.csv", rows)
    clips = [
        {"path": f"{name}.mp4", "split": split, "phases": "segments.csv"}
        for name, split in {"a": "train", "b": "val"}.items()
    ]
    labels = read_labels(write_csv(tmp_path / "labels.csv", clips))
    arrays = {name: np.ones((8, 2), np.float32) for name in ("a", "b")}
    train, val = match(arrays, labels)
    assert train[0].phases.tolist() == val[0].phases.tolist() == [-1, 0, 0, -1, 1, 1, 1, -1]
    with pytest.raises(ValueError, match="line 3: a segment ends at frame 7, a has only 6"):
        match({name: array[:6] for name, array in arrays.items()}, labels)
    thinned = {name: np.arange(0, 16, 2)[:3] for name in arrays}
    assert match({n: a[:3] for n, a in arrays.items()}, labels, thinned)[0][0].phases.tolist() == [-1, 0, 1]
    write_csv(tmp_path / "segments.csv", rows[2:])
    with pytest.raises(ValueError, match="segments.csv has no segment of a; known: b"):
        match(arrays, read_labels(tmp_path / "labels.csv"))


def test_names_of_phases_are_not_used(tmp_path):
    rows = [{"name": v.name, "phases": "0;3", "phase_names": "down, slowly;up"} for v in TRAIN + VAL]
    labels = read_labels(write(tmp_path, TRAIN + VAL, rows)[1])
    without = [{"name": v.name, "phases": "0;3"} for v in TRAIN + VAL]
    assert labels == read_labels(write(tmp_path, TRAIN + VAL, without)[1])


def test_without_a_split_every_fifth_video_is_for_validation(tmp_path):
    rows = [{"name": v.name, "phases": "0;3"} for v in TRAIN + VAL]
    train, val = match(*(f(p) for f, p in zip((read_embeddings, read_labels), write(tmp_path, TRAIN + VAL, rows))))
    assert [v.name for v in val] == sorted(v.name for v in TRAIN + VAL)[4::5]
    assert len(train) + len(val) == len(TRAIN + VAL)


def test_names_that_do_not_match_name_the_nearest(tmp_path):
    rows = long_rows(TRAIN + VAL)
    for row in rows:
        row["name"] = "trian-0" if row["name"] == "train-0" else row["name"]
    with pytest.raises(ValueError, match=r'no embeddings for video "trian-0"; did you mean "train-0"'):
        score_embeddings(*write(tmp_path, TRAIN + VAL, rows))
    with pytest.raises(ValueError, match='no labels for video "val-7"'):
        score_embeddings(*write(tmp_path, TRAIN + VAL, long_rows(TRAIN + VAL[:-1])))


def test_lengths_that_do_not_match_are_both_named(tmp_path):
    rows = long_rows(TRAIN + VAL)[1:]
    frames = len(TRAIN[0].phases)
    with pytest.raises(ValueError, match=f'"train-0" has {frames - 1} labelled frames .* and {frames} embeddings'):
        score_embeddings(*write(tmp_path, TRAIN + VAL, rows))
    from_one = [row | {"frame": row["frame"] + 1} for row in long_rows(TRAIN + VAL)]
    with pytest.raises(ValueError, match=rf"{frames} labelled frames \(1 to {frames}\) and .* \(0 to {frames - 1}\)"):
        score_embeddings(*write(tmp_path, TRAIN + VAL, from_one))
    rows = [{"name": v.name, "split": split_of(v), "phases": "0;900"} for v in TRAIN + VAL]
    with pytest.raises(ValueError, match=f"starts at frame 900, but its embeddings have {frames}"):
        score_embeddings(*write(tmp_path, TRAIN + VAL, rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "a", "phases": "0;5;3"}, "line 2: .*must be later than the one before"),
        ({"name": "a", "phases": "0;x"}, "line 2"),
        ({"name": "a", "phases": "gone.csv"}, "line 2.*gone.csv"),
        ({"name": "a", "split": "vall", "phases": "0"}, 'did you mean "val"'),
        ({"name": "a", "frame": "0", "phase": "-2"}, "got -2"),
        ({"name": "a", "frame": "0", "phase": ""}, "line 2"),
        ({"video": "a", "phases": "0"}, "missing: path"),
        ({"name": "a", "frame": "0"}, "missing: phase"),
    ],
)
def test_bad_labels_name_line_and_value(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_labels(write_csv(tmp_path / "labels.csv", [row]))


def test_a_video_listed_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match='line 3: video "a" is listed twice'):
        read_labels(write_csv(tmp_path / "labels.csv", [{"name": "a", "phases": "0"}] * 2))


def test_unreadable_embeddings_are_refused(tmp_path):
    path = tmp_path / "e.npz"
    with pytest.raises(ValueError, match="does not exist"):
        read_embeddings(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="not a readable .npz"):
        read_embeddings(path)
    np.savez(path, a=np.array([{"run": "code"}], dtype=object))
    with pytest.raises(ValueError, match="not a readable .npz of plain arrays"):
        read_embeddings(path)
    for array, message in (
        (np.zeros(3), r"wanted numbers of shape \(frames, width\)"),
        (np.full((2, 2), np.nan), "finite"),
    ):
        np.savez(path, a=array)
        with pytest.raises(ValueError, match=message):
            read_embeddings(path)
    np.savez(path, a=np.zeros((2, 2)), b=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one width"):
        read_embeddings(path)
    np.savez(path)
    with pytest.raises(ValueError, match="no arrays"):
        read_embeddings(path)


def test_missing_labels_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="gone.csv does not exist"):
        read_labels(tmp_path / "gone.csv")


def test_videos_are_judged_together_when_asked(tmp_path):
    files = write(tmp_path, TRAIN + VAL, long_rows(TRAIN + VAL))
    report = score_embeddings(*files, load_config("penn", judge="together"))
    assert set(report["per_action"]) == {"all actions"} and "without an order" in report["skipped"]["kendall_tau"]
