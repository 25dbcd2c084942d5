"""The attention browser's picture, state and refusals, in Python; `test_attention_page.py` has what a page shows."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from traitlets import TraitError

from mvf.workbench.plotting import overlay
from mvf.workbench.widgets.attention import AttentionBrowser

LABEL = 20  # pixels above a picture


def arrays(frames=5, entities=2, heads=3, layers=None, seed=0):
    """Frame t is grey, 10 t; maps are noise."""
    generator = np.random.default_rng(seed)
    shape = (frames, heads, 4, 4) if layers is None else (layers, frames, heads, 4, 4)
    grey = np.minimum(10 * np.arange(frames), 250).astype(np.uint8)[:, None, None, None]
    pictures = np.broadcast_to(grey, (frames, 80, 120, 3)).copy()
    return pictures, generator.random((frames, entities, 4, 4)), generator.random(shape)


def photographs(count=120):
    """Moving crops of a photograph: as hard to compress as footage."""
    picture = load_sample_image("china.jpg")
    return np.stack([picture[t // 2 : t // 2 + 280, t : t + 373] for t in range(count)])


@pytest.fixture
def browser():
    browser = AttentionBrowser({"squat": arrays(20), "bowling": arrays(8, seed=1)}, height=80)
    browser.view = "blended"
    return browser


def still(browser):
    """The panels of the static picture, side by side, without captions and gaps."""
    page = np.asarray(Image.open(io.BytesIO(browser.still().data)))[LABEL:]
    return [page[:, left : left + 120] for left in range(0, page.shape[1], 130)]


def close(picture, wanted, mean=4):
    return np.abs(picture.astype(int) - wanted).mean() < mean


@pytest.mark.parametrize("normalise", ["frame", "video"])
@pytest.mark.parametrize("outline", [False, True])
def test_still_is_the_overlay_of_what_is_chosen(browser, normalise, outline):
    browser.set_trait("frame", 12)
    browser.entity, browser.head, browser.opacity, browser.normalise, browser.outline = 1, 2, 0.4, normalise, outline
    frames, entities, heads = arrays(20)
    for panel, maps in zip(still(browser), (entities[:, 1], heads[:, 2]), strict=True):
        maximum = maps.max() if normalise == "video" else None
        wanted = overlay(frames[12], maps[12], 0.4, contour_mass=0.6 if outline else None, maximum=maximum)
        assert close(panel, wanted, 6)
    assert browser.still().alt == "squat, frame 12: entity 2, CLS head 3, given layer 1"


def test_side_by_side_shows_the_bare_frame_and_the_bare_maps(browser):
    browser.view, browser.frame = "side by side", 3
    frames, entities, heads = arrays(20)
    first, second, third = still(browser)
    assert close(first, frames[3], 2)
    assert close(second, overlay(frames[3], entities[3, 0], 1.0)) and close(third, overlay(frames[3], heads[3, 0], 1.0))


def test_all_entities_and_all_heads_stand_beside_the_frame(browser):
    frames, entities, heads = arrays(20)
    for view, maps in (("all entities", entities), ("all heads", heads)):
        browser.view, browser.frame = view, 3
        panels = still(browser)
        assert len(panels) == 1 + maps.shape[1] and close(panels[0], frames[3], 2)
        assert close(panels[-1], overlay(frames[3], maps[3, -1], 1.0))
    assert browser.still().alt.endswith(
        "CLS head 1, given layer 1, CLS head 2, given layer 1, CLS head 3, given layer 1"
    )


def test_it_opens_in_the_middle_of_the_labelled_phases_else_of_the_video():
    videos = {"squat": arrays(20), "bowling": arrays(9)}
    phases = {"squat": [-1] * 10 + [0] * 6 + [-1] * 4}
    browser = AttentionBrowser(videos, phases=phases, layer=0, head={"squat": 1, "bowling": 2}, max_frames=10)
    assert (browser.frame, browser.number, browser.head) == (6, 12, 1)  # 10 to 15 are labelled, every second is kept
    assert [strip["start"] for strip in browser.strips] == [6, 4]
    assert browser.strips[0]["phases"] == [-1] * 5 + [0] * 3 + [-1] * 2


def test_nearly_even_maps_are_called_so():
    frames = arrays()[0]
    even, peaked = np.ones((5, 1, 4, 4)), np.ones((5, 1, 4, 4))
    even[:, 0, 0, 0], peaked[:, 0, 0, 0] = 1.45, 1.7  # of means 1.03 and 1.04
    browser = AttentionBrowser({"squat": (frames, even, peaked)})
    assert browser.still().alt == "squat, frame 2, entity 1 (nearly even), CLS head 1, given layer 1"


def test_every_layer_has_its_own_maps():
    browser = AttentionBrowser({"squat": arrays(layers=2)}, layer_names=["layer 4", "layer 12"], height=80)
    browser.layer, browser.opacity, browser.view = 1, 1, "blended"
    browser.frame = 0
    assert close(still(browser)[1], overlay(arrays()[0][0], arrays(layers=2)[2][1, 0, 0], 1.0))
    assert "layer 12" in browser.still().alt


def test_a_frame_beyond_the_video_is_its_last_and_a_shorter_video_moves_into_it(browser):
    browser.frame = 99
    assert browser.frame == browser.number == 19
    browser.video = "bowling"
    assert browser.frame == 7 and browser.still().alt.startswith("bowling, frame 7")


def test_a_long_video_is_thinned_with_its_numbers_kept():
    browser = AttentionBrowser({"long": arrays(25)}, numbers={"long": np.arange(25) * 2}, max_frames=10, height=80)
    browser.frame = 3
    assert browser.number == 18 and "frame 18" in browser.still().alt
    assert browser.strips[0]["numbers"] == list(range(0, 50, 6)) and browser.strips[0]["count"] == 9
    assert browser.strips[0]["note"] == "9 of 25 frames are stored."
    assert close(still(browser)[0], arrays(25)[0][9], 2)


@pytest.mark.parametrize("dropped", [1, 2])
def test_without_entities_or_heads_the_other_is_shown_alone(dropped):
    maps = [None if i == dropped else a for i, a in enumerate(arrays())]
    browser = AttentionBrowser({"squat": maps}, height=80)
    assert len(still(browser)) == 2
    browser.view = "blended"
    assert len(still(browser)) == 1


def test_two_minutes_of_a_notebooks_worth_stay_below_8_megabytes():
    maps = np.ones((120, 3, 32, 32)), np.ones((1, 120, 6, 32, 32))
    browser = AttentionBrowser({"pull-up": (photographs(), *maps)})
    state = sum(len(b) for key in ("sheets", "maps") for b in browser.get_state()[key])
    assert state < browser.nbytes < 8_000_000


def test_what_cannot_be_shown_is_refused():
    frames, entities, heads = arrays()
    for match, videos, options in (
        ("at least one video, got none", {}, {}),
        (r"squat: frames must be .*got \(5, 80, 120\)", {"squat": (frames[..., 0], entities, heads)}, {}),
        (r"squat: frames must be .*at least one", {"squat": (frames[:0], entities[:0], None)}, {}),
        (r"squat: entities must be \(5, count, h, w\).*\(4, 2", {"squat": (frames, entities[:4], heads)}, {}),
        (r"squat: heads must be .*or \(layers, T, count, h, w\)", {"squat": (frames, None, heads[0])}, {}),
        ("squat: maps must be .*non-negative", {"squat": (frames, -entities, None)}, {}),
        ("equal numbers of entities", {"squat": arrays(), "bowling": arrays(entities=3)}, {}),
        ("both entities and heads are None", {"squat": (frames, None, None)}, {}),
        ("head_names must have 3 names, got 1", {"squat": arrays()}, {"head_names": ["one"]}),
        ("layer_names must have 1 names, got 2", {"squat": arrays()}, {"layer_names": ["4", "12"]}),
        (r"squat: numbers must be \(5,\)", {"squat": arrays()}, {"numbers": {"squat": [1, 2]}}),
        ('name every video, but "squat" is missing', {"squat": arrays()}, {"head": {"golf": 1}}),
        ("max_frames must be at least 1, got 0", {"squat": arrays()}, {"max_frames": 0}),
        ("height must be at least 1 pixel, got 0", {"squat": arrays()}, {"height": 0}),
        ("height must be at least 1 pixel, got -5", {"squat": arrays()}, {"height": -5}),
        ("videos must be a mapping from the names of videos, got list", [arrays()], {}),
        (r"squat: give \(frames, entities, heads\), .*got 2 of them", {"squat": (frames, entities)}, {}),
        (r"squat: give \(frames, entities, heads\), .*got ndarray", {"squat": frames[:3]}, {}),
        ('numbers has "golf", which is not among the videos: squat', {"squat": arrays()}, {"numbers": {"golf": [1]}}),
        ("numbers must be a mapping", {"squat": arrays()}, {"numbers": [0, 1, 2, 3, 4]}),
    ):
        with pytest.raises(ValueError, match=match):
            AttentionBrowser(videos, **options)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [("head", 3, "from 0 to 2, got 3"), ("entity", -1, "from 0 to 1"), ("video", "golf", 'squat, bowling, got "golf"')],
)
def test_choosing_what_does_not_exist_says_what_does(browser, name, value, match):
    with pytest.raises(TraitError, match=match):
        setattr(browser, name, value)


def test_a_saved_picture_is_written_into_the_export_folder_and_nowhere_else(tmp_path):
    browser = AttentionBrowser({"squat": arrays()}, export=tmp_path / "figures")
    browser._handle_custom_msg({"save": "../squat_frame_0.png"}, [memoryview(b"png")])
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")] == ["figures/squat_frame_0.png"]
    assert str(tmp_path) not in str(browser.get_state())
