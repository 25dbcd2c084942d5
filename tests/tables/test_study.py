"""The study of objectives: what it runs, and what its tables say of made-up reports."""

import numpy as np
import pytest

from mvf.config import load_config
from mvf.losses import OBJECTIVES
from mvf.tables.draw import draw_tables
from mvf.tables.plan import plan, unique_jobs
from tests.tables.test_draw import write_batch

LABELS = {"scl": "none", "lav": "video", "vsp_f": "frame", "lrprop": "video"}
LEVELS = {"scl": 0.6, "lav": 0.5, "vsp_f": 0.55, "lrprop": 0.3}
BASES = {"study": "synthetic", "study_late": "synthetic", "study_pullups": "folder", "study_pullups_late": "folder"}


def preset(base, objective):
    return base if objective == "scl" else f"{base}_{objective}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four objectives on both models and data sets, three seeds; one run is missing."""
    rows = {preset(base, name): level - 0.1 * ("late" in base) for base in BASES for name, level in LEVELS.items()}
    labels = {preset(base, name): LABELS[name] for base in BASES for name in LEVELS}
    dataset = {preset(base, name): BASES[base] for base in BASES for name in LEVELS}

    def change(name, report):
        report |= {"supervision": labels[name], "dataset": dataset[name], "backbone": "dinov2_vits14"}
        report["alignment_error"] = {"whole": 0.2, "window": 0.3}
        report["cropped"]["untrained"] = dict.fromkeys(report["cropped"]["model"], 0.25 + 0.01 * report["seed"])
        report["cost"]["seconds_per_epoch"] = 0.5
        return report

    out = tmp_path_factory.mktemp("study") / "batch"
    folder = write_batch(out, rows, tables=["study"], missing=["study_lav-3"], change=change)
    (drawn,) = draw_tables(str(folder))
    return drawn


def test_every_objective_runs_on_both_models_and_data_sets(tmp_path):
    jobs = unique_jobs(plan(["study"], 3, tmp_path, {"data_root": str(tmp_path)}))
    assert len(jobs) == 132
    found = {(job.config.objective, job.config.pooling, job.config.dataset, job.config.seed) for job in jobs}
    data, poolings = ("synthetic", "folder"), ("lstp", "mean")
    assert found == {(o, p, d, s) for o in OBJECTIVES for p in poolings for d in data for s in (1, 2, 3)}


def test_runs_of_a_data_set_differ_in_objective_and_model_alone(tmp_path):
    compared = {"objective", "objective_options", "pooling", "entities", "preset", "seed"}
    for job in unique_jobs(plan(["study"], 1, tmp_path, {})):
        base = load_config("study" if job.config.dataset == "synthetic" else "study_pullups").as_dict()
        assert {name for name, value in job.config.as_dict().items() if value != base[name]} <= compared


def test_the_table_orders_by_labels_and_says_what_was_not_run(study):
    cropped = study.tables[0]
    place = {name: cropped.columns.index(name) for name in ("objective", "training labels", "runs")}
    late = [row for row in cropped.rows if row[0] == "late fusion" and row[place["runs"]].startswith("3 of 3")]
    assert [row[place["objective"]] for row in late] == ["scl", "lav", "lrprop (our reading)", "vsp_f"]
    assert [row[place["training labels"]] for row in late] == ["none", "video", "video", "frame"]
    text = str(cropped)
    assert "2 of 3 trials" in text and "not run" in text


def test_the_gain_over_untrained_is_paired_by_seed(study):
    cropped = study.tables[0]
    column = next(i for i, name in enumerate(cropped.columns) if "minus untrained" in name)
    (row,) = [row for row in cropped.rows if row[:2] == ("late fusion", "scl")]
    # model 0.4 + 0.01 a seed and untrained 0.25 + 0.01 a seed: the same difference in every seed
    assert row[column].startswith("+15.00 ± 0.00")
    note = next(note for note in cropped.notes if note.startswith("NOT better than untrained"))
    assert "lrprop (our reading) (late fusion, synthetic)" in note and "scl" not in note


def test_differences_are_between_the_models_and_from_scl(study):
    between, from_scl = study.tables[2], study.tables[3]
    (scl,) = [row for row in between.rows if row[0] == "scl"]
    assert scl[2].startswith("+10.00")
    (lav,) = [row for row in from_scl.rows if row[:2] == ("late fusion", "lav")]
    assert lav[3].startswith("-10.00")
    assert not [row for row in from_scl.rows if row[1] == "scl"]


def test_the_figure_has_a_mark_for_every_run(study):
    panel = study.figure.axes[0]
    marks = [line for line in panel.lines if line.get_marker() in ("o", "s")]
    assert sum(len(np.atleast_1d(line.get_xdata())) for line in marks) == 4 * 3 * 2 - 1
