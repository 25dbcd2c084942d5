"""The table of `make demo`."""

import json

import pytest

from bench.demo import minutes_table, parts_of_training
from mvf.training.run import HISTORY, write_history


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
