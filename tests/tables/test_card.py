"""The report card is what the presets give."""

import pytest

from mvf.config import presets
from mvf.tables import card
from mvf.tables.paper import paper_tables


@pytest.fixture(scope="module")
def text():
    return card.card_text()


def test_the_committed_card_is_what_the_presets_give(text):
    assert card.PATH.read_text(encoding="utf-8") == text, "run python -m mvf.tables.card"


def test_every_row_and_every_preset_is_on_the_card(text):
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    for table in paper_tables().values():
        for row in table.rows:
            own = [line for line in lines if line[: len(row.labels)] == [label or "" for label in row.labels]]
            wanted = list(row.presets.values()) or ["reported by the paper, not rerun"]
            assert all(any(preset in line for line in own) for preset in wanted), row.labels
    assert all(any(preset in line for line in lines) for preset in presets())


def test_settings_are_differences_from_penn(text):
    (line,) = (line for line in text.splitlines() if "| penn_last_5 " in line)
    assert "| layers 12, entities 5 " in line and "python -m mvf batch table3 --trials 3 --out runs/table3" in text
