"""A clip is compared with references: which ones are taken, what is refused, and what figure, player and table say."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

import mvf
from mvf.data import find_config_videos
from mvf.data.records import VideoList, VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.segments import NO_TIMES
from mvf.workbench import notebook
from mvf.workbench.notebook import deviation as module
from mvf.workbench.notebook.session import Splits, embed_splits
from mvf.workbench.plotting.style import MESSAGE

COUNT = 40
LABELS = np.repeat([0, 1], 20)
ODD = slice(24, 30)  # frames of the clip "odd" that show something else


class Grey:
    """Plain frames; with times 10 a second, from the second second of the file on."""

    identity = "grey"

    def __init__(self, count=COUNT, timed=True):
        self.length = count
        self.times = 2 + np.arange(count) / 10 if timed else None

    def count(self):
        return self.length

    def frames(self, start=0, stop=None, step=1):
        return (np.full((12, 16, 3), 5 * i, np.uint8) for i in range(*slice(start, stop, step).indices(self.length)))


def embedded(name, odd=False, seed=0, phases=LABELS, action="squat"):
    """A movement along an arc, a little different for every seed, not for none; the odd one leaves it in between."""
    angles = np.linspace(0, 2, COUNT)
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(COUNT)], axis=1)
    if seed is not None:
        vectors += 0.03 * np.random.default_rng(seed).normal(size=(COUNT, 3))
    if odd:
        vectors[ODD] += [0, 0, 1.5]
    return EmbeddedVideo(name, action, vectors, phases)


def splits_of(train, val, timed=True):
    records = [
        VideoList(
            [VideoRecord(v.name, v.action, Grey(len(v.embeddings), timed), phase_names=("down", "up")) for v in part]
        )
        for part in (train, val)
    ]
    return Splits(*records, train, val, None)


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(module, "_controls", lambda *_: {})
    plain = SimpleNamespace(motion=None)
    plain.without_skip = lambda: plain
    return SimpleNamespace(model=SimpleNamespace(of=lambda action: plain), config=None)


@pytest.fixture
def splits():
    train = [embedded(name, seed=i, phases=None if name == "a" else LABELS) for i, name in enumerate("abcdefg")]
    return splits_of(train, [embedded("plain", seed=None), embedded("odd", True, 11)])


def names(compared):
    return [video.name for video in compared.references]


def test_labelled_training_clips_judge_the_validation_clip_that_is_furthest_out(session, splits):
    found = notebook.compare_clip(session, splits)
    assert (found.video.name, names(found)) == ("odd", ["b", "c", "d", "e", "f", "g"])
    first = found.found.moments[0]
    assert ODD.start - 3 <= first.start < first.end <= ODD.stop + 3 and first.excess > 1
    assert found.choice.startswith("Of 2 clips")


def test_named_clips_are_taken(session, splits):
    found = notebook.compare_clip(session, splits, references="g, a", compare="plain")
    assert (found.video.name, names(found), found.choice) == ("plain", ["g", "a"], "")
    found = notebook.compare_clip(session, splits, compare="b")
    assert found.video.name == "b" and "b" not in names(found)


def test_without_labels_and_sides_the_first_clips_are_references_and_one_is_left(session):
    clips = [embedded(name, seed=i, phases=None) for i, name in enumerate("abc")]
    found = notebook.compare_clip(session, splits_of(clips, []))
    assert (found.video.name, names(found)) == ("c", ["a", "b"])
    assert found.phase_at(3) == ""
    alone = notebook.compare_clip(session, splits_of(clips[:1], []))
    assert alone == "deviation needs a clip and a reference of the same action"
    assert notebook.deviation_figure(alone).get_label() == MESSAGE
    assert notebook.deviation_player(splits_of(clips[:1], []), alone).get_label() == MESSAGE
    assert alone in str(notebook.deviation_table(alone))


@pytest.mark.parametrize(
    "references, compare, said",
    [
        ("bb, c", "", 'references="bb, c": there is no video "bb"; did you mean "b"'),
        ("", "od", 'compare="od": there is no video "od"; did you mean "odd"'),
        ("b, c", "c", 'compare="c" is among the references'),
        ("b, lunge 1", "", 'references="b, lunge 1" are of several actions, squat, lunge: name those of one'),
        ("b", "lunge 1", 'compare="lunge 1" shows lunge, the references squat'),
        ("b, b", "", "names b 2 times"),
        ("short", "", "short has one frame, and movement needs two: compare others"),
        ("b", "short", "short has one frame"),
    ],
)
def test_names_that_cannot_be_compared_are_refused_before_anything_long(splits, references, compare, said):
    extra = [VideoRecord("lunge 1", "lunge", Grey()), VideoRecord("short", "squat", Grey(1))]
    lists = {"train": VideoList([*splits.train_records, *extra]), "val": splits.val_records}
    session = SimpleNamespace(find_videos=lambda split, allow_empty: lists[split])
    with pytest.raises(ValueError) as caught:
        notebook.check_alignment(session, "dtw", 240, references=references, compare=compare)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_with_a_comma_is_one_clip():
    clips = [VideoRecord(name, "squat", Grey()) for name in ("anna, 2", "ben")]
    assert module.check_references("ben", "anna, 2", clips) == (clips[1:], clips[0])


def test_the_table_and_the_csv_have_frames_and_seconds_of_the_file(session, splits, tmp_path):
    compared = notebook.compare_clip(session, splits)
    table = notebook.deviation_table(compared, tmp_path)
    first = compared.found.moments[0]
    assert table.columns == ("moment", "seconds", "peak, s", "frames", "peak, frame", "distance over band", "phase")
    rank, seconds, peak, frames, peak_frame, excess, phase = table.rows[0]
    assert (rank, frames, peak_frame) == ("1", f"{first.start} to {first.end - 1}", str(first.peak))
    assert seconds == f"{2 + first.start / 10:.2f} to {2 + first.end / 10:.2f}" and phase == "up"
    assert (peak, excess) == (f"{2 + first.peak / 10:.2f}", f"{first.excess:.2f} ×")
    with (tmp_path / "deviation.csv").open(newline="") as file:
        header, row, *_ = csv.reader(file)
    assert header == ["video", "start_frame", "end_frame", "start", "end", "excess", "reference"]
    times = [f"{2 + frame / 10:.3f}" for frame in (first.start, first.end)]
    wanted = ["odd", str(first.start), str(first.end), *times, f"{first.excess:.3f}", "b; c; d; e; f; g"]
    assert row == wanted and len(table.rows) == len(compared.segments)


def test_without_times_there_are_frames_and_the_reason(session, tmp_path):
    train, val = [embedded(name, seed=i) for i, name in enumerate("abc")], [embedded("odd", True, 9)]
    splits = splits_of(train, val, timed=False)
    compared = notebook.compare_clip(session, splits)
    table = notebook.deviation_table(compared, tmp_path)
    assert table.columns[:2] == ("moment", "frames") and table.notes == (f"Frames only: {NO_TIMES}.",)
    assert (tmp_path / "deviation.csv").read_text().splitlines()[1].split(",")[3:5] == [NO_TIMES, NO_TIMES]
    assert notebook.deviation_figure(compared).axes[0].get_xlabel() == "frame"


def test_nothing_outside_the_band_is_a_sentence_and_a_csv_of_a_header(session, splits, tmp_path):
    compared = notebook.compare_clip(session, splits, compare="plain")
    assert compared.found.moments == ()
    assert str(notebook.deviation_table(compared, tmp_path)).endswith("plain is nowhere outside the band.")
    assert (tmp_path / "deviation.csv").read_text().splitlines() == [",".join(module.COLUMNS)]
    shown = [axes.get_title() for axes in notebook.deviation_figure(compared).axes if axes.images]
    assert len(shown) == 2 * module.PAIRS and shown[0].startswith("inside the band: ")


def test_the_figure_shows_the_first_peaks_and_then_frames_inside_the_band(session, splits):
    found = notebook.compare_clip(session, splits).found
    words = [word for word, _ in module._shown_frames(found)]
    count = min(len(found.moments), module.PAIRS)
    assert words == [str(i + 1) for i in range(count)] + ["inside the band"] * (module.PAIRS - count)
    outside = {frame for moment in found.moments for frame in range(moment.start, moment.end)}
    assert all((frame in outside) == word.isdigit() for word, frame in module._shown_frames(found))
    assert [frame for _, frame in module._shown_frames(found)][:count] == [m.peak for m in found.moments[:count]]


def test_the_player_opens_at_the_largest_moment_and_keeps_it_when_frames_are_thinned(session, splits, tmp_path):
    compared = notebook.compare_clip(session, splits)
    player = notebook.deviation_player(splits, compared, 20, tmp_path)  # every fourth frame
    assert list(player.shown(0)) == ["odd", names(compared)[compared.found.closest]]
    first, numbers = compared.found.moments[0], player.strips[0]["numbers"]
    assert first.start - 4 < numbers[player.frame] < first.end + 4
    start, end, peak = player.curve["moments"][0]
    assert start <= peak < end <= len(numbers) == len(player.curve["distance"]) and player.frame == peak
    assert (tmp_path / "deviation_player.html").exists() and "deviation_player.html" in repr(player)


def test_the_controls_are_the_clock_motion_without_training_and_pixels(tiny):
    config = tiny()
    model = mvf.build_model(config)
    session = SimpleNamespace(model=model, config=config)
    splits = embed_splits(model, config)
    compared = notebook.compare_clip(session, splits, "squat")
    assert list(compared.controls) == ["position_only", "motion_pca", "frame_difference"]
    lengths = {len(control.distance) for control in compared.controls.values()}
    assert lengths == {len(compared.video.embeddings)}
    assert find_config_videos(config, "val")[0].action == "squat"
    pixels = compared.controls["frame_difference"]
    assert (pixels.matched == compared.found.matched).all(), "frames are those that the model aligns"
    assert 0 < pixels.distance.max() < 1
    titles = [axes.get_title() for axes in notebook.deviation_figure(compared).axes]
    assert titles[-3:] == ["position only (clock)", "motion PCA (no training)", "frame difference (pixels)"]
