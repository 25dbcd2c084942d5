"""Films show the right frame beside its maps, play in a browser, and stay small."""

import av
import numpy as np
import pytest
from PIL import Image

from mvf.workbench import plotting
from mvf.workbench.plotting import movies
from tests.plotting.examples import frames


def walk(count=60, height=128, width=144):
    """A bright square that walks over a noisy photograph-like ground, and maps that follow it."""
    random = np.random.default_rng(0)
    ground = np.add.outer(np.linspace(40, 160, height), np.linspace(0, 60, width))[..., None] * [1, 0.8, 0.6]
    film = np.clip(ground + random.normal(0, 3, (count, height, width, 3)), 0, 255).astype(np.uint8)
    maps = np.full((count, 3, 16, 16), 0.02)
    for t in range(count):
        left = 10 + t * (width - 50) // count
        film[t, 40:90, left : left + 25] = (30, 200, 220)
        maps[t, :, 6:11, left * 16 // width + 1] = 1
    return film, maps


def test_mp4_of_odd_size_decodes_to_every_frame(tmp_path):
    path = plotting.save_animation(frames(7, 33, 51), tmp_path / "a.mp4", fps=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, float(stream.average_rate)) == (52, 34, 10)
        assert len(list(container.decode(stream))) == 7


def test_gif_has_every_frame_and_its_tempo(tmp_path):
    with Image.open(plotting.save_animation(frames(7), tmp_path / "a.gif", fps=10)) as picture:
        assert (picture.n_frames, picture.info["duration"], picture.size) == (7, 100, (30, 20))
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_a_film_shows_each_frame_beside_its_own_maps():
    shades = np.stack([np.full((40, 60, 3), 20 * t, np.uint8) for t in range(5)])
    maps = np.zeros((5, 2, 5, 5))
    maps[range(5), 0, range(5), range(5)] = 1
    film = plotting.attention_movie(shades, maps, maps[:, 1] + 1, numbers=[0, 2, 4, 6, 8], height=40, opacity=1)
    assert film.shape == (5, 40 + 2 * 18, 4 * 62 - 2, 3) and film.dtype == np.uint8
    for t, picture in enumerate(film[:, 18:-18]):
        assert (picture[:, :60] == 20 * t).all()
        row, column = np.unravel_index(picture[:, 62:122].sum(axis=2).argmax(), (40, 60))
        assert (row // 8, column // 12) == (t, t)
        assert (picture[:, 186:] == picture[0, 186]).all()  # the head is equal everywhere


def test_bands_name_every_panel_and_the_frame():
    maps = np.ones((2, 1, 4, 4))
    film = plotting.attention_movie(np.zeros((2, 40, 40, 3)), maps, height=80, title="squat", numbers=[1, 88])
    assert (film[0, :18, :80] != film[1, :18, :80]).any()  # another number
    assert (film[0, :18, 82:] == film[1, :18, 82:]).all() and film[0, :18, 82:].min() < 100  # the same heading
    other = plotting.attention_movie(np.zeros((2, 40, 40, 3)), maps, height=80, title="bowling")
    assert (film[0, -18:] != other[0, -18:]).any()


def test_a_constant_map_of_the_video_does_not_flicker_and_per_frame_does():
    maps = np.full((2, 1, 4, 4), 0.5)
    maps[1, 0, 0, 0] = 1.0
    dark = np.zeros((2, 40, 40, 3), np.uint8)
    corner = {}
    for word in ("video", "frame"):
        film = plotting.attention_movie(dark, maps, height=40, normalise=word)
        corner[word] = film[:, 18 + 35, -5].astype(int)
    assert (corner["video"][0] == corner["video"][1]).all() and (corner["frame"][0] != corner["frame"][1]).any()


def test_one_peak_in_a_film_does_not_darken_the_other_frames():
    maps = np.full((5, 1, 4, 4), 0.5)
    peak = maps.copy()
    peak[2, 0, 0, 0] = 50.0
    films = [plotting.attention_movie(np.zeros((5, 40, 40, 3)), one, height=40) for one in (maps, peak)]
    np.testing.assert_array_equal(films[0][[0, 1, 3, 4]], films[1][[0, 1, 3, 4]])


@pytest.mark.parametrize("normalise, whose", [("video", "median frame"), ("frame", "frame")])
def test_the_lower_band_says_which_maximum_it_is(monkeypatch, normalise, whose):
    written = []
    monkeypatch.setattr(movies, "_text_band", lambda text, width: written.append(text) or np.zeros((18, width, 3)))
    plotting.attention_movie(np.zeros((2, 40, 40, 3)), np.ones((2, 1, 4, 4)), height=40, normalise=normalise)
    assert f"attention / the {whose}'s maximum" in written


def test_mp4_plays_in_a_browser_before_it_is_loaded(tmp_path):
    path = plotting.save_animation(frames(24, 33, 51), tmp_path / "a.mp4", fps=12)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        assert container.duration / av.time_base == pytest.approx(2, abs=0.01)
        colours = next(container.decode(video=0)).to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(colours, frames(1, 33, 51).reshape(-1, 3).mean(axis=0), atol=6)


def test_a_gif_of_sixty_frames_and_four_panels_is_small_and_keeps_its_colours(tmp_path):
    shots, maps = walk()
    film = plotting.attention_movie(shots, maps, height=140)
    path = plotting.save_animation(film, tmp_path / "a.gif", fps=12)
    assert path.stat().st_size < 2.5e6
    with Image.open(path) as picture:
        durations, errors = 0, []
        for t in range(picture.n_frames):
            picture.seek(t)
            durations += picture.info["duration"]
            if picture.n_frames == 60:
                errors.append(np.abs(np.asarray(picture.convert("RGB"), int) - film[t]).mean())
        assert picture.n_frames == 60 and durations == 5000  # 12 frames a second for 5 s: rounding does not add up
    assert max(errors) < 6


@pytest.mark.parametrize("name, fps", [("a.gif", 0), ("a.mp4", -1), ("a.mp4", float("nan")), ("a.gif", 60)])
def test_files_refuse_a_tempo_they_cannot_play(tmp_path, name, fps):
    with pytest.raises(ValueError, match=f"fps of a {name[1:]} must be above 0 and at most .* got {fps}"):
        plotting.save_animation(frames(), tmp_path / name, fps)
    assert not list(tmp_path.iterdir())


def test_films_refuse_no_frames_other_names_and_maps_of_another_video(tmp_path):
    with pytest.raises(ValueError, match=".gif or .mp4, got 'a.avi'"):
        plotting.save_animation(frames(), tmp_path / "a.avi")
    with pytest.raises(ValueError, match=r"at least one frame, got \(0, 20, 30, 3\)"):
        plotting.save_animation(frames(0), tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"at least one frame, got \(0, 20, 30, 3\)"):
        plotting.attention_movie(frames(0), np.ones((0, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"entities must be \(6, N, h, w\).*got \(5, 1, 4, 4\)"):
        plotting.attention_movie(frames(), np.ones((5, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"heads must be \(6, h, w\).*got \(1, 7, 4, 4\)"):
        plotting.attention_movie(frames(), None, np.ones((7, 4, 4)))
    with pytest.raises(ValueError, match="numbers must be 6, one per frame, got 2"):
        plotting.attention_movie(frames(), np.ones((6, 1, 4, 4)), numbers=[1, 2])
    with pytest.raises(ValueError, match="'frame' or 'video', got 'clip'"):
        plotting.attention_movie(frames(), np.ones((6, 1, 4, 4)), normalise="clip")
    with pytest.raises(ValueError, match="at least 32 pixels, got 8"):
        plotting.attention_movie(frames(), np.ones((6, 1, 4, 4)), height=8)
