from __future__ import annotations

import dataclasses

import pytest
import torch

from mvf.config import load_config
from mvf.data.augment import Augmentation, build_augmentation, derive_seed, evaluation_view


def _frames(count=5, height=40, width=56):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, 5, 7), generator=generator) * 255
    still = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").to(torch.uint8)
    return still.expand(count, -1, -1, -1).clone()


def test_result_is_float_in_zero_one_and_square():
    for seed in range(20):
        out = Augmentation(24)(_frames(), seed)
        assert out.shape == (5, 3, 24, 24) and out.dtype == torch.float32 and out.is_contiguous()
        assert 0 <= out.min() and out.max() <= 1


def test_all_frames_get_one_draw():
    for seed in range(20):
        out = Augmentation(24)(_frames(), seed)
        assert torch.equal(out, out[:1].expand_as(out))


def test_a_video_in_pieces_gets_one_draw():
    """Up to rounding: a vectorised loop may round the last pixels of a piece differently."""
    frames = torch.randint(0, 256, (9, 3, 40, 56), dtype=torch.uint8)
    for seed in range(20):
        whole = Augmentation(24)(frames, seed)
        pieces = torch.cat([Augmentation(24)(piece, seed) for piece in frames.split(4)])
        assert torch.allclose(whole, pieces, atol=1e-6)


def test_the_draw_depends_on_the_seed_and_the_frame_size():
    augmentation = Augmentation(24)
    assert torch.equal(augmentation(_frames(), 3), augmentation(_frames(), 3))
    assert not torch.equal(augmentation(_frames(), 3), augmentation(_frames(), 4))


def test_global_random_state_is_neither_read_nor_changed():
    augmentation = Augmentation(24)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augmentation(_frames(), 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augmentation(_frames(), 7), first)


def test_draws_are_those_of_the_global_generator_with_that_seed():
    """What runs from before the augmentation had a generator of its own saw."""
    augmentation = Augmentation(24)
    for seed in range(30):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wanted = augmentation._transform(_frames().contiguous(memory_format=torch.channels_last))
        assert torch.equal(augmentation(_frames(), seed), wanted.clamp(0, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_random_state_of_gpus_is_not_changed():
    before = torch.cuda.get_rng_state()
    Augmentation(24)(_frames(), 7)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_memory_layout_changes_nothing():
    frames = _frames()
    other = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(Augmentation(24)(frames, 5), Augmentation(24)(other, 5))
    assert torch.equal(evaluation_view(frames, 24), evaluation_view(other, 24))


PLAIN = Augmentation(24, (1.0, 1.0), 0.0, (0.8, 0.8, 0.8, 0.2), 0.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 25},
        {"crop_area": (0.2, 0.5)},
        {"flip": 1.0},
        {"jitter_probability": 1.0},
        {"blur_probability": 1.0},
    ],
)
def test_every_setting_changes_the_result_and_the_identity(change):
    changed = dataclasses.replace(PLAIN, **change)
    assert changed.identity != PLAIN.identity
    assert not torch.equal(changed(_frames(), 1), PLAIN(_frames(), 1))


@pytest.mark.parametrize("part", range(4))
def test_every_jitter_changes_the_result(part):
    strengths = [0.0] * 4
    strengths[part] = 0.4
    jitter = dataclasses.replace(PLAIN, jitter=tuple(strengths), jitter_probability=1.0)
    still = dataclasses.replace(PLAIN, jitter=(0, 0, 0, 0), jitter_probability=1.0)
    assert not torch.allclose(jitter(_frames(), 1), still(_frames(), 1), atol=1e-3)


def test_equal_settings_have_one_identity():
    assert Augmentation(24, [0.8, 1]).identity == Augmentation(24, (0.8, 1.0)).identity == Augmentation(24).identity


def test_flip_happens_as_often_as_asked():
    half = dataclasses.replace(PLAIN, flip=0.5)
    plain, flipped = PLAIN(_frames(1, 24, 24), 0), dataclasses.replace(PLAIN, flip=1.0)(_frames(1, 24, 24), 0)
    assert torch.equal(flipped, plain.flip(-1))
    times = sum(torch.equal(half(_frames(1, 24, 24), seed), flipped) for seed in range(200))
    assert 70 < times < 130


@pytest.mark.parametrize("size", range(1, 13))
def test_the_blur_fits_small_pictures(size):
    blurring = dataclasses.replace(PLAIN, image_size=size, blur_probability=1.0)
    assert blurring(_frames(), 0).shape == (5, 3, size, size)


def test_evaluation_view_is_the_whole_frame():
    frames = _frames()
    out = evaluation_view(frames, 24)
    assert out.shape == (5, 3, 24, 24) and out.dtype == torch.float32
    plain = torch.nn.functional.interpolate(frames.float() / 255, (24, 24), mode="bilinear", antialias=True)
    assert (out - plain).abs().max() < 2 / 255
    assert torch.allclose(evaluation_view(frames[..., :24, :24], 24), frames[..., :24, :24] / 255)


def test_config_gives_every_setting():
    config = load_config(
        "penn", backbone="dinov2_vits14", image_size=28, crop_area="0.5,0.9", flip=0.1, jitter="0.1,0.2,0.3,0.4",
        jitter_probability=0.2, blur_probability=0.3,
    )  # fmt: skip
    assert build_augmentation(config) == Augmentation(28, (0.5, 0.9), 0.1, (0.1, 0.2, 0.3, 0.4), 0.2, 0.3)


def test_seeds_are_stable_and_differ_by_every_part():
    assert derive_seed(1, 2, "squat", 0) == 8152723523155153271
    seeds = {derive_seed(*parts) for parts in [(1, 2), (2, 1), (12,), ("1", 2), (1, "2"), ("12",), (1, 2, 0)]}
    assert len(seeds) == 7 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"crop_area": (0.9, 0.8)}, "crop_area must be"),
        ({"crop_area": (0.8,)}, "crop_area must be 2 numbers"),
        ({"jitter": (0.8, 0.8)}, "jitter must be 4 numbers"),
        ({"jitter": (0.8, 0.8, 0.8, 0.6)}, "hue at most 0.5"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"blur_probability": -0.1}, "blur_probability must be"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"image_size": 24, **settings})


@pytest.mark.parametrize(
    "call", [lambda frames: Augmentation(24)(frames, 0), lambda frames: evaluation_view(frames, 24)]
)
def test_bad_frames_are_named(call):
    with pytest.raises(ValueError, match=r"uint8 \(T, 3, H, W\), got torch.float32 \(5, 3, 40, 56\)"):
        call(_frames().float())
    with pytest.raises(ValueError, match=r"\(5, 40, 56, 3\)"):
        call(_frames().permute(0, 2, 3, 1))
