"""Rows of other objectives in a batch: what they keep on other data, and what they take from there."""

import pytest

from mvf.config import BASE_FIELDS, load_config
from mvf.workbench.tables.executors import finished
from mvf.workbench.tables.plan import plan, unique_jobs


def configs(parameters, table="table4"):
    return {preset: jobs[0].config for preset, jobs in plan([table], 1, "out", parameters).items()}


@pytest.mark.parametrize("parameters", [{"preset": "demo"}, {"dataset": "synthetic"}])
def test_on_other_data_a_row_keeps_its_objective_and_takes_the_size(parameters):
    base = load_config(*parameters.values())
    for preset, config in configs(parameters).items():
        plain = load_config(preset)
        assert (config.objective, config.objective_options) == (plain.objective, plain.objective_options), preset
        assert config.per_action == plain.per_action
        for name in BASE_FIELDS:
            assert getattr(config, name) == getattr(base, name) or name == "data_seed", (preset, name)


def test_at_home_a_row_has_its_published_size():
    found = configs({})
    assert (found["penn_vsp_published"].num_frames, found["penn_vsp_published"].batch_size) == (12, 128)
    assert found["finegym99_tcc_published"].num_frames == 20 and found["penn_tcn_published"].num_frames == 40


def test_size_can_be_set_for_all_rows():
    assert {config.num_frames for config in configs({"preset": "demo", "num_frames": "10"}).values()} == {10}


def test_an_objective_for_the_whole_batch_reaches_rows_that_name_none():
    found = configs({"preset": "demo", "objective": "tcc"})
    assert found["penn"].objective == "tcc" and found["penn_lav_published"].objective == "lav"


def test_fine_tuned_rows_start_from_the_pre_training_of_their_objective():
    jobs = plan(["table2"], 1, "out", {"preset": "demo"})
    order = [job.preset for job in unique_jobs(jobs)]
    for follower in ("penn_vsp_published_from_kinetics", "penn_vsp_published_zero_shot_kinetics"):
        assert jobs[follower][0].needs == "kinetics400_vsp_published"
        assert order.index("kinetics400_vsp_published") < order.index(follower)
    start, follower = (jobs[name][0].config for name in ("kinetics400_vsp_published", follower))
    assert start.objective == follower.objective == "vsp" and start.data_seed == follower.data_seed + 1
    assert start.objective_options == {"variant": "reference", "segments": 5}
    assert follower.objective_options == {"variant": "reference"} and follower.epochs == 0


def test_the_same_rows_of_tables_share_their_runs():
    jobs = plan(["table1", "table2", "table4"], 1, "out", {})
    assert len([job for job in unique_jobs(jobs) if job.preset == "penn_vsp_published"]) == 1


def test_presets_are_rows_without_a_table():
    jobs = plan(["synthetic", "synthetic_published"], 2, "out", {"data_seed": "13"})
    assert [job.name for job in unique_jobs(jobs)] == [
        "synthetic-1", "synthetic_published-1", "synthetic-2", "synthetic_published-2"
    ]  # fmt: skip
    assert jobs["synthetic"][1].config == load_config("synthetic", data_seed=13, seed=2)
    with pytest.raises(ValueError, match='unknown table or preset "syntetic"; did you mean "synthetic"'):
        plan(["syntetic"], 1, "out", {})


WHOLE = '{"cells": ["é"], "metadata": {"papermill": {"end_time": "now", "exception": null}}}'.encode()
OTHERS = ["null", "[]", '"text"', "{}", '{"metadata": []}', '{"metadata": {"papermill": null}}']


def test_a_notebook_cut_at_any_byte_or_of_other_json_is_of_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "train.ipynb").write_bytes(WHOLE)
    assert finished(tmp_path)
    for torn in [*(WHOLE[:cut] for cut in range(len(WHOLE))), *(text.encode() for text in OTHERS)]:
        (tmp_path / "train.ipynb").write_bytes(torn)
        assert not finished(tmp_path), torn
