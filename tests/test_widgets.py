"""The browser shows the frame, video and maps that its controls say, and keeps one picture only."""

import io

import numpy as np
import pytest
from PIL import Image

from mvf.plotting import overlay
from mvf.widgets import attention_browser


def arrays(frames=5, entities=2, heads=3, layers=None, seed=0):
    generator = np.random.default_rng(seed)
    shape = (frames, heads, 4, 4) if layers is None else (layers, frames, heads, 4, 4)
    pictures = np.repeat(np.linspace(0, 250, frames).astype(np.uint8), 16 * 24 * 3).reshape(frames, 16, 24, 3)
    return pictures, generator.random((frames, entities, 4, 4)), generator.random(shape)


@pytest.fixture
def browser():
    return attention_browser({"squat": arrays(5), "bowling": arrays(3, seed=1)}, height=32)


def picture(browser):
    return np.asarray(Image.open(io.BytesIO(browser.picture.value)))


def test_moving_the_slider_shows_that_frame(browser):
    before = browser.picture.value
    browser.opacity.value = 0
    browser.frame.value = 3
    assert browser.picture.value != before
    assert browser.text.value.startswith("squat: frame 3 of 0 to 4")
    assert abs(picture(browser).mean() - np.linspace(0, 250, 5).astype(int)[3]) < 2


def test_picture_is_the_overlay_of_the_chosen_entity_and_head(browser):
    browser.frame.value, browser.entity.value, browser.head.value = 2, 1, 2
    frames, entities, heads = arrays(5)
    frame = np.full((32, 48, 3), frames[2, 0, 0, 0], np.uint8)
    wanted = np.hstack([overlay(frame, entities[2, 1]), overlay(frame, heads[2, 2])])
    assert picture(browser).shape == wanted.shape == (32, 96, 3)
    assert np.abs(picture(browser).astype(int) - wanted).mean() < 6  # JPEG
    assert "(entity 2 | CLS head 3)" in browser.text.value


@pytest.mark.parametrize(("control", "value"), [("entity", 1), ("head", 1), ("opacity", 0.2), ("contour", True)])
def test_every_control_changes_the_picture(browser, control, value):
    before = browser.picture.value
    getattr(browser, control).value = value
    assert browser.picture.value != before


def test_a_shorter_video_moves_the_slider_into_it(browser):
    browser.frame.value = 4
    browser.video.value = "bowling"
    assert (browser.frame.max, browser.play.max, browser.frame.value) == (2, 2, 2)
    assert browser.text.value.startswith("bowling: frame 2 of 0 to 2")


def test_every_control_is_labelled(browser):
    labels = [c.description for c in (browser.video, browser.entity, browser.head, browser.frame, browser.opacity)]
    assert labels == ["Video", "Entity", "Head", "Frame", "Opacity"] and browser.contour.description


def test_state_holds_one_small_picture_however_long_the_video():
    browser = attention_browser({"long": arrays(200)})
    for frame in range(0, 200, 20):
        browser.frame.value = frame
    stored = sum(
        len(v) for w in (browser, *browser.children) for v in w.get_state().values() if isinstance(v, memoryview)
    )
    assert stored == len(browser.picture.value) < 100_000


def test_still_is_the_picture_on_display_as_an_ordinary_output(browser):
    browser.frame.value = 2
    assert browser.still().data == browser.picture.value


def test_heads_of_several_layers_are_all_offered():
    browser = attention_browser({"squat": arrays(layers=2)})
    assert [label for label, _ in browser.head.options][2:4] == ["layer 1 of 2, CLS head 3", "layer 2 of 2, CLS head 1"]


@pytest.mark.parametrize(("dropped", "disabled"), [(1, "entity"), (2, "head")])
def test_without_entities_or_heads_the_other_is_shown_alone(dropped, disabled):
    maps = [None if i == dropped else a for i, a in enumerate(arrays())]
    browser = attention_browser({"squat": maps}, height=32)
    assert getattr(browser, disabled).disabled and picture(browser).shape == (32, 48, 3)


def test_what_cannot_be_shown_is_refused():
    frames, entities, heads = arrays()
    with pytest.raises(ValueError, match="at least one video"):
        attention_browser({})
    with pytest.raises(ValueError, match=r"squat: frames must be .*got \(5, 16, 24\)"):
        attention_browser({"squat": (frames[..., 0], entities, heads)})
    with pytest.raises(ValueError, match=r"squat: entities must be \(5, number, h, w\).*got \(4, 2, 4, 4\)"):
        attention_browser({"squat": (frames, entities[:4], heads)})
    with pytest.raises(ValueError, match="as many entities and heads"):
        attention_browser({"squat": arrays(), "bowling": arrays(entities=3)})
    with pytest.raises(ValueError, match="3 names, got 1"):
        attention_browser({"squat": arrays()}, head_names=["one"])
    with pytest.raises(ValueError, match="both entities and heads are None"):
        attention_browser({"squat": (frames, None, None)})
