"""Figures of attention: the right maps in the right place, on a page, with captions that say what they are."""

import contextlib
import re
import zlib

import matplotlib as mpl
import numpy as np
import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting.attention import attention_by_distance, plot_temporal_attention
from mvf.workbench.plotting.style import PAGE, save_figure
from tests.plotting.examples import frames, texts


def block(name="squat", count=3, height=20, width=30, **options):
    maps = np.random.default_rng(count).random((count, 3, 4, 4))
    heads = maps[:, 0] ** 2
    return plotting.AttentionBlock(frames(count, height, width), maps, heads, ("CLS head 4",), name=name, **options)


def test_attention_grid_is_a_row_a_frame_and_keeps_the_aspect():
    maps = np.random.default_rng(0).random((3, 2, 4, 4))
    heads = np.stack([maps[:, 0]] * 2)
    figure = plotting.plot_attention(
        frames(3, 20, 40), maps, heads, ["CLS head 4", "CLS head 5"], frame_numbers=[5, 9, 30],
        normalise="video", contour_mass=0.6, layer="Layer 12.",
    )  # fmt: skip
    grid = np.array(figure.axes[:-1]).reshape(3, 5)
    assert [axes.get_title() for axes in grid[0]] == ["input", "entity 1", "entity 2", "CLS head 4", "CLS head 5"]
    assert [row[0].get_ylabel() for row in grid] == ["frame 5", "frame 9", "frame 30"]
    caption = " ".join(texts(figure))
    assert "maximum over the frames shown" in caption and "60 %" in caption and "Layer 12." in caption
    figure.draw_without_rendering()
    box = grid[1, 1].get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=0.02)


def test_attention_grid_refuses_maps_of_other_videos():
    maps = np.ones((3, 2, 4, 4))
    with pytest.raises(ValueError, match=r"entities must be \(3, N, h, w\).*\(2, 2, 4, 4\)"):
        plotting.plot_attention(frames(3), maps[:2])
    with pytest.raises(ValueError, match=r"heads must be .*got \(2, 3, 4, 4\)"):
        plotting.plot_attention(frames(3), maps, np.ones((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="both entities and heads are None"):
        plotting.plot_attention(frames(3), None)
    with pytest.raises(ValueError, match="'frame' or 'video', got 'clip'"):
        plotting.plot_attention(frames(3), maps, normalise="clip")


def test_several_videos_stand_side_by_side_with_names_and_their_own_frame_numbers():
    videos = [block("squat", 2, numbers=[3, 7]), block("bowling", 2, numbers=[5, 9])]
    figure = plotting.plot_attention_grid(videos, shown=[1, 2], layer="layer 12", head_rule="an oracle, best per video")
    assert {"squat", "bowling", "frame 3", "frame 9"} <= set(texts(figure))
    left, right = figure.axes[0].get_position(), figure.axes[8].get_position()
    assert [axes.get_title() for axes in figure.axes[:4]] == ["input", "entity 1", "entity 2", "CLS head 4"]
    assert left.y0 == pytest.approx(right.y0) and left.x1 < right.x0
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "maximum over the frame," in caption and "Layer 12." in caption
    assert "Head: an oracle, best per video." in caption and figure.axes[-1].get_xlabel().startswith("attention / maxi")


def test_opacity_1_draws_the_maps_alone_and_the_caption_claims_no_overlay():
    black, white = (np.full((1, 20, 30, 3), shade, np.uint8) for shade in (0, 255))
    maps = np.random.default_rng(0).random((1, 1, 4, 4))
    figures = [plotting.plot_attention(pictures, maps, opacity=1) for pictures in (black, white)]
    drawn = [figure.axes[1].images[0].get_array() for figure in figures]
    assert (drawn[0] == drawn[1]).all() and "opacity" not in figures[0].get_supxlabel()


def test_normalising_by_the_video_keeps_a_weak_frame_dark():
    maps = np.stack([np.full((1, 4, 4), 0.1), np.full((1, 4, 4), 1.0)])
    dark = np.zeros((2, 20, 20, 3), np.uint8)
    weak = {
        word: plotting.plot_attention(dark, maps, normalise=word, opacity=1).axes[1].images[0].get_array().mean()
        for word in ("frame", "video")
    }
    assert weak["video"] < weak["frame"] / 4


def test_teaser_has_maps_in_rows_and_videos_in_columns():
    videos = [block(name, 1, numbers=[5]) for name in ("squat", "bowling", "pull-up")]
    figure = plotting.plot_teaser(videos, entity=2, width=plotting.COLUMN)
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["input", "entity 2", "CLS head 4"]
    assert figure.axes[3].get_ylabel() == "" and {"squat", "bowling", "pull-up", "frame 5"} <= set(texts(figure))
    assert "frame 0" not in texts(plotting.plot_teaser([block(count=1)]))


@pytest.mark.parametrize(
    "count, size, layout",
    [
        (1, (20, 40), {}),
        (12, (40, 20), {}),
        (1, (20, 30), {"transposed": True}),
        (3, (20, 40), {"transposed": True}),
    ],
)
def test_any_grid_fits_a_page_without_words_cut_off(count, size, layout):
    figure = plotting.plot_attention_grid([block("clean_and_jerk_000", count, *size)] * 2, **layout)
    width, height = figure.get_size_inches()
    assert width in (plotting.COLUMN, plotting.PAGE) and height <= 9
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02
    assert min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()) >= 6


def test_grids_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="at least one video to draw, got none"):
        plotting.plot_attention_grid([])
    with pytest.raises(ValueError, match="numbers must be 3, one per frame, or empty, got 2"):
        plotting.plot_attention_grid([block(numbers=[1, 2])])
    with pytest.raises(ValueError, match="do not fit a page of 6.75 x 9.0 in: draw fewer"):
        plotting.plot_attention_grid([block(count=60)])
    with pytest.raises(ValueError, match=r"with at least one frame, got \(0, 20, 30, 3\)"):
        plotting.plot_attention_grid([plotting.AttentionBlock(frames(0), np.ones((0, 1, 4, 4)))])


def pdf_words(path):
    """What the text operators of a PDF of matplotlib draw: strings of two-byte characters, whole or between kerns."""
    words = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL):
        with contextlib.suppress(zlib.error):
            drawn = re.findall(rb"BT\n.*?ET", zlib.decompress(stream), re.DOTALL)
            strings = (b"".join(re.findall(rb"\((.*?)\)", one, re.DOTALL)) for one in drawn)
            words += [string.replace(b"\x00", b"").decode("latin1") for string in strings]
    return words


def test_words_in_a_pdf_are_text_in_truetype(tmp_path):
    _, pdf = plotting.save_figure(plotting.plot_attention_grid([block()], layer="layer 12"), tmp_path / "grid")
    words = pdf_words(pdf)
    assert {"squat", "entity 1", "CLS head 4", "frame 2"} <= set(words)
    assert any("attention / maximum over the frame" in word for word in words)
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()


def random_weights(frames=6, length=6, entities=2):
    return np.random.default_rng(0).dirichlet(np.ones(length * entities), frames).reshape(frames, length, entities)


def test_mean_by_distance_is_a_mean_over_pairs():
    weights, looking = random_weights(3, 8), np.array([1, 4, 6])
    distance, mean = attention_by_distance(weights, looking)
    assert distance.tolist() == list(range(-6, 7))
    for d, row in zip(distance, mean):
        pairs = [weights[i, t + d] for i, t in enumerate(looking) if 0 <= t + d < 8]
        np.testing.assert_allclose(row, np.mean(pairs, axis=0))
    padded = np.concatenate([weights, np.zeros((1, 8, 2))])
    np.testing.assert_allclose(attention_by_distance(padded, [1, 4, 6, 7])[1], mean)


def test_the_figure_shows_maps_shares_and_distances(tmp_path):
    weights = random_weights()
    figure = plot_temporal_attention(weights, ["actor", "background"], title="squat", caption="Block 3 of 3.")
    assert figure.get_size_inches()[0] == PAGE
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["actor", "background"]
    np.testing.assert_allclose(maps[1].images[0].get_array(), weights[..., 1] * 12)
    shares, near = (
        a for a in figure.axes if a.get_ylabel() in ("share of its attention", "attention / uniform") and a.lines
    )
    np.testing.assert_allclose(shares.lines[0].get_ydata(), weights[..., 0].sum(1))
    assert near.lines[0].get_xdata().tolist() == list(range(-5, 6))
    for axes in (shares, near):  # entity 1, the readout, over the others
        assert axes.lines[0].get_zorder() > axes.lines[1].get_zorder()
    for path in save_figure(figure, tmp_path / "temporal"):
        assert path.stat().st_size > 1000
    assert len([a for a in plot_temporal_attention(random_weights(1, 1, 1)).axes if a.images]) == 1


def test_uniform_attention_within_chunks_is_drawn_as_one():
    """Two chunks, of 6 and 4 frames; every second frame looks."""
    looking = np.arange(0, 10, 2)
    bounds = np.where(looking[:, None] < 6, (0, 6), (6, 10))
    time = np.arange(10)
    seen = (time >= bounds[:, :1]) & (time < bounds[:, 1:])
    weights = np.repeat((seen / (2 * seen.sum(1, keepdims=True)))[..., None], 2, axis=-1)
    figure = plot_temporal_attention(weights, frames=looking, bounds=bounds)
    image = next(axes.images[0] for axes in figure.axes if axes.images)
    np.testing.assert_allclose(image.get_array(), seen)
    assert image.get_extent() == [-0.5, 9.5, -1, 9] and image.origin == "lower"
    near = next(axes for axes in figure.axes if axes.get_xlabel() == "distance in time (frames)")
    np.testing.assert_allclose(near.lines[0].get_ydata(), 1)
    assert near.lines[0].get_xdata().tolist() == list(range(-4, 6))
    assert "the frame's chunk" in figure.get_supxlabel()


def test_weights_and_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weights must be \(F, T, N\), finite and non-negative, got \(3, 3\)"):
        plot_temporal_attention(np.ones((3, 3)))
    with pytest.raises(ValueError, match="non-negative"):
        plot_temporal_attention(-random_weights())
    with pytest.raises(ValueError, match="names must have 2 entries"):
        plot_temporal_attention(random_weights(), ["actor"])
    with pytest.raises(ValueError, match="frames must be 6 increasing positions"):
        plot_temporal_attention(random_weights(), frames=[0, 1])
    for bounds in ([[0, 6]], [[0, 7]] * 6, [[3, 6]] * 6, [[0, 3]] * 6):
        with pytest.raises(ValueError, match=r"bounds must be \(6, 2\), a chunk of 0 to 6 around each frame"):
            plot_temporal_attention(random_weights(), bounds=bounds)
