"""Seven clips, one of them broken: train, align two by name, label two by mouse and keys, accept the rest."""

from __future__ import annotations

import csv
import shutil

import cv2
import pytest
from selenium.webdriver import ActionChains, Keys

from tests.browser.lab import wait_for
from tests.conftest import TINY

CLIPS = {
    "anna 1": "pull-up_10_rep00", "anna 2": "pull-up_10_rep01", "ben_1": "pull-up_14_rep00",
    "ben_2": "pull-up_14_rep01", "carla": "pull-up_6_rep00", "dan": "pull-up_9_rep00",
}  # fmt: skip
NAMES = ["hang", 'pull, "up"', "сверху"]


@pytest.fixture
def clips(folder, shared):
    """Six real clips without labels and one that is cut off."""
    there = folder / "clips"
    there.mkdir(exist_ok=True)
    for name, source in CLIPS.items():
        shutil.copy(shared / "real" / "pullups" / f"{source}.mp4", there / f"{name}.mp4")
    (there / "broken.mp4").write_bytes((there / "dan.mp4").read_bytes()[:500])
    return there


@pytest.mark.slow
def test_from_seven_clips_to_labels_of_all(clips, open_notebook):
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "data_options")}
    with open_notebook(
        "train", dataset="folder", data_root="clips", run_dir="own", epochs=2, overrides=overrides
    ) as page:
        page.run_all()
        assert "broken.mp4" in page.text(), "the broken clip is not named"
        assert not page.console_errors(), "the page's console has errors"
    with open_notebook("align", run_dir="own", videos="anna 1, ben_2") as page:
        page.run_all()
        player = page.widget("alignment-player")
        page.screenshot("own-1-player")
        shown = [figure.get_attribute("data-video") for figure in player.find_elements("css selector", "figure")]
        assert shown == ["anna 1", "ben_2"]
        labeler = page.widget("phase-labeler")
        three_phases_are_named(page, labeler)
        by_keyboard(page, labeler, "anna 1")
        frames = int(cv2.VideoCapture(str(clips / "ben_2.mp4")).get(cv2.CAP_PROP_FRAME_COUNT))
        dragged = by_mouse(page, labeler, "ben_2", frames)
        page.screenshot("own-2-labelled")
        page.control(labeler, "accept all proposals", "button").click()
        table = clips / "videos.csv"
        rows = wait_for(lambda: all_labelled(table), "all clips to be labelled", 20)
        page.screenshot("own-3-all")
        assert rows["anna 1.mp4"]["phases"] == "0;12;30"
        assert rows["ben_2.mp4"]["phases"] == f"0;{dragged[0]};{dragged[1]}"
        assert {row["phase_names"] for row in rows.values()} == {";".join(NAMES)}
        page.control(labeler, "write segments", "button").click()
        said = wait_for(lambda: "segments of" in status(labeler) and status(labeler), "the segments to be written", 60)
        assert said.startswith("18 segments of 6 labelled videos and 0 others: ") and said.endswith("segments.csv")
        segments = list(csv.DictReader((page.lab.root / "own" / "figures" / "segments.csv").open(encoding="utf-8")))
        assert [s["name"] for s in segments if s["video"] == "anna 1"] == NAMES and len(segments) == 18
        assert [int(s["start_frame"]) for s in segments if s["video"] == "ben_2"] == [0, *dragged]
        assert not page.console_errors(), "the page's console has errors"


def three_phases_are_named(page, labeler) -> None:
    page.control(labeler, "add phase", "button").click()
    for number, name in enumerate(NAMES, 1):
        field = wait_for(lambda n=number: fields(labeler, n), f"the field of name {number}")[0]
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(name, Keys.TAB)
        wait_for(lambda n=name: "names saved" in status(labeler) and n in status(labeler), f"{name} to be saved")


def status(labeler) -> str:
    return labeler.find_element("css selector", ".mvf-status").text


def fields(labeler, number):
    return labeler.find_elements("css selector", f'input[aria-label="Name {number}"]')


def by_keyboard(page, labeler, name: str) -> None:
    """Phases from frames 0, 12 and 30: by digits, arrows, shift with arrows, and P."""
    page.choose(page.control(labeler, "video", "select"), name)
    page.press(labeler, "HOME", "NUMPAD1")
    ActionChains(page.driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_down(Keys.SHIFT).send_keys(
        Keys.ARROW_RIGHT
    ).key_up(Keys.SHIFT).send_keys("p").perform()
    assert labeler.get_attribute("data-frame") == "12"
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_up(
        Keys.SHIFT
    ).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, "3", Keys.ENTER).perform()
    wait_for(lambda: f"saved {name}" in status(labeler), "the label to be saved")


def by_mouse(page, labeler, name: str, frames: int) -> tuple[int, int]:
    """Places on the timeline, phase buttons, a boundary dragged; returns where the page says that phases begin."""
    page.choose(page.control(labeler, "video", "select"), name)
    line = labeler.find_element("css selector", ".mvf-seek")
    width, begins = line.size["width"], []
    for phase, share in enumerate((0, 0.3, 0.6)):
        ActionChains(page.driver).move_to_element_with_offset(
            line, round((share - 0.5) * width) + 1, 0
        ).click().perform()
        begins.append(int(labeler.get_attribute("data-frame")))
        labeler.find_element("css selector", f'button[data-phase="{phase}"]').click()
    start = round((begins[1] / frames - 0.5) * width)
    mouse = ActionChains(page.driver).move_to_element_with_offset(line, start, 0).click_and_hold()
    mouse.move_by_offset(round(0.1 * width), 0).release().perform()
    dragged = int(labeler.get_attribute("data-frame"))
    assert dragged > begins[1]
    page.control(labeler, "accept and next", "button").click()
    wait_for(lambda: f"saved {name}" in status(labeler), "the label to be saved")
    return dragged, begins[2]


def all_labelled(table) -> dict[str, dict[str, str]] | None:
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines())) if table.exists() else []
    found = {row["path"]: row for row in rows if row["path"] != "broken.mp4"}
    return found if len(found) == len(CLIPS) and all(row["phases"] for row in found.values()) else None
