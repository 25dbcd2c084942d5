"""One model per action: trained apart, judged together."""

import dataclasses
import json

import pytest
import torch

import mvf
from mvf.__main__ import main
from mvf.models.mvformer import ModelPerAction
from mvf.training.run import load_run, read_history
from mvf.workbench.notebook.session import embed_splits, open_model, report_on
from tests.data.footage import write_video

ACTIONS = ("jumping_jacks", "squat")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tests.conftest import TINY

    rows = []
    config = mvf.load_config("synthetic", **TINY, per_action=True)
    run = mvf.train(config, tmp_path_factory.mktemp("per_action") / "run", on_epoch=rows.append)
    assert rows == run.history
    return run


def test_every_action_has_a_model_of_its_own_trained_on_its_videos_only(run, tiny, tmp_path):
    assert run.model.actions == ACTIONS
    first, second = (run.model.of(action).trained_state() for action in ACTIONS)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    alone = mvf.train(tiny(action="squat"), tmp_path / "squat")
    for name, tensor in alone.model.trained_state().items():
        assert torch.equal(tensor, run.model.of("squat").trained_state()[name])


def test_the_frozen_backbone_is_kept_once(run):
    first, second = (run.model.of(action).backbone for action in ACTIONS)
    assert first is second


def test_a_loaded_run_embeds_every_video_by_the_model_of_its_action(run):
    model = load_run(run.folder).model
    for record in mvf.data.find_config_videos(run.config, "val"):
        (got,) = mvf.embed(model, [record])
        (wanted,) = mvf.embed(run.model.of(record.action), [record])
        assert (got.embeddings == wanted.embeddings).all()


def test_the_history_is_the_mean_over_actions(run):
    rows = [read_history(run.folder / "actions" / action) for action in ACTIONS]
    for mean, *parts in zip(read_history(run.folder), *rows, strict=True):
        assert mean["loss"] == pytest.approx(sum(part["loss"] for part in parts) / 2)


def test_the_report_covers_all_actions(run):
    model, config = open_model(run.folder)
    report = report_on(model, config, embed_splits(model, config), run.folder / "metrics.json")
    assert set(report["per_action"]) == set(ACTIONS)
    assert report["cropped"]["model"] and report["controls"]["untrained"]
    assert "model with entities of its own" in report["skipped"]["localization"]
    assert json.loads((run.folder / "metrics.json").read_text())["scores"] == report["scores"]


def test_a_finished_run_is_returned_and_another_is_refused(run, tiny):
    again = mvf.train(run.config, run.folder)
    assert again.history == run.history
    with pytest.raises(ValueError, match="another configuration"):
        mvf.train(tiny(), run.folder)


def test_videos_of_an_action_that_was_not_trained_on_are_named_in_the_coverage(run):
    more = {**run.config.data_options, "actions": ["squat", "jumping_jacks", "pushup"], "val_videos": 6}
    splits = embed_splits(run.model, dataclasses.replace(run.config, data_options=more))
    assert {video.action for video in splits.val} == set(ACTIONS)
    left_out = splits.val_records.coverage.unreadable
    assert left_out and set(left_out.values()) == {"no model was trained on pushup"}


COMMANDS = {
    "embed": ["embed", "RUN", "clip.mp4", "--out", "out.npz"],
    "embed a folder": ["embed", "RUN", ".", "--out", "out.npz"],
    "apply": ["apply", "RUN", "other.mp4", "--labels", "videos.csv", "--out", "out.csv"],
    "repetitions": ["repetitions", "RUN", "clip.mp4"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_clip_of_no_known_action_is_named_with_what_to_do(run, tmp_path, command, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "other"):
        write_video(tmp_path / f"{name}.mp4", 9)
    (tmp_path / "videos.csv").write_text("path,phases\nclip.mp4,0;4\nother.mp4,\n")
    assert main([str(run.folder) if word == "RUN" else word for word in command]) == 1
    assert "has one model per action, and " in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert "add -p action jumping_jacks|squat for one file; for a folder fill the column action" in said


def test_every_action_starts_from_its_own_model_of_another_run(run, tmp_path):
    config = dataclasses.replace(run.config, init_from=str(run.folder), epochs=0)
    again = mvf.train(config, tmp_path / "again")
    for name, tensor in run.model.trained_state().items():
        assert torch.equal(tensor, again.model.trained_state()[name])


def test_an_action_without_a_model_is_named(run):
    with pytest.raises(ValueError, match='"bowl".*jumping_jacks, squat'):
        run.model.of("bowl")
    with pytest.raises(ValueError, match="at least one action"):
        ModelPerAction({})


def test_one_action_of_a_data_set(tiny):
    records = mvf.data.find_config_videos(tiny(action="squat"), "train")
    assert {record.action for record in records} == {"squat"} and records.coverage.found == len(records)
    with pytest.raises(ValueError, match='did you mean "squat"'):
        mvf.data.find_config_videos(tiny(action="squad"), "train")
