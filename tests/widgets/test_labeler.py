"""Labels made by keyboard are in the table once accepted, proposals come from what is labelled, nothing is lost."""

import numpy as np
import pytest

from mvf.workbench.widgets.labeler import PhaseLabeler

TABLE = "path,split,phases\na.mp4,train,0;6\nb.mp4,val,\nc.mp4,val,\n"
ENTER, BACKSPACE, RIGHT = "\ue007", "\ue003", "\ue014"


def arrays(frames=10):
    """The three videos pass the same states at other speeds."""
    videos = {name: np.full((frames, 24, 32, 3), 60, np.uint8) for name in "abc"}
    times = {"a": np.arange(frames), "b": np.arange(frames) * 2 % 19, "c": np.arange(frames)}
    return videos, {name: np.stack([t, t**2 / 10], 1).astype(float) for name, t in times.items()}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text(TABLE)
    return path


def test_a_clip_is_labelled_by_keyboard(show, table, tmp_path):
    videos, embeddings = arrays()
    numbers = {name: 3 * np.arange(10) for name in videos}
    labeler = PhaseLabeler(videos, table, embeddings=embeddings, phase_names=["down", "up"], numbers=numbers)
    page = show(labeler)
    assert page.run("return root.dataset.label") == "saved"
    page.put("Video", "b")
    page.wait("root.dataset.label === 'proposed'")
    page.run("root.focus()")
    for key in ("1", RIGHT, RIGHT, "2", RIGHT, "0", BACKSPACE, "p", RIGHT, "2"):
        page.press(key)
    assert page.run("return root.dataset.label") == "edited" and "a.mp4,train,0;6" in table.read_text()
    assert "b.mp4,val,\n" in table.read_text()  # nothing is written before it is accepted
    page.press(ENTER)
    page.wait("root.dataset.video === 'c'")
    assert table.read_text() == TABLE.replace("b.mp4,val,", "b.mp4,val,0;12")
    assert page.run("return [root.dataset.video, root.querySelector('[role=status]').textContent]") == [
        "c",
        "saved b in videos.csv: 2 of 3 labelled",
    ]
    page.wait("root.dataset.label === 'proposed'")
    assert page.control("Accept and next (Enter)").is_enabled() and page.errors() == []
    page.screenshot(tmp_path / "labeler.png")
    page.put("Video", "a")
    assert page.run("return root.querySelector('.mvf-note').textContent") == "saved: down from 0, up from 6"


def test_proposals_are_the_transfer_from_the_labelled_clips(table):
    videos, embeddings = arrays()
    labeler = PhaseLabeler(videos, table, embeddings=embeddings)
    assert labeler.propose("c") == ((0, 0), (6, 1))  # c is a once more
    assert labeler.propose("a") == ()  # nothing else is labelled


def test_a_given_function_proposes_and_sees_what_is_labelled(table):
    seen = {}

    def propose(labelled, name):
        seen.update(labelled)
        return np.r_[[-1] * 2, [0] * 3, [1] * 5]

    numbers = {name: 4 + 2 * np.arange(10) for name in "abc"}
    labeler = PhaseLabeler(arrays()[0], table, propose=propose, numbers=numbers)
    assert labeler.propose("b") == ((8, 0), (14, 1))
    assert {name: phases.tolist() for name, phases in seen.items()} == {"a": [0] + [1] * 9}


@pytest.mark.parametrize("answer", [np.zeros(9, int), np.zeros(10), np.full(10, -2)])
def test_a_wrong_proposal_is_said_in_the_page(table, monkeypatch, answer):
    labeler = PhaseLabeler(arrays()[0], table, propose=lambda labelled, name: answer)
    answers = []
    monkeypatch.setattr(labeler, "send", answers.append)
    labeler._receive(None, {"kind": "propose", "video": "b"}, [])
    assert answers[0]["kind"] == "problem" and "b: propose must return (10,) integers" in answers[0]["text"]


def test_labels_that_first_frames_cannot_say_are_kept(table):
    np.savetxt(table.parent / "b.csv", [-1, 0, 0, 1, 1, 0, 0, 1, -1, -1], fmt="%d")
    table.write_text(TABLE.replace("b.mp4,val,", "b.mp4,val,b.csv"))
    labeler = PhaseLabeler(arrays()[0], table)
    assert labeler.labels["b"] == [[1, 0], [3, 1], [5, 0], [7, 1], [8, -1]]
    labeler.accept("b", labeler.labels["b"])
    assert "b.mp4,val,b.csv" in table.read_text()
    labeler.accept("c", [[0, 1], [4, 0]])
    again = PhaseLabeler(arrays()[0], table)
    assert again.labels == labeler.labels and again.labelled["c"].tolist() == [1] * 4 + [0] * 6
    again.video, again.frame = "c", 5
    assert again.still().alt == "c frame 5, phase 0"


def test_boundaries_between_stored_frames_stay_where_they_are(table):
    numbers = {name: 4 * np.arange(10) for name in "abc"}
    labeler = PhaseLabeler(arrays()[0], table, numbers=numbers, lengths={"b": 40})
    assert labeler.labels["a"] == [[0, 0], [6, 1]] and labeler.labelled["a"].tolist() == [0] * 2 + [1] * 8
    labeler.accept("b", [[0, 0], [39, -1]])
    assert len((table.parent / "b.phases.csv").read_text().split()) == 40


def test_what_is_no_label_is_refused_and_not_written(table):
    labeler = PhaseLabeler(arrays()[0], table)
    for segments, problem in {
        (): "nothing to save",
        ((0, 0), (10, 1)): "increasing frames 0 to 9",
        ((3, 0), (3, 1)): "increasing frames",
        ((0, 0), (3, 2)): "phases must be -1 to 1",
        ((0, 0), (3, 0)): "different from the one before",
    }.items():
        with pytest.raises(ValueError, match=f"b: .*{problem}"):
            labeler.accept("b", segments)
    with pytest.raises(ValueError, match='"z" is not among the videos'):
        labeler.accept("z", [[0, 0]])
    assert table.read_text() == TABLE


def test_what_does_not_fit_is_refused(table):
    videos, embeddings = arrays()
    with pytest.raises(ValueError, match="at least 1 video, got 0"):
        PhaseLabeler({}, table)
    with pytest.raises(ValueError, match=r"b: frames must be \(T, H, W, 3\) uint8 with at least one frame"):
        PhaseLabeler(videos | {"b": videos["b"][:0]}, table)
    with pytest.raises(ValueError, match=r"c: embeddings must be \(10, E\)"):
        PhaseLabeler(videos, table, embeddings=embeddings | {"c": np.zeros((9, 2))})
    with pytest.raises(ValueError, match="names must have one entry for each of 2 phases"):
        PhaseLabeler(videos, table, phase_names=["down"])
    with pytest.raises(ValueError, match="a: a phase begins at frame 6, but there are only 5 frames"):
        PhaseLabeler({name: frames[:5] for name, frames in videos.items()}, table)
    with pytest.raises(ValueError, match="b: lengths must exceed the last frame number, 18, got 18"):
        PhaseLabeler(videos, table, numbers={name: 2 * np.arange(10) for name in videos}, lengths={"b": 18})
