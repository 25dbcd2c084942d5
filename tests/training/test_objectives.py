"""Training with every objective: samplers, labels, parameters of a loss, resuming."""

import pytest
import torch
from safetensors.torch import load_file

import mvf
from mvf.evaluation.controls import untrained_model
from mvf.losses import OBJECTIVES
from mvf.training import trainer
from mvf.training.run import read_history


def state_of(folder):
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.parametrize("objective", [*OBJECTIVES, "scl+0.1*lav"])
def test_every_objective_trains_and_its_supervision_is_reported(tiny, tmp_path, objective):
    config = tiny(objective=objective, epochs=2, num_frames=12, features="banked", localization=False)
    run = mvf.train(config, tmp_path / "run")
    assert len(run.history) == 2 and all(row["loss"] == row["loss"] and row["grad_norm"] > 0 for row in run.history)
    torch.manual_seed(config.seed)
    before = mvf.build_model(config).state_dict()
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert not torch.equal(before["embedding.weight"], after["embedding.weight"])
    report = mvf.evaluate([], [], config)
    wanted = {"tcc": "video", "lav": "video", "gta": "video", "vava": "video", "lrprop": "video", "vsp_p": "phase",
              "vsp_f": "frame", "scl+0.1*lav": "video"}  # fmt: skip
    assert report["supervision"] == wanted.get(objective, "none") and report["objective"] == objective


@pytest.mark.parametrize("objective", ["sal", "vava"])
def test_what_a_loss_learns_or_counts_is_stored_and_gone_on_with(tiny, tmp_path, objective):
    config = tiny(objective=objective, epochs=4, dropout=0.0)
    mvf.train(config, tmp_path / "whole")

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mvf.train(config, tmp_path / "halves", on_epoch=stop)
    mvf.train(config, tmp_path / "halves")
    whole, halves = (state_of(tmp_path / name) for name in ("whole", "halves"))
    assert whole["loss"].keys() == halves["loss"].keys() and whole["loss"]
    for name, value in whole["loss"].items():
        same = (
            torch.equal(value, halves["loss"][name])
            if isinstance(value, torch.Tensor)
            else value == halves["loss"][name]
        )
        assert same, name
    assert all(torch.equal(value, halves["model"][name]) for name, value in whole["model"].items())
    assert [row["loss"] for row in read_history(tmp_path / "whole")] == [
        row["loss"] for row in read_history(tmp_path / "halves")
    ]


def test_the_classifier_of_sal_is_trained_and_seeded(tiny, tmp_path):
    for name, settings in {"short": {"epochs": 1}, "again": {"epochs": 1}, "other": {"epochs": 1, "seed": 2}}.items():
        mvf.train(tiny(objective="sal", **settings), tmp_path / name)
    mvf.train(tiny(objective="sal", epochs=2), tmp_path / "long")
    weights = {name: state_of(tmp_path / name)["loss"] for name in ("short", "again", "other", "long")}
    for name, tensor in weights["short"].items():
        assert torch.equal(tensor, weights["again"][name]) and not torch.equal(tensor, weights["other"][name])
        assert not torch.equal(tensor, weights["long"][name])


def test_a_loss_with_parameters_leaves_the_model_where_it_would_start(tiny, tmp_path):
    """So that `untrained`, which builds no loss, is what training started from."""
    config = tiny(objective="sal")
    made = trainer.Trainer(config, tmp_path, trainer.Accelerator(cpu=True)).model
    start = dict(untrained_model(config, made).named_parameters())
    assert all(torch.equal(p, start[name]) for name, p in made.named_parameters())


def test_batches_of_pairs_are_of_one_action(tiny):
    config = tiny(objective="tcc", batch_size=2)
    records = mvf.data.find_config_videos(config, "train")
    for batch in trainer.epoch_batches(config, records, 1, "action_frames"):
        assert len({records[video].action for video in batch}) == 1


def test_labels_or_pairs_that_are_missing_are_named_before_anything_is_written(tiny, tmp_path, monkeypatch):
    plain = mvf.data.find_config_videos(tiny(), "train")
    bare = [type(r)(r.name, r.action, r.source) for r in plain]
    monkeypatch.setattr(trainer, "find_config_videos", lambda *_, **__: bare)
    for objective, words in (("vsp_p", "phase labels"), ("vsp_f", "frame labels")):
        with pytest.raises(ValueError, match=f'"{objective}" needs {words}, and 6 of 6 training videos'):
            mvf.train(tiny(objective=objective), tmp_path / "run")
    lone = [type(r)(r.name, r.name, r.source) for r in plain]
    monkeypatch.setattr(trainer, "find_config_videos", lambda *_, **__: lone)
    with pytest.raises(ValueError, match="has 1 training video"):
        mvf.train(tiny(objective="lav"), tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        mvf.train(tiny(objective="lav", batch_size=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_odd_number_of_frames_is_refused_for_tcn(tiny, tmp_path):
    with pytest.raises(ValueError, match="num_frames must be even.*got 9"):
        mvf.train(tiny(objective="tcn", num_frames=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_frames_are_refused_before_anything_is_written(tiny, tmp_path):
    for objective, options in (("sal", {}), ("vsp", {"segments": 2}), ("scl+sal", {})):
        config = tiny(objective=objective, objective_options=options, num_frames=2)
        with pytest.raises(ValueError, match="num_frames is 2, and the objective needs"):
            mvf.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_clips_with_too_little_in_a_view_are_drawn_again(tiny):
    """Published views of 8 frames hold 3 or fewer valid ones now and then, and sal needs 5."""
    config = tiny(objective="scl+sal", num_frames=8, sampling="published")
    records, loss = mvf.data.find_config_videos(config, "train"), mvf.losses.build_config_loss(config)
    counts = {False: [], True: []}
    for needs in (False, True):
        loss.fewest = 5 if needs else 0
        dataset = mvf.data.dataset.build_dataset(config, records, loss)
        for epoch in range(30):
            generator = torch.Generator().manual_seed(epoch)
            sampler, settings = dataset.sampler, dataset.settings
            valid = mvf.data.dataset.draw_clip(sampler, records[0], 8, generator, settings, loss.fewest)[1]
            counts[needs].append(int(valid.sum(-1).min()))
    assert min(counts[False]) < 5 <= min(counts[True])


def test_an_objective_without_a_gradient_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match='no step of epoch 1 had a gradient: objective "vsp".*batches of 1'):
        mvf.train(tiny(objective="vsp", batch_size=1, num_frames=12), tmp_path / "run")


def test_unknown_objectives_and_sums_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match='did you mean "tcc"'):
        tiny(objective="tccc")
    config = tiny(objective="scl+tcn")
    with pytest.raises(ValueError, match="cannot be combined"):
        mvf.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
