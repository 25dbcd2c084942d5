"""What a person does with the widgets of the notebooks, and what must then be on the page."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import cv2
import nbformat
import numpy as np
from numpy.typing import NDArray

import mvf
from mvf.workbench.plotting import overlay
from tests.browser.lab import wait_for

SLIDER = "input[type=range]"
IMAGE_SIZE = 112  # of the maps, finer than in training: 7 patches a side
Videos = dict[str, NDArray[np.uint8]]


def attention_browser_follows_its_controls(page, run: mvf.Run) -> None:
    """Slider, keys, maps, play, another video, the still; screenshots on the way."""
    videos, browser = frames_by_video(run), page.widget("attention-browser")
    page.screenshot("1-opened")
    page.choose(page.control(browser, "view", "select"), "side by side")
    video = page.control(browser, "video", "select")
    first, second = page.options(video)
    slider_and_keys_show_their_frame(page, browser, videos[first])
    page.screenshot("2-dragged")
    shows_the_map_of_entity(page, browser, run, first, 0)
    for label in ("head", "entity"):
        choice_changes_the_map_alone(page, browser, label)
    shows_the_map_of_entity(page, browser, run, first, 1)
    page.screenshot("3-other-maps")
    play_runs_until_pressed_again(page, browser)
    page.choose(video, second)
    page.widget("attention-browser")  # waits until the other video is drawn
    shows_its_frame(page, browser, videos[second])
    page.screenshot("4-other-video")
    assert page.driver.execute_script("return arguments[0].mvfBenchmark(12)", browser) > 0
    saved_notebook_has_the_still(page.save(), "browser")
    assert not page.console_errors(), "the page's console has errors"


def explorer_follows_the_mouse(page, run: mvf.Run) -> None:
    """Points of several videos, each with its frame; screenshots on the way."""
    explorer = page.widget("embedding-explorer")
    page.screenshot("1-opened")
    hovering_shows_the_frame(page, explorer, frames_by_video(run))
    page.screenshot("2-hovered")
    assert not page.console_errors(), "the page's console has errors"


def frames_by_video(run: mvf.Run) -> Videos:
    """Validation video -> frames (T, H, W, 3), decoded anew."""
    return {record.name: record.load() for record in mvf.data.find_config_videos(run.config, "val")}


def nearest_frame(picture: NDArray[np.uint8], frames: NDArray[np.uint8]) -> int:
    """The position of the frame that a picture on the page shows; -1 where it is none of them."""
    height, width = frames.shape[1:3]
    assert abs(picture.shape[1] / picture.shape[0] - width / height) < 0.02, f"aspect of {picture.shape} is not kept"
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    distances = [np.abs(small - frame).mean() for frame in frames]
    return int(np.argmin(distances)) if min(distances) < 12 else -1  # JPEG and resizing are below 5 grey levels


def shows_its_frame(page, root, frames: NDArray[np.uint8]) -> int:
    """The frame number that the widget says, after the picture beside it has been found to be that frame."""
    page.settle()
    said, seen = int(root.get_attribute("data-frame")), nearest_frame(page.panels(root)[0], frames)
    assert said == seen, f"the widget says frame {said}, its picture shows frame {seen}"
    return said


def slider_and_keys_show_their_frame(page, root, frames: NDArray[np.uint8]) -> None:
    """Drags the slider over the video, steps by keys, and comes back to the same picture."""
    slider = page.control(root, "frame", SLIDER)
    seen = [shows_its_frame(page, root, frames)]
    for share in (0.35, 0.7, 0.95):
        page.drag(slider, share)
        seen.append(shows_its_frame(page, root, frames))
        assert abs(seen[-1] - share * (len(frames) - 1)) <= 0.08 * len(frames) + 1, f"at {share} of the slider: {seen}"
    assert len(set(seen)) == 4, f"dragging did not move: {seen}"
    before = page.panels(root)
    for key, wanted in (("ARROW_LEFT", seen[-1] - 2), ("ARROW_RIGHT", seen[-1])):
        page.press(slider, key, key)
        shown = shows_its_frame(page, root, frames)
        assert shown == wanted, (
            f"after {key} twice frame {shown} is on show, not {wanted}: did the notebook take the key?"
        )
    assert all(np.array_equal(a, b) for a, b in zip(before, page.panels(root))), "the same frame looks different"


def shows_the_map_of_entity(page, root, run: mvf.Run, video: str, entity: int) -> None:
    """The map beside the frame is, of all frames' and entities' maps, the one that Python computes and draws for it."""
    record = next(r for r in mvf.data.find_config_videos(run.config, "val") if r.name == video)
    maps = mvf.attention_maps(run.model, record, image_size=IMAGE_SIZE).entities
    picture, wanted = page.panels(root)[1], (int(root.get_attribute("data-frame")), entity)
    blank = np.zeros_like(picture)
    away = [[np.abs(overlay(blank, one, opacity=1).astype(int) - picture).mean() for one in many] for many in maps]
    found = tuple(map(int, np.unravel_index(np.argmin(away), np.shape(away))))
    assert found == wanted, f"the map of frame {found[0]}, entity {found[1] + 1} is on show, not that of {wanted}"
    assert np.min(away) < 3, f"the map on show is {np.min(away):.1f} grey levels from the one that Python draws"


def choice_changes_the_map_alone(page, root, label: str) -> None:
    """Another option of a dropdown changes a map beside the frame, and not the frame."""
    before = page.panels(root)
    control = page.control(root, label, "select")
    options = page.options(control)
    page.choose(control, options[(int(control.get_attribute("selectedIndex")) + 1) % len(options)])
    page.settle()
    after = page.panels(root)
    assert np.array_equal(before[0], after[0]), f"choosing another {label} changed the frame"
    changed = [not np.array_equal(a, b) for a, b in zip(before[1:], after[1:])]
    assert sum(changed) == 1, f"choosing another {label} changed {sum(changed)} of {len(changed)} maps, not one"


def play_runs_until_pressed_again(page, root) -> None:
    """Play walks through frames by itself, in order; pressed again it stands."""
    frame = lambda: int(root.get_attribute("data-frame"))  # noqa: E731
    page.press(page.control(root, "frame", SLIDER), "HOME")
    page.settle()
    button, seen = page.control(root, "play", "button"), [frame()]
    button.click()
    wait_for(lambda: frame() != seen[-1] and (seen.append(frame()) or len(seen) > 3), "play to show four frames", 10)
    button.click()
    page.settle()
    assert seen == sorted(seen), f"play jumps: {seen}"
    stopped = frame()
    page.settle(30)
    assert frame() == stopped, "pressed again, play goes on"


def hovering_shows_the_frame(page, root, videos: Videos, wanted: int = 6) -> None:
    """Moves over the points until six frames of two videos were shown, each the one that the widget says."""
    points, seen = root.find_element("css selector", "canvas"), {}
    state = lambda: (root.get_attribute("data-video"), int(root.get_attribute("data-frame")))  # noqa: E731
    for down, across in itertools.product(np.linspace(0.05, 0.95, 13), repeat=2):
        page.hover(points, across, down)
        video, frame = state()
        if (video, frame) not in seen:
            shown = lambda: nearest_frame(page.panels(root, "figure canvas")[0], videos[video])  # noqa: B023, E731
            seen[video, frame] = wait_for(lambda: shown() == frame, f"the picture of {video}, frame {frame}", 5)  # noqa: B023
        if len(seen) >= wanted and len({name for name, _ in seen}) > 1:
            return
    raise AssertionError(f"hovering over the points showed only {sorted(seen)}")


def saved_notebook_has_the_still(path: Path, cell: str) -> None:
    """A browser is one output with its picture, for pages without scripts; the file holds it once and is small."""
    notebook = nbformat.read(path, as_version=4)
    (output,) = next(c.outputs for c in notebook.cells if c.id == cell)
    assert "AttentionView" not in str(notebook.metadata)
    assert "image/jpeg" in output.data and "object at 0x" not in output.data["text/plain"]
    assert path.stat().st_size < 8e6, f"{path} has {path.stat().st_size / 1e6:.1f} MB"


def reopened_browser_scrubs(page, hook: str, canvas: str = "canvas") -> None:
    """In a notebook opened anew, whose kernel knows nothing of it, a browser moves by mouse and by key."""
    root = page.widget(hook)
    slider, seen = page.control(root, "frame", SLIDER), []
    for share in (0.1, 0.5, 0.9):
        page.drag(slider, share)
        page.settle()
        seen.append((root.get_attribute("data-frame"), page.panels(root, canvas)[0].tobytes()))
    page.press(slider, "ARROW_LEFT")
    page.settle()
    seen.append((root.get_attribute("data-frame"), page.panels(root, canvas)[0].tobytes()))
    assert len(set(seen)) == 4, f"frames {[frame for frame, _ in seen]} are shown, or their pictures do not change"
    text = page.script("return panel.node.textContent")
    assert "model not found" not in text and "object at 0x" not in text
    assert not page.console_errors(), "the page's console has errors"


def shows_the_picture_alone(page, cell: str) -> None:
    """A notebook that is not trusted shows the picture of a browser in its place, and no error."""
    page.show(cell)
    picture = "return panel.content.activeCell.node.querySelector('.jp-OutputArea img')?.naturalWidth > 100"
    wait_for(lambda: page.script(picture), f"the picture in the cell {cell}", 20)
    text = page.script("return panel.content.activeCell.node.textContent")
    assert "model not found" not in text and "object at 0x" not in text
    assert not page.driver.find_elements("css selector", "[data-mvf]")
    assert not page.console_errors(), "the page's console has errors"


def labeler_writes_what_is_accepted(page, table: Path) -> None:
    """Two phases set by keys; nothing is written before enter."""
    labeler = page.widget("phase-labeler")
    name = labeler.get_attribute("data-video")
    page.press(labeler, "HOME", "NUMPAD1", *["ARROW_RIGHT"] * 5, "NUMPAD2")
    page.screenshot("1-labelled")
    assert labeler.get_attribute("data-frame") == "5" and not table.exists()
    page.press(labeler, "ENTER")
    wait_for(table.exists, "the table of labels")
    page.screenshot("2-accepted")
    rows = {row["path"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert rows[name]["phases"] == "0;5"
