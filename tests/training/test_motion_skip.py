"""The motion skip of a run: fitted after training without labels, stored with the model, added to whole clips."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import mvf
from mvf.bank import FeatureBank
from mvf.chunks import Chunking
from mvf.data import find_config_videos
from mvf.embedding import embed, embed_chunks, embed_features, fingerprint, mean_patches, video_features
from mvf.evaluation.controls import embed_controls, permutations, untrained_model, windows
from mvf.evaluation.knockouts import knock_outs
from mvf.models.motion import MotionMap
from mvf.models.mvformer import MVFormer
from mvf.training.run import load_run, read_state
from mvf.workbench.notebook.session import embed_splits, open_model, report_on
from tests.data.footage import write_images

SKIP = {"motion_skip": 2.5, "motion_offsets": "1,3", "motion_context": 4}


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
    for z, e, record in zip(embed(plain.model, records), embed(skip.model, records), records, strict=True):
        motion = skip.model.motion(mean_patches(skip.model, record))
        np.testing.assert_allclose(e.embeddings, unit(motion + z.embeddings / 2.5), atol=1e-6)
        assert e.embeddings.dtype == np.float32 and np.abs(e.embeddings - z.embeddings).max() > 0.1


def test_it_is_fitted_to_the_clean_features_of_all_training_videos(runs):
    _, skip = runs
    bank = FeatureBank(skip.model.backbone, None, "fp32")
    train = find_config_videos(skip.config, "train")
    means = [bank.read(record)[0].float().mean(dim=1).numpy() for record in train]
    wanted = dataclasses.replace(MotionMap.fit(means, 8, (1, 3), 4), strength=2.5)
    assert equal(skip.model.motion.tensors(), wanted.tensors())
    assert skip.model.motion.offsets == (1, 3) and skip.model.motion.context == 4


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
    (z,), (e,) = (embed(run.model, [record], **settings) for run in (plain, skip))
    np.testing.assert_allclose(e.embeddings, unit(motion + z.embeddings / 2.5), atol=1e-6)
    (kept,) = embed(skip.model, [record], out=tmp_path, **settings)
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


def test_online_it_is_fitted_to_the_same_features_up_to_rounding(runs, tiny, tmp_path):
    online = mvf.train(tiny(**SKIP, epochs=1), tmp_path / "run")
    for name in ("center", "context_center"):
        found, wanted = (getattr(run.model.motion, name) for run in (online, runs[1]))
        np.testing.assert_allclose(found[:10], wanted[:10], atol=0.05)  # the bank holds bfloat16


def test_a_run_of_before_opens_and_starts_others_and_a_skip_is_not_taken_over(runs, tiny, tmp_path):
    plain, skip = runs
    shutil.copytree(plain.folder, tmp_path / "old")
    settings = json.loads((tmp_path / "old" / "config.json").read_text())
    for name in SKIP:
        del settings[name]
    (tmp_path / "old" / "config.json").write_text(json.dumps(settings))
    assert fingerprint(load_run(tmp_path / "old").model) == fingerprint(plain.model)
    assert mvf.train(plain.config, tmp_path / "old").model.motion is None
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


def test_controls_of_the_trained_model_have_it_and_the_untrained_has_not(runs, records):
    plain, skip = runs
    config, model = skip.config, skip.model
    without = embed_controls(plain.model, untrained_model(config, plain.model), records, config)
    found = embed_controls(model, untrained_model(config, model), records, config)
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
        ({"motion_skip": 1, "trainable_blocks": 1, "features": "online"}, "frozen features"),
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
