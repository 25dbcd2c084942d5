"""Accepted labels are in the table to the frame, proposals come from what is labelled, and nothing is lost."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from mvf.data.datasets.folder import find_videos
from mvf.workbench.widgets.labeler import PhaseLabeler
from mvf.workbench.widgets.phase_table import PhaseTable
from tests.data.footage import STEP, write_video

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


# every frame, decoded on demand -------------------------------------------------------------------------------------

SHIFT, CONTROL = "\ue008", "\ue009"


def records_of(folder, names="abc", count=60, **options):
    for name in names:
        write_video(folder / f"{name}.mp4", count)
    return {record.name: record for split in ("train", "val") for record in find_videos(split, folder, **options)}


def drag(page, start, stop, length):
    """Drags from the boundary at frame `start` to frame `stop` on the timeline."""
    from selenium.webdriver import ActionChains

    line = page.driver.find_element("css selector", ".mvf-seek")
    width = line.size["width"]
    chain = ActionChains(page.driver, duration=20)
    chain.move_to_element_with_offset(line, round(start * width / length - width / 2), 0).click_and_hold()
    chain.move_to_element_with_offset(line, round(stop * width / length - width / 2), 0).release().perform()
    page.settle()


def keys(page, *pressed):
    page.run("root.focus()")
    for key in pressed:
        page.press(key)


def chord(page, modifier, key):
    from selenium.webdriver import ActionChains

    page.run("root.focus()")
    ActionChains(page.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()
    page.settle()


def status(page):
    return page.run("return root.querySelector('[role=status]').textContent")


def test_the_timeline_is_zoomed_around_the_frame_and_boundaries_are_dragged_there(show, tmp_path):
    page = show(PhaseLabeler(records_of(tmp_path, "a"), tmp_path / "videos.csv"))
    keys(page, "1", *[RIGHT] * 30, "2")
    keys(page, "+", "+")  # 15 of 60 frames: 23 to 38
    chosen = "[...root.querySelectorAll('select')].find((one) => one.labels[0].textContent.includes('Zoom')).value"
    assert page.run(f"return {chosen}") == "4"
    at = page.run("return [...root.querySelectorAll('canvas')].findIndex((one) => one.classList.contains('mvf-seek'))")
    dark = np.flatnonzero(page.pixels(at)[-2, :, :3].max(axis=1) < 20) / page.pixels(at).shape[1]  # the part shown
    assert [dark.min(), dark.max()] == pytest.approx([23 / 60, 38 / 60], abs=0.01)
    drag(page, 30 - 23, 36 - 23, 15)
    assert page.frame == 36 and "phase 1 from 36" in page.run("return root.textContent")
    keys(page, "-", "-", "-")
    drag(page, 36, 12, 60)
    assert page.frame == 12 and "phase 1 from 12" in page.run("return root.textContent")


def test_three_named_phases_set_by_keys_and_mouse_are_in_the_table_to_the_frame(show, tmp_path):
    records = records_of(tmp_path / "clips")
    table = tmp_path / "clips" / "videos.csv"
    labeler = PhaseLabeler(records, table)
    page = show(labeler)
    page.control("Add phase").click()
    page.wait("root.querySelectorAll('input[type=text]').length >= 4")
    names = ["down, slowly", 'the "hold"', "вверх"]
    for i, name in enumerate(names):
        page.put(f"Name {i + 1}", name)
        page.wait(f"root.querySelectorAll('.mvf-phase')[{i}].textContent === `{i + 1} {name}`")
    keys(page, "1", *[RIGHT] * 7, "2")
    chord(page, SHIFT, RIGHT)
    chord(page, SHIFT, RIGHT)
    keys(page, "3")
    assert page.frame == 27
    assert "frame 27 · 0.90 s" in page.run("return root.querySelector('figcaption').textContent")
    drag(page, 27, 43, 60)
    assert page.frame == 43
    assert "вверх from 43 · 1.43 s" in page.run("return root.textContent")
    drag(page, 7, 13, 60)
    keys(page, "n")
    assert page.frame == 43
    keys(page, "b", "b")
    assert page.frame == 0
    keys(page, ENTER)
    page.wait("root.dataset.video === 'b'")
    rows = {row["path"]: row for row in csv.DictReader(table.open(encoding="utf-8"))}
    assert rows["a.mp4"]["phases"] == "0;13;43" and rows["a.mp4"]["phase_names"] == ";".join(names)
    found = next(video for video in find_videos("train", tmp_path / "clips") if video.name == "a")
    assert found.phase_names == tuple(names)
    assert found.phases.tolist() == [0] * 13 + [1] * 30 + [2] * 17
    assert PhaseLabeler(records, table).palette["names"] == names and page.errors() == []


def test_segments_are_written_from_the_page_which_says_where_or_why_not(show, table):
    videos, embeddings = arrays()

    def write(labeler):
        if "b" not in labeler.labelled:
            raise OSError("the disc is full")
        return f"4 segments of {len(labeler.labelled)} labelled videos and 1 others: segments.csv"

    page = show(PhaseLabeler(videos, table, embeddings=embeddings, write_segments=write))
    page.control("Write segments").click()
    page.wait("root.querySelector('[role=status]').textContent.includes('not written')")
    assert status(page) == "segments not written: the disc is full"
    page.put("Video", "b")
    keys(page, "1", RIGHT, "2")
    page.control("Write segments").click()
    assert status(page) == "b is edited, not saved: accept it first, or undo"
    keys(page, ENTER)
    page.wait("root.dataset.video === 'c'")
    page.control("Write segments").click()
    page.wait("root.querySelector('[role=status]').textContent.includes('segments.csv')")
    assert status(page) == "4 segments of 2 labelled videos and 1 others: segments.csv" and page.errors() == []


def test_a_labeler_that_cannot_write_segments_offers_none(show, table):
    page = show(PhaseLabeler(arrays()[0], table))
    assert not page.control("Write segments").is_displayed()


@pytest.mark.parametrize(("fps", "numbers"), [(0, range(60)), (10, range(0, 60, 3)), (60, range(60))])
def test_the_picture_is_that_of_the_number_in_the_file_whatever_the_rate(show, tmp_path, fps, numbers):
    records = records_of(tmp_path / "clips", "a", fps=fps)
    embeddings = {"a": np.zeros((records["a"].num_frames, 2))}
    page = show(PhaseLabeler(records, tmp_path / "videos.csv", embeddings=embeddings))
    for index in (0, 19, 7):
        page.put("Frame", index)
        picture = page.pixels()
        height, width, _ = picture.shape
        shown = round(float(picture[height // 2, width // 2, :3].mean()) / STEP)
        assert page.frame == shown == numbers[index]


def test_undo_and_redo_reach_the_table(show, table):
    videos, embeddings = arrays()
    page = show(PhaseLabeler(videos, table, embeddings=embeddings))
    page.put("Video", "c")
    page.wait("root.dataset.label === 'proposed'")
    page.control("Accept all proposals").click()
    page.wait("root.dataset.label === 'saved'")
    assert "b.mp4,val,0;3" in table.read_text() and "c.mp4,val,0;6" in table.read_text()
    assert status(page) == "saved 2 clips in videos.csv: 3 of 3 labelled"
    chord(page, CONTROL, "z")
    page.wait("root.querySelector('[role=status]').textContent.startsWith('removed')")
    assert table.read_text() == TABLE and page.run("return root.dataset.label") == "proposed"
    chord(page, CONTROL, "y")
    page.wait("root.querySelector('[role=status]').textContent.startsWith('saved')")
    assert "b.mp4,val,0;3" in table.read_text() and "c.mp4,val,0;6" in table.read_text()
    keys(page, RIGHT, RIGHT, "2")
    note = "return root.querySelector('.mvf-note').textContent"
    assert page.run(note) == "edited, not saved: phase 0 from 0, phase 1 from 2"
    chord(page, CONTROL, "z")
    assert page.run(note) == "saved: phase 0 from 0, phase 1 from 6"
    chord(page, CONTROL, "z")
    chord(page, CONTROL, "z")
    assert status(page) == "nothing to undo"


def test_a_clip_that_disappears_is_named_and_the_others_go_on(show, tmp_path):
    records = records_of(tmp_path / "clips", count=130)
    page = show(PhaseLabeler(records, tmp_path / "videos.csv"))
    (tmp_path / "clips" / "b.mp4").unlink()
    page.put("Video", "b")
    assert "b cannot be shown: " in status(page) and str(tmp_path / "clips" / "b.mp4") in status(page)
    page.put("Video", "c")
    page.put("Frame", 100)
    assert page.frame == 100 and "c · frame 100" in page.run("return root.querySelector('figcaption').textContent")


def test_labels_that_cannot_be_written_are_kept_and_saved_elsewhere(show, table, tmp_path, monkeypatch):
    page = show(PhaseLabeler(arrays()[0], table))
    page.put("Video", "b")
    keys(page, "1", RIGHT, RIGHT, "2")
    with monkeypatch.context() as patched:

        def refuse(path):
            raise PermissionError(f"cannot write in {Path(path).parent}")

        patched.setattr("mvf.workbench.widgets.phase_table.atomic", refuse)
        keys(page, ENTER)
        page.wait("root.querySelector('[role=status]').textContent.startsWith('not saved')")
    assert f"cannot write in {tmp_path}; nothing is lost" in status(page) and table.read_text() == TABLE
    assert page.widget.unsaved == {"b": [[0, 0], [2, 1]]}
    page.run("[...root.querySelectorAll('input')].at(-1).value = args[0]", str(tmp_path / "mine" / "videos.csv"))
    page.control("Save all labels there").click()
    page.wait("root.dataset.label === 'saved'")
    assert PhaseTable(tmp_path / "mine" / "videos.csv").read("b").segments == ((0, 0), (2, 1))
    assert PhaseTable(tmp_path / "mine" / "videos.csv").read("a").segments == ((0, 0), (6, 1))
    assert page.widget.unsaved == {} and page.run("return root.querySelectorAll('.mvf-row[hidden]').length") == 2


def test_two_browsers_on_one_table_lose_nothing(table):
    first, second = (PhaseLabeler(arrays()[0], table) for _ in range(2))
    answers = []
    second.send = lambda content, buffers=None: answers.append(content)
    first.accept("b", [[0, 0], [4, 1]])
    second._receive(None, {"kind": "accept", "id": 1, "labels": {"c": [[0, 0], [5, 1]]}}, [])
    assert answers[-1]["text"] == "saved c in videos.csv: 2 of 3 labelled"
    second._receive(None, {"kind": "accept", "id": 2, "labels": {"b": [[0, 0], [7, 1]]}}, [])
    replaced = "b was changed meanwhile in videos.csv (phase 0 from 0, phase 1 from 4): this replaces it"
    assert answers[-1]["text"].endswith(replaced)
    assert table.read_text() == TABLE.replace("b.mp4,val,", "b.mp4,val,0;7").replace("c.mp4,val,", "c.mp4,val,0;5")
    first.set_phase_names(["down", "up"])
    with pytest.raises(ValueError, match="was given other names meanwhile, shown now: down, up"):
        second.set_phase_names(["down", "up", "rest"])
    second.set_phase_names(["down", "up", "rest"])
    assert PhaseTable(table).read_names("abc") == ("down", "up", "rest")


def test_agreement_is_the_share_of_clips_that_propose_the_phase_alone(table):
    rows = np.array([[0] * 6 + [1] * 4, [0] * 6 + [1] * 4, [0] * 3 + [1] * 7])

    def propose(labelled, name):
        return np.median([rows["abd".index(other)] for other in labelled], axis=0).astype(int)

    videos = {name: np.full((10, 24, 32, 3), 60, np.uint8) for name in "abcd"}
    labeler = PhaseLabeler(videos, table, propose=propose)
    assert labeler.agreement("c") is None, "one labelled clip agrees with nobody"
    labeler.accept("b", [[0, 0], [6, 1]])
    labeler.accept("d", [[0, 0], [3, 1]])
    assert labeler.propose("c") == ((0, 0), (6, 1))
    np.testing.assert_allclose(labeler.agreement("c"), [1] * 3 + [2 / 3] * 3 + [1] * 4)


def test_the_page_says_the_agreement_and_what_it_is(show, table):
    videos, embeddings = arrays()
    labeler = PhaseLabeler(videos, table, embeddings=embeddings)
    page = show(labeler)
    page.put("Video", "c")
    page.wait("root.dataset.label === 'proposed'")
    assert "proposed from one labelled clip" in page.run("return root.textContent")
    labeler.accept("b", [[0, 0], [4, 1]])
    page.put("Video", "a")
    page.put("Video", "c")
    page.wait("root.textContent.includes('agreement of 2 labelled clips')")
    mean = round(100 * labeler.agreement("c").mean())
    assert f"{mean} % on average" in page.run("return root.textContent")
    assert "propose the phase shown; not a probability" in page.run("return root.textContent")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["down;up", "rest"], "the name 'down;up' has a ';'"),
        (["down", " "], "phase 1 has no name"),
        (["up", "up"], 'phases 0 and 1 are both named "up"'),
        (["down"], "a has the phase phase 1, which would have no name"),
    ],
)
def test_names_that_a_table_cannot_keep_are_refused(table, names, problem):
    labeler = PhaseLabeler(arrays()[0], table)
    with pytest.raises(ValueError, match=problem):
        labeler.set_phase_names(names)
    assert table.read_text() == TABLE and labeler.palette["names"] == ["phase 0", "phase 1"]


def test_colours_are_chosen_in_the_page(show, table):
    labeler = PhaseLabeler(arrays()[0], table)
    page = show(labeler)
    page.run(
        "const c = root.querySelector('input[type=color]'); c.value = '#ff0000'; c.dispatchEvent(new Event('change'))"
    )
    page.wait("root.querySelector('.mvf-phase').style.borderLeftColor === 'rgb(255, 0, 0)'")
    assert labeler.palette["colours"][0] == "#ff0000" and labeler.still().format == "jpeg"


def test_forty_clips_of_300_frames_stay_small_and_answer_fast(show, tmp_path):
    write_video(tmp_path / "clips" / "c00.mp4", 300)
    for i in range(1, 40):
        shutil.copy(tmp_path / "clips" / "c00.mp4", tmp_path / "clips" / f"c{i:02}.mp4")
    records = {record.name: record for split in ("train", "val") for record in find_videos(split, tmp_path / "clips")}
    labeler = PhaseLabeler(records, tmp_path / "videos.csv")
    page = show(labeler)
    assert len(labeler.strips) == 40 and labeler.nbytes < 1e6
    page.run(WATCH)
    steps = [milliseconds(page, "ArrowRight") for _ in range(30)]
    jumps = []
    for i in (39, 5, 20, 11):
        page.run("window.began = performance.now(); window.shown = 0")
        page.put("Video", f"c{i:02}")
        jumps.append(page.run("return window.shown - window.began"))
        jumps += [milliseconds(page, key) for key in ("End", "Home")]
    held = page.run("return Number(root.dataset.bytes)")
    assert page.frame == 0 and held + labeler.nbytes < 16e6
    assert np.percentile(steps, 90) < 50, f"a step takes {steps} ms"
    assert np.median(jumps) < 300, f"a jump takes {jumps} ms"


WATCH = """window.shown = 0;
new MutationObserver(() => { if (root.dataset.ready === 'true') window.shown ||= performance.now(); })
  .observe(root, { attributes: true, attributeFilter: ['data-ready', 'data-frame'] });"""


def milliseconds(page, key):
    """From a key to the picture on the canvas."""
    page.run(
        "window.began = performance.now(); window.shown = 0;"
        "root.dispatchEvent(new KeyboardEvent('keydown', { key: args[0], bubbles: true }))",
        key,
    )
    page.wait("root.dataset.ready === 'true' && window.shown")
    return page.run("return window.shown - window.began")
