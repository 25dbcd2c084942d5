"""Motion in closed form: equals a loop over frames, sees neither labels nor places, and says what it cannot read."""

import numpy as np
import pytest
import torch

from mvf.models import motion
from mvf.models.motion import MotionMap

CHANNELS = 6


def clips(lengths=(40, 33, 27), seed=0, channels=CHANNELS):
    """Smooth random walks, so that motion exists at several scales."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, channels)).cumsum(axis=0).astype(np.float32) for n in lengths]


def naive(train, clip, width, offsets, context):
    """The map of section 7 of the design page, frame by frame, in float64 and with NumPy's own decompositions."""

    def normed(v):
        return v / max(np.linalg.norm(v), 1e-12)

    def step_one(m):
        m, rows = m.astype(np.float64), []
        for t in range(len(m)):
            parts = [m[t] - m.mean(axis=0)]
            for n in offsets:
                parts.append(m[min(t + n, len(m) - 1)] - m[max(t - n, 0)])
            rows.append(np.concatenate(parts))
        return rows

    def principal(rows, count):
        _, s, vt = np.linalg.svd(rows - np.mean(rows, axis=0), full_matrices=False)
        return vt[:count], (s / len(rows) ** 0.5)[:count]

    first = np.array([row for m in train for row in step_one(m)])
    a, b = first.mean(axis=0), first.std(axis=0)
    w, s = principal((first - a) / b, 2 * width)

    def step_two(m):
        k = [normed(w @ ((x - a) / b) / np.sqrt(s)) for x in step_one(m)]
        rows = []
        for t in range(len(k)):
            rows.append(np.concatenate([k[min(max(t + o, 0), len(k) - 1)] for o in range(-context, context + 1, 2)]))
        return rows

    second = np.array([row for m in train for row in step_two(m)])
    v, r = principal(second, width)
    return np.array([normed(v @ (c - second.mean(axis=0)) / np.sqrt(r)) for c in step_two(clip)])


def agree(found, wanted, atol=1e-4):
    """The sign of a principal direction is free, so likenesses are compared."""
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=atol)


@pytest.mark.parametrize("offsets, context", [((2, 5, 9), 12), ((1,), 4), ((3, 2), 0)])
def test_it_equals_a_loop_over_frames(offsets, context):
    train, (clip,) = clips(), clips((25,), seed=1)
    fitted = MotionMap.fit(train, 5, offsets, context)
    agree(fitted(clip), naive(train, clip, 5, offsets, context))
    agree(fitted(train[1]), naive(train, train[1], 5, offsets, context))


@pytest.mark.parametrize("count", [1, 3])
def test_with_views_directions_are_divided_by_what_augmentation_changes(count):
    train, rng = clips(), np.random.default_rng(5)
    views = [[clip + rng.normal(size=(1, CHANNELS)) * clip for _ in range(count)] for clip in train]
    fitted = MotionMap.fit(train, 5, views=views)

    def rows(clip):
        clip, frames = clip.astype(np.float64), np.arange(len(clip))
        return np.concatenate([clip - clip.mean(axis=0), *motion.differences(clip, frames, (2, 5, 9))], axis=1)

    first = np.concatenate([rows(clip) for clip in train])
    center, scale = first.mean(axis=0), first.std(axis=0)
    _, s, w = np.linalg.svd((first - center) / scale, full_matrices=False)
    s, w = s[:10] / len(first) ** 0.5, w[:10]
    changes = np.concatenate([rows(v) - rows(clip) for clip, seen in zip(train, views) for v in seen]) / scale @ w.T
    values, vectors = np.linalg.eigh(changes.T @ changes / len(changes) + 0.1 * np.diag(s**2))
    near = (first - center) / scale @ w.T @ vectors * values**-0.25
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    found = np.concatenate([fitted._project(motion._Clip.of(clip, (2, 5, 9))) for clip in train])
    np.testing.assert_allclose(found @ found.T, near @ near.T, atol=1e-4)  # vectors may be turned
    plain = MotionMap.fit(train, 5)(train[0])
    assert not np.allclose(plain @ plain.T, fitted(train[0]) @ fitted(train[0]).T, atol=1e-2)


def test_views_that_change_nothing_leave_the_spread():
    train = clips()
    agree(MotionMap.fit(train, 5, views=[[clip] for clip in train])(train[1]), MotionMap.fit(train, 5)(train[1]))


def test_every_argument_changes_the_result():
    train = clips()
    plain = MotionMap.fit(train, 4)(train[0])
    for other in ({"offsets": (2, 5, 8)}, {"context": 10}, {"width": 3}):
        changed = MotionMap.fit(train, **{"width": 4} | other)(train[0])
        assert changed.shape != plain.shape or not np.allclose(changed @ changed.T, plain @ plain.T, atol=1e-3)


def test_two_fits_are_equal_bit_for_bit_also_with_the_randomised_solver():
    train = clips((700, 400), channels=150)  # 600 numbers a frame, 8 directions: scikit-learn draws
    first, second = (MotionMap.fit(train, 4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.tensors().values(), second.tensors().values()))
    agree(first(train[1]), naive(train, train[1], 4, (2, 5, 9), 12), atol=0.03)


def test_blocks_of_a_long_clip_give_the_whole(monkeypatch):
    fitted, (clip,) = MotionMap.fit(clips(), 8), clips((103,), seed=2)
    whole = fitted(clip)
    for block in (1, 5, 50):  # shorter than the largest offset, and longer
        monkeypatch.setattr(motion, "AT_ONCE", block)
        np.testing.assert_allclose(fitted(clip), whole, atol=1e-5)


def test_directions_are_fitted_on_every_nth_frame_of_many(monkeypatch):
    train = clips((400, 300))
    whole = MotionMap.fit(train, 4)(train[0])
    monkeypatch.setattr(motion, "MOST_FRAMES", 350)
    thinned = MotionMap.fit(train, 4)(train[0])
    assert not np.array_equal(whole, thinned)
    assert (np.abs((whole @ whole.T) - (thinned @ thinned.T)) < 0.3).mean() > 0.9


def test_the_place_of_a_frame_changes_nothing():
    period, (train, steps) = 50, (clips(), clips((50,), seed=3)[0])
    clip = np.tile(steps, (4, 1))
    found = MotionMap.fit(train, 8)(clip)
    inner = slice(period + 21, period + 29)  # 21 frames is how far a vector sees
    for later in (1, 2):
        shifted = slice(inner.start + later * period, inner.stop + later * period)
        np.testing.assert_allclose(found[inner], found[shifted], atol=1e-5)


def test_a_constant_added_to_all_frames_changes_nothing():
    train = clips()
    fitted = MotionMap.fit(train, 8)
    np.testing.assert_allclose(fitted(train[0]), fitted(train[0] + 3), atol=1e-4)
    moved = MotionMap.fit([clip + i for i, clip in enumerate(train)], 8)
    agree(fitted(train[0]), moved(train[0]), atol=1e-3)


def test_vectors_have_unit_norm_and_are_float32():
    found = MotionMap.fit(clips(), 8)(clips()[0])
    assert found.dtype == np.float32 and found.shape == (40, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_still_clip_has_one_vector():
    fitted = MotionMap.fit(clips(), 8)
    still = fitted(np.repeat(clips()[0][:1], 30, axis=0))
    np.testing.assert_allclose(still, np.tile(still[0], (30, 1)), atol=1e-6)
    assert np.linalg.norm(still[0]) == pytest.approx(1)
    other = fitted(np.repeat(clips()[1][:1], 9, axis=0))  # whatever it shows
    np.testing.assert_allclose(still[0], other[0], atol=1e-6)
    np.testing.assert_allclose(fitted(clips()[0][:1])[0], other[0], atol=1e-6)


def test_one_training_video_is_enough_and_directions_that_it_lacks_are_zero():
    (clip,) = clips((9,))
    found = MotionMap.fit([clip], 128)(clip)
    assert found.shape == (9, 128) and not found[:, 9:].any()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("length", [1, 30])
def test_training_videos_in_which_nothing_moves_give_zeros(length):
    fitted = MotionMap.fit([np.ones((length, CHANNELS), np.float32)], 8)
    assert not fitted(clips()[0]).any()
    embeddings = motion.unit(clips((40,), channels=8)[0])
    np.testing.assert_allclose(fitted.add_to(embeddings, clips()[0]), embeddings, atol=1e-6)


def test_a_feature_that_never_varies_counts_for_nothing():
    train = clips()
    wider = [np.concatenate([clip, np.full((len(clip), 1), 7, np.float32)], axis=1) for clip in train]
    agree(MotionMap.fit(wider, 8)(wider[0]), MotionMap.fit(train, 8)(train[0]))
    assert np.isfinite(MotionMap.fit(wider, 8)(clips((30,), seed=4, channels=CHANNELS + 1)[0])).all()


def test_velocity_is_the_difference_of_neighbours_within_the_clip():
    clip = np.array([[0, 0], [1, 0], [4, 0], [9, 5]], np.float32)
    found = motion.velocity_at(clip, np.array([3, 0, 1, 1]), (1, 9))
    np.testing.assert_array_equal(found, [[5, 5, 9, 5], [1, 0, 9, 5], [4, 0, 9, 5], [4, 0, 9, 5]])
    assert found.dtype == np.float32 and not motion.velocity_at(clip[:1], np.array([0]), (1, 9)).any()


def test_velocity_is_scaled_by_all_frames_of_all_videos_and_what_never_moves_by_one():
    videos = [np.concatenate([clip, np.full((len(clip), 1), 7, np.float32)], axis=1) for clip in clips((40, 2, 27))]
    center, scale = (part.numpy() for part in motion.velocity_scaling(videos, (2, 5)))
    rows = np.concatenate([motion.velocity_at(video, np.arange(len(video)), (2, 5)) for video in videos])
    np.testing.assert_allclose(center, rows.mean(axis=0), atol=1e-5)
    still = [CHANNELS, 2 * CHANNELS + 1]
    np.testing.assert_array_equal([center[still], scale[still]], [[0, 0], [1, 1]])
    scaled = np.delete((rows - center) / scale, still, axis=1)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(motion.velocity_scaling([videos[0][:1]], (2,))[1], 1)


def test_what_cannot_be_read_is_named():
    train = clips()
    fitted = MotionMap.fit(train, 8)
    bad = train[0].copy()
    bad[3, 2] = np.nan
    for call in (lambda: fitted(bad), lambda: MotionMap.fit([train[1], bad])):
        with pytest.raises(ValueError, match="1 numbers .* not finite"):
            call()
    with pytest.raises(ValueError, match="2 numbers of the velocity are not finite"):
        motion.velocity_scaling([train[1], bad], (2, 300))
    for shape in ((0, CHANNELS), (5, CHANNELS + 1), (CHANNELS,)):
        with pytest.raises(ValueError, match="mean patches must be"):
            fitted(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="got none"):
        MotionMap.fit([])


def test_tensors_make_the_map_again():
    train = clips()
    fitted = MotionMap.fit(train, 8, (1, 4), 6)
    again = MotionMap.from_tensors(fitted.tensors(), CHANNELS, 8)
    np.testing.assert_array_equal(again(train[0]), fitted(train[0]))
    assert again.offsets == (1, 4) and again.context == 6
    for channels, width in ((CHANNELS + 1, 8), (CHANNELS, 9)):
        with pytest.raises(ValueError, match="another backbone, layers or embedding_size"):
            MotionMap.from_tensors(fitted.tensors(), channels, width)
    with pytest.raises(ValueError, match="directions"):
        MotionMap.from_tensors({k: v for k, v in fitted.tensors().items() if k != "directions"}, CHANNELS, 8)
