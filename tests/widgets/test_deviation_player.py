"""The curve of a deviation player: a click in it, a key or a button moves both pictures."""

import numpy as np
import pytest
from selenium.webdriver import ActionChains

from mvf.evaluation.deviation import Deviation, Moment
from mvf.workbench.widgets import AlignmentPlayer

COUNT = 21
MOMENTS = Moment(14, 17, 15, 2.0), Moment(4, 7, 5, 1.5)
PANELS = "return [...root.querySelectorAll('figure')].map((f) => Number(f.dataset.number))"
CURVE = 130  # pixels, as in alignment.js
TIMELINE = 4  # its canvas, after a picture and a ribbon for each video


def grey(count):
    return np.tile((10 * np.arange(count)).astype(np.uint8)[:, None, None, None], (1, 32, 48, 3))


def found(moments=MOMENTS, note=""):
    distance, band = np.full(COUNT, 0.2), np.full(COUNT, 0.5)
    for moment in moments:
        distance[moment.start : moment.end] = 0.4 + moment.excess / 10
        distance[moment.peak] = 0.5 * moment.excess
    return Deviation(np.zeros((1, COUNT), int), distance, band, moments, 0, note)


def player(deviation=None, **options):
    videos = {"clip": grey(COUNT), "good": grey(11)}
    options = {"times": {"clip": np.arange(COUNT) / 10}} | options
    maps = {"good": np.arange(COUNT) // 2}
    return AlignmentPlayer(videos, maps, "clip", deviation=deviation or found(), **options)


def click(page, share, height):
    """Presses at a share of the timeline's width, so many pixels below its upper edge."""
    line = page.driver.find_element("css selector", ".mvf-timeline")
    x, y = (share - 0.5) * (line.size["width"] - 6), height - line.size["height"] / 2
    ActionChains(page.driver, duration=10).move_to_element_with_offset(line, round(x), round(y)).click().perform()
    page.settle()


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 500)])
def test_a_click_or_a_drag_in_the_curve_moves_both_pictures(show, tmp_path, theme, width):
    page = show(player(), theme=theme, width=width)
    click(page, 0.5, 30)
    assert page.frame == 10 and page.run(PANELS) == [10, 5]
    assert page.run("return root.querySelector('.mvf-number').textContent").endswith("distance 0.20, band 0.50")
    page.drag(0.75)
    assert page.frame == 15 and page.run(PANELS) == [15, 7]
    words = page.run("return [...root.querySelectorAll('figcaption')].map((c) => c.textContent.split('\\n')[0])")
    assert words == ["clip", "good (reference)"], "the clip is compared with the reference"
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(tmp_path / "deviation.png")
    assert page.errors() == []


def test_keys_and_buttons_go_from_moment_to_moment(show):
    page = show(player())
    page.run("root.focus()")
    visited = []
    for key in "nnnb":
        page.press(key)
        visited.append(page.frame)
    assert visited == [5, 15, 15, 5], "in the order of time"
    first = page.control("1: 1.50 s")
    first.click()
    page.settle()
    assert page.frame == 15 and first.get_attribute("aria-pressed") == "true"
    assert page.control("2: 0.50 s").get_attribute("aria-pressed") == "false"
    page.run("root.focus()")
    page.put("Frame", 16)
    assert first.get_attribute("aria-pressed") == "true", "the last frame of the moment"
    page.put("Frame", 17)
    assert first.get_attribute("aria-pressed") == "false"
    assert page.errors() == []


def test_moments_are_shaded_in_the_warning_colour_and_the_band_is_grey(show):
    page = show(player())
    row = page.pixels(TIMELINE)[CURVE - 20].astype(int)  # above the scale
    place = [round(3 + frame / (COUNT - 1) * (len(row) - 6)) for frame in range(COUNT)]
    orange = [frame for frame in range(COUNT) if row[place[frame], 0] > row[place[frame], 2] + 30]
    assert orange == [4, 5, 6, 14, 15, 16]
    grey_at = row[place[10]]
    assert grey_at[3] > 20 and max(grey_at[:3]) - min(grey_at[:3]) < 8, "the band"
    assert page.pixels(TIMELINE)[20, place[10], 3] == 0, "nothing above the band"


def test_without_moments_and_times_the_page_says_so_and_counts_frames(show):
    page = show(player(found((), "one reference: the band is the clip's own"), times=None))
    text = page.run("return root.textContent")
    assert "Nowhere outside the band." in text and "One reference: the band is the clip's own." in text
    page.press("n")
    assert page.frame == 0 and page.errors() == []
    assert "0.00 s" not in text


def test_the_page_is_named_for_what_it_shows_and_its_still_has_the_curve():
    plain = AlignmentPlayer({"clip": grey(COUNT), "good": grey(11)}, {"good": np.arange(COUNT) // 2}, "clip")
    widget = player()
    assert (plain.title, widget.title) == ("Alignment player", "Deviation player")
    assert widget.still().alt == plain.still().alt and len(widget.still().data) > 1.2 * len(plain.still().data)


def test_a_deviation_of_another_length_is_refused():
    with pytest.raises(ValueError, match="deviation must be of the 3 frames of clip, got 21"):
        AlignmentPlayer({"clip": grey(3), "good": grey(3)}, {"good": [0, 1, 2]}, "clip", deviation=found())
