"""The tables hold the numbers that the paper prints, and the notes on them are true."""

import re
from collections import Counter

import pytest

from mvf.config import load_config, presets
from mvf.losses import OBJECTIVES
from mvf.workbench.tables.rows import Column, PaperTable, Row, paper_tables, printed


def cells(name, *labels):
    (row,) = (row for row in paper_tables()[name].rows if row.labels == labels)
    return [printed(cell) for cell in row.paper]


def exceeds_spread(first, second):
    return abs(first[0] - second[0]) > first[1] + second[1] + 1e-9


def test_every_row_of_the_paper_is_here_as_printed(shared):
    text = (shared / "paper.txt").read_text().replace(r" \pm ", " ± ")
    text = re.sub(r"</?u>", "", text).replace(" [†]", "†")
    rows = [tuple(cell.strip() for cell in line.split("\t")) for line in text.splitlines() if line.count("\t") > 3]
    headings = [row for row in rows if row[0] in ("Method", "Feats.", "") or "Class." in row]
    ours = [(*row.labels, *row.paper) for table in paper_tables().values() for row in table.rows]
    assert sorted(ours) == sorted(row for row in rows if row not in headings)
    assert [len(table.rows) for table in paper_tables().values()] == [3, 9, 8, 19, 3, 5]


def test_every_row_has_presets_that_exist_where_the_paper_has_numbers():
    for table in paper_tables().values():
        for row in table.rows:
            assert set(row.presets.values()) <= set(presets())
            printed_on = {column.dataset for column, cell in zip(table.columns, row.paper) if cell != "-"}
            assert set(row.presets) == printed_on, row.labels
            assert all(load_config(preset).dataset == dataset for dataset, preset in row.presets.items())
        assert table.reference_row in table.reproduced


def test_the_rows_of_table_4_have_the_objective_and_the_labels_that_they_name():
    for row in paper_tables()["table4"].rows:
        method = row.labels[0].split()[0]
        name = {"CARL": "scl", "MVF": "scl"}.get(method, method.rstrip("*†").lower().replace("-", "_"))
        for preset in row.presets.values():
            config = load_config(preset)
            assert config.objective == name and OBJECTIVES[name].labels == row.labels[1].lower()
            assert config.per_action == (method.endswith("*") and config.dataset == "penn")
            assert bool(config.init_from) == (row.labels[2] == "K-400")
            assert (config.backbone == "resnet50") == (method != "MVF")


def test_rows_of_table_4_coincide_where_the_notes_say_so():
    of_penn = Counter(row.presets["penn"] for row in paper_tables()["table4"].rows)
    assert {preset for preset, count in of_penn.items() if count > 1} == {"penn_tcn_published"}
    assert any("two rows of TCN share their runs" in note for note in paper_tables()["table4"].notes)


def test_notes_on_spreads_hold_for_the_printed_numbers():
    one, three = cells("table3", "Multi.", "1"), cells("table3", "Multi.", "3")
    assert [c[0] for c in (one[0], three[0], one[1], three[1])] == [94.23, 94.21, 0.920, 0.931]
    assert not exceeds_spread(one[1], three[1])
    five = cells("table3", "Multi.", "5")
    best = [max((one, three, five), key=lambda row: row[i][0]) for i in range(4)]
    assert [best[0], best[1], best[3]] == [one, three, five] and one[2][0] < three[2][0] == five[2][0] == 0.989
    before, after = cells("table2", "MVF", "w/o Pre.", ""), cells("table2", "MVF", "✓", "✓")
    assert not exceeds_spread(before[0], after[0]) and exceeds_spread(before[3], after[3])
    plain, single, full = (cells("table5", name) for name in ("RN50", "RN50 + LSTP-1", "RN50 + LSTP + MTF"))
    assert single[0] > full[0] and single[3] > full[3] and not any(map(exceeds_spread, single, full))
    assert [exceeds_spread(a, b) for a, b in zip(full, plain)][:2] == [False, True]
    assert not exceeds_spread(full[3], plain[3])
    token, full = cells("table6", "DINO + CLS"), cells("table6", "DINO + LSTP + MTF")
    assert [exceeds_spread(a, b) for a, b in zip(full, token)] == [True, False, True, True]


def test_what_the_paper_underlines_is_second_among_its_rows(shared):
    marked = re.findall(r"<u>([\d.]+)</u>", (shared / "paper.txt").read_text())
    means = list(zip(*(row.means for row in paper_tables()["table4"].rows)))
    second = [sorted({mean for mean in column if mean is not None})[-2] for column in means]
    assert marked and set(map(float, marked)) <= set(second)


def test_notes_on_tau_hold_for_the_printed_numbers():
    by_progress = sorted(paper_tables()["table6"].rows, key=lambda row: printed(row.paper[1]))
    taus = [printed(row.paper[2])[0] for row in by_progress]
    assert taus == sorted(taus, reverse=True) and len(set(taus)) == 5
    for name, weakest in (("table3", "FWB"), ("table5", "RN50"), ("table6", "DINO + MAX")):
        best = max(paper_tables()[name].rows, key=lambda row: printed(row.paper[2])[0])
        assert best.labels[0] == weakest
    classes, _, _, retrieval = zip(*(row.means for row in paper_tables()["table3"].rows))
    assert sorted(classes)[:2] == sorted(classes[:2]) and sorted(retrieval)[:2] == sorted(retrieval[:2])


def test_a_row_of_another_length_is_refused():
    column = Column("", "Class.", "penn", "classification", True)
    with pytest.raises(ValueError, match="table9.*1 labels and 1 cells"):
        PaperTable("table9", "", ("Method",), (column,), (Row(("a",), {}, ("1", "2")),), (), ("a",))
    with pytest.raises(ValueError, match="pouring"):
        PaperTable("table9", "", ("Method",), (column,), (Row(("a",), {"pouring": "pouring"}, ("1",)),), (), ("a",))
