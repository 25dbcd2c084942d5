"""Every browser as one HTML file, with nothing else: it scrubs by key and mouse, light and dark, wide and narrow."""

import base64
import re

import ipywidgets
import numpy as np
import pytest

from mvf.workbench.widgets import AlignmentPlayer, AttentionBrowser, EmbeddingExplorer, RetrievalBrowser
from tests.widgets.page import Page

COUNT = 12
EVIL = "</script><!--\u2028'\"&"
RIGHT, END = "\ue014", "\ue010"


def arrays():
    """Three videos of plain grey frames, whose brightness says which."""
    grey = (20 * np.arange(COUNT)).astype(np.uint8)[:, None, None, None]
    videos = {name: np.broadcast_to(grey + i, (COUNT, 60, 80, 3)).copy() for i, name in enumerate((EVIL, "b", "c"))}
    phases = {name: [0] * 5 + [1] * 7 for name in videos}
    return videos, {"phases": phases, "phase_names": ["up", "down"]}


def attention():
    videos, others = arrays()
    maps = np.random.default_rng(0).random((COUNT, 2, 4, 4))
    browser = AttentionBrowser({name: (frames, maps, maps) for name, frames in videos.items()}, **others)
    browser.frame = 0
    return browser


def alignment():
    videos, others = arrays()
    return AlignmentPlayer(videos, {name: np.arange(COUNT) for name in ("b", "c")}, EVIL, **others)


def retrieval():
    videos, others = arrays()
    return RetrievalBrowser(videos, dict.fromkeys(videos, np.arange(COUNT)[:, None]), k=1, **others)


def explorer():
    videos, others = arrays()
    points = {name: np.stack([np.arange(COUNT), np.full(COUNT, i)], 1) for i, name in enumerate(videos)}
    return EmbeddingExplorer(points, videos, axes=["PC 1, 41 % of the variance", "PC 2"], **others)


BROWSERS = {
    "attention": (attention, 0),
    "alignment": (alignment, 0),
    "retrieval": (retrieval, 0),
    "explorer": (explorer, 1),
}


@pytest.fixture
def open_page(driver, tmp_path):
    """`open_page(browser, theme, width)`: its HTML file, opened."""

    def opened(browser, theme="light", width=900):
        page = Page.__new__(Page)
        page.driver, page.widget = driver, browser
        preference = {"name": "prefers-color-scheme", "value": theme}
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get_log("browser")
        driver.get(browser.save_html(tmp_path / "figures" / "page.html").as_uri())
        page.wait("root.dataset.ready === 'true'")
        return page

    yield opened
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def brightness(page, canvas):
    """Of the middle of the first picture on a canvas; a picture with a map beside it is the left one."""
    pixels = page.pixels(canvas)
    return int(pixels[pixels.shape[0] // 4, 20, 0])


@pytest.mark.parametrize(("theme", "width"), [("light", 900), ("dark", 500)])
@pytest.mark.parametrize(("make", "canvas"), BROWSERS.values(), ids=BROWSERS)
def test_a_page_scrubs_by_key_and_by_mouse_without_a_kernel(open_page, tmp_path, make, canvas, theme, width):
    page = open_page(make(), theme, width)
    assert page.frame == 0 and page.run("return document.title") == page.widget.title
    page.press(RIGHT)
    page.press(RIGHT)
    assert page.frame == 2 and abs(brightness(page, canvas) - 40) < 5
    page.drag(0.6)
    assert page.frame == 7 and abs(brightness(page, canvas) - 140) < 5
    page.press(END)
    assert page.frame == COUNT - 1
    assert page.run("return root.querySelector('.mvf-scrub').ariaValueText") == "frame 11 of 11"
    ground, ink = page.run("return [getComputedStyle(document.body).backgroundColor, getComputedStyle(root).color]")
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
    assert bright[0] > 600 > 100 >= bright[1] if theme == "light" else bright[0] < 100 < 600 < bright[1]
    document = "document.documentElement"
    assert page.run(f"return {document}.scrollWidth <= innerWidth && {document}.scrollHeight <= innerHeight")
    page.screenshot(tmp_path / "page.png")
    assert page.errors() == []


def test_a_page_opens_where_the_browser_was_and_its_name_is_in_the_browsers(open_page, tmp_path):
    browser = attention()
    browser.view, browser.frame = "all heads", 5
    assert repr(browser) == "Attention browser of 3 videos"
    page = open_page(browser)
    assert page.frame == 5 and page.control("View").get_attribute("value") == "all heads"
    path = tmp_path / "figures" / "page.html"
    assert repr(browser) == f"Attention browser of 3 videos; {path} shows it without a kernel"


def test_a_page_loads_nothing_and_runs_only_its_own_script(open_page, tmp_path):
    page = open_page(retrieval())
    text = (tmp_path / "figures" / "page.html").read_text(encoding="utf-8")
    (rules,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'", rules)
    assert len(re.findall("<script", text)) == 2 and "https:" not in text and EVIL not in text
    page.run(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)"
    )
    assert page.run("return window.foreign === undefined") and "Content Security Policy" in page.errors()[0]


def test_a_picture_is_downloaded_from_a_page(open_page):
    page = open_page(attention())
    page.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.download; }")
    page.control("Save picture").click()
    page.wait("window.saved")
    assert page.run("return window.saved").endswith("_frame_0.png") and page.errors() == []


@pytest.mark.parametrize(("make", "_"), BROWSERS.values(), ids=BROWSERS)
def test_a_notebook_gets_one_output_with_page_picture_and_words(make, _):
    browser = make()
    data, metadata = browser._repr_mimebundle_()
    assert set(data) == {"text/html", "image/jpeg", "text/plain"}
    assert base64.b64decode(data["image/jpeg"]) == browser.still().data
    assert f'<img src="data:image/jpeg;base64,{data["image/jpeg"]}"' in data["text/html"]
    assert data["text/plain"] == repr(browser) and metadata["image/jpeg"]["alt"] == browser.still().alt


def test_outputs_of_a_notebook_scrub_in_place_of_their_pictures(driver, tmp_path):
    outputs = [browser._repr_mimebundle_()[0]["text/html"] for browser in (retrieval(), retrieval(), explorer())]
    assert EVIL not in "".join(outputs)
    (tmp_path / "notebook.html").write_text(f'<meta charset="utf-8">{"".join(outputs)}', encoding="utf-8")
    page = Page.__new__(Page)
    page.driver, page.widget = driver, None
    driver.get_log("browser")
    driver.get((tmp_path / "notebook.html").as_uri())
    page.wait("document.querySelectorAll('.mvf-shown > [data-ready=true]').length === 3")
    assert page.run("return document.querySelectorAll('img, [type$=json]').length") == 0
    for i in range(3):
        page.run("document.querySelectorAll('[data-mvf]')[args[0]].focus()", i)
        page.press(RIGHT)
    frames = "return [...document.querySelectorAll('[data-mvf]')].map((one) => one.dataset.frame)"
    assert page.run(frames) == ["1"] * 3 and page.errors() == []


def test_a_browser_is_a_widget_only_inside_another():
    browser = retrieval()
    browser._repr_mimebundle_()
    assert browser.comm is None
    (child,) = ipywidgets.VBox([browser]).get_state()["children"]
    assert browser.comm is not None and child == f"IPY_MODEL_{browser.model_id}"
