"""The report card is what the presets give."""

from dataclasses import replace

import pytest

from bench import card
from mvf.config import load_config, presets
from mvf.cost import model_cost
from mvf.losses import OBJECTIVES
from mvf.workbench.tables.rows import paper_tables


@pytest.fixture(scope="module")
def text():
    return card.card_text()


def test_the_committed_card_is_what_the_presets_give(text):
    assert card.PATH.read_text(encoding="utf-8") == text, "run python bench/card.py"


def test_every_row_and_every_preset_is_on_the_card(text):
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    for table in paper_tables().values():
        for row in table.rows:
            own = [line for line in lines if line[: len(row.labels)] == [label or "" for label in row.labels]]
            assert row.presets and all(any(preset in line for line in own) for preset in row.presets.values())
    words = {word for line in lines for cell in line for word in cell.split(", ")}
    assert set(presets()) <= words


def test_settings_are_differences_from_penn(text):
    (line,) = (line for line in text.splitlines() if "| penn_last_5 " in line)
    assert "| layers 12, entities 5 " in line and "python -m mvf batch table3 --trials 3 --out runs/table3" in text


def test_every_objective_says_its_labels_and_what_is_published():
    rows = {row[0]: row for row in card.objectives().rows}
    assert set(rows) == set(OBJECTIVES) - {"scl"}
    assert all(rows[name][1] == OBJECTIVES[name].labels and rows[name][4] for name in rows)
    assert all("[unverified]" in rows[name][4] for name in rows)


def test_our_reading_of_lrprop_is_said_in_one_line(text):
    assert any("LRProp is our reading" in line for line in card.INTRODUCTION.splitlines())
    (line,) = (line for line in text.splitlines() if line.startswith("- LRProp is our reading"))
    assert "no code was found" in line


def test_costs_that_presets_share_are_those_of_each():
    """TCC and VAVA share what is counted; SCL has the head on top."""
    cost = model_cost(load_config("penn_vava_published"))
    cells = (f"{cost.parameters / 1e6:.2f}", f"{cost.backbone_parameters / 1e6:.2f}", f"{cost.operations / 1e9:.2f}")
    assert card._costs("penn_vava_published") == card._costs("penn_tcc_published") == cells
    assert float(card._costs("penn_carl")[0]) > float(cells[0])


def test_a_row_without_preset_is_reported_not_rerun():
    table = paper_tables()["table1"]
    (line,) = card.table_card(replace(table, rows=(replace(table.rows[1], presets={}),))).rows
    assert line[:3] == ("VSP [54]", "all", "reported by the paper, not rerun") and line[-1].startswith("93.12 / ")
