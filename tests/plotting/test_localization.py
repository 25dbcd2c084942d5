"""Tables and the figure of localization, from a report with and without intervals."""

import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting.table import explain
from tests.plotting.examples import report as full_report


def row(auroc, lift, **others):
    interval = {"auroc": [auroc - 0.02, auroc + 0.01], "lift": [lift - 0.5, lift + 0.25], "limbs": [0.3, 0.5]}
    return {"auroc": auroc, "lift": lift, "interval": interval, **others}


@pytest.fixture
def report():
    difference = {"mean": 0.02, "interval": [-0.01, 0.05], "videos": 24}
    return {
        "localization": {
            "area": 0.1,
            "uniform": row(0.5, 1.0),
            "head_best": row(0.7, 2.0, index=6),
            "head_oracle": row(0.72, 2.5),
            "head_best_any_layer": row(0.74, 2.6, index=2, layer=8),
            "head_oracle_any_layer": row(0.76, 2.7, index=3, layer=4),
            "actor_mask": row(1.0, 9.0),
            "entity_10": row(0.3, 0.5),
            "entity_2": row(0.9, 4.0, jaccard_size=0.05, limbs=0.4),
            "entity_1": row(0.8, 3.0),
            "background": {"auroc": 0.7, "index": 10},
        },
        "localization_differences": {
            "entity_1 - head_best": {"auroc": difference | {"verdict": "AUROC: not distinguishable"}},
            "entity_1 - uniform": {"auroc": difference, "lift": {"mean": 2.0, "videos": 24}},
            "entity_best - uniform": {"auroc": difference},
        },
    }


def test_the_table_has_intervals_where_they_decide_and_orders_the_maps(report):
    table = plotting.localization_table(report)
    assert [line[0] for line in table.rows] == [
        "entity 1", "entity 2", "entity 10", "head best, last layer: head 6, chosen on training videos",
        "head oracle by AUROC, last layer", "head best, any layer: head 2 of layer 8, chosen on training videos",
        "head oracle by AUROC, any layer: most often head 3 of layer 4", "uniform", "the region itself",
        "background: entity 10, chosen on training videos, scored on the rest of the frame",
    ]  # fmt: skip
    cells = dict(zip(table.columns, table.rows[1]))
    assert cells["AUROC"] == "0.900 [.880, .910]" and cells["lift"] == "4.000 [3.50, 4.25]"
    assert cells["jaccard size"] == "0.050" and cells["limbs"] == "0.400 [.300, .500]"
    assert "95 %" in table.caption and "0.5 is even" in explain("limbs")
    assert table.notes == ("AUROC: not distinguishable",)


def test_the_reason_for_no_localization_is_said(report):
    skipped = {"skipped": {"localization": "no masks"}}
    assert "localization skipped: no masks" in plotting.localization_table(skipped).notes
    figure = plotting.plot_localization(skipped)
    assert "no masks" in figure.get_supxlabel() and not figure.axes


def test_the_differences_table_shows_every_pair(report):
    table = plotting.localization_differences_table(report)
    assert table.rows[0] == ("entity 1 − head best, last layer", "+0.020 [-.010, .050]", plotting.MISSING, "24")
    assert table.rows[1][2] == "+2.000" and len(table.rows) == 3
    assert plotting.localization_differences_table({}).rows == ()


def test_the_figure_draws_every_map_once_with_its_interval(report, tmp_path):
    figure = plotting.plot_localization(report)
    assert figure.get_size_inches()[0] == plotting.PAGE and len(figure.legends) == 1
    auroc, lift, differences, _ = figure.axes
    assert [text.get_text() for text in auroc.get_yticklabels()] == [
        "entity 1", "entity 2", "entity 10", "head best, last layer (head 6)", "head oracle by AUROC, last layer",
        "head best, any layer (8.2)", "head oracle by AUROC, any layer", "uniform",
    ]  # fmt: skip
    dots = [line.get_xdata()[0] for line in lift.lines if line.get_marker() == "o"]
    assert dots == [3.0, 4.0, 0.5, 2.0, 2.5, 2.6, 2.7, 1.0]
    intervals = [tuple(line.get_xdata()) for line in lift.lines if len(set(line.get_ydata())) == 1 and len(
        line.get_xdata()) == 2 and line.get_linewidth() == 1.6]  # fmt: skip
    assert intervals[0] == (2.5, 3.25) and len(intervals) == 8
    assert [text.get_text() for text in differences.get_yticklabels()] == [
        "− head best, last layer (head 6)", "− uniform",
    ]  # fmt: skip
    assert auroc.lines[0].get_xdata()[0] == 0.5 and differences.lines[0].get_xdata()[0] == 0.0
    colours = {line.get_color() for line in auroc.lines if line.get_marker() == "o"}
    assert len(colours) == 3  # entities, heads, controls
    plotting.save_figure(figure, tmp_path / "localization")
    assert (tmp_path / "localization.pdf").exists()


def test_reports_without_intervals_still_draw(report):
    for values in report["localization"].values():
        if isinstance(values, dict):
            values.pop("interval", None)
    del report["localization_differences"]
    assert len(plotting.plot_localization(report).axes) == 2
    assert plotting.localization_table(report).rows[0][1] == "0.800"


def test_differences_of_too_few_videos_have_no_interval_anywhere(report):
    for by in report["localization_differences"].values():
        for values in by.values():
            values |= {"interval": [0.01, 0.05], "videos": 3, "too_few": True}
            values.pop("verdict", None)
    table = plotting.localization_differences_table(report)
    assert table.rows[0][1] == "+0.020" and table.notes == ("No interval: there are too few videos.",)
    figure = plotting.plot_localization(report)
    assert not [line for line in figure.axes[2].lines if line.get_linewidth() == 1.6]
    assert "there are too few videos" in " ".join(figure.get_supxlabel().split())
    assert plotting.localization_table(report).notes == ()


def test_the_figure_says_what_oracles_go_by_and_leaves_the_region_itself_to_the_table(report):
    figure = plotting.plot_localization(report)
    assert "each video's best head by AUROC" in " ".join(figure.get_supxlabel().split())
    assert max(line.get_xdata()[0] for line in figure.axes[1].lines if line.get_marker() == "o") == 4.0


def test_attention_is_shown_without_masks(report):
    ends = [0.1, 0.3]
    alone = {"entity_1": 0.5, "entity_2": 0.75, "head_5": 0.6, "head_6": 0.8}
    report["attention"] = {
        "videos": 24, "step": 1, "overlap": [[1.0, 0.25], [0.25, 1.0]], "entropy": alone, "steadiness": alone,
        "effective_share": alone, "interval": {"overlap": [[ends, ends]] * 2, "steadiness": {"head_6": [0.7, 0.9]}},
    }  # fmt: skip
    table = plotting.attention_table(report)
    assert table.columns == ("map", "overlap with entity 1", "overlap with entity 2", "steadiness", "entropy",
                             "effective share")  # fmt: skip
    assert table.rows[0] == ("entity 1", "–", "0.250 [.100, .300]", "0.500", "0.500", "0.500")
    assert table.rows[1][1] == "0.250 [.100, .300]" and len(table.rows) == 3
    assert table.rows[2] == ("head 6, last layer, chosen on training videos", "–", "–", "0.800 [.700, .900]", "0.800",
                             "0.800")  # fmt: skip
    assert plotting.attention_table({}).rows == () and "24 videos" in table.caption


def test_localization_table_orders_maps_and_names_the_chosen_entity():
    table = plotting.localization_table(full_report())
    assert [row[0] for row in table.rows] == [
        "entity 1", "entity 2", "entity best: entity 2, chosen on training videos", "uniform",
    ]  # fmt: skip
    assert table.rows[0][1:] == ("0.800", "3.000") and "10.0 %" in table.caption
    assert table.notes == ("entity_best - head_best, AUROC: +0.100 [0.050, 0.150]",)
    assert "no masks" in str(plotting.localization_table({"skipped": {"localization": "no masks"}}))
