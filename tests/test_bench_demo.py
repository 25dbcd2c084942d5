"""The table of `make demo`, and that what it trains is a setting of the preset."""

import json

import pytest

from bench.demo import SETTINGS, minutes_table, parts_of_training
from mvf.config import load_config
from mvf.training.run import HISTORY, write_history
from mvf.workbench.notebook.session import run_config


def test_the_minutes_of_training_are_split_by_cell_and_history(tmp_path):
    def cell(source, seconds, kind="code"):
        return {"cell_type": kind, "source": [source], "metadata": {"papermill": {"duration": seconds}}}

    cells = [
        cell("run = mvf.train(config)", 100.0),
        cell("report = notebook.report_on(x)", 30.0),
        cell("mvf.train(x)", 9.0, "markdown"),
    ]
    stored = {"cells": cells, "metadata": {"papermill": {"duration": 150.0}}}
    (tmp_path / "train.ipynb").write_text(json.dumps(stored))
    write_history(tmp_path, [dict.fromkeys(HISTORY, 0.0) | {"seconds": 20.0}] * 2)
    parts = parts_of_training(tmp_path)
    assert list(parts.values()) == pytest.approx([60, 40, 30, 20])
    rows = minutes_table(parts, {"first film": 21.4, "all": 200.0}).rows
    assert rows[0] == ("first film", "21") and rows[1] == ("features of the frozen backbone", "60")
    assert rows[-1] == ("all", "200")


def test_the_demo_is_its_preset_with_other_settings():
    config = run_config({"preset": "demo", "overrides": json.loads(json.dumps(SETTINGS))})
    assert config.preset == "demo" and config.data_options == {
        **load_config("demo").data_options,
        **SETTINGS["data_options"],
    }
    assert len(config.data_options["actions"]) * 3 == config.data_options["val_videos"]
