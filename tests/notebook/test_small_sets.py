"""Few clips are compared all the same, by name if one likes, and the figures say which they are."""

import zlib

import numpy as np
import pytest

from mvf.data import find_videos
from mvf.embedding import EmbeddedVideo
from mvf.workbench import notebook
from mvf.workbench.notebook import align
from mvf.workbench.notebook.probe import compared, named_videos
from mvf.workbench.notebook.session import Splits
from mvf.workbench.plotting.style import MESSAGE
from mvf.workbench.widgets import AlignmentPlayer, EmbeddingExplorer, RetrievalBrowser
from tests.data.footage import write_video


def video(name, action="video", phases=None, length=6):
    rows = np.random.default_rng(zlib.crc32(name.encode())).normal(size=(length, 4))
    return EmbeddedVideo(name, action, rows / np.linalg.norm(rows, axis=1, keepdims=True), phases)


def splits_of(train, val):
    return Splits([], [], train, val, None)


def texts(figure):
    return [text.get_text() for text in (*figure.texts, *(axes.title for axes in figure.axes))]


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five clips without labels, of which one is for validation, as `find_videos` splits them."""
    folder = tmp_path_factory.mktemp("five")
    for name in ("anna 1", "anna, 2", "ben", "chris", "dora"):
        write_video(folder / f"{name}.mp4", 6)
    records = {split: find_videos("folder", split, folder) for split in ("train", "val")}
    assert [len(found) for found in records.values()] == [4, 1]
    embedded = {split: [video(record.name) for record in found] for split, found in records.items()}
    return Splits(records["train"], records["val"], embedded["train"], embedded["val"], None)


def test_five_clips_without_labels_are_all_aligned_retrieved_and_explored(five):
    alignment = notebook.alignment_figure(five)
    sentence = "Only 1 of these 5 videos is for validation, so training videos are shown too."
    assert alignment.get_label() != MESSAGE and any(sentence in text for text in texts(alignment))
    retrieval = notebook.retrieval_figure(five)
    assert retrieval.get_suptitle() == "Nearest frames, in 4 of 4 other videos, training videos among them"
    assert "5 videos, training videos among them" in texts(notebook.embedding_figure(five))
    assert notebook.similarity_figure(five).get_label() != MESSAGE
    player, explorer = notebook.alignment_player(five), notebook.embedding_explorer(five)
    browser = notebook.retrieval_browser(five)
    assert isinstance(player, AlignmentPlayer) and len(player.shown(0)) == 4
    assert isinstance(explorer, EmbeddingExplorer) and isinstance(browser, RetrievalBrowser)


def test_the_figure_of_an_alignment_warns_of_several_repetitions(five, monkeypatch):
    monkeypatch.setattr(align, "passes_note", lambda videos: f"{len(videos)} hold several")
    assert any("2 hold several" in text.replace("\n", " ") for text in texts(notebook.alignment_figure(five)))


def test_named_videos_are_aligned_and_played_in_their_order(five):
    named = 'dora, "anna, 2",ben ,anna 1, chris'
    assert [v.name for v in compared(five, named=named).videos] == ["dora", "anna, 2", "ben", "anna 1", "chris"]
    labels = [axes.get_xlabel() + axes.get_ylabel() for axes in notebook.alignment_figure(five, named=named).axes]
    assert any("dora" in label for label in labels) and any("anna, 2" in label for label in labels)
    assert list(notebook.alignment_player(five, named=named).shown(0)) == ["dora", "anna, 2", "ben", "anna 1", "chris"]


@pytest.mark.parametrize(
    "named, said",
    [
        ("ana 1, ben", 'there is no video "ana 1"; did you mean "anna 1"'),
        ("ben, ben", "names ben 2 times"),
        ("ben", "at least two videos"),
        (" , ", "at least two videos"),
        ("anna, 2, ben", 'there is no video "anna"'),
    ],
)
def test_names_that_name_no_videos_are_refused(five, named, said):
    with pytest.raises(ValueError, match=said):
        named_videos(named, five.train_records + five.val_records)


def test_two_videos_of_one_name_stay_two():
    splits = splits_of([video("a"), video("b")], [video("a")])
    assert [v.name for v in splits.everything[1]] == ["a", "b", "val/a"]
    chosen = compared(splits, named="val/a, a").videos
    assert chosen[0].embeddings is splits.val[0].embeddings and chosen[1] is splits.train[0]


def test_validation_videos_alone_are_compared_where_there_are_two():
    val = [video("a", "squat"), video("b", "squat"), video("c", "pushup", np.array([0, 0, 1, 1, 2, 2]))]
    train = [video("a", "squat"), video("e", "pushup"), video("f", "lunge")]
    shown = compared(splits_of(train, val))
    assert [v.name for v in shown.videos] == ["a", "b"] and not shown.note, "pushup has more phases, but one video"
    shown = compared(splits_of(train, val), "pushup")
    assert [v.name for v in shown.videos] == ["c", "e"] and shown.note.startswith("Only 1 of these 2 videos")
    assert compared(splits_of(train, []), "squat").note.startswith("None of these 1")
    with pytest.raises(ValueError, match='no video of action "jump"; there are lunge, pushup, squat'):
        compared(splits_of(train, val), "jump")
    assert compared(splits_of([], [])).videos == [] and not compared(splits_of([], [video("a")])).note
