"""A page gets every frame and map, small and separable, and nothing that is not one."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from mvf.workbench.plotting import strongest_patches
from mvf.workbench.widgets import AlignmentPlayer, EmbeddingExplorer, PhaseLabeler, RetrievalBrowser, encoding
from mvf.workbench.widgets.encoding import FOLDER, encode_maps, encode_strip, encode_strips, javascript, stylesheet


def cut(meta, sheets, index):
    """The frame as the page cuts it."""
    sheet, cell = divmod(index, meta["per_sheet"])
    row, column = divmod(cell, meta["columns"])
    top, left = row * meta["cell_height"], column * meta["cell_width"]
    return np.asarray(Image.open(io.BytesIO(sheets[sheet])))[top : top + meta["height"], left : left + meta["width"]]


def grey(levels, height=20, width=30):
    frames = np.asarray(levels, np.uint8)[:, None, None, None]
    return np.broadcast_to(frames, (len(levels), height, width, 3)).copy()


def test_every_frame_is_where_the_page_cuts_it_also_over_several_sheets():
    levels = np.arange(150)
    meta, sheets = encode_strip(grey(levels, 200, 300))
    assert (len(sheets), meta["count"]) == (3, 150)
    assert max(Image.open(io.BytesIO(sheet)).size[0] for sheet in sheets) <= 2048
    for t in (0, 59, 60, 119, 120, 149):
        assert np.abs(cut(meta, sheets, t).astype(int) - t).max() <= 1


def test_neighbouring_frames_do_not_leak_into_each_other():
    meta, sheets = encode_strip(grey([0, 255] * 10, 37, 53))
    for t in range(20):
        assert np.abs(cut(meta, sheets, t).astype(int) - 255 * (t % 2)).max() <= 1


@pytest.mark.parametrize(("size", "stored"), [((560, 280), (280, 140)), ((300, 600), (280, 560)), ((20, 30), (20, 30))])
def test_aspect_is_kept_and_small_frames_are_not_enlarged(size, stored):
    meta, sheets = encode_strip(grey([7], *size))
    assert (meta["height"], meta["width"]) == stored == cut(meta, sheets, 0).shape[:2]


def test_colours_stay_in_their_order():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    frames[..., 0] = 200
    assert np.abs(cut(*encode_strip(frames), 0).astype(int) - [200, 0, 0]).max() < 8


def test_several_videos_share_a_list_of_sheets():
    metas, sheets = encode_strips({"one": grey([10]), "two": grey([20] * 3)})
    assert [(m["name"], m["count"], m["sheets"]) for m in metas] == [("one", 1, [0, 1]), ("two", 3, [1, 2])]
    assert np.abs(cut(metas[1], sheets[1:2], 2).astype(int) - 20).max() <= 1


def test_maps_come_back_to_a_255th_of_their_own_maximum():
    maps = np.random.default_rng(0).random((2, 5, 3, 4, 6)).astype(np.float32) ** 6
    meta, buffer = encode_maps(maps)
    maxima, levels = np.frombuffer(buffer, "<f4", 30), np.frombuffer(buffer, np.uint8, offset=6 * 30)
    found = levels.reshape(maps.shape) / 255 * maxima.reshape(2, 5, 3, 1, 1)
    assert meta == {"shape": [2, 5, 3, 4, 6], "maximum": pytest.approx(maps.max())}
    assert (maxima.reshape(2, 5, 3) == maps.max((-1, -2))).all()
    assert (np.abs(found - maps) <= maps.max((-1, -2), keepdims=True) / 509).all()


def test_number_of_strongest_patches_is_that_of_the_figures():
    maps = np.random.default_rng(1).random((20, 7, 5)) ** 8
    maps[0], maps[1] = 0, 1
    strongest = np.frombuffer(encode_maps(maps, 0.6)[1], "<u2", 20, offset=4 * 20)
    assert strongest.tolist() == [strongest_patches(one, 0.6).sum() for one in maps]


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\)"),
        (np.zeros((3, 8, 8, 3)), "float64"),
    ],
)
def test_what_is_no_video_is_refused_by_name(frames, found):
    with pytest.raises(ValueError, match=f"squat: frames must be .*at least one frame, got .*{found}"):
        encode_strips({"squat": frames})


def test_no_video_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one video, got none"):
        encode_strips({})


@pytest.mark.parametrize("maps", [-np.ones((2, 2)), np.full((2, 2), np.nan), np.ones(4), np.ones((0, 2, 2))])
def test_what_is_no_map_is_refused(maps):
    with pytest.raises(ValueError, match=r"maps must be \(\.\.\., h, w\), finite and non-negative"):
        encode_maps(maps)


def test_pages_load_nothing_and_end_in_one_export():
    for path in sorted(FOLDER.glob("*.js")):
        text = path.read_text()
        code = re.sub(r"//.*", "", text)
        assert not re.search(r"https?:|\bfetch\(|\bimport\b|\beval\(|innerHTML", code), path.name
    assert javascript("overlay.js", "attention.js").count("export default") == 1
    assert not re.search(r"@import|url\(", stylesheet())


WIDGETS = {
    "player": lambda videos, _, **options: AlignmentPlayer(videos, {"b": [0, 1]}, "a", **options),
    "retrieval": lambda videos, _, **options: RetrievalBrowser(videos, dict.fromkeys("ab", np.eye(2)), **options),
    "explorer": lambda videos, _, **options: EmbeddingExplorer(dict.fromkeys("ab", np.eye(2)), videos, **options),
    "labeler": lambda videos, folder, **options: PhaseLabeler(videos, folder / "videos.csv", **options),
}


@pytest.mark.parametrize("widget", WIDGETS.values(), ids=WIDGETS)
def test_every_widget_refuses_what_is_no_height_and_no_mapping(widget, tmp_path):
    videos = dict.fromkeys("ab", grey([1, 2]))
    for height in (0, -5):
        with pytest.raises(ValueError, match=f"height must be at least 1 pixel, got {height}"):
            widget(videos, tmp_path, height=height)
    with pytest.raises(ValueError, match="videos must be a mapping from the names of videos, got list"):
        widget(list(videos.values()), tmp_path)
    with pytest.raises(ValueError, match=r"a: frames must be \(T, H, W, 3\) uint8 .*got \(2, 20, 30, 3\) list"):
        widget(videos | {"a": videos["a"].tolist()}, tmp_path)
    with pytest.raises(ValueError, match='numbers has "golf", which is not among the videos: a, b'):
        widget(videos, tmp_path, numbers=dict.fromkeys(("a", "b", "golf"), [0, 1]))


def test_pictures_have_their_words_in_the_ipython_of_colab_too(monkeypatch):
    """IPython 7 gives images no argument `alt`."""
    shown = encoding.Image
    monkeypatch.setattr(encoding, "Image", lambda data, format: shown(data, format=format))
    video = grey([1, 2])
    assert AlignmentPlayer({"a": video, "b": video}, {"b": [0, 1]}, "a").still().alt.startswith("a")
