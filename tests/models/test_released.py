"""Released heads: opened by name everywhere, written elsewhere, refused clearly."""

import logging
import shutil
from dataclasses import replace

import pytest
import torch

import mvf
from bench.released import Card, header, masks_table, scores_table, write_head
from mvf.__main__ import main
from mvf.config import load_config
from mvf.models import MVFormer, build_model, load_weights, stored
from mvf.training import run as runs
from mvf.training.run import initial_weights, results_folder
from mvf.workbench.notebook.attention import attention_videos, film_video
from mvf.workbench.notebook.session import open_session
from mvf.workbench.report import write_page
from tests.conftest import TINY
from tests.data.footage import write_video


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a motion skip."""
    config = load_config("synthetic", **{**TINY, "motion_skip": 2.5, "epochs": 1})
    return mvf.train(config, tmp_path_factory.mktemp("runs") / "tiny").folder


@pytest.fixture
def released(trained, tmp_path, monkeypatch):
    """The released head `tiny`, with an empty working directory."""
    folder = (tmp_path / "package").resolve()
    monkeypatch.setattr(stored, "RELEASED", folder)
    write_head(trained, folder / "tiny", "# tiny\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder / "tiny"


def test_a_head_is_a_run_in_half_the_bytes_and_the_same_bytes_each_time(trained, released, tmp_path):
    write_head(trained, tmp_path / "again", "# tiny\n")
    files = {path.name: path.read_bytes() for path in released.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "model_config.json", "README.md"}
    assert len(files["model.safetensors"]) < 0.6 * (trained / "model.safetensors").stat().st_size


def test_a_head_computes_in_float32_what_its_run_does(trained, released):
    head, own = (MVFormer.from_pretrained(name) for name in ("tiny", trained))
    assert {t.dtype for t in head.trained_state().values()} == {torch.float32, torch.int64}
    for name, tensor in own.trained_state().items():
        torch.testing.assert_close(head.trained_state()[name], tensor, rtol=1e-3, atol=1e-4)
    records = mvf.data.find_config_videos(mvf.load_run(trained).config, "val")
    for ours, theirs in zip(mvf.embed(head, records), mvf.embed(own, records)):
        assert 0 < abs(ours.embeddings - theirs.embeddings).max() < 2e-2


def test_a_head_is_computed_as_this_machine_does_it_best(released, monkeypatch):
    monkeypatch.setenv("MVF_ENGINE", "torch")
    config = mvf.load_run("tiny").config
    assert (config.engine, config.precision) != ("auto", "auto") and config.engine == "torch"
    assert '"engine": "auto"' in (released / "config.json").read_text()


def test_nothing_is_written_into_the_package(released, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path / "site-packages")
    session = open_session("tiny")
    assert session.figures == tmp_path / "here" / "runs" / "tiny" / "figures"
    assert session.report == tmp_path / "here" / "runs" / "tiny" / "metrics.json"
    assert "released head" in session.choice and str(released / "README.md") in session.choice
    other = open_session("tiny", data_seed=7)
    assert other.figures.parent == session.report.parent and other.figures != session.figures
    assert results_folder(released.parent.parent) == released.parent.parent  # of a run it is the run itself


def test_a_folder_of_that_name_wins_and_a_line_says_so(trained, released, tmp_path, caplog):
    shutil.copytree(trained, "tiny")
    with caplog.at_level(logging.WARNING):
        session = open_session("tiny")
    assert session.source == tmp_path / "here" / "tiny" and session.figures == session.source / "figures"
    (line,) = [record.message for record in caplog.records if "released head" in record.message]
    assert line == f"{session.source} is there, so it is opened, not the released head tiny"


def test_a_run_starts_from_a_head_by_its_name(trained, released, tmp_path):
    config = replace(mvf.load_run(trained).config, init_from="tiny", epochs=0)
    model = mvf.train(config, tmp_path / "run").model
    state = MVFormer.from_pretrained("tiny").without_skip().trained_state()
    assert all(torch.equal(model.trained_state()[name], tensor) for name, tensor in state.items())


def test_a_head_on_another_backbone_is_refused_before_weights_are_fetched(trained, released, tmp_path):
    config = replace(mvf.load_run(trained).config, init_from="tiny", backbone="dino_vitb8", backbone_weights="")
    with pytest.raises(ValueError, match=r"tiny has backbone 'vit_tiny.*', this model 'vit_base_patch8_224.dino': "):
        mvf.train(config, tmp_path / "run")
    model = build_model(load_config("synthetic", **{**TINY, "layers": "1,3"}))
    with pytest.raises(ValueError, match=r"tiny has layers \[2, 4\], this model \[1, 3\]: .* set layers as there"):
        load_weights(model, released)


@pytest.mark.parametrize("open_it", [mvf.load_run, MVFormer.from_pretrained, open_session])
def test_a_head_that_does_not_exist_is_refused_with_those_that_do(released, open_it):
    with pytest.raises((ValueError, FileNotFoundError), match="^tinny .*; released heads: tiny$"):
        open_it("tinny")


def test_a_start_that_does_not_exist_is_refused_with_the_heads_that_do(released, tmp_path):
    with pytest.raises(FileNotFoundError, match="init_from=tinny: there is no tinny; released heads: tiny"):
        initial_weights(load_config("synthetic", init_from="tinny"), tmp_path / "run")


def test_a_wheel_without_its_data_names_the_missing_file(released):
    (released / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"head tiny is not complete, .*tiny/model\.safetensors .*install mvf"):
        open_session("tiny")
    shutil.rmtree(released.parent)
    with pytest.raises(ValueError, match=f"no released heads, because {released.parent} is missing: install mvf again"):
        mvf.load_run("tiny")


def test_a_report_of_a_head_is_a_page_about_clips(released):
    with pytest.raises(ValueError, match="tiny is a released head, not a run: mvf report --clips tiny CLIPS"):
        write_page("tiny")


def test_a_film_of_one_video_needs_no_evaluation(released, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path / "site-packages")
    assert main(["film", "tiny", "--out", str(tmp_path / "film")]) == 0
    assert capsys.readouterr().out == f"film {tmp_path / 'film.gif'}\nfilm {tmp_path / 'film.mp4'}\n"
    assert (tmp_path / "film.mp4").stat().st_size and not (tmp_path / "here" / "runs").exists()
    write_video(tmp_path / "clips" / "jump.mp4", count=8)
    write_video(tmp_path / "clips" / "jump.2.mp4", count=8)
    for name in ("jump", "jump.2"):
        (gif, _) = film_video("tiny", tmp_path / "clips" / f"{name}.mp4", image_size=64)
        assert gif == tmp_path / "here" / "runs" / "tiny" / f"film-{name}.gif" and gif.exists()
    (gif, mp4) = film_video("tiny", tmp_path / "clips" / "jump.mp4", out=tmp_path / "v0.2.gif")
    assert (gif, mp4) == (tmp_path / "v0.2.gif", tmp_path / "v0.2.mp4")


def judged(classification, lift):
    one = {"classification": classification, "retrieval@5": 0.5}
    cropped = dict.fromkeys(("model", "motion_pca", "untrained", "position_only"), one)
    names = ("entity_1", "head_best", "head_best_any_layer", "mean_training_mask")
    gap = {"mean": lift - 2, "interval": [lift - 3, lift - 1]}
    return {
        "sampling": "content",
        "motion_skip": 2.5,
        "cropped": cropped,
        "scores": one,
        "alignment_error": {"window": 0.2},
        "alignment_error_controls": {},
        "controls": {"frozen_frame": one},
        "localization": {name: {"auroc": 0.9, "lift": lift} for name in names},
        "localization_differences": {"entity_1 - head_best": {"auroc": gap, "lift": gap}},
    }


def test_a_card_has_the_spread_over_seeds_and_sets_and_the_widest_intervals(trained):
    reports = [judged(0.7, 4.0), judged(0.8, 5.0)]
    rows = scores_table({"tiny": reports, "not given": []}, reports).rows
    assert rows[0] == ("tiny", "2", "0.750 ± 0.141", "0.500", "0.200")
    assert [row[0].partition(":")[0] for row in rows[1:]] == ["`motion_pca`", "untrained", "clock"]
    masks = masks_table(reports).rows
    assert masks[0][1] == "1" and masks[1][1] == "2"  # the first seed alone, then all
    assert masks[1][4:] == ("", "") and masks[2][5] == "+2.500 [+1.000, +4.000]"
    config = load_config("synthetic", **TINY)
    card = Card(config)
    card.add("some text", scores_table({"tiny": reports}, reports))
    assert card.text().startswith(header(config)) and "python bench/released.py" in card.text()
    assert "4 steps of 4 videos" in header(config)  # 2 epochs of 6 videos


def test_no_clip_counts_as_a_training_video_of_a_head(released, trained, tmp_path):
    write_video(tmp_path / "clips" / "jump.mp4", count=8)
    settings = {"videos": 1, "layer": -1, "image_size": None, "stored_frames": 4}
    for source, expected in (("tiny", False), (trained, True)):
        session = open_session(source, dataset="folder", data_root=tmp_path / "clips")
        (shown,) = attention_videos(session, {}, settings)
        assert shown.training is expected
