"""The study of objectives: what it runs, and what its tables say of fabricated runs."""

import json

import numpy as np
import pytest

from mvf.evaluation import write_report
from mvf.workbench import plotting
from mvf.workbench.notebook import run_config
from mvf.workbench.tables.draw import draw_tables
from mvf.workbench.tables.plan import notebook_parameters, plan, unique_jobs
from mvf.workbench.tables.rows import objectives, studies
from mvf.workbench.tables.trials import compare, read_batches
from tests.tables.test_draw import report
from tests.test_notebooks import execute

UNTRAINED = 0.55
MINUS = "synthetic class., % minus untrained"


def study_report(level, seed, dataset, supervision, weights="index"):
    """As `test_draw.report`; trained models have `level` plus 0.01 a seed on windows, untrained ones 0.55."""
    made = report(level + 0.1, seed, dataset, weights)
    made["cropped"] |= {"untrained": dict.fromkeys(made["scores"], UNTRAINED + 0.001 * seed)}
    made["cropped"] |= {"backbone_motion": dict.fromkeys(made["scores"], 0.7)}
    made["controls"] |= {"frozen_frame": {"classification": 0.1 * seed}}
    made["alignment_error"] = {"whole": 1 - level, "window": (1 - level) / 2}
    made["alignment_error_controls"] = {"position_only": {"whole": 0.5, "window": 0.25}}
    made["cost"] |= {"seconds_per_epoch": 2.0 + seed}
    return made | {"supervision": supervision}


def level_of(row):
    """A level for each objective, 0.05 lower for late fusion; scl is just below untrained there."""
    place = list(objectives()).index(row.labels[1].split()[0])
    return 0.57 + 0.02 * place - 0.05 * (row.labels[0] == "late fusion")


def write_study(out, name="study_synthetic", without=lambda preset, seed: False, parameters=None, **options):
    """A batch of a study, all runs but those `without` names; clips of the folder have no action labels."""
    runs = {}
    for row in studies()[name].rows:
        for dataset, preset in row.presets.items():
            runs[preset] = {str(seed): f"{preset}-{seed}" for seed in (1, 2, 3)}
            assumed = ", assumed" * (dataset == "folder" and row.labels[2] == "video")
            for seed in (seed for seed in (1, 2, 3) if not without(preset, seed)):
                (out / f"{preset}-{seed}").mkdir(parents=True)
                made = study_report(level_of(row), seed, dataset, row.labels[2] + assumed, **options)
                if "late" in preset and preset not in ("study_late", "study_late_tcc"):
                    made["videos"] = {}  # a bootstrap takes time, a few are enough
                write_report(made, out / f"{preset}-{seed}" / "metrics.json")
    manifest = {"tables": [name], "trials": 3, "parameters": parameters or {}, "runs": runs}
    (out / "batch.json").write_text(json.dumps(manifest))
    return out


def line(table, *labels):
    """The one row of a table that begins so, by column."""
    (row,) = (row for row in table.rows if row[: len(labels)] == labels)
    return dict(zip(table.columns, row))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One data set; a run and a row lack."""
    lacking = {("study_tcn", 2), *(("study_late_lav", seed) for seed in (1, 2, 3))}
    out = tmp_path_factory.mktemp("study") / "runs"
    folder = write_study(out, without=lambda preset, seed: (preset, seed) in lacking)
    (made,) = draw_tables(str(folder))
    return made, folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two data sets, of which tcc alone was run."""
    out = tmp_path_factory.mktemp("both") / "runs"
    parameters = {"data_root": "/home/someone/pullups", "epochs": 2}
    folder = write_study(out, "study", lambda preset, seed: not preset.endswith("_tcc"), parameters, weights="random")
    return draw_tables(str(folder))[0]


def test_every_objective_is_run_on_both_models_and_data_sets():
    jobs = plan(["study"], 3, "out", {"data_root": "clips"})
    runs = unique_jobs(jobs)
    assert len(runs) == 132 and [job.config.seed for job in runs[:44]] == [1] * 44
    settings = {(j.config.dataset, j.config.pooling, j.config.entities, j.config.objective) for j in runs}
    models, data = (("lstp", 3), ("mean", 1)), ("synthetic", "folder")
    assert settings == {(name, *model, objective) for name in data for model in models for objective in objectives()}
    assert jobs["study_pullups_tcc"][0].config.data_root.endswith("clips")
    assert len(unique_jobs(plan(["study", "study_synthetic", "study_folder"], 3, "out", {}))) == 132
    assert len(unique_jobs(plan(["study_folder"], 3, "out", {}))) == 66


def test_rows_differ_in_model_and_objective_alone():
    apart = {"preset", "objective", "objective_options", "pooling", "entities"}
    for dataset in ("synthetic", "folder"):
        jobs = plan([f"study_{dataset}"], 1, "out", {})
        first, *others = (job.config.as_dict() for job in unique_jobs(jobs))
        for other in others:
            assert {name for name in first if first[name] != other[name]} <= apart


def test_the_notebook_makes_exactly_the_planned_configuration():
    for job in unique_jobs(plan(["study"], 1, "out", {"data_root": "clips", "epochs": 2})):
        given = notebook_parameters(job)
        given.pop("run_dir")
        assert run_config(json.loads(json.dumps(given))) == job.config


def test_rows_are_ordered_by_the_labels_that_training_consumed(drawn):
    rows = [row for row in drawn[0].tables[0].rows if row[1].split()[0] in objectives()]
    order = ["none"] * 4 + ["video"] * 5 + ["phase", "frame"]
    assert [row[2] for row in rows] == order * 2 and [row[0] for row in rows] == ["LSTP + MTF"] * 11 + [
        "late fusion"
    ] * 11
    assert all("lrprop (our reading)" in str(table) and "lrprop |" not in str(table) for table in drawn[0].tables)


def test_a_row_has_mean_spread_and_what_training_adds_seed_by_seed(drawn):
    cropped, whole = drawn[0].tables[:2]
    scl = line(cropped, "LSTP + MTF", "scl")
    assert scl["synthetic class., %"] == "59.00 ± 2.00" and scl["synthetic Kendall's tau"] == "0.590 ± 0.020"
    assert scl["synthetic alignment error"] == "0.215 ± 0.000" and scl["runs"] == "3 of 3 trials"
    gains = 100 * np.array([0.58 - 0.551, 0.59 - 0.552, 0.60 - 0.553])
    assert scl[MINUS] == f"+{gains.mean():.2f} ± {2 * gains.std(ddof=1):.2f}" == "+3.80 ± 1.80"
    assert line(cropped, "late fusion", "scl")[MINUS] == "-1.20 ± 1.80"
    scl = line(whole, "LSTP + MTF", "scl")
    assert scl["synthetic class., %"] == "69.00 ± 2.00" and scl["synthetic alignment error"] == "0.430 ± 0.000"
    assert scl["synthetic frozen frame, class., %"] == "20.00 ± 20.00"


def test_controls_stand_below_once_and_untrained_for_each_model(drawn):
    cropped, whole = drawn[0].tables[:2]
    for model in ("LSTP + MTF", "late fusion"):
        untrained = line(cropped, model, "untrained")
        assert untrained["synthetic class., %"] == "55.20 ± 0.20" and untrained["training labels"] == plotting.MISSING
        assert untrained[MINUS] == "" and untrained["synthetic alignment error"] == plotting.MISSING
    clock = line(cropped, "any", "clock alone")
    assert clock["synthetic class., %"] == "20.00 ± 0.00" and clock["synthetic alignment error"] == "0.250 ± 0.000"
    assert line(cropped, "any", "backbone motion")["synthetic retrieval@5, %"] == "70.00 ± 0.00"
    assert [row[1] for row in whole.rows[22:]] == ["untrained"] * 2 + [
        "clock alone", "frame count", "backbone mean", "backbone motion", "motion PCA",
    ]  # fmt: skip


def test_what_was_not_run_has_no_number(drawn):
    lav = line(drawn[0].tables[0], "late fusion", "lav")
    assert lav.pop("training labels") == "video" and set(lav.values()) == {"late fusion", "lav", "not run"}
    assert line(drawn[0].tables[0], "LSTP + MTF", "tcn")["runs"] == "2 of 3 trials"
    models, against, costs = drawn[0].tables[2:]
    assert set(line(models, "lav").values()) == {"lav", "video", plotting.MISSING}
    assert line(against, "late fusion", "lav")["synthetic class., %"] == plotting.MISSING
    assert line(costs, "late fusion", "lav")["ms a frame"] == "not run"


def test_the_best_are_marked_within_each_model_and_a_low_error_is_the_better(drawn):
    cropped = drawn[0].tables[0]
    # levels rise down the rows, errors fall; what training adds is not ranked
    assert {cropped.rows[i][:2] for i, _ in cropped.best} == {("LSTP + MTF", "vsp_f"), ("late fusion", "vsp_f")}
    assert {cropped.rows[i][:2] for i, _ in cropped.second} == {("LSTP + MTF", "vsp_p"), ("late fusion", "vsp_p")}
    marked = {cropped.columns[j] for _, j in cropped.best}
    assert marked == {
        f"synthetic {score}" for score in ("class., %", "retrieval@5, %", "Kendall's tau", "alignment error")
    }


def test_a_note_names_what_training_did_not_improve(drawn):
    notes = drawn[0].tables[0].notes
    assert "NOT better than untrained in cropped classification: scl (late fusion, synthetic)." in notes
    (within,) = (note for note in notes if note.startswith("Better than untrained by no more than two"))
    assert within.endswith(": sal (late fusion, synthetic).")  # 0.8 with a spread of 1.8


def test_differences_are_those_of_the_runs(drawn):
    made, folder = drawn
    (batch,) = read_batches(str(folder))
    models, against = made.tables[2:4]
    assert line(models, "tcc")["synthetic class., %"].startswith("+5.00‡† [")
    low, high = (100 * end for end in compare(*(batch.reports[p] for p in ("study_tcc", "study_late_tcc")),
                                              "cropped", "classification").interval)  # fmt: skip
    assert line(models, "tcc")["synthetic class., %"].endswith(f"[{low:+.2f}, {high:+.2f}]")
    assert line(models, "vava")["synthetic class., %"] == "+5.00‡"  # no pieces, no interval
    assert len(models.rows) == 11 and len(against.rows) == 20 and "scl" not in [row[1] for row in against.rows]
    assert line(against, "LSTP + MTF", "sal")["synthetic class., %"].startswith("+2.00† [")
    assert line(against, "late fusion", "vsp_f")["training labels"] == "frame"


def test_costs_are_by_objective(drawn):
    scl = line(drawn[0].tables[4], "LSTP + MTF", "scl")
    assert scl["synthetic seconds an epoch"] == "4.00 ± 2.00" and scl["trained, 10⁶"] == "5.00"
    assert scl["ms a frame"] == "3.00 ± 2.00" and "shared the machine" in drawn[0].tables[4].notes[0]


def test_two_data_sets_stand_side_by_side_with_the_labels_of_each(both):
    tcc = line(both.tables[0], "LSTP + MTF", "tcc")
    assert tcc["training labels"] == "synthetic video; folder video, assumed"
    assert tcc["synthetic class., %"] == tcc["folder class., %"] != "not run"
    assert tcc["folder class., % minus untrained"].startswith("+")
    assert line(both.tables[0], "LSTP + MTF", "scl")["training labels"] == "none"  # declared, where it was not run


def test_random_weights_and_settings_are_said_and_no_path_is_shown(both):
    for table in both.tables[:2]:
        assert table.notes[0].startswith("RANDOM backbone weights") and "RANDOM weights" in table.caption
        assert "Settings of this batch, not the presets' own: epochs 2." in table.notes
        assert "videos of pullups" in table.caption and "/home" not in str(table)
    caption = both.figure._supxlabel.get_text().replace("\n", " ")
    assert "RANDOM backbone weights" in caption and "/home" not in caption


def test_rows_on_other_data_say_so_and_scores_that_lack_have_their_reason(tmp_path):
    folder = write_study(tmp_path / "runs", "study_folder", lambda preset, seed: preset != "study_pullups" or seed > 1)
    path = folder / "study_pullups-1" / "metrics.json"
    made = json.loads(path.read_text()) | {"dataset": "synthetic", "skipped": {"cropped.classification": "no labels"}}
    del made["cropped"]["model"]["classification"]
    path.write_text(json.dumps(made))
    (drawn,) = draw_tables(str(folder))
    notes = drawn.tables[0].notes
    assert "Run on synthetic in place of folder." in notes and not any("NOT better" in note for note in notes)
    assert "folder class., %: lacking in 1 of 1 runs: no labels." in notes
    assert line(drawn.tables[0], "LSTP + MTF", "scl")["folder class., %"] == plotting.MISSING


def test_the_figure_has_every_run_and_the_files_are_written(drawn, both, tmp_path):
    made, _ = drawn
    assert [axes.get_title() for axes in made.figure.axes] == ["synthetic\nclassification", "synthetic\nretrieval@5"]
    dots = [line for line in made.figure.axes[0].lines if line.get_marker() in "os"]
    assert sorted(len(line.get_xdata()) for line in dots) == [2] + [3] * 20
    assert [text.get_text() for text in made.figure.axes[0].texts] == ["not run"]
    assert len(both.figure.axes) == 4
    made.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"study_synthetic.{kind}" for kind in ("md", "pdf", "png")}


@pytest.mark.slow
def test_the_notebook_draws_a_study(drawn, tmp_path):
    execute("figures", tmp_path / "figures.ipynb", tables=str(drawn[1]), out=str(tmp_path / "figures"))
    assert (tmp_path / "figures" / "study_synthetic.md").exists()
