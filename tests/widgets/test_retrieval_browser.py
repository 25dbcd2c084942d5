"""Neighbours are the nearest frames of other videos, and a click on one makes it the query."""

import numpy as np
import pytest

from mvf.workbench.widgets.retrieval import RetrievalBrowser

LENGTHS = {"a": 6, "b": 4, "c": 5, "d": 3}


def videos():
    return {name: np.full((n, 24, 32, 3), 40 * i, np.uint8) for i, (name, n) in enumerate(LENGTHS.items(), start=1)}


def embeddings():
    generator = np.random.default_rng(3)
    return {name: generator.normal(size=(n, 4)) for name, n in LENGTHS.items()}


def test_neighbours_are_the_best_frame_of_each_other_video_nearest_first():
    browser = RetrievalBrowser(videos(), embeddings(), k=2)
    vectors = embeddings()
    for name, count in LENGTHS.items():
        for frame in range(count):
            best = []
            for other in LENGTHS:
                if other != name:
                    away = [np.sqrt(((vectors[name][frame] - row) ** 2).sum()) for row in vectors[other]]
                    best.append((min(away), other, int(np.argmin(away))))
            wanted = [(other, index, distance) for distance, other, index in sorted(best)[:2]]
            for found, (other, index, distance) in zip(browser.neighbours(name, frame), wanted, strict=True):
                assert found[:2] == (other, index) and found[2] == pytest.approx(distance)


def test_more_neighbours_than_other_videos_gives_one_of_each():
    assert [name for name, *_ in RetrievalBrowser(videos(), embeddings(), k=9).neighbours("b", 0)].count("b") == 0
    assert len(RetrievalBrowser(videos(), embeddings(), k=9).neighbours("b", 0)) == 3


def test_a_click_makes_a_neighbour_the_query_and_back_returns(show, tmp_path):
    phases = {name: [0] * 2 + [1] * (n - 2) for name, n in LENGTHS.items()}
    numbers = {name: 10 * np.arange(n) for name, n in LENGTHS.items()}
    browser = RetrievalBrowser(videos(), embeddings(), k=2, phases=phases, numbers=numbers)
    page = show(browser)
    page.put("Frame", 4)
    shown = (
        "return [...root.querySelectorAll('.mvf-neighbour')].map((b) =>"
        "[b.querySelector('figure').dataset.video, Number(b.querySelector('figure').dataset.number),"
        " b.querySelector('figcaption').textContent, b.className])"
    )
    for (name, number, caption, style), (other, index, distance) in zip(page.run(shown), browser.neighbours("a", 4)):
        assert (name, number) == (other, 10 * index) and f"distance {distance:.3f}" in caption
        right = phases[other][index] == phases["a"][4]
        assert ("✓" if right else "✗") in caption and ("mvf-right" if right else "mvf-wrong") in style
    other, index, _ = browser.neighbours("a", 4)[1]
    page.run("root.querySelectorAll('.mvf-neighbour')[1].click()")
    page.wait(f"root.dataset.video === '{other}'")
    assert page.frame == 10 * index and page.control("Video").get_attribute("value") == other
    page.control("Back").click()
    page.wait("root.dataset.video === 'a'")
    assert page.frame == 40
    page.press("\ue012")  # left: the page keeps the keys although Back is disabled now
    assert page.frame == 30 and page.errors() == []
    page.drag(0.62)
    assert page.frame == 30, "dragged over the film strip to 0.62 of frames 0 to 5"
    page.screenshot(tmp_path / "retrieval.png")


def test_still_names_query_and_neighbours():
    browser = RetrievalBrowser(videos(), embeddings(), k=1, phases={"a": [0, 0, 0, 1, 1, 1]})
    browser.video, browser.frame = "a", 9
    other, index, distance = browser.neighbours("a", 5)[0]
    assert browser.still().alt == f"query: a frame 5, phase 1, 1. {other} frame {index}, distance {distance:.3f}"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 2 videos, got 0"):
        RetrievalBrowser({}, {})
    with pytest.raises(ValueError, match="at least 2 videos, got 1"):
        RetrievalBrowser({"a": videos()["a"]}, {"a": embeddings()["a"]})
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        RetrievalBrowser(videos(), embeddings(), k=0)
    with pytest.raises(ValueError, match=r"b: embeddings must be \(4, E\), one row for each frame, got \(3, 4\)"):
        RetrievalBrowser(videos(), embeddings() | {"b": np.zeros((3, 4))})
    with pytest.raises(ValueError, match="same width, got .*'c': 3"):
        RetrievalBrowser(videos(), embeddings() | {"c": np.zeros((5, 3))})
    with pytest.raises(ValueError, match='embeddings must contain every video, but "a" is missing'):
        RetrievalBrowser(videos(), {"b": embeddings()["b"]})
    with pytest.raises(ValueError, match="c: embeddings must be finite"):
        RetrievalBrowser(videos(), embeddings() | {"c": np.full((5, 4), np.nan)})
    with pytest.raises(ValueError, match=r"a: frames must be \(T, H, W, 3\) uint8"):
        RetrievalBrowser(videos() | {"a": np.zeros((6, 24, 32, 3))}, embeddings())
