"""Every panel shows the frame that the alignment names, warped or as recorded."""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mvf.workbench.widgets.alignment import AlignmentPlayer


def grey(count, offset=0):
    """Frame t is plain grey of brightness 20 t + offset."""
    return np.tile((20 * np.arange(count) + offset).astype(np.uint8)[:, None, None, None], (1, 32, 48, 3))


@pytest.fixture
def player():
    videos = {"slow": grey(9), "fast": grey(5, 5)}
    phases = {"slow": [0] * 4 + [1] * 5, "fast": [0, 0, 1, 1, -1]}
    numbers = {"slow": np.arange(9) * 2, "fast": np.arange(5) + 100}
    maps = {"fast": [0, 0, 0, 0, 0, 1, 2, 3, 4]}
    return AlignmentPlayer(videos, maps, "slow", phases=phases, numbers=numbers)


def test_panels_show_the_mapped_frames_and_their_own_numbers(show, player, tmp_path):
    page = show(player)
    panels = "return [...root.querySelectorAll('figure')].map((f) => Number(f.dataset.number))"
    page.put("Frame", 6)
    assert page.frame == 12 and page.run(panels) == [12, 102]
    for canvas, brightness in ((0, 120), (2, 45)):  # each picture is followed by its ribbon
        assert abs(page.pixels(canvas)[10, 10, 0].astype(int) - brightness) < 4
    page.run("root.focus()")
    page.press("\ue012")  # left
    assert page.run(panels) == [10, 101]
    page.put("as recorded", True)
    assert page.run(panels) == [10, 103]  # frame 5 of 0 to 8 is 2.5 of 0 to 4
    page.wait("window.model.traits.warped === false && window.model.traits.frame === 5")
    player.warped, player.frame = False, 5
    assert player.shown(5) == {"slow": 5, "fast": 3}
    page.press(" ")
    page.wait("Number(root.dataset.frame) !== 10")
    assert page.errors() == []
    page.screenshot(tmp_path / "alignment.png")


def test_the_timeline_has_the_phases_of_all_videos_at_the_frames_of_the_reference(show, player):
    page = show(player)
    assert page.run("return root.querySelector('.mvf-timeline').title") == "Phases, from above: slow, fast"

    def phases(ribbon_at):
        """Phase of each of the 9 frames of the reference, by its colour at this height of the timeline."""
        line = page.pixels(4)[ribbon_at]
        colours = [*player.palette["colours"], player.palette["unlabelled"]]
        rgb = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in colours]
        places = [round(3 + frame / 8 * (len(line) - 6)) for frame in range(9)]
        return [rgb.index(tuple(line[min(place, len(line) - 1), :3])) for place in places]

    assert phases(2) == [0] * 4 + [1] * 5 and phases(24) == [0] * 6 + [1, 1, 2]
    page.put("as recorded", True)
    assert phases(2) == [0] * 4 + [1] * 5 and phases(24) == [0] * 3 + [1] * 4 + [2] * 2


def test_still_shows_what_the_page_shows(player):
    player.frame = 7
    assert player.still().alt == "slow frame 14, phase 1, fast frame 103, phase 1"


def test_nbytes_counts_the_frames_once():
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    few, many = (AlignmentPlayer({"a": noise[:n], "b": noise[:1]}, {"b": [0] * n}, "a") for n in (1, 6))
    stored = sum(map(len, many.sheets)) - sum(map(len, few.sheets))
    assert stored > 5_000 and abs(many.nbytes - few.nbytes - stored) < 500


def test_what_does_not_fit_is_refused():
    a, b = grey(4), grey(3)
    with pytest.raises(ValueError, match="at least 2 videos, got 0"):
        AlignmentPlayer({}, {}, "a")
    with pytest.raises(ValueError, match="at least 2 videos, got 1"):
        AlignmentPlayer({"a": a}, {}, "a")
    with pytest.raises(ValueError, match='reference must be one of a, b, got "c"'):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0] * 4}, "c")
    with pytest.raises(ValueError, match="maps must be a mapping from the names of videos, got list"):
        AlignmentPlayer({"a": a, "b": b}, [[0] * 4], "a")
    with pytest.raises(ValueError, match='"b" is missing'):
        AlignmentPlayer({"a": a, "b": b}, {}, "a")
    with pytest.raises(ValueError, match=r"b: maps must be \(4,\) integers.*got int64 \(3,\)"):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0, 1, 2]}, "a")
    with pytest.raises(ValueError, match="b: maps must be frames 0 to 2, got 0 to 3"):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0, 1, 2, 3]}, "a")
    with pytest.raises(ValueError, match=r"b: frames must be \(T, H, W, 3\) uint8 with at least one frame"):
        AlignmentPlayer({"a": a, "b": b[:0]}, {"b": []}, "b")
    with pytest.raises(ValueError, match=r"a: phases must be \(4,\), one row for each frame, got \(3,\)"):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0] * 4}, "a", phases={"a": [0, 0, 1]})
    with pytest.raises(ValueError, match='phases has "z", which is not among the videos'):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0] * 4}, "a", phases={"z": [0]})
    with pytest.raises(ValueError, match="a: numbers must be increasing"):
        AlignmentPlayer({"a": a, "b": b}, {"b": [0] * 4}, "a", numbers={"a": [0, 2, 1, 3], "b": [0, 1, 2]})


def test_the_notebook_names_the_box_and_what_to_do_with_it():
    script = resources.files("mvf.workbench.widgets").joinpath("alignment.js").read_text(encoding="utf-8")
    label, checked = re.search(r'checkbox\("([^"]*)", (\w+)', script).groups()
    notebook = Path(__file__).resolve().parents[2] / "notebooks" / "align.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["id"] == "player-text")
    assert checked == "false" and label.startswith("as recorded") and " tick “as recorded”" in text
