"""Motion in a run: the skip, fitted after training and added to whole clips, and velocity as input of the tokens."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import mvf
from mvf.bank import FeatureBank, build_bank
from mvf.chunks import Chunking
from mvf.data import find_config_videos
from mvf.data.dataset import collate
from mvf.embedding import (
    add_velocity,
    embed,
    embed_chunks,
    embed_features,
    fingerprint,
    fuse_video,
    mean_patches,
    pool_video,
    video_features,
)
from mvf.evaluation.controls import embed_controls, permutations, untrained_model, windows
from mvf.evaluation.knockouts import knock_outs
from mvf.evaluation.report import header, in_plain_words
from mvf.models.motion import MotionMap
from mvf.models.mvformer import MVFormer
from mvf.training import trainer as trainer_module
from mvf.training.run import load_run, read_state
from mvf.training.trainer import Trainer
from mvf.workbench.notebook import model_table
from mvf.workbench.notebook.session import embed_splits, open_model, report_on
from tests.data.footage import write_images

SKIP = {"motion_skip": 2.5, "motion_offsets": "1,3", "motion_context": 4, "motion_weighting": "spread"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a skip and the same run without."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("motion")
    plain, skip = (mvf.load_config("synthetic", **{**TINY, "features": "banked", **given}) for given in ({}, SKIP))
    return mvf.train(plain, folder / "plain"), mvf.train(skip, folder / "skip")


@pytest.fixture(scope="module")
def records(runs):
    return find_config_videos(runs[0].config, "val")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def skip_tensors(run):
    return {name: t for name, t in run.model.trained_state().items() if name.startswith("motion.")}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_changes_no_trained_weight_and_off_is_the_model_of_before(runs):
    plain, skip = runs
    assert plain.model.motion is None and plain.history[0]["loss"] == skip.history[0]["loss"]
    assert skip_tensors(skip) and not skip_tensors(plain)
    trained = {name: t for name, t in skip.model.trained_state().items() if not name.startswith("motion.")}
    assert equal(trained, plain.model.trained_state())
    assert fingerprint(plain.model) != fingerprint(skip.model)


def test_embeddings_are_the_sum_of_unit_vectors(runs, records):
    plain, skip = runs
    for z, e, record in zip(*(embed(run.model, records, bank=False) for run in runs), records, strict=True):
        motion = skip.model.motion(mean_patches(skip.model, record))
        np.testing.assert_allclose(e.embeddings, unit(motion + z.embeddings / 2.5), atol=1e-6)
        assert e.embeddings.dtype == np.float32 and np.abs(e.embeddings - z.embeddings).max() > 0.1


def test_without_it_a_model_embeds_as_it_was_trained(runs, records):
    plain, skip = runs
    (trained,) = embed(skip.model.without_skip(), records[:1], bank=False)
    np.testing.assert_array_equal(trained.embeddings, embed(plain.model, records[:1], bank=False)[0].embeddings)
    assert skip.model.motion is not None  # the model itself keeps it


def test_it_is_fitted_to_the_clean_features_of_all_training_videos(runs):
    _, skip = runs
    bank = FeatureBank(skip.model.backbone, None, "fp32")
    train = find_config_videos(skip.config, "train")
    means = [bank.read(record)[0].float().mean(dim=1).numpy() for record in train]
    wanted = dataclasses.replace(MotionMap.fit(means, 8, (1, 3), 4), strength=2.5)
    assert equal(skip.model.motion.tensors(), wanted.tensors())
    assert skip.model.motion.offsets == (1, 3) and skip.model.motion.context == 4


def test_a_report_has_the_skip_alone_where_it_is_not_motion_pca(runs, tmp_path):
    _, skip = runs
    run = mvf.train(dataclasses.replace(skip.config, motion_weighting="augmentation"), tmp_path / "run")
    model, config = open_model(run.folder)
    report = report_on(model, config, embed_splits(model, config))
    assert {"motion_pca", "motion_skip"} <= report["cropped"].keys() & report["cropped_differences"].keys()
    alone = report["cropped"]["motion_skip"]["classification"]
    assert f"movement in closed form {100 * alone:.0f} %" in in_plain_words(report)
    assert report["alignment_error_controls"]["motion_skip"].keys() == {"whole", "window"}
    assert report["controls"]["motion_skip"].keys() == report["controls"]["motion_pca"].keys()
    assert "motion_skip" not in report_on(skip.model, skip.config, embed_splits(skip.model, skip.config))["cropped"]


def test_weighting_by_augmentation_reads_the_bank_that_training_used(runs, tmp_path):
    _, skip = runs
    config = dataclasses.replace(skip.config, motion_weighting="augmentation")
    run = mvf.train(config, tmp_path / "run")
    train = find_config_videos(config, "train")
    bank = build_bank(config, run.model.backbone, train)
    clean = FeatureBank(run.model.backbone, None, "fp32")
    means = [clean.read(record)[0].float().mean(dim=1).numpy() for record in train]
    views = [[bank.read(r, n)[0].float().mean(dim=1).numpy() for n in range(config.bank_views)] for r in train]
    wanted = dataclasses.replace(MotionMap.fit(means, 8, (1, 3), 4, views), strength=2.5)
    assert equal(run.model.motion.tensors(), wanted.tensors())
    assert not equal(run.model.motion.tensors(), skip.model.motion.tensors())


def test_forward_and_fuse_do_not_have_it(runs, records):
    plain, skip = runs
    patches, cls = video_features(plain.model, records[0], precision="fp32")
    with torch.no_grad():
        first, second = (run.model.fuse(patches[None], cls=cls[None]) for run in runs)
    assert torch.equal(first.embeddings, second.embeddings) and torch.equal(first.raw_embeddings, second.raw_embeddings)
    assert np.abs(embed_features(skip.model, patches, cls) - embed_features(plain.model, patches, cls)).max() > 0.1
    maps = [mvf.temporal_attention(run.model, records[0]).weights for run in runs]
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("chunking", [Chunking(2), Chunking(7), Chunking(16, 4), Chunking(16, 4, fade=True)])
def test_in_chunks_the_motion_is_that_of_the_whole_video(runs, records, chunking, tmp_path):
    plain, skip = runs
    record = records[0]
    motion = skip.model.motion(mean_patches(skip.model, record))
    settings = dataclasses.asdict(chunking)
    (z,), (e,) = (embed(run.model, [record], bank=False, **settings) for run in (plain, skip))
    np.testing.assert_allclose(e.embeddings, unit(motion + z.embeddings / 2.5), atol=1e-6)
    (kept,) = embed(skip.model, [record], out=tmp_path, bank=False, **settings)
    np.testing.assert_array_equal(kept.embeddings, e.embeddings)
    whole = list(embed_chunks(skip.model, record, chunking))
    later = list(embed_chunks(skip.model, record, chunking, start=whole[1].start))
    np.testing.assert_array_equal(np.concatenate([c.embeddings for c in later]), e.embeddings[whole[1].start :])


def test_it_is_read_back_with_the_run_and_a_finished_run_keeps_it(runs, records, tmp_path, monkeypatch):
    _, skip = runs
    loaded = load_run(skip.folder).model
    assert fingerprint(loaded) == fingerprint(skip.model)
    np.testing.assert_array_equal(embed(loaded, records)[0].embeddings, embed(skip.model, records)[0].embeddings)
    monkeypatch.setattr(MotionMap, "fit", None)
    shutil.copytree(skip.folder, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()  # it is written anew from state.pt
    again = mvf.train(skip.config, tmp_path / "run")
    assert fingerprint(again.model) == fingerprint(load_run(tmp_path / "run").model) == fingerprint(skip.model)


def test_stopped_between_training_and_fit_a_run_goes_on_to_the_same(runs, tmp_path, monkeypatch):
    _, skip = runs
    with monkeypatch.context() as stopped:
        stopped.setattr(MotionMap, "fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mvf.train(skip.config, tmp_path / "run")
    assert load_run(tmp_path / "run").model.motion is None
    again = mvf.train(skip.config, tmp_path / "run")
    assert fingerprint(again.model) == fingerprint(skip.model)
    assert "motion.directions" in read_state(tmp_path / "run" / "state.pt")["model"]


def test_online_it_is_fitted_to_the_same_features_up_to_rounding(runs, records, tiny, tmp_path):
    online = mvf.train(tiny(**SKIP, epochs=1), tmp_path / "run")
    other = MotionMap.fit([mean_patches(online.model, r) for r in records], 8, (1, 3), 4)  # of validation videos
    means = mean_patches(online.model, records[0])
    likeness = [motion(means) @ motion(means).T for motion in (online.model.motion, runs[1].model.motion, other)]
    found, wanted, wrong = likeness  # of directions, which have no sign
    assert abs(found - wanted).max() < 0.02 < abs(found - wrong).max()  # the bank holds bfloat16


def test_a_run_of_before_opens_and_starts_others_and_a_skip_is_not_taken_over(runs, tiny, tmp_path):
    plain, skip = runs
    shutil.copytree(plain.folder, tmp_path / "old")
    settings = json.loads((tmp_path / "old" / "config.json").read_text())
    for name in (*SKIP, "velocity"):
        del settings[name]
    (tmp_path / "old" / "config.json").write_text(json.dumps(settings))
    assert fingerprint(load_run(tmp_path / "old").model) == fingerprint(plain.model)
    assert (
        mvf.train(dataclasses.replace(plain.config, motion_weighting="spread"), tmp_path / "old").model.motion is None
    )
    for start in (tmp_path / "old", skip.folder):
        begun = mvf.train(tiny(init_from=str(start), epochs=0), tmp_path / f"from-{start.name}")
        assert equal(begun.model.trained_state(), plain.model.trained_state())
        fitted = mvf.train(tiny(init_from=str(start), epochs=0, **SKIP, seed=5), tmp_path / f"skip-{start.name}")
        assert fitted.model.motion is not None and load_run(fitted.folder).model.motion is not None


def test_labels_and_validation_videos_change_nothing(tmp_path):
    from tests.conftest import TINY

    options = {name: value for name, value in TINY.items() if name != "data_options"}
    made, shown = [], {"video0": "train", "video1": "train", "video2": "val"}
    for case, labels in (("all", "0;5"), ("without val", "0;3")):
        rows = [f"{name},{split},{labels}" for name, split in shown.items() if case == "all" or split == "train"]
        for row in rows:
            name = row.split(",")[0]
            write_images(tmp_path / case / name, count=12 + int(name[-1]))
        (tmp_path / case / "videos.csv").write_text("\n".join(["path,split,phases", *rows]) + "\n")
        config = mvf.load_config("folder", **{**options, **SKIP, "epochs": 1, "data_root": str(tmp_path / case)})
        made.append(skip_tensors(mvf.train(config, tmp_path / f"run of {case}")))
    assert made[0] and equal(*made)


def test_one_model_per_action_has_one_skip_of_all_actions(tmp_path, runs, tiny):
    run = mvf.train(tiny(**SKIP, per_action=True, epochs=1, features="banked"), tmp_path / "run")
    first, second = (run.model.of(action).motion.tensors() for action in run.model.actions)
    assert equal(first, second)
    assert equal(first, runs[1].model.motion.tensors())
    again = mvf.train(run.config, tmp_path / "run")
    assert fingerprint(again.model) == fingerprint(run.model)
    trained = run.model.without_skip()
    assert all(trained.of(action).motion is None for action in trained.actions)
    assert all(run.model.of(action).motion is not None for action in run.model.actions)
    assert trained.without_skip() is trained


def test_controls_of_the_trained_model_have_it_and_the_untrained_has_not(runs, records):
    plain, skip = runs
    config, model = skip.config, skip.model
    without = embed_controls(plain.model, untrained_model(config, plain.model), records, config, bank=False)
    found = embed_controls(model, untrained_model(config, model), records, config, bank=False)
    record, mean = records[0], mean_patches(model, records[0])
    for name in ("untrained", "untrained_shuffled", "backbone"):
        np.testing.assert_array_equal(found.whole[name][0][0].embeddings, without.whole[name][0][0].embeddings)

    def wanted(name, round_, order, group="whole"):
        z = getattr(without, group)[name][round_][0].embeddings
        back = np.argsort(order, kind="stable") if len(set(order)) == len(order) else np.arange(len(order))
        return unit(model.motion(mean[order])[back] + z / 2.5)

    orders = {
        "frozen_frame": [np.full(len(mean), len(mean) // 2)],
        "shuffled_order": permutations(record.name, len(mean)),
    }
    for name, each in orders.items():
        for i, order in enumerate(each):
            np.testing.assert_allclose(found.whole[name][i][0].embeddings, wanted(name, i, order), atol=1e-5)
    for i, crop in enumerate(windows(record.name, len(mean))):
        frames = np.arange(len(mean))[crop]
        for name, order in (("model", frames), ("reversed", frames[::-1])):
            np.testing.assert_allclose(
                found.cropped[name][i][0].embeddings, wanted(name, i, order, "cropped"), atol=1e-5
            )


def test_knock_outs_are_about_the_trained_part(runs, records):
    plain, skip = runs
    train = find_config_videos(plain.config, "train")
    assert (
        knock_outs(skip.model, train, records, skip.config)["scores"]
        == (knock_outs(plain.model, train, records, plain.config)["scores"])
    )


def test_a_skip_of_another_backbone_is_refused(runs, tmp_path):
    _, skip = runs
    state = skip.model.trained_state()
    state["motion.center"] = state["motion.center"][:-1]
    with pytest.raises(ValueError, match="another backbone, layers or embedding_size"):
        MVFormer(skip.model.architecture).load_trained_state(state)
    shutil.copytree(skip.folder, tmp_path / "run")
    text = (tmp_path / "run" / "model_config.json").read_text()
    (tmp_path / "run" / "model_config.json").write_text(text.replace("   2,\n   4", "   1,\n   4"))
    with pytest.raises(ValueError, match="another model's"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"motion_skip": -1}, "motion_skip must be 0"),
        ({"motion_skip": float("nan")}, "motion_skip must be a finite"),
        ({"motion_offsets": ""}, "motion_offsets must be frames"),
        ({"motion_offsets": "2,0"}, "motion_offsets must be frames"),
        ({"motion_context": 3}, "even number"),
        ({"motion_weighting": "noise"}, 'motion_weighting "noise"'),
        ({"motion_skip": 1, "motion_weighting": "augmentation", "features": "online"}, "reads the views of a bank"),
        ({"motion_skip": 1, "trainable_blocks": 1, "features": "online"}, "frozen features"),
        ({"velocity": True, "features": "online"}, 'use features="banked" and trainable_blocks=0'),
        ({"velocity": True, "features": "banked", "trainable_blocks": 1}, "stores frozen features"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_a_report_of_the_run_says_so_and_judges_what_embed_gives(runs):
    _, skip = runs
    model, config = open_model(skip.folder)
    splits = embed_splits(model, config)
    report = report_on(model, config, splits)
    assert report["motion_skip"] == 2.5 and set(report["cropped"]) >= {"model", "motion_pca", "reversed"}
    np.testing.assert_array_equal(
        splits.val[0].embeddings, embed(skip.model, splits.val_records[:1], cache=splits.cache)[0].embeddings
    )


# velocity as input --------------------------------------------------------------------------------------------------

VELOCITY = {"velocity": True, "features": "banked", "motion_offsets": "1,3"}


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A run whose tokens have velocity."""
    from tests.conftest import TINY

    return mvf.train(mvf.load_config("synthetic", **{**TINY, **VELOCITY}), tmp_path_factory.mktemp("velocity") / "run")


def naive(mean, t):
    """Differences over 1 and 3 frames at frame t of a clip with mean patches (T, C)."""
    parts = [mean[min(t + n, len(mean) - 1)] - mean[max(t - n, 0)] for n in (1, 3)]
    return np.concatenate(parts)


def scaled(model, velocity):
    return (velocity - model.velocity_center.numpy()) / model.velocity_scale.numpy()


def test_clips_have_the_velocity_of_their_source_videos_and_its_spread_is_stored(moving, tiny, tmp_path):
    trainer = Trainer(tiny(**VELOCITY, num_frames=40), tmp_path, Accelerator(cpu=True))
    dataset, model = trainer._dataset(), trainer.model
    means = [mean_patches(model, record, FeatureBank(model.backbone, None, "fp32")) for record in trainer.records]
    rows = np.concatenate([[naive(mean, t) for t in range(len(mean))] for mean in means])
    np.testing.assert_allclose(model.velocity_center, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.velocity_scale, rows.std(axis=0), rtol=1e-4)
    assert equal(model.velocity_scaling, moving.model.velocity_scaling)
    clip = collate([dataset[1, 2], dataset[1, 0]])
    assert clip.velocity.shape == (2, 2, 40, 768) and not clip.valid.all(), "padding is of the test"
    for b, video in enumerate((2, 0)):
        for v in range(2):
            wanted = [naive(means[video], t) for t in clip.frame_index[b, v].tolist()]
            np.testing.assert_array_equal(clip.velocity[b, v], wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "tcc", "token_merge": 0.5, "bank_channels": 16},
        {"objective": "vsp_p", "pooling": "mean", "readout": "mean"},
        {"motion_skip": 1.0, "overlap_penalty": 0.1, "sampling": "published"},
    ],
)
def test_it_trains_and_every_parameter_learns_from_it(tiny, tmp_path, changes, monkeypatch):
    read = []
    monkeypatch.setattr(trainer_module, "mean_patches", lambda *args: read.append(args[1].name) or mean_patches(*args))
    run = mvf.train(tiny(**VELOCITY, **changes, epochs=1), tmp_path / "run")
    assert len(read) == len(set(read)) == 6, "each video is read once, for the skip too"
    torch.manual_seed(run.config.seed)
    start = mvf.build_model(run.config).token_mlp[1].weight
    columns = (run.model.token_mlp[1].weight != start)[:, run.model.pooling.width :][:, :768]
    assert columns.all(dim=0).float().mean() > 0.9 and np.isfinite(run.history[0]["loss"])
    assert equal(load_run(run.folder).model.trained_state(), run.model.trained_state())


def test_stopped_and_resumed_with_other_workers_it_is_the_same(moving, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        mvf.train(moving.config, tmp_path / "run", on_epoch=lambda row: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "run" / "model.safetensors").unlink()  # it is written anew from state.pt
    again = mvf.train(dataclasses.replace(moving.config, workers=1), tmp_path / "run")
    assert fingerprint(again.model) == fingerprint(moving.model) == fingerprint(load_run(again.folder).model)


def test_features_that_are_not_finite_stop_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "mean_patches", lambda *args: mean_patches(*args) * np.nan)
    with pytest.raises(ValueError, match="numbers of the velocity are not finite"):
        mvf.train(tiny(**VELOCITY), tmp_path / "run")


def test_a_start_brings_its_spread_and_one_without_velocity_is_refused(moving, runs, tiny, tmp_path):
    settings = {**VELOCITY, "data_seed": 5}
    begun = mvf.train(tiny(init_from=str(moving.folder), epochs=1, **settings), tmp_path / "begun")
    assert equal(begun.model.velocity_scaling, moving.model.velocity_scaling)
    for start, changes in ((runs[0].folder, {}), (moving.folder, {"motion_offsets": "1,4"})):
        with pytest.raises(ValueError, match=r"velocity_offsets .*they must be the same"):
            mvf.train(tiny(init_from=str(start), **{**settings, **changes}), tmp_path / "refused")


@pytest.mark.parametrize("chunking", [Chunking(7), Chunking(16, 4, fade=True, one_clock=True)])
def test_in_chunks_velocity_is_that_of_the_whole_video(moving, records, chunking, tmp_path):
    model, record, settings = moving.model, records[0], dataclasses.asdict(chunking)
    tokens, mean = pool_video(model, record, precision="fp32"), mean_patches(model, record, precision="fp32")
    wanted = scaled(model, np.stack([naive(mean, t) for t in range(len(mean))]))
    for entity in range(3):
        np.testing.assert_allclose(tokens[:, entity, -768:].numpy(), wanted, atol=1e-5)
    (embedded,) = embed(model, [record], bank=False, **settings)
    np.testing.assert_allclose(embedded.embeddings, fuse_video(model, tokens, **settings), atol=1e-6)
    (kept,) = embed(model, [record], out=tmp_path, bank=False, **settings)
    np.testing.assert_array_equal(kept.embeddings, embedded.embeddings)
    whole = list(embed_chunks(model, record, chunking))
    later = list(embed_chunks(model, record, chunking, start=whole[1].start))
    np.testing.assert_array_equal(np.concatenate([c.embeddings for c in later]), kept.embeddings[whole[1].start :])


def test_controls_have_the_velocity_of_what_is_fed(moving, records):
    model, record = moving.model, records[0]
    untrained = untrained_model(moving.config, model)
    assert equal(untrained.velocity_scaling, model.velocity_scaling)
    found = embed_controls(model, untrained, [record], moving.config, bank=False)
    patches, cls = video_features(model, record, precision="fp32")
    frames = np.arange(len(patches))

    def fed(network, order):
        return embed_features(network, patches[order.copy()], cls[order.copy()])

    def agree(rounds, wanted):
        np.testing.assert_allclose(rounds[0].embeddings, wanted, atol=1e-5)

    agree(found.whole["untrained"][0], fed(untrained, frames))
    agree(found.whole["frozen_frame"][0], fed(model, np.full_like(frames, len(frames) // 2)))
    for i, order in enumerate(permutations(record.name, len(frames))):
        agree(found.whole["shuffled_order"][i], fed(model, order)[order.argsort()])
    for i, crop in enumerate(windows(record.name, len(frames))):
        agree(found.cropped["model"][i], fed(model, frames[crop]))
        agree(found.cropped["reversed"][i], fed(model, frames[crop][::-1])[::-1])
    still = add_velocity(model, torch.zeros(4, 3, 16), np.ones((4, 384), np.float32))[..., -768:]
    np.testing.assert_allclose(still.numpy(), np.broadcast_to(scaled(model, 0), (4, 3, 768)), rtol=1e-5)


def test_knock_outs_leave_velocity(moving, records):
    model, train = load_run(moving.folder).model, find_config_videos(moving.config, "train")
    with torch.no_grad():
        model.token_mlp[1].weight[:, : model.pooling.width] = 0  # only velocity and id are read
    found = knock_outs(model, train, records, moving.config)["scores"]
    assert found["without_entity_1"] == found["without_background"] == found["nothing"] != found["position_only"]
    assert header(moving.config, model, None)["velocity"]


def test_each_action_has_its_own_spread_and_the_untrained_control_that_of_the_video(tiny, tmp_path):
    run = mvf.train(tiny(**VELOCITY, per_action=True, epochs=1), tmp_path / "run")
    first, second = (run.model.of(action) for action in run.model.actions)
    assert not torch.equal(first.velocity_scale, second.velocity_scale)
    untrained, val = untrained_model(run.config, run.model), find_config_videos(run.config, "val")
    assert equal(untrained.velocity_scaling, first.velocity_scaling)
    embed_controls(run.model, untrained, val[-1:], run.config)
    assert equal(untrained.velocity_scaling, run.model.of(val[-1].action).velocity_scaling)
    assert fingerprint(mvf.train(run.config, run.folder).model) == fingerprint(run.model)


def test_maps_over_time_and_the_table_of_shapes_read_it(moving, records):
    weights = mvf.temporal_attention(moving.model, records[0], chunk=9).weights
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1, atol=1e-5)
    table = model_table(moving.model, torch.rand(1, 3, 3, 32, 32))
    assert "embeddings (B, T, E)" in str(table)
