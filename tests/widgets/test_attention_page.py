"""The attention browser in the page of a real browser: the right frame, the figures' maps, and a page that leads."""

import base64
import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from mvf.workbench.widgets import AttentionBrowser
from tests.widgets.test_attention import LABEL, arrays, close, still


@pytest.fixture
def browser():
    browser = AttentionBrowser({"squat": arrays(20), "bowling": arrays(8, seed=1)}, height=80)
    browser.view, browser.frame = "blended", 0
    return browser


def boxes(page):
    """(left, top, width, height) of the pictures on the canvas, in reading order; around them it is transparent."""
    opaque = (page.pixels()[..., 3] == 255).astype(np.uint8)
    found = [box[:4] for box in cv2.connectedComponentsWithStats(opaque)[2][1:] if box[4] > 5000]
    return sorted(found, key=lambda box: (box[1], box[0]))


def panels(page):
    """The pictures on the canvas, as small as the stored frames: (80, 120) each."""
    pixels = page.pixels()[..., :3]
    cut = [pixels[y : y + h, x : x + w] for x, y, w, h in boxes(page)]
    return [cv2.resize(picture, (120, 80), interpolation=cv2.INTER_AREA) for picture in cut]


def test_slider_and_keys_show_the_right_frame(browser, show):
    browser.opacity = 0
    page = show(browser)
    page.put("Frame", 12)
    assert page.frame == 12 and close(panels(page)[0], 120, 2)
    page.run("root.focus()")
    for key, frame in (("\ue014", 13), ("\ue012", 12), ("\ue010", 19), ("\ue014", 19), ("\ue011", 0), ("\ue012", 0)):
        page.press(key)  # right, left, end, right, home, left
        assert page.frame == frame and close(panels(page)[0], 10 * frame, 2)
    assert page.errors() == []


@pytest.mark.parametrize(
    "chosen",
    [
        {"Entity": 1, "Head": 2},
        {"Layer": 1, "Head": 1, "Normalise": "video", "Opacity": 0.9},
        {"View": "side by side"},
        {"View": "all entities"},
        {"View": "all heads", "Layer": 1},
        {"Video": "bowling", "Normalise": "video"},
    ],
)
def test_the_page_draws_what_the_figures_draw(show, chosen):
    browser = AttentionBrowser({n: arrays(8, layers=2, seed=i) for i, n in enumerate(("squat", "bowling"))}, height=80)
    browser.view = "blended"
    page = show(browser)
    page.put("Frame", 5)
    before = page.pixels()
    for label, value in chosen.items():
        page.put(label, value)
        setattr(browser, label.lower(), value)
    browser.frame = page.frame
    for drawn, figure in zip(panels(page), still(browser), strict=True):
        assert close(drawn, figure, 6)
    assert page.pixels().shape != before.shape or not close(page.pixels(), before, 1)
    assert page.errors() == []


def test_the_page_outlines_the_patches_that_the_figures_outline(browser, show):
    browser.frame = 7
    page = show(browser, width=268)
    page.put("Size", "0.5")
    assert tuple(boxes(page)[0][2:]) == (120, 80), "as large as the stored frames: lines are compared to the pixel"
    plain = [panels(page), still(browser)]
    page.put("Outline", True)
    browser.outline = True
    for before, after in zip(zip(*plain), zip(panels(page), still(browser))):
        drawn, figure = ((np.abs(a.astype(int) - b).max(-1) > 60).astype(np.uint8) for a, b in zip(after, before))
        near = [cv2.dilate(line, np.ones((5, 5))) for line in (drawn, figure)]  # lines differ in thickness
        assert (drawn <= near[1]).mean() > 0.999 and (figure <= near[0]).mean() > 0.99
    assert drawn.any()


def test_play_advances_and_space_pauses(browser, show):
    page = show(browser)
    page.control("Play").click()
    page.wait("Number(root.dataset.frame) >= 3")
    page.run("root.focus()")
    page.press(" ")
    stopped = page.frame
    time.sleep(0.3)
    assert page.frame == stopped and page.control("Play") is not None and page.errors() == []


def test_the_page_tells_python_seldom_and_is_moved_by_it(browser, show):
    page = show(browser)
    for frame in range(1, 15):
        page.put("Frame", frame)
    page.wait("model.saved.some((told) => told.frame === 14)")
    assert len(page.run("return model.saved")) < 8
    page.run("model.fromKernel('frame', 4); model.fromKernel('entity', 1)")
    page.settle()
    assert page.frame == 4 and page.control("Entity").get_attribute("value") == "1"
    page.run("model.fromKernel('video', 'bowling')")
    page.settle()
    page.wait("root.dataset.ready === 'true' && model.saved.length")
    assert page.control("Frame").get_attribute("max") == "7" and page.errors() == []


def test_an_echo_from_the_kernel_does_not_pull_the_page_back(browser, show):
    page = show(browser)
    page.put("Frame", 5)
    page.wait("model.saved.some((told) => told.frame === 5)")
    page.run(
        "args[0].value = 9; args[0].dispatchEvent(new Event('input')); model.fromKernel('frame', 5)",
        page.control("Frame"),
    )
    page.settle()
    assert page.frame == 9
    page.wait("model.get('frame') === 9")


def test_a_picture_is_saved_by_the_page_and_handed_to_python_where_it_has_a_folder(show, tmp_path):
    browser = AttentionBrowser({"squat": arrays()}, height=80, export=tmp_path)
    browser.view, browser.frame = "blended", 0
    page = show(browser)
    page.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.download; }")
    page.control("Save picture").click()
    page.wait("model.sent.length === 1")
    data = page.run("return btoa(String.fromCharCode(...new Uint8Array(model.sent[0].buffers[0])))")
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    drawn = np.asarray(picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX))
    assert page.run("return window.saved") == "squat_frame_0.png" == page.run("return model.sent[0].content.save")
    for left, figure in zip((0, 130), still(browser), strict=True):
        assert close(drawn[LABEL : LABEL + 80, left : left + 120], figure, 6)
    assert page.errors() == []


def test_frames_keep_their_aspect_and_panels_wrap_on_a_narrow_page(show):
    wide = AttentionBrowser(
        {"wide": (np.full((3, 60, 240, 3), 200, np.uint8), np.ones((3, 1, 4, 4)), np.ones((3, 1, 4, 4)))}
    )
    wide.opacity, wide.view = 0, "blended"
    for width, panel in ((1000, 481), (400, 372)):
        page = show(wide, width=width)
        found = boxes(page)
        assert len(found) == 2 and all(abs(h / w - 1 / 4) < 0.01 and w == panel for *_, w, h in found)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth") and page.errors() == []


def test_benchmark_draws_and_ends_where_it_began(browser, show):
    page = show(browser)
    page.put("Frame", 6)
    before = page.pixels()
    assert page.run("return root.mvfBenchmark(30)") > 0
    page.settle()
    assert page.frame == 6 and close(page.pixels(), before, 0.01)


def test_every_control_is_labelled_and_reached_by_the_keyboard(browser, show):
    page = show(browser)
    unnamed = "(c) => !(c.labels.length || c.ariaLabel) || c.tabIndex < 0"
    assert page.run(f"return [...root.querySelectorAll('input, select')].filter({unnamed}).length") == 0
    assert page.run("return root.querySelectorAll('select').length") == 8
    buttons = page.run("return [...root.querySelectorAll('button')].map((b) => b.ariaLabel || b.textContent)")
    assert buttons == ["Previous frame", "Play", "Next frame", "Full screen", "Save picture"]


def test_a_closed_view_leaves_nothing_running(browser, show):
    page = show(browser)
    page.control("Play").click()
    page.run("window.dispose()")
    stopped = page.frame
    time.sleep(0.3)
    assert page.frame == stopped and page.run("return Object.values(model.listeners).flat().length") == 0


def test_another_video_opens_in_its_middle_on_its_own_head_unless_another_is_chosen(show):
    videos = {name: arrays(count) for name, count in (("squat", 20), ("bowling", 8), ("golf", 12))}
    page = show(AttentionBrowser(videos, head={"squat": 0, "bowling": 2, "golf": 1}))
    head = lambda: page.control("Head").get_attribute("value")  # noqa: E731
    page.put("Video", "bowling")
    page.wait("root.dataset.frame === '4'")
    assert head() == "2"
    page.put("Head", 0)
    page.put("Video", "golf")
    page.wait("root.dataset.frame === '6'")
    assert head() == "0" and page.errors() == []


def test_the_page_says_which_maps_are_nearly_even_and_what_that_means(show):
    frames, entities, _ = arrays()
    page = show(AttentionBrowser({"squat": (frames, entities**4, np.ones((5, 2, 4, 4)))}))
    note = "return root.querySelector('.mvf-status').textContent"
    assert page.run(note).startswith("nearly even: the largest value of the map is less than 1.5 times its mean")
    page.put("View", "all entities")
    assert page.run(note) == ""


def test_seconds_are_shown_and_set_the_pace(show):
    times = np.arange(20) / 10
    browser = AttentionBrowser({"squat": arrays(20)}, times={"squat": times}, phases={"squat": [0] * 20})
    browser.frame = 0
    page = show(browser)
    page.put("Frame", 6)
    assert page.run("return root.querySelector('.mvf-number').textContent") == "frame 6 of 19 · 0.60 s"

    def frames_in_a_second(speed):
        page.put("Frame", 0)
        page.put("Speed", speed)
        page.control("Play").click()
        time.sleep(1)
        page.control("Pause").click()
        return page.frame

    slow, fast = frames_in_a_second("0.25"), frames_in_a_second("1")
    assert 1 <= slow <= 5 and 6 <= fast <= 19 and page.errors() == []


def test_pictures_fill_the_width_as_far_as_asked_and_the_screen(browser, show):
    browser.view = "side by side"
    page = show(browser)
    inner = page.run("return root.clientWidth - 12")
    widths = {}
    for size in ("1", "0.5"):
        page.put("Size", size)
        widths[size] = page.pixels().shape[1]
    assert inner - 3 <= widths["1"] <= inner and abs(widths["0.5"] - inner / 2) < 8
    page.run("root.focus()")
    page.press("f")
    page.wait("document.fullscreenElement === root && root.querySelector('canvas').clientWidth > innerWidth * 0.6")
    assert page.run("return root.scrollHeight <= innerHeight"), "in full screen everything is in sight"
    page.press("f")
    page.wait("document.fullscreenElement === null")
    page.settle()
    assert page.pixels().shape[1] == widths["0.5"] and page.errors() == []
