"""Batches: what is planned, and what happens when runs fail, are killed, or are done already."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import mvf
from mvf.__main__ import main
from mvf.config import config_text
from mvf.workbench.notebook import run_config
from mvf.workbench.tables import batch, executors
from mvf.workbench.tables import plan as plan_module
from mvf.workbench.tables.plan import notebook_parameters, plan, unique_jobs
from mvf.workbench.tables.rows import paper_tables
from mvf.workbench.tables.sizes import Estimate
from tests.conftest import TINY
from tests.data.footage import write_video

SMALL = {"dataset": "synthetic", **{name: value for name, value in TINY.items() if name != "layers"}}

FAKE = """
import json, pathlib, time
with open(pathlib.Path(run_dir).parent / "started.txt", "a") as file:
    file.write(f"{preset}-{seed}\\n")
time.sleep(overrides.get("sleep", 0))
assert not pathlib.Path(run_dir, "..", f"fail-{preset}").exists(), "this row always fails"
pathlib.Path(run_dir, "metrics.json").write_text("{}")
"""


def use_notebook(code, monkeypatch, folder):
    cells = [new_code_cell("overrides = {}\nrun_dir = preset = dataset = ''\nseed = 0"), new_code_cell(code)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "quick.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    monkeypatch.setattr(batch, "NOTEBOOK", path)
    return path


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A notebook that only notes that it ran, instead of a training."""
    return use_notebook(FAKE, monkeypatch, tmp_path)


def started(out):
    return sorted((out / "started.txt").read_text().split())


def test_the_log_of_a_run_does_not_begin_with_a_warning_about_encryption(quick, tmp_path):
    out = tmp_path / "out"
    batch.run_batch(["penn"], 1, out, {"dataset": "synthetic"})
    log = (out / "logs" / "penn-1.log").read_text()
    assert started(out) == ["penn-1"] and log.startswith("Input Notebook:") and "encrypt" not in log


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


NOTING = """
import time
from mvf.files import note_progress
for line in ("feature bank, 32 of 64 frames", "epoch 1 of 2, loss 0.5", "epoch 2 of 2, loss 0.4"):
    note_progress(line)
    time.sleep(1)
open(f"{run_dir}/metrics.json", "w").write("{}")
"""


def test_what_runs_are_at_is_said_while_they_run(monkeypatch, tmp_path, capsys):
    use_notebook(NOTING, monkeypatch, tmp_path)
    monkeypatch.setattr(batch, "PROGRESS", 0.1)
    out = tmp_path / "runs"
    (out / "logs").mkdir(parents=True)
    (out / "logs" / "penn_mean-1.progress").write_text("epoch 9 of 9, of an earlier batch\n")
    assert main(["batch", "penn", "penn_mean", "--trials", "1", "--out", str(out), "--workers", "2"]) == 0
    *said, last = capsys.readouterr().out.splitlines()
    for run in ("[1/2] penn-1: ", "[2/2] penn_mean-1: "):
        own = [line.removeprefix(run) for line in said if line.startswith(run)]
        assert own[0] == "started" and "epoch 1 of 2, loss 0.5" in own and own[-1].startswith("done in ")
        assert "feature bank, 32 of 64 frames" in own and len(own) <= 5
    assert last.startswith("tables: ") and "\r" not in "".join(said)


def test_training_notes_the_bank_its_epochs_and_the_evaluation(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    config = tiny()
    run = mvf.train(config, tmp_path / "run")
    videos = mvf.data.find_config_videos(config, "val")
    embedded = mvf.embed(run.model, videos)
    mvf.evaluate(embedded, embedded, replace(config, localization=False), run.model, videos, videos)
    *bank, first, second, judged = (tmp_path / "progress").read_text().splitlines()
    frames = sum(video.num_frames for video in mvf.data.find_config_videos(config, "train")) * config.bank_views
    assert bank[-1] == f"feature bank of augmented views, {frames:,} of {frames:,} frames" and len(bank) > 2
    losses = [row["loss"] for row in run.history]
    assert [first, second] == [f"epoch {n} of 2, loss {loss:.4f}" for n, loss in enumerate(losses, 1)]
    assert judged == "evaluation"


def test_killed_and_started_again_it_redoes_nothing(quick, tmp_path):
    out = tmp_path / "runs"
    code = (
        f"import mvf.workbench.tables.batch as b, pathlib; b.NOTEBOOK = pathlib.Path({str(quick)!r})\n"
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


@pytest.mark.parametrize("text", [b"", b'{"tables": ["tab', b"\xc3", b"[]", b'{"tables": [], "trials": 1, "runs": []}'])
def test_a_damaged_manifest_is_named_and_can_be_deleted(tmp_path, capsys, text):
    manifest = tmp_path / "batch.json"
    manifest.write_bytes(text)
    assert main(["batch", "table5", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{manifest} is not a batch manifest" in said and "delete it" in said and said.count("\n") == 1
    manifest.unlink()
    batch.write_manifest(tmp_path, ["table5"], 1, {}, plan(["table5"], 1, tmp_path, {}))
    assert json.loads(manifest.read_text())["tables"] == ["table5"]


def test_a_dry_run_lists_and_writes_nothing(tmp_path, capsys):
    assert main(["batch", "table2", "--trials", "1", "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert "penn_from_kinetics-1: to do, starts from kinetics400-1, about " in listed
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_minutes_and_gigabytes_of_each_run_and_of_all_with_one_bank(tmp_path, capsys, monkeypatch):
    found = {1: Estimate(60.0, 240.0, 1.25, "bank"), 2: Estimate(120.0, 240.0, 1.25, "bank")}
    monkeypatch.setattr("mvf.__main__.estimate", lambda config: found[config.seed])
    assert main(["batch", "demo", "--trials", "2", "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    first, second, both = capsys.readouterr().out.splitlines()
    assert first.endswith("demo-1: to do, about 5 min, 1.2 GB of banks") and "demo-2: to do, about 6 min" in second
    assert both == "2 runs, 2 to do: about 7 min, 1.2 GB of banks"


def test_a_dry_run_says_which_data_are_missing(tmp_path, capsys):
    there, gone = tmp_path / "clips", tmp_path / "gone"
    there.mkdir()
    for name in "abc":
        write_video(there / f"{name}.mp4", 9)
    here = ("--out", str(tmp_path / "runs"), "--dry-run")
    for root, said in ((there, False), (gone, True)):
        assert main(["batch", "study", "--trials", "1", *here, "-p", "data_root", str(root)]) == 0
        lines = capsys.readouterr().out.splitlines()
        lacking = [line for line in lines if f"its data are missing: there is no folder {root}" in line]
        assert len(lacking) == (22 if said else 0) and len(lines) == 45
        assert all("study_pullups" in line for line in lacking)  # drawn videos need no folder
        assert ("22 of them without their data and not counted" in lines[-1]) == said
    assert main(["batch", "folder", *here, "-p", "data_root", str(tmp_path / "logs")]) == 0
    (tmp_path / "logs").mkdir()
    assert main(["batch", "folder", *here, "-p", "data_root", str(tmp_path / "logs")]) == 0
    *_, line, last = capsys.readouterr().out.splitlines()
    assert line.endswith(f"folder-3: to do, but no videos in {tmp_path / 'logs'}")
    assert last == "3 runs, 3 to do; no estimate without their data"


def words_of(parameters):
    text = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in parameters.items()}
    return [word for name, value in text.items() for word in ("-p", name, value)]


def check_table(name, out, capsys):
    assert main(["batch", name, "--trials", "1", "--out", str(out), "--workers", "2", *words_of(SMALL)]) == 0
    for preset in {preset for row in paper_tables()[name].rows for preset in row.presets.values()}:
        report = json.loads((out / f"{preset}-1" / "metrics.json").read_text())
        assert report["preset"] == preset and report["dataset"] == "synthetic"
        assert report["backbone_weights"] == "random" and report["cropped"]["model"]


def keep_one_row(monkeypatch):
    table = paper_tables()["table3"]
    short = {"table3": replace(table, rows=table.rows[:1], reference=table.rows[0].labels)}
    for place in (sys.modules[__name__], plan_module):
        monkeypatch.setattr(place, "paper_tables", lambda: short)


@pytest.mark.slow
def test_a_row_runs_for_real(tmp_path, capsys, monkeypatch):
    keep_one_row(monkeypatch)
    check_table("table3", tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table2", "table5"])
def test_tables_run_for_real(name, tmp_path, capsys):
    check_table(name, tmp_path, capsys)


# jobs of submitit ---------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/sh
number=$((40 + $(ls "$JOBS" | grep -c sbatch)))
cp "$1" "$JOBS/$number.sbatch"
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/sh
test ! -e "$JOBS/down" || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
cat "$JOBS/queue"
"""


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """The folder of a cluster that queues and runs nothing: what was submitted, and `queue`, which a test writes."""
    pytest.importorskip("submitit")
    programs, jobs = tmp_path / "programs", tmp_path / "jobs"
    for folder in (programs, jobs):
        folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("srun", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (jobs / "queue").touch()
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return jobs


@pytest.fixture
def no_locks(monkeypatch):
    """A disc that has no locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


def flags(path):
    """Options of a submitted file, by name."""
    pairs = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", path.read_text(), flags=re.MULTILINE)
    return {name: shlex.split(value)[0] if value else "" for name, value in pairs}


def submit(out, *more, table="table2"):
    words = more or ("--slurm", "time=60")
    return main(["batch", table, "--trials", "1", "--out", str(out), "--executor", "slurm", *words])


def test_a_cluster_gets_one_job_a_run_with_its_options_and_what_it_starts_from(slurm, tmp_path, capsys):
    out = tmp_path / "runs"
    assert submit(out, "--slurm", "partition=gpu,time=240,mem_gb=32", "--slurm", "gpus_per_node=1,cpus_per_task=4") == 0
    jobs = {flags(path)["job-name"]: (path, flags(path)) for path in slurm.glob("*.sbatch")}
    assert sorted(jobs) == sorted(job.name for job in unique_jobs(plan(["table2"], 1, out, {})))
    for path, given in jobs.values():
        assert (given["partition"], given["time"], given["mem"]) == ("gpu", "240", "32GB")
        assert (given["gpus-per-node"], given["cpus-per-task"]) == ("1", "4")
        assert given["signal"].startswith("USR2@") and given["kill-on-invalid-dep"] == "yes"
        assert "submitit.core._submit" in path.read_text()
    first = jobs["kinetics400-1"][0].stem
    assert jobs["penn_from_kinetics-1"][1]["dependency"] == f"afterok:{first}"
    assert "dependency" not in jobs["kinetics400-1"][1]
    assert f"penn_from_kinetics-1: queued as job {jobs['penn_from_kinetics-1'][0].stem}, after job {first}" in (
        capsys.readouterr().out
    )


def test_started_again_a_cluster_gets_only_what_is_neither_queued_nor_done(slurm, tmp_path, capsys):
    out = tmp_path / "runs"
    assert submit(out, table="table5") == 0
    numbers = {flags(path)["job-name"]: path.stem for path in slurm.glob("*.sbatch")}
    done = out / "penn_resnet50-1"
    done.mkdir()
    (done / "metrics.json").write_text("{}")
    (done / "train.ipynb").write_text(json.dumps({"metadata": {"papermill": {"end_time": "now"}}}))
    queued = numbers["penn_resnet50_lstp_1-1"]
    (slurm / "queue").write_text(f"{queued}\n")
    capsys.readouterr()
    assert submit(out, table="table5") == 0
    said = capsys.readouterr().out
    assert "penn_resnet50-1: done before" in said
    assert f"penn_resnet50_lstp_1-1: queued before as job {queued}" in said
    again = [flags(path)["job-name"] for path in slurm.glob("*.sbatch")]
    assert sorted(again) == sorted([*numbers, "penn_resnet50_lstp_mtf-1"])  # the job that is gone, once more


def test_nothing_is_queued_while_the_cluster_does_not_answer(slurm, tmp_path, capsys):
    (slurm / "down").touch()
    assert submit(tmp_path / "runs") == 1
    assert "squeue does not say which jobs are queued: slurm_load_jobs error" in capsys.readouterr().err
    assert not list(slurm.glob("*.sbatch"))


@pytest.mark.parametrize(("given", "limit"), [("time=1-00:00:00", 1440), ("timeout=90", 90)])
def test_a_time_limit_reaches_slurm_and_submitit_as_minutes(slurm, tmp_path, given, limit):
    from submitit.core.utils import DelayedSubmission

    assert submit(tmp_path / "runs", "--slurm", given, table="table5") == 0
    for path in slurm.glob("*.sbatch"):
        job = DelayedSubmission.load(tmp_path / "runs" / "logs" / "submitit" / f"{path.stem}_submitted.pkl")
        assert flags(path)["time"] == str(limit) and job._timeout_min == limit
        assert job.function.patience == executors.PATIENCE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("printf 'sbatch: no such partition\\nsbatch: it failed\\n' >&2; exit 1", "no such partition sbatch: it"),
        ("exit 1", "it does not say why"),
        ("echo welcome", "Could not make sense of sbatch output"),
    ],
)
def test_a_job_that_sbatch_refuses_is_named_on_one_line_and_queued_by_the_next_batch(
    slurm, tmp_path, capsys, text, words
):
    program = tmp_path / "programs" / "sbatch"
    program.write_text(f"#!/bin/sh\n{text}\n")
    assert submit(tmp_path / "runs", table="table5") == 1
    said = capsys.readouterr().err
    assert "penn_resnet50-1" in said and words in said and said.count("\n") == 1
    program.write_text(SBATCH)
    assert submit(tmp_path / "runs", table="table5") == 0
    assert len(list(slurm.glob("*.sbatch"))) == 3


def test_on_a_disc_without_locks_a_cluster_gets_its_jobs(slurm, tmp_path, no_locks, caplog):
    assert submit(tmp_path / "runs", table="table5") == 0
    assert len(list(slurm.glob("*.sbatch"))) == 3 and "submit.lock: this file system has no locks" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--slurm", "time=3"], "add --executor slurm"),
        (
            ["--executor", "local", "--slurm", "partition=gpu"],
            "--executor local supports only timeout_min, gpus_per_node",
        ),
        (["--executor", "slurm", "--slurm", "time"], 'NAME=VALUE, as in "partition=gpu,time=240", got "time"'),
        (["--executor", "slurm", "--slurm", "walltime=3,time=5"], "walltime"),
        (["--executor", "slurm", "--slurm", "partition=gpu"], "--slurm time=MINUTES, or time=D-HH:MM:SS; got none"),
        (["--executor", "slurm", "--slurm", "time=5,timeout=6"], "got {'time': 5, 'timeout_min': 6}"),
        (["--executor", "slurm", "--slurm", "time=UNLIMITED"], 'not zero; got "UNLIMITED"'),
        (["--executor", "local", "--slurm", "timeout=soon"], 'not zero; got "soon"'),
    ],
)
def test_options_that_no_job_has_are_refused_before_anything_is_written(slurm, tmp_path, capsys, words, message):
    assert main(["batch", "table5", "--out", str(tmp_path / "runs"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / "batch.json").exists()


@pytest.mark.parametrize(
    ("hidden", "message"), [("submitit", "pip install submitit"), ("srun", "no sbatch, srun, squeue here")]
)
def test_without_the_library_or_a_cluster_it_says_what_to_do(monkeypatch, tmp_path, capsys, hidden, message):
    if hidden == "submitit":
        monkeypatch.setitem(sys.modules, "submitit", None)
        executor = "local"
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        executor = "slurm"
    assert main(["batch", "table5", "--out", str(tmp_path / "runs"), "--executor", executor]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_on_this_machine_run_fail_and_are_not_run_twice(quick, tmp_path, capsys):
    pytest.importorskip("submitit")
    out = tmp_path / "runs"
    out.mkdir()
    (out / "fail-penn_resnet50_lstp_1").touch()
    words = ["batch", "table5", "--trials", "1", "--out", str(out), "--executor", "local"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "1 runs failed: penn_resnet50_lstp_1-1" in captured.err
    assert captured.out.count("done in") == 2 and "this row always fails" in captured.out
    (out / "fail-penn_resnet50_lstp_1").unlink()
    before = started(out)
    assert main(words) == 0
    assert started(out) == sorted([*before, "penn_resnet50_lstp_1-1"])
    assert capsys.readouterr().out.count("done before") == 2


TRAINING = """
import mvf, pathlib
with open(pathlib.Path(run_dir).parent / "started.txt", "a") as file:
    file.write(f"{preset}-{seed}\\n")
mvf.train(mvf.load_config(preset, dataset=dataset, seed=seed, device="cpu", **overrides), run_dir)
pathlib.Path(run_dir, "metrics.json").write_text("{}")
"""


def preempt(out, epochs, told):
    """Sends a job here what a cluster sends before it takes the machine away, once so many epochs are done."""
    history = next(iter(plan(["table3"], 1, out, {}).values()))[0].folder / "history.csv"
    while not (history.exists() and len(history.read_text().splitlines()) > epochs):
        time.sleep(0.02)
    controller = next((out / "logs" / "submitit").glob("*_submitted.pkl")).name.split("_")[0]
    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)
    told.append(len(history.read_text().splitlines()) - 1)


@pytest.mark.slow
def test_a_preempted_job_goes_on_from_its_state_to_the_weights_of_an_undisturbed_run(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    keep_one_row(monkeypatch)
    use_notebook(TRAINING, monkeypatch, tmp_path)
    settings, out, told = {**SMALL, "epochs": 40, "features": "banked"}, tmp_path / "runs", []
    watcher = threading.Thread(target=preempt, args=(out, 3, told), daemon=True)
    watcher.start()
    assert batch.run_batch(["table3"], 1, out, settings, executor="local") == []
    job = next(iter(plan(["table3"], 1, out, settings).values()))[0]
    assert told and told[0] < 40, "the run ended before it could be preempted"
    assert started(out) == [job.name, job.name], "it was not queued again"
    assert "preempted" in "".join(path.read_text() for path in (out / "logs" / "submitit").glob("*_log.err"))
    mvf.train(replace(job.config, device="cpu"), tmp_path / "never")
    same = [(folder / "model.safetensors").read_bytes() for folder in (job.folder, tmp_path / "never")]
    assert same[0] == same[1]


def test_a_stopped_run_ends_its_process(tmp_path):
    run = executors.NotebookRun(tmp_path / "run", ["sleep", "60"], tmp_path / "log" / "run.log")
    waiting = threading.Thread(target=lambda: pytest.raises(RuntimeError, run))
    waiting.start()
    while run.child is None:
        time.sleep(0.01)
    run.stop()
    waiting.join(5)
    assert not waiting.is_alive() and run.child.returncode == -signal.SIGTERM


def test_on_a_disc_without_locks_a_run_is_run(tmp_path, no_locks, caplog):
    assert executors.NotebookRun(tmp_path / "run", ["true"], tmp_path / "run.log")()
    assert "run.lock: this file system has no locks" in caplog.text


# what Slurm tells a job that it ends ----------------------------------------------------------------------------------

BOTH = "kill -TERM $PPID $$; sleep 60"  # to all processes of a job, as Slurm
CHILD = "kill -TERM $$; sleep 60"


class Requeued(BaseException):
    """Ends a job, as submitit does once the job is queued again."""


@pytest.fixture
def job(monkeypatch, tmp_path):
    """Runs a shell script as the run of a job, which gets submitit's signal some seconds later."""

    def requeue(*_):
        raise Requeued

    def start(script, patience, seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            executors.NotebookRun(tmp_path / "run", ["sh", "-c", script], tmp_path / "run.log", patience=patience)()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    monkeypatch.setattr(executors, "GRACE", 0.1)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = {number: signal.signal(number, answer) for number, answer in (
        (signal.SIGTERM, lambda *_: None), (signal.SIGALRM, requeue))}  # fmt: skip
    yield start
    for number, answer in before.items():
        signal.signal(number, answer)


def test_a_run_that_slurm_tells_to_end_waits_until_slurm_ends_it_or_it_is_queued_again(job):
    with pytest.raises(Requeued):
        job(BOTH, patience=60, seconds=0.5)


@pytest.mark.parametrize(("script", "patience"), [(BOTH, 0.3), (CHILD, 60), (BOTH, 0)])
def test_a_run_that_nobody_ends_or_whose_process_alone_is_killed_has_failed_soon(job, script, patience):
    with pytest.raises(RuntimeError, match="it wrote nothing"):
        job(script, patience, seconds=20)


@pytest.mark.slow
def test_a_job_told_to_end_by_slurm_is_still_there_to_be_queued_again(slurm, tmp_path, monkeypatch):
    keep_one_row(monkeypatch)
    use_notebook(FAKE.replace('overrides.get("sleep", 0)', "60"), monkeypatch, tmp_path)
    scontrol = tmp_path / "programs" / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "$@" >> "$JOBS/asked"\n')
    scontrol.chmod(0o755)
    out = tmp_path / "runs"
    assert submit(out, table="table3") == 0
    command = [sys.executable, "-m", "submitit.core._submit", str(out / "logs" / "submitit")]
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "40")
    process = subprocess.Popen(command)
    while not (out / "started.txt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (papermill,) = psutil.Process(process.pid).children()
    for one in (psutil.Process(process.pid), papermill, *papermill.children(recursive=True)):
        one.send_signal(signal.SIGTERM)
    while psutil.Process(process.pid).children():
        time.sleep(0.05)
    time.sleep(executors.GRACE + 3)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR2)
    process.wait(30)
    assert (slurm / "asked").read_text() == "requeue 40\n"
    assert not list((out / "logs" / "submitit").glob("*_result.pkl"))  # where submitit notes the end of a job


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_run_that_stored_what_auto_chose_is_the_same_run(tmp_path, precision):
    (job,) = unique_jobs(plan(["synthetic"], 1, tmp_path, {"precision": precision}))
    chosen = "bf16" if precision == "auto" else precision
    job.folder.mkdir()
    (job.folder / "config.json").write_text(config_text(replace(job.config, engine="openvino", precision=chosen)))
    batch._check_same(job)
    (job.folder / "config.json").write_text(config_text(replace(job.config, epochs=1)))
    with pytest.raises(ValueError, match="another configuration"):
        batch._check_same(job)
