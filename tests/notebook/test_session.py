"""Which run a notebook opens where nothing, or a relative path, is given."""

import csv
import os

import pytest

from mvf.config import config_text, load_config
from mvf.workbench.notebook import session
from mvf.workbench.notebook.session import find_run


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "default_folder", lambda config: tmp_path / "runs" / "synthetic-1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def make_run(folder, age, epochs=2, done=2):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config_text(load_config("demo", epochs=epochs)))
    with open(folder / "history.csv", "w", newline="") as file:
        csv.writer(file).writerows([["epoch", "loss"], *([epoch, 1.0] for epoch in range(1, done + 1))])
    os.utime(folder / "history.csv", (1e9 - age, 1e9 - age))
    return folder


def test_nothing_given_is_the_newest_finished_run_and_the_others_are_listed(repository):
    runs = repository / "runs"
    make_run(runs / "old", 300)
    newest = make_run(runs / "batch" / "penn-1", 20)
    make_run(newest / "actions" / "squat", 10)
    make_run(runs / "killed", 0, epochs=3)
    (make_run(runs / "damaged", 0) / "config.json").write_text("{")
    found, choice = find_run()
    assert found == newest and choice.endswith(
        "(run_dir is empty: the newest finished run of runs/batch/penn-1, runs/old)"
    )


def test_a_relative_path_is_taken_from_here_and_then_from_the_repository(repository):
    run = make_run(repository / "runs" / "mine", 0)
    for given in ("runs/mine", run, "../runs/mine"):
        found, choice = find_run(given)
        assert found.resolve() == run and not choice
    with pytest.raises(ValueError, match="runs/other is not a run folder .*finished runs: runs/mine$"):
        find_run("runs/other")


def test_without_a_run_it_says_how_to_get_one(repository):
    with pytest.raises(ValueError, match="holds no finished run: make demo, or run train.ipynb first"):
        find_run()
