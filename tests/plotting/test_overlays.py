"""Maps and outlines lie where the attention is, and arrays that do not fit are refused."""

import numpy as np
import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting.overlays import named_maps, resized


def frames(count=6, height=20, width=30):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def test_overlay_brightens_what_is_attended_and_keeps_the_frames_size():
    attention = np.zeros((4, 6))
    attention[1, 4] = 1
    picture = plotting.overlay(np.full((40, 60, 3), 90, np.uint8), attention)
    brightness = picture.sum(axis=2)
    assert picture.shape == (40, 60, 3) and picture.dtype == np.uint8
    assert np.hypot(*(np.unravel_index(brightness.argmax(), brightness.shape) - np.array([15, 45]))) < 6
    assert brightness[:, :30].max() < brightness.max() / 2


def test_overlay_is_the_frame_at_opacity_0_and_does_not_stretch_flat_maps():
    frame = frames()[0]
    np.testing.assert_array_equal(plotting.overlay(frame, np.eye(3), opacity=0), frame)
    flat = plotting.overlay(frame, np.ones((3, 3)), opacity=1)
    assert (flat == flat[0, 0]).all() and flat[0, 0].min() > 150  # bright everywhere
    assert plotting.overlay(frame, np.ones((3, 3)), opacity=1, maximum=4.0)[0, 0].sum() < flat[0, 0].sum()


def test_contour_encloses_the_strongest_patches():
    attention = np.full((4, 4), 0.01)
    attention[1, 1] = 1
    picture = plotting.overlay(np.zeros((80, 80, 3), np.uint8), attention, opacity=0, contour_mass=0.6)
    rows, columns = np.nonzero(picture.min(axis=2) == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 20, 39)


@pytest.mark.parametrize("mass", [0.1, 0.6, 1.0])
def test_strongest_patches_are_the_fewest_that_hold_the_mass(mass):
    attention = np.random.default_rng(0).random((5, 7))
    kept = plotting.strongest_patches(attention, mass)
    share = attention[kept].sum() / attention.sum()
    weakest = attention[kept].min() / attention.sum()
    assert share >= mass - 1e-9 and share - weakest < mass and attention[kept].min() >= attention[~kept].max(initial=0)


@pytest.mark.parametrize(
    ("frame", "attention", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), np.ones((2, 2)), r"frame must be .* got \(3, 8, 8\) uint8"),
        (np.zeros((8, 8, 3)), np.ones((2, 2)), "float64"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((1, 2, 2)), r"attention must be .* got \(1, 2, 2\)"),
        (np.zeros((8, 8, 3), np.uint8), -np.ones((2, 2)), "from -1.0 to -1.0"),
        (np.zeros((8, 8, 3), np.uint8), np.full((2, 2), np.nan), "nan"),
    ],
)
def test_overlay_refuses_what_does_not_fit(frame, attention, message):
    with pytest.raises(ValueError, match=message):
        plotting.overlay(frame, attention)


def test_named_maps_take_the_entities_asked_for_and_refuse_others():
    entities = np.random.default_rng(0).random((2, 3, 4, 4))
    maps = named_maps(2, entities, shown=[3, 1])
    assert list(maps) == ["entity 3", "entity 1"] and (maps["entity 3"] == entities[:, 2]).all()
    with pytest.raises(ValueError, match=r"from 1 to 3, got \[0\]"):
        named_maps(2, entities, shown=[0])
    with pytest.raises(ValueError, match="with distinct names"):
        named_maps(2, entities, np.ones((2, 2, 4, 4)), ["head", "head"])


def test_resized_keeps_the_aspect_and_the_mean():
    picture = resized(frames()[0], 10)
    assert picture.shape == (10, 15, 3) and abs(picture.mean() - frames()[0].mean()) < 2
