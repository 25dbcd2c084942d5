"""Pointing at a point shows its frame; a click pins it; arrow keys move along its video."""

import numpy as np
import pytest

from mvf.workbench.widgets.explorer import EmbeddingExplorer

HOVER = """
const canvas = root.querySelector('canvas'), box = canvas.getBoundingClientRect();
const at = {clientX: box.left + args[0] * box.width, clientY: box.top + args[1] * box.height, bubbles: true};
canvas.dispatchEvent(new PointerEvent(args[2], at));
"""


def arrays():
    """Two videos on the left and right edge of a square, from bottom to top."""
    rise = np.linspace(0, 1, 11)
    points = {"left": np.stack([0 * rise, rise], 1), "right": np.stack([1 + 0 * rise, rise], 1)}
    videos = {
        name: np.tile((20 * np.arange(11) + i).astype(np.uint8)[:, None, None, None], (1, 30, 20, 3))
        for i, name in enumerate(points)
    }
    return points, videos


def test_hovering_shows_a_frame_and_a_click_pins_it(show, tmp_path):
    points, videos = arrays()
    phases = {"left": [0] * 5 + [1] * 6}
    numbers = {name: 3 * np.arange(11) for name in videos}
    explorer = EmbeddingExplorer(points, videos, phases=phases, phase_names=["up", "down"], numbers=numbers)
    page = show(explorer)
    assert (page.frame, page.run("return root.dataset.video")) == (0, "left")
    width, height = page.pixels(0).shape[1], page.pixels(0).shape[0]
    right = 0.5 + 0.5 * (height - 48) / width  # both axes have one scale: the square is as wide as it is high
    page.run(HOVER, right, 0.5, "pointermove")
    page.wait("root.dataset.video === 'right'")
    assert page.frame == 15
    page.wait("root.querySelector('figcaption').textContent.startsWith('right')")
    page.run(HOVER, right, 0.5, "pointerleave")
    page.wait("root.dataset.video === 'left'")
    page.run(HOVER, right, 0.5, "click")
    page.wait("root.dataset.video === 'right'")
    page.press("\ue014")  # right
    assert page.frame == 18 and page.control("Video").get_attribute("value") == "right"
    assert abs(page.pixels(1)[10, 10, 0].astype(int) - 121) < 4
    page.wait("window.model.traits.video === 'right' && window.model.traits.frame === 6")
    page.put("Video", "left")
    page.put("Frame", 10)
    caption = page.run("return root.querySelector('figcaption').textContent")
    assert caption == "pinned: left\nframe 30 · down" and page.errors() == []
    page.screenshot(tmp_path / "explorer.png")


def test_many_points_are_quick(show):
    generator = np.random.default_rng(0)
    points = {f"v{i}": generator.normal(size=(250, 2)) for i in range(20)}
    explorer = EmbeddingExplorer(points, {name: np.zeros((250, 4, 4, 3), np.uint8) for name in points})
    page = show(explorer)
    milliseconds = page.run(
        "const began = performance.now(), canvas = root.querySelector('canvas');"
        "for (let i = 0; i < 100; i++)"
        "  canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: 40 + 4 * i, clientY: 300}));"
        "return performance.now() - began"
    )
    assert milliseconds < 1000


def test_still_names_the_pinned_frame():
    points, videos = arrays()
    explorer = EmbeddingExplorer(points, videos, phases={"left": [0] * 11})
    explorer.video, explorer.frame = "left", 4
    assert explorer.still().alt == "left frame 4, phase 0"


@pytest.mark.parametrize(
    ("phases", "wanted"), [({"left": [0, 1] * 5 + [0]}, ["phase 0", "phase 1", "unlabelled"]), (None, [])]
)
def test_still_has_every_colour_in_a_legend_below_the_points(phases, wanted, monkeypatch):
    drawn = []
    monkeypatch.setattr("mvf.workbench.widgets.explorer.as_jpeg", lambda figure, _: drawn.append(figure))
    points, videos = arrays()
    EmbeddingExplorer(points, {name: np.zeros((11, 90, 120, 3), np.uint8) for name in videos}, phases=phases).still()
    assert [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()] == wanted
    assert all(axes.get_legend() is None for axes in drawn[0].axes)
    drawn[0].draw_without_rendering()
    assert drawn[0].axes[1].title.get_window_extent().y1 <= drawn[0].bbox.height


def test_what_does_not_fit_is_refused():
    points, videos = arrays()
    with pytest.raises(ValueError, match="at least one video, got none"):
        EmbeddingExplorer({}, {})
    with pytest.raises(ValueError, match=r"left: points must be \(11, 2\), got \(11, 3\)"):
        EmbeddingExplorer(points | {"left": np.zeros((11, 3))}, videos)
    with pytest.raises(ValueError, match=r"left: points must be \(11, E\), one row for each frame, got \(10, 2\)"):
        EmbeddingExplorer(points | {"left": points["left"][:10]}, videos)
    with pytest.raises(ValueError, match='points must contain every video, but "right" is missing'):
        EmbeddingExplorer({"left": points["left"]}, videos)
    with pytest.raises(ValueError, match="names must have one entry for each of 2 phases, got 1"):
        EmbeddingExplorer(points, videos, phases={"left": [1] * 11}, phase_names=["up"])
    with pytest.raises(ValueError, match="left: phases must be integers"):
        EmbeddingExplorer(points, videos, phases={"left": [0.5] * 11})
