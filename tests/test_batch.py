"""Batches: what is planned, and what happens when runs fail, are killed, or are done already."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mvf import batch
from mvf.__main__ import main
from mvf.notebook import run_config
from mvf.tables import plan as plan_module
from mvf.tables.paper import paper_tables
from mvf.tables.plan import notebook_parameters, plan, unique_jobs
from tests.conftest import TINY

SMALL = {"dataset": "synthetic", **{name: value for name, value in TINY.items() if name != "layers"}}

FAKE = """
import json, pathlib, time
with open(pathlib.Path(run_dir).parent / "started.txt", "a") as file:
    file.write(f"{preset}-{seed}\\n")
time.sleep(overrides.get("sleep", 0))
assert not pathlib.Path(run_dir, "..", f"fail-{preset}").exists(), "this row always fails"
pathlib.Path(run_dir, "metrics.json").write_text("{}")
"""


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A notebook that only notes that it ran, instead of a training."""
    cells = [new_code_cell("overrides = {}\nrun_dir = preset = ''\nseed = 0"), new_code_cell(FAKE)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = tmp_path / "quick.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    monkeypatch.setattr(batch, "NOTEBOOK", path)
    return path


def started(out):
    return sorted((out / "started.txt").read_text().split())


def test_a_table_is_planned_as_every_row_and_seed_first_seeds_first():
    jobs = unique_jobs(plan(["table3"], 2, "out", {}))
    assert len(jobs) == 16
    assert [job.config.seed for job in jobs] == [1] * 8 + [2] * 8
    assert {job.config.dataset for job in jobs} == {"penn"}


def test_tables_share_rows_that_coincide():
    both = unique_jobs(plan(["table3", "table6"], 1, "out", {}))
    assert len(both) == 8 + 3
    jobs = plan(["table3", "table6"], 1, "out", {})
    assert jobs["penn_last_1"][0].folder.name == "penn_last_1-1"


def test_rows_on_other_data_keep_what_they_are_about_and_take_the_rest():
    jobs = plan(["table3", "table5"], 1, "out", {**SMALL, "layers": "2,4"})
    configs = {preset: seeds[0].config for preset, seeds in jobs.items()}
    assert {c.dataset for c in configs.values()} == {"synthetic"}
    assert configs["penn"].layers == (4, 8, 12) and configs["penn_last_1"].layers == (12,)
    assert [configs[p].entities for p in ("penn_multi_1", "penn", "penn_multi_5")] == [1, 3, 5]
    assert configs["penn_resnet50"].backbone == "resnet50" and configs["penn"].backbone == "vit_tiny_patch16_224"
    assert configs["penn"].num_frames == 8 and configs["penn"].features == "banked"
    assert configs["penn_fixed_width_3"].pooling == "fixed_width"


def test_fine_tuning_follows_its_pre_training_and_zero_shot_is_not_trained():
    jobs = plan(["table2"], 1, "out", {"dataset": "synthetic", "epochs": 2})
    order = [job.preset for job in unique_jobs(jobs)]
    assert order.index("kinetics400") < order.index("penn_from_kinetics")
    assert jobs["penn_from_kinetics"][0].needs == "kinetics400"
    assert jobs["penn_zero_shot_kinetics"][0].config.epochs == 0
    assert jobs["kinetics400"][0].config.epochs == 2


def test_a_pre_training_stays_what_it_is():
    for parameters in ({}, {"dataset": "penn"}):
        jobs = plan(["table2"], 1, "out", parameters)
        config = jobs["kinetics400"][0].config
        assert (config.dataset, config.epochs, config.overlap) == ("kinetics400", 10, 1.0)
        assert config.objective_options == {"negatives": "batch_noself"}
        assert jobs["penn_from_kinetics"][0].config.dataset == "penn"
    drawn = plan(["table2"], 1, "out", {"dataset": "synthetic"})
    before, after = (drawn[preset][0].config for preset in ("kinetics400", "penn_from_kinetics"))
    assert before.dataset == after.dataset == "synthetic" and before.data_seed != after.data_seed


def test_rows_on_the_data_of_another_preset_differ_as_in_the_table():
    for dataset in ("pouring", "finegym99"):
        jobs = plan(["table3", "table6"], 1, "out", {"dataset": dataset})
        assert len(unique_jobs(jobs)) == 11
        assert jobs["penn"][0].config.layers == (4, 8, 12) and jobs["penn"][0].config.entities == 3
        assert jobs["penn"][0].config.num_frames == 240


def test_weights_can_be_those_of_one_backbone():
    jobs = plan(["table1"], 1, "out", {"backbone_weights.resnet50": "byol.pth"})
    assert jobs["penn_carl"][0].config.backbone_weights == "byol.pth" and not jobs["penn"][0].config.backbone_weights
    with pytest.raises(ValueError, match="no row has this backbone; rows have dino_vitb8, resnet50"):
        plan(["table1"], 1, "out", {"backbone_weights.resnet18": "byol.pth"})


@pytest.mark.parametrize("table", sorted(paper_tables()))
@pytest.mark.parametrize("parameters", [{}, {"dataset": "synthetic", "backbone_weights": "random"}])
def test_the_notebook_makes_exactly_the_planned_configuration(table, parameters):
    for job in unique_jobs(plan([table], 1, "out", parameters)):
        given = notebook_parameters(job)
        given.pop("run_dir")
        assert run_config(json.loads(json.dumps(given))) == job.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["tabel3"], 1, "out", {}), 'did you mean "table3"'),
        ((["table3"], 0, "out", {}), "trials must be at least 1, got 0"),
        ((["table3"], 1, "out", {"seed": 4}), "sets the seeds itself"),
        ((["table3"], 1, "out", {"epoch": 4}), 'did you mean "epochs"'),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(*arguments)


def test_a_failing_run_is_named_and_the_others_go_on(quick, tmp_path, capsys):
    out = tmp_path / "runs"
    out.mkdir()
    (out / "fail-penn_resnet50_lstp_1").touch()
    words = ["batch", "table5", "--trials", "1", "--out", str(out), "--workers", "2"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "1 runs failed: penn_resnet50_lstp_1-1" in captured.err
    assert "penn_resnet50_lstp_1-1: FAILED" in captured.out and "this row always fails" in captured.out
    assert captured.out.count("done in") == 2
    before = started(out)
    assert main(words) == 1
    assert started(out) == sorted([*before, "penn_resnet50_lstp_1-1"])  # only the failed one again
    assert capsys.readouterr().out.count("done before") == 2
    manifest = json.loads((out / "batch.json").read_text())
    assert manifest["tables"] == ["table5"] and manifest["runs"]["penn_resnet50"] == {"1": "penn_resnet50-1"}


def test_killed_and_started_again_it_redoes_nothing(quick, tmp_path):
    out = tmp_path / "runs"
    code = (
        f"import mvf.batch as b, pathlib; b.NOTEBOOK = pathlib.Path({str(quick)!r})\n"
        f"b.run_batch(['table5'], 1, {str(out)!r}, {{}})"
    )
    first = subprocess.Popen([sys.executable, "-c", code])
    while first.poll() is None and not (out / "penn_resnet50-1" / "metrics.json").exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (out / "penn_resnet50_lstp_mtf-1" / "metrics.json").exists(), "it ended before it could be killed"
    assert batch.run_batch(["table5"], 1, out) == []
    assert started(out) == ["penn_resnet50-1", "penn_resnet50_lstp_1-1", "penn_resnet50_lstp_mtf-1"]


def test_a_folder_of_other_settings_is_refused(tmp_path):
    def note(parameters):
        jobs = plan(["table5"], 1, tmp_path, parameters)
        batch.write_manifest(tmp_path, ["table5"], 1, parameters, jobs)

    note({"epochs": "2"})
    note({"epochs": 2, "device": "cpu"})  # the same, elsewhere
    with pytest.raises(ValueError, match="choose another --out"):
        note({"epochs": 3})


def test_a_dry_run_lists_and_writes_nothing(tmp_path, capsys):
    assert main(["batch", "table2", "--trials", "1", "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert "penn_from_kinetics-1: to do, starts from kinetics400-1" in listed
    assert not (tmp_path / "runs").exists()


def words_of(parameters):
    text = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in parameters.items()}
    return [word for name, value in text.items() for word in ("-p", name, value)]


def check_table(name, out, capsys):
    assert main(["batch", name, "--trials", "1", "--out", str(out), "--workers", "2", *words_of(SMALL)]) == 0
    for preset in {preset for row in paper_tables()[name].rows for preset in row.presets.values()}:
        report = json.loads((out / f"{preset}-1" / "metrics.json").read_text())
        assert report["preset"] == preset and report["dataset"] == "synthetic"
        assert report["backbone_weights"] == "random" and report["cropped"]["model"]


def test_a_row_runs_for_real(tmp_path, capsys, monkeypatch):
    table = paper_tables()["table3"]
    short = {"table3": replace(table, rows=table.rows[:1], reference=table.rows[0].labels)}
    for place in (sys.modules[__name__], plan_module):
        monkeypatch.setattr(place, "paper_tables", lambda: short)
    check_table("table3", tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table2", "table5"])
def test_tables_run_for_real(name, tmp_path, capsys):
    check_table(name, tmp_path, capsys)
