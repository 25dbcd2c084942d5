import copy

import numpy as np
import pytest
import torch

from mvf.bank import FeatureBank
from mvf.data import find_config_videos
from mvf.embedding import EmbeddedVideo, embed, embed_features, video_features
from mvf.evaluation.controls import (
    PERMUTATIONS,
    WINDOWS,
    Controls,
    add_motion_map,
    apply_clock,
    backbone_motion,
    embed_controls,
    frame_clock,
    permutations,
    position_clock,
    sine_table,
    untrained_model,
    windows,
)
from mvf.evaluation.scoring import Protocol, score_rounds
from mvf.models import build_model
from mvf.models.motion import MotionMap


@pytest.fixture(scope="module")
def setting():
    from mvf.config import load_config
    from tests.conftest import TINY

    options = {**TINY["data_options"], "train_videos": 2, "val_videos": 2, "idle": 2, "height": 64, "width": 64}
    config = load_config("synthetic", **{**TINY, "data_options": options, "seed": 4})
    torch.manual_seed(99)  # a model that differs from the one before training
    model = build_model(config).eval()
    records = find_config_videos(config, "val")
    untrained = untrained_model(config, model)
    return config, model, untrained, records, embed_controls(model, untrained, records, config, bank=False)


def test_windows_are_a_function_of_the_name_and_hold_half_to_four_fifths():
    for length in (2, 5, 40, 333):
        crops = windows("squat-1", length)
        assert crops == windows("squat-1", length) and len(crops) == WINDOWS
        for crop in crops:
            assert 0 <= crop.start < crop.stop <= length
            assert 0.5 * length - 0.5 <= crop.stop - crop.start <= 0.8 * length + 0.5
    assert windows("squat-1", 333) != windows("squat-2", 333)


def test_permutations_are_a_function_of_the_name():
    orders = permutations("squat-1", 20)
    assert orders.shape == (PERMUTATIONS, 20) and (np.sort(orders, axis=1) == np.arange(20)).all()
    np.testing.assert_array_equal(orders, permutations("squat-1", 20))
    assert (orders[0] != orders[1]).any() and (orders != permutations("squat-2", 20)).any()


@pytest.mark.parametrize("length", [5, 8, 23])
def test_the_clock_is_the_models_own_table(setting, length):
    config, model, *_ = setting
    own = position_clock(config.num_frames, config.fusion_width, model=model)(length)
    np.testing.assert_allclose(own, position_clock(config.num_frames, config.fusion_width)(length), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-6)


def test_the_clock_starts_anew_in_every_chunk_and_the_counter_does_not():
    clock = position_clock(8, 16, chunk=10)
    np.testing.assert_array_equal(clock(25), np.concatenate([clock(10), clock(10), clock(5)]))
    np.testing.assert_array_equal(frame_clock(16)(25)[:10], sine_table(np.arange(10), 16))


def test_clocks_of_equal_length_are_equal():
    videos = [EmbeddedVideo(name, "a", np.random.rand(9, 3), None) for name in "xy"]
    (found,) = apply_clock([videos], frame_clock(8))
    np.testing.assert_array_equal(found[0].embeddings, found[1].embeddings)


def test_motion_equals_a_loop_over_frames():
    mean = np.random.default_rng(0).normal(size=(13, 4))
    motion = backbone_motion(mean)
    for t in range(13):
        parts = [mean[t]] + [mean[min(t + n, 12)] - mean[max(t - n, 0)] for n in (2, 5, 9)]
        np.testing.assert_array_equal(motion[t], np.concatenate(parts))


def test_untrained_is_what_training_starts_from(setting):
    config, model, untrained, *_ = setting
    torch.manual_seed(config.seed)
    start = build_model(config).trained_state()
    assert all(torch.equal(tensor, start[name]) for name, tensor in untrained.trained_state().items())
    assert untrained.backbone is model.backbone and not untrained.training


def test_untrained_leaves_the_generator_alone(setting):
    config, model, *_ = setting
    before = torch.get_rng_state()
    untrained_model(config, model)
    assert torch.equal(before, torch.get_rng_state())


def test_windows_are_embedded_as_whole_videos(setting):
    config, model, untrained, records, controls = setting
    patches, cls = video_features(model, records[0], precision="fp32")
    for i, crop in enumerate(windows(records[0].name, records[0].num_frames)):
        for name, network in (("model", model), ("untrained", untrained)):
            alone = embed_features(network, patches[crop], cls[crop])
            np.testing.assert_allclose(controls.cropped[name][i][0].embeddings, alone, atol=1e-5)
        np.testing.assert_array_equal(controls.cropped["model"][i][0].phases, records[0].phases[crop])
        np.testing.assert_allclose(controls.cropped["backbone"][i][0].embeddings, patches[crop].mean(1), atol=1e-6)
        assert controls.starts[records[0].name][i] == crop.start


def test_reversed_windows_are_embedded_backwards_and_put_back(setting):
    _, model, _, records, controls = setting
    patches, cls = video_features(model, records[0], precision="fp32")
    for i, crop in enumerate(windows(records[0].name, records[0].num_frames)):
        fed = embed_features(model, patches[crop].flip(0), cls[crop].flip(0))
        video = controls.cropped["reversed"][i][0]
        np.testing.assert_allclose(video.embeddings[::-1], fed, atol=1e-5)
        np.testing.assert_array_equal(video.phases, records[0].phases[crop])


def test_motion_sees_a_window_alone_and_no_label(setting):
    *_, records, controls = setting
    fitted = MotionMap.fit([video.embeddings for video in controls.whole["backbone"][0]])
    given = copy.deepcopy(controls)
    for rounds in (given.whole, given.cropped):
        for video in (video for videos in rounds["backbone"] for video in videos):
            video.phases[:] = np.random.default_rng(0).permutation(video.phases)
    for seen in (controls, given):
        add_motion_map(seen, "motion_pca", lambda action: fitted)
    for i, crop in enumerate(windows(records[0].name, records[0].num_frames)):
        alone = fitted(controls.whole["backbone"][0][0].embeddings[crop])
        np.testing.assert_allclose(controls.cropped["motion_pca"][i][0].embeddings, alone, atol=1e-5)
        other = given.cropped["motion_pca"][i][0].embeddings
        np.testing.assert_array_equal(controls.cropped["motion_pca"][i][0].embeddings, other)


def test_shuffled_embeddings_are_put_back(setting):
    _, model, _, records, controls = setting
    patches, cls = video_features(model, records[1], precision="fp32")
    for i, order in enumerate(permutations(records[1].name, records[1].num_frames)):
        fed = embed_features(model, patches[order], cls[order])
        found = controls.whole["shuffled_order"][i][1].embeddings
        np.testing.assert_allclose(found[order], fed, atol=1e-5)


def test_frozen_frame_sees_the_middle_frame_only(setting):
    _, model, _, records, controls = setting
    patches, cls = video_features(model, records[0], precision="fp32")
    middle = [len(patches) // 2] * len(patches)
    frozen = controls.whole["frozen_frame"][0][0].embeddings
    np.testing.assert_allclose(frozen, embed_features(model, patches[middle], cls[middle]), atol=1e-5)


def test_untrained_is_embedded_like_any_model(setting):
    _, _, untrained, records, controls = setting
    for video, wanted in zip(controls.whole["untrained"][0], embed(untrained, records, precision="fp32", bank=False)):
        np.testing.assert_allclose(video.embeddings, wanted.embeddings, atol=1e-5)


def test_features_that_a_bank_holds_are_read(setting, tmp_path, monkeypatch):
    config, model, untrained, records, computed = setting
    monkeypatch.setenv("MVF_CACHE", str(tmp_path))
    bank = FeatureBank(model.backbone, None, config.precision)
    bank.ensure(records)
    monkeypatch.setattr(model.backbone, "intermediates", lambda *_: pytest.fail("the backbone runs"))
    found = embed_controls(model, untrained, records, config)
    wanted = embed_controls(model, untrained, records, config, bank)
    for name, rounds in found.cropped.items():
        for video, other, near in zip(rounds[0], wanted.cropped[name][0], computed.cropped[name][0]):
            np.testing.assert_array_equal(video.embeddings, other.embeddings)
            np.testing.assert_allclose(video.embeddings, near.embeddings, atol=0.02)


def test_shuffling_takes_what_a_clock_knows():
    rng = np.random.default_rng(0)
    clock, splits = position_clock(32, 32), {"train": [], "val": []}
    for split, videos in splits.items():
        for number in range(6):
            phases = np.repeat([0, 1, 2], rng.integers(9, 13, 3))
            videos.append(EmbeddedVideo(f"{split}{number}", "a", clock(len(phases)), phases))
    protocol = Protocol({"a": 3})

    def shuffled(videos):  # a model that only counts gives the frame fed at place j the clock of j
        orders = [permutations(video.name, len(video.phases)) for video in videos]
        return [
            [EmbeddedVideo(v.name, "a", v.embeddings[order[i].argsort()], v.phases) for v, order in zip(videos, orders)]
            for i in range(PERMUTATIONS)
        ]

    whole = score_rounds([splits["train"]], [splits["val"]], protocol).means()
    fallen = score_rounds(shuffled(splits["train"]), shuffled(splits["val"]), protocol, refit=True).means()
    assert whole["classification"] > 0.9 and fallen["classification"] < 0.5
    assert whole["kendall_tau"] > 0.99 and abs(fallen["kendall_tau"]) < 0.2


def test_a_motion_map_is_that_of_the_action_of_a_video():
    found = Controls()
    videos = [EmbeddedVideo(name, name, np.random.default_rng(i).random((30, 8)), None) for i, name in enumerate("ab")]
    maps = {video.action: MotionMap.fit([video.embeddings], 4, (1, 3), 4) for video in videos}
    found.whole["backbone"] = found.cropped["backbone"] = [videos]
    add_motion_map(found, "motion_skip", maps.__getitem__)
    for video, moved in zip(videos, found.whole["motion_skip"][0]):
        np.testing.assert_array_equal(moved.embeddings, maps[video.action](video.embeddings))
