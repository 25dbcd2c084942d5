"""Training: runs that resume to the same bits, penalties, what a run starts from, and what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file

import mvf
from mvf.data import loading
from mvf.data.dataset import build_dataset, collate
from mvf.embedding import video_features
from mvf.models.pooling import entity_overlap
from mvf.training import trainer
from mvf.training.run import HISTORY, load_run, read_history, read_state
from tests.conftest import TINY
from tests.models.stored import forget_checksums


def command(folder, **overrides):
    settings = {**TINY, **overrides}
    words = [w for k, v in settings.items() for w in ("-p", k, json.dumps(v) if isinstance(v, dict) else str(v))]
    return [sys.executable, "-m", "mvf", "train", "synthetic", "--run-dir", str(folder), *words]


def equal_weights(a, b):
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("features", ["online", "banked"])
def test_training_lowers_the_loss_and_leaves_a_run_folder(tiny, tmp_path, features):
    rows = []
    run = mvf.train(tiny(features=features, epochs=8, learning_rate=3e-3), tmp_path / "run", on_epoch=rows.append)
    assert rows == run.history and len(rows) == 8
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert set(rows[0]) == set(HISTORY)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"clips.json", "config.json", "history.csv", "model.safetensors", "model_config.json", "state.pt"}
    assert [row["epoch"] for row in read_history(tmp_path / "run")] == list(range(1, 9))


def test_a_loaded_run_gives_the_same_embeddings(tiny, tmp_path):
    config = tiny()
    run = mvf.train(config, tmp_path / "run")
    records = mvf.data.find_config_videos(config, "val")
    again = load_run(tmp_path / "run")
    for a, b in zip(mvf.embed(run.model, records), mvf.embed(again.model, records)):
        assert (a.embeddings == b.embeddings).all()


def test_same_seed_same_weights_other_seed_others(tiny, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mvf.train(tiny(seed=seed), tmp_path / name)
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    assert not equal_weights(tmp_path / "a", tmp_path / "c")


def test_a_finished_run_is_returned_not_repeated(tiny, tmp_path):
    mvf.train(tiny(), tmp_path / "run")
    rows = []
    assert len(mvf.train(tiny(), tmp_path / "run", on_epoch=rows.append).history) == 2
    assert rows == []


def test_a_folder_of_another_configuration_is_refused_and_untouched(tiny, tmp_path):
    mvf.train(tiny(), tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=r"entities \(there 3, here 2\).*Choose another run_dir"):
        mvf.train(tiny(entities=2), tmp_path / "run")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}


def test_a_folder_with_only_a_notebook_is_new_and_one_with_other_files_is_not(tiny, tmp_path):
    (tmp_path / "train.ipynb").write_text("{}")
    mvf.train(tiny(epochs=1), tmp_path)
    stranger = tmp_path / "other"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="thesis.tex"):
        mvf.train(tiny(), stranger)


@pytest.mark.slow  # tests/faults/test_kills.py kills sooner, and without the time that imports take
@pytest.mark.parametrize("features", ["online", "banked"])
def test_killed_in_an_epoch_then_resumed_equals_never_killed(tmp_path, features):
    settings = {"epochs": 12, "features": features, "batch_size": 2}
    never = subprocess.run(command(tmp_path / "never", **settings), capture_output=True, text=True)
    assert never.returncode == 0, never.stderr
    killed = subprocess.Popen(
        command(tmp_path / "killed", **settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    history = tmp_path / "killed" / "history.csv"
    while killed.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 3):
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 2 <= len(read_history(tmp_path / "killed")) < 12, "the run ended before it could be killed"
    again = subprocess.run(command(tmp_path / "killed", **settings), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert equal_weights(tmp_path / "never", tmp_path / "killed")
    assert (tmp_path / "never" / "metrics.json").read_bytes() == (tmp_path / "killed" / "metrics.json").read_bytes()


def test_a_penalty_lowers_the_overlap_and_is_part_of_the_loss(tiny, tmp_path):
    settings = {"epochs": 10, "learning_rate": 1e-2, "image_size": 64, "seed": 3}
    runs = {p: mvf.train(tiny(**settings, overlap_penalty=p), tmp_path / str(p)) for p in (0.0, 5.0)}
    record = mvf.data.find_config_videos(tiny(), "train")[0]
    overlaps = []
    for run in runs.values():
        patches, cls = video_features(run.model, record)
        overlaps.append(entity_overlap(run.model.pool(patches[None], cls[None])[1]).mean().item())
    assert overlaps[1] < overlaps[0] - 0.1
    assert runs[5.0].history[0]["loss"] > runs[0.0].history[0]["loss"] + 1


@pytest.mark.parametrize("competition", [False, True])
def test_the_penalty_counts_real_frames_of_all_videos_alike(tiny, competition):
    torch.manual_seed(0)
    config = tiny(dropout=0.0, entity_competition=competition)
    model, loss = mvf.build_model(config), mvf.losses.build_loss("scl")
    valid = torch.ones(2, 2, 8, dtype=torch.bool)
    valid[1, :, 5:] = False
    index = torch.arange(8).expand(2, 2, 8)
    clip = mvf.Clip(index, torch.tensor([8, 5]), valid, patches=torch.randn(2, 2, 8, 4, model.architecture.channels))
    without = trainer.TrainingStep(model, loss)(clip)
    with_penalty = trainer.TrainingStep(model, loss, overlap_penalty=0.5)(clip)
    attention = model.pooling(clip.patches)[1]
    assert model.pooling.competition == competition
    wanted = torch.stack([entity_overlap(frame) for frame in attention[valid]]).mean()
    torch.testing.assert_close(with_penalty - without, 0.5 * wanted)
    other = clip.map(lambda t: t.masked_fill(~valid[..., None, None], 9.0) if t.ndim == 5 else t)
    off = trainer.TrainingStep(model, loss)(other)
    torch.testing.assert_close(trainer.TrainingStep(model, loss, overlap_penalty=0.5)(other) - off, 0.5 * wanted)


def test_a_penalised_run_resumes_to_the_same_weights(tiny, tmp_path):
    config = tiny(overlap_penalty=0.5, entity_competition=True, epochs=3)
    mvf.train(config, tmp_path / "never")
    with pytest.raises(KeyboardInterrupt):
        mvf.train(config, tmp_path / "stopped", on_epoch=stop_after_two)
    assert len(read_history(tmp_path / "stopped")) == 2
    resumed = mvf.train(config, tmp_path / "stopped")
    assert equal_weights(tmp_path / "never", tmp_path / "stopped")
    assert resumed.model.architecture.entity_competition
    assert mvf.MVFormer.from_pretrained(tmp_path / "stopped").pooling.competition


def stop_after_two(row):
    if row["epoch"] == 2:
        raise KeyboardInterrupt


def test_a_run_whose_loss_is_scaled_resumes_to_the_same_weights_and_scale(tiny, tmp_path):
    def fit(name, state=None, on_epoch=None):
        (tmp_path / name).mkdir(exist_ok=True)
        accelerator = training_accelerator()
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=3.0, growth_factor=1.7, growth_interval=3)
        made = trainer.Trainer(tiny(epochs=3), tmp_path / name, accelerator)
        if state is not None:
            made.load_state(state)
        made.fit(on_epoch)
        return accelerator.scaler.state_dict()

    never = fit("never")
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", on_epoch=stop_after_two)
    state = read_state(tmp_path / "stopped" / "state.pt")
    assert fit("stopped", state) == never and never["scale"] == pytest.approx(3 * 1.7**2)
    assert equal_weights(tmp_path / "never", tmp_path / "stopped")
    del state["scaler"]  # as in files written before it was kept
    assert fit("older", state) != never


def test_a_run_from_before_the_new_settings_still_loads_and_starts_others(tiny, tmp_path):
    mvf.train(tiny(), tmp_path / "old")
    forget_checksums(tmp_path / "old")
    for name, path in (("config.json", ()), ("model_config.json", ("architecture",))):
        stored = json.loads((tmp_path / "old" / name).read_text())
        part = stored[path[0]] if path else stored
        for field in ("entity_competition", "overlap_penalty"):
            part.pop(field, None)
        (tmp_path / "old" / name).write_text(json.dumps(stored))
    assert not load_run(tmp_path / "old").model.architecture.entity_competition
    assert len(mvf.train(tiny(), tmp_path / "old").history) == 2
    mvf.train(tiny(init_from=str(tmp_path / "old"), epochs=0), tmp_path / "same")
    with pytest.raises(ValueError, match="entity_competition False, this model True: they must be the same"):
        mvf.train(tiny(init_from=str(tmp_path / "old"), entity_competition=True), tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap_penalty": -0.1}, "overlap_penalty must be 0 .* got -0.1"),
        ({"overlap_penalty": "nan"}, "overlap_penalty must be 0 .* got nan"),
        ({"overlap_penalty": 0.1, "entities": 1}, "overlap_penalty compares entities: .* at least 2 of them, got 1"),
        (
            {"overlap_penalty": 0.1, "pooling": "mean"},
            'overlap_penalty needs entity maps, which pooling "mean" does not have',
        ),
        ({"entity_competition": True, "pooling": "cls"}, 'entity_competition needs entity maps, which pooling "cls"'),
    ],
)
def test_settings_of_entity_maps_without_them_are_refused(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_a_loss_that_is_not_finite_stops_and_names_step_and_video(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.TrainingStep, "forward", lambda self, clip, generator: torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match=r"nan at step 1 \(epoch 1\), videos \w+"):
        mvf.train(tiny(), tmp_path / "run")


def test_training_starts_from_a_run(tiny, tmp_path):
    first = mvf.train(tiny(), tmp_path / "first")
    second = trainer.Trainer(tiny(init_from=str(tmp_path / "first")), tmp_path, training_accelerator())
    for name, tensor in first.model.trained_state().items():
        torch.testing.assert_close(second.model.trained_state()[name], tensor)


def test_a_presets_name_starts_from_its_run_of_the_same_seed_beside_this_one(tiny, tmp_path):
    first = mvf.train(tiny(seed=2), tmp_path / "penn-2")
    untouched = mvf.train(tiny(seed=2, init_from="penn", epochs=0), tmp_path / "zero")
    for name, tensor in first.model.trained_state().items():
        assert torch.equal(untouched.model.trained_state()[name], tensor)
    assert untouched.history == [] and load_run(tmp_path / "zero").history == []
    with pytest.raises(FileNotFoundError, match="penn-1; train it first: python -m mvf train penn"):
        mvf.train(tiny(seed=1, init_from="penn"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"readout": "mean"}, "readout"),
        ({"layers": "1,3"}, "layers"),
        ({"backbone": "deit_tiny_patch16_224"}, "backbone"),
    ],
)
def test_a_start_on_other_features_or_another_reading_of_them_is_refused(tiny, tmp_path, other, named):
    mvf.train(tiny(), tmp_path / "first")
    with pytest.raises(ValueError, match=f"has {named} .*they must be the same"):
        mvf.train(tiny(**other, init_from=str(tmp_path / "first")), tmp_path / "second")


def test_no_epochs_need_something_to_start_from(tiny):
    with pytest.raises(ValueError, match="epochs must be at least 1, or 0 with init_from"):
        tiny(epochs=0)


def training_accelerator():
    return trainer.Accelerator(cpu=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layers": "13"}, "13"),
        ({"image_size": 33}, "image_size 33 does not fit"),
        ({"dataset": "folders"}, 'unknown dataset "folders"'),
    ],
)
def test_a_refused_setting_leaves_the_folder_free_for_the_right_one(tiny, tmp_path, overrides, message):
    config = tiny(**overrides)
    with pytest.raises(ValueError, match=message):
        mvf.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_learning_rate_falls_on_a_cosine_to_zero(tiny, tmp_path):
    run = mvf.train(tiny(epochs=4, learning_rate=1e-2), tmp_path / "run")
    rates = [row["learning_rate"] for row in run.history]
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])
    (group,) = read_state(tmp_path / "run" / "state.pt")["optimizer"]["param_groups"]
    assert group["lr"] == rates[-1]


def test_a_step_decays_weights_and_clips_the_norm_of_the_gradients(tiny, tmp_path):
    made = trainer.Trainer(tiny(clip_norm=1e-3, weight_decay=0.3), tmp_path, training_accelerator())
    with closing(made._batches(made._dataset())) as batches:
        made.epoch = 1
        _, norm = made._update(*next(batches))
    found = torch.stack([p.grad.norm() for p in made.step.parameters() if p.grad is not None]).norm()
    assert norm > 2e-3 and found == pytest.approx(1e-3, rel=1e-3)
    assert made.optimizer.param_groups[0]["weight_decay"] == 0.3


# made ahead -----------------------------------------------------------------------------------------------------------


def test_the_thread_ends_when_training_stops_early(tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        mvf.train(tiny(epochs=50), tmp_path / "run", on_epoch=stop_after_two)
    assert not any(thread.name.startswith("read_ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_planned_an_epoch_at_a_time(tiny, tmp_path, monkeypatch, workers):
    planned, plan = [], trainer.epoch_batches

    def noted(config, records, epoch, *rest):
        planned.append(epoch)
        return plan(config, records, epoch, *rest)

    monkeypatch.setattr(trainer, "epoch_batches", noted)
    with pytest.raises(KeyboardInterrupt):
        mvf.train(tiny(features="banked", epochs=50, workers=workers), tmp_path / "run", on_epoch=stop_after_two)
    assert set(planned) <= {1, 2, 3, 4}


@pytest.mark.parametrize("features", ["online", "banked"])
def test_batches_made_in_a_thread_change_no_bit(tiny, tmp_path, monkeypatch, features):
    config = tiny(features=features)
    first = mvf.train(config, tmp_path / "thread").history
    monkeypatch.setattr(loading, "read_ahead", lambda items: (item for item in items))
    second = mvf.train(config, tmp_path / "none").history
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert equal_weights(tmp_path / "thread", tmp_path / "none")


def test_frames_augmented_on_the_device_are_those_augmented_beforehand(tiny):
    config, needs = tiny(), mvf.losses.build_loss("scl")
    records = mvf.data.find_config_videos(config, "train")
    plan = [(1, 0), (1, 3)]
    before, after = (
        collate([build_dataset(config, records, needs, raw=raw)[item] for item in plan]) for raw in (False, True)
    )
    assert torch.equal(after.valid, before.valid) and all(video.frames.dtype == torch.uint8 for video in after.videos)
    moved = after.to("cpu")
    assert torch.equal(moved.frame_index, before.frame_index)
    torch.testing.assert_close(moved.frames, before.frames, atol=1e-5, rtol=0)  # pieces differ in rounding


# banks ----------------------------------------------------------------------------------------------------------------


def test_all_directions_train_as_all_channels_and_few_do_not(tiny, tmp_path):
    losses = {}
    for channels in (0, 384, 4):
        config = tiny(features="banked", bank_channels=channels, epochs=1, dropout=0.0)
        losses[channels] = mvf.train(config, tmp_path / str(channels)).history[0]["loss"]
    assert losses[384] == pytest.approx(losses[0], rel=0.02)
    assert losses[4] != losses[384]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bank_dtype": "int4"}, 'unknown bank_dtype "int4"; did you mean "int8"'),
        ({"bank_channels": -1}, r"bank_channels must be 0 \(off\) or more, got -1"),
    ],
)
def test_settings_of_a_bank_that_cannot_be_are_refused(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


@pytest.mark.slow
def test_a_compiled_backbone_trains_as_a_plain_one_to_rounding(tiny, tmp_path):
    losses = [mvf.train(tiny(compile=c), tmp_path / str(c)).history[-1]["loss"] for c in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
