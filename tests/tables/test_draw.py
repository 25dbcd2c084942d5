"""Tables of fabricated batches: what stands beside the paper's numbers, and what never does."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mvf.evaluation import write_report
from mvf.evaluation.bootstrap import paired_interval
from mvf.workbench import plotting
from mvf.workbench.tables import draw
from mvf.workbench.tables.draw import draw_tables, scores
from mvf.workbench.tables.rows import paper_tables
from mvf.workbench.tables.trials import compare, read_batches, sensitivity, trial_values
from tests.test_notebooks import execute

SCORES = ("classification", "progression", "kendall_tau", "retrieval@5")
ROWS = {"penn": 0.50, "penn_multi_1": 0.52, "penn_last_3": 0.40}


def report(level, seed, dataset="synthetic", weights="index", videos=7):
    """A report whose scores are `level` plus 0.01 a seed, 0.1 less on windows; the clock has 0.45."""
    value = level + 0.01 * seed
    right = {f"video_{i}": [100 * value + i, 100.0] for i in range(-(videos // 2), videos - videos // 2)}
    errors = {video: [[100 - pair[0], 100.0, 0.0, 100.0]] for video, pair in right.items()}
    pieces = {score: {"squat": errors if score == "progression" else right} for score in SCORES}
    whole, windows, clock = (dict.fromkeys(SCORES, v) for v in (value, value - 0.1, 0.45))
    part = {"found": 3, "expected": 4, "unreadable": {"squat_7": "cut short"}}
    return {
        "dataset": dataset, "data_seed": 0, "seed": seed, "backbone": "vits", "backbone_weights": weights,
        "supervision": "none",
        "scores": whole, "controls": {"position_only": clock}, "coverage": {"val": part}, "skipped": {},
        "cropped": {"model": windows, "position_only": dict.fromkeys(SCORES, 0.2)},
        "videos": {"whole": pieces, "cropped": pieces},
        "cost": {"parameters": 5_000_000, "backbone_parameters": 0, "operations": 2e9, "ms_per_frame": 1.0 + seed},
    }  # fmt: skip


def write_batch(out, rows=ROWS, trials=3, missing=(), tables=("table3",), change=lambda preset, r: r, **options):
    """A batch folder with a run of every row and seed but the missing ones."""
    runs = {preset: {str(seed): f"{preset}-{seed}" for seed in range(1, trials + 1)} for preset in rows}
    out.mkdir()
    manifest = {"tables": list(tables), "trials": trials, "parameters": {"epochs": "2"}, "runs": runs}
    (out / "batch.json").write_text(json.dumps(manifest))
    for preset, seeds in runs.items():
        for seed, name in seeds.items():
            if name not in missing:
                (out / name).mkdir()
                made = change(preset, report(rows[preset], int(seed), **options))
                write_report(made, out / name / "metrics.json")
    return out


def lines(table, *labels, numbers="run"):
    """Rows of a table by labels, without them."""
    return [row[len(labels) + 1 :] for row in table.rows if row[: len(labels) + 1] == (*labels, numbers)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = write_batch(tmp_path_factory.mktemp("batch") / "table3", missing=("penn_last_3-2",))
    (table,) = draw_tables(str(folder))
    table.save(folder / "figures")
    return table, folder


def test_a_row_shows_mean_and_two_deviations_in_the_papers_units(drawn):
    whole, cropped = drawn[0].tables[:2]
    assert lines(whole, "Multi.", "3", numbers="paper")[0][0] == "94.21 ± 0.04"
    assert lines(whole, "Multi.", "3") == [
        ("52.00 ± 2.00", "0.520 ± 0.020", "0.520 ± 0.020", "52.00 ± 2.00", "none", "3 of 3 trials")
    ]
    assert lines(cropped, "Multi.", "3")[0][0] == "42.00 ± 2.00"
    assert lines(whole, "Last", "3")[0][-1] == "2 of 3 trials"
    assert lines(whole, "clock alone", "")[0][:2] == ("45.00", "0.450")


def test_a_row_that_was_not_run_has_no_number(drawn):
    whole, cropped, gaps, _, costs = drawn[0].tables
    for labels in (("FWB", "3*"), ("Multi.", "5")):
        assert lines(whole, *labels) == lines(cropped, *labels) == [(*["not run"] * 4, plotting.MISSING, "not run")]
        assert all(set(row[3:]) == {plotting.MISSING} for row in gaps.rows if row[:2] == labels)
        assert all(set(row[3:]) == {"not run"} for row in costs.rows if row[:2] == labels)


def test_best_is_bold_and_second_underlined_of_the_runs_and_of_the_papers_numbers(drawn):
    text, windows = (str(table) for table in drawn[0].tables[:2])
    assert "**54.00 ± 2.00**" in text and "<u>52.00 ± 2.00</u>" in text
    assert "**94.23 ± 0.08**" in text and "<u>94.21 ± 0.04</u>" in text
    assert text.count("**0.995 ± ") == 2 and "<u>0.992 ± 0.001</u>" in text  # equals share a place
    assert windows.count("**") == 8
    html = drawn[0].tables[0]._repr_html_()
    assert "<b>54.00 ± 2.00</b>" in html and "<u>52.00 ± 2.00</u>" in html


def test_equal_scores_share_a_place(tmp_path):
    batch = read_batches(str(write_batch(tmp_path / "b", {"penn": 0.5, "penn_multi_1": 0.5, "penn_last_3": 0.4})))[0]
    table = scores(paper_tables()["table3"], batch, "whole")
    runs = [i for i, line in enumerate(table.rows) if "run" in line]
    assert sum(i in runs for i, _ in table.best) == 8 and sum(i in runs for i, _ in table.second) == 4


def test_notes_say_of_what_the_numbers_are(drawn):
    whole = drawn[0].tables[0]
    notes = "\n".join(whole.notes)
    assert "synthetic" in whole.caption and "vits (package index)" in whole.caption
    assert "NOT COMPARABLE" in notes and "epochs 2" in notes and "two standard deviations (ddof 1)" in notes
    assert "val 3 of 4 videos, left out squat_7 (cut short)" in notes
    assert "reaches, as mean − 2 sd is not above it or R² is below zero: Last 3 (Class., Progress, Kendall's " in notes
    assert all(note in whole.notes for note in paper_tables()["table3"].notes)


def test_differences_are_measured_against_both_spreads(drawn):
    gaps = {row[:3]: row[3:] for row in drawn[0].tables[2].rows}
    assert "Multi. 3" in drawn[0].tables[2].caption and ("Multi.", "3", "whole videos") not in gaps
    assert gaps["Last", "3", "whole videos"][0].startswith("-10.00‡† [-")  # more than 2 + 2.83
    assert gaps["Multi.", "1", "whole videos"][0] == "+2.00† [+2.00, +2.00]"  # less than 2 + 2, on every video


def test_intervals_equal_the_bootstrap_of_pooled_videos(drawn):
    (batch,) = read_batches(str(drawn[1]))
    first, second = batch.reports["penn_last_3"], batch.reports["penn"]
    sides = [
        {"squat": sum(np.array(list(dict(sorted(r["videos"]["whole"]["progression"]["squat"].items())).values()))
                      for r in reports)}
        for reports in (first, second)
    ]  # fmt: skip
    found = compare(first, second, "whole", "progression")
    assert found.interval == paired_interval(*sides) and found.holds and found.exceeds_spread
    assert found.mean == pytest.approx(np.mean([0.41, 0.43]) - np.mean([0.51, 0.52, 0.53]))


def test_sensitivity_and_costs_are_by_row(drawn):
    _, _, _, seeds, costs = drawn[0].tables
    assert sensitivity([0.51, 0.52, 0.53]) == pytest.approx(0.01 / 0.52)
    assert lines(seeds, "Multi.", "3")[0] == (*["1.92"] * 4, "none")
    assert lines(seeds, "Multi.", "3", numbers="paper")[0] == ("0.02", "0.32", "0.10", "0.03", "–")
    assert "Most sensitive to the seed: Progress (paper)." in seeds.notes
    (cost,) = (row[2:] for row in costs.rows if row[:2] == ("Multi.", "3"))
    assert cost == ("penn", "5.00", "0.00", "2.00", "3.00", "none")


def test_random_weights_and_skipped_scores_are_said(tmp_path):
    def change(preset, made):
        if preset == "penn_resnet50":
            for part in (made["scores"], made["cropped"]["model"]):
                del part["progression"]
            made["skipped"] = {"progression": "no action has two phases"}
        return made

    rows = {"penn_resnet50": 0.5, "penn_resnet50_lstp_1": 0.5}
    folder = write_batch(tmp_path / "b", rows, tables=["table5"], weights="random", change=change)
    whole = draw_tables(str(folder))[0].tables[0]
    assert "RANDOM weights" in whole.caption and "RANDOM backbone weights in RN50, RN50 + LSTP-1" in whole.notes[0]
    assert lines(whole, "RN50")[0][1] == plotting.MISSING
    assert any("RN50, Progress, whole: skipped in 3 of 3 trials: no action has two phases" in n for n in whole.notes)


def test_rows_without_preset_are_reported_not_rerun(tmp_path, monkeypatch):
    tables = paper_tables()
    rows = [replace(row, presets={}) if row.labels[0] == "VSP-F [54]" else row for row in tables["table4"].rows]
    changed = tables | {"table4": replace(tables["table4"], rows=tuple(rows))}
    monkeypatch.setattr(draw, "paper_tables", lambda: changed)
    folder = write_batch(tmp_path / "b", {"penn": 0.9}, tables=["table4", "table1"], dataset="penn")
    fourth, first = draw_tables(str(folder))
    assert "Labels" in fourth.tables[0].columns and "Pretrain" in fourth.tables[0].columns
    (line,) = lines(fourth.tables[0], "VSP-F [54]", "Frame", "-", numbers="paper")
    assert line == ("94.24", "–", "–", "94.89", "45.66", "39.48", "–", "reported by the paper, not rerun")
    assert not lines(fourth.tables[0], "VSP-F [54]", "Frame", "-")
    (line,) = lines(fourth.tables[0], "VSP-P [54]", "Phase", "-")
    assert line[-1] == "not run"
    (line,) = lines(first.tables[0], "MVF (ours)")
    assert line[0] == "92.00 ± 2.00" and line[4] == "not run" and line[-1].startswith("penn 3 of 3 trials, pouring not")
    assert not any("NOT COMPARABLE" in note for note in fourth.tables[0].notes)
    assert {first.tables[0].rows[line][1] for line, _ in first.tables[0].best} == {"paper"}


def test_every_table_and_the_figure_say_which_labels_training_consumed(tmp_path):
    def change(preset, made):
        return made | {"supervision": "video" if "tcc" in preset else "none"}

    rows = dict.fromkeys(("penn", "penn_tcc_published", "finegym99_tcc_published"), 0.5)
    (made,) = draw_tables(str(write_batch(tmp_path / "b", rows, tables=["table4"], change=change)))
    for table in made.tables:
        place, runs = table.columns.index("training labels"), [row for row in table.rows if "paper" not in row]
        found = {row[0]: row[place] for row in runs if row[place] not in ("", "not run", "–")}
        expected = {"TCC* [15]": "video", "TCC [15]": "video", "MVF (ours)": "none"}
        if table is made.tables[2]:  # differences from the row that is left out
            del expected["MVF (ours)"]
        assert found == expected
    clock = next(row for row in made.tables[0].rows if row[0] == "clock alone")
    assert clock[-2:] == ("", "")
    assert "Training labels: video (TCC" in made.figure._supxlabel.get_text().replace("\n", " ")


def test_other_peoples_rows_say_that_the_encoder_is_not_theirs(tmp_path):
    rows = {"penn_tcn_published": 0.5, "penn_lrprop_published": 0.6}
    (made,) = draw_tables(str(write_batch(tmp_path / "b", rows, trials=1, tables=["table4"], dataset="penn")))
    whole = made.tables[0]
    (original,), (port,) = (lines(whole, name, "None", "-") for name in ("TCN [40]", "TCN† [9, 40]"))
    assert original[:4] == port[:4] == ("51.00", "0.510", "0.510", "51.00")
    assert lines(whole, "LRProp [4]", "Video", "-")[0][0] == "61.00"
    notes = "\n".join(whole.notes)
    assert "had other frame encoders" in notes and "LRProp is our reading of it" in notes


def test_files_are_written_and_the_figure_shows_every_trial(drawn):
    table, folder = drawn
    assert {p.name for p in (folder / "figures").iterdir()} == {"table3.md", "table3.pdf", "table3.png"}
    assert len(table.figure.axes) == 8 and [t.get_text() for t in table.figure.axes[0].texts] == ["not run"] * 5
    dots = [line for line in table.figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(len(line.get_xdata()) for line in dots) == [2, 3, 3]


def test_two_batches_of_a_table_keep_apart(tmp_path):
    for name in ("first", "second"):
        write_batch(tmp_path / name, {"penn": 0.5}, trials=1)
    made = draw_tables(f"{tmp_path}/first, {tmp_path}/second")
    assert [table.name for table in made] == ["table3-first", "table3-second"]
    assert lines(made[0].tables[0], "Multi.", "3")[0][0] == "51.00"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_batch(tmp_path / name / "t3", {"penn": 0.5}, trials=1)
    made = draw_tables(f"{tmp_path}/first, {tmp_path}/?/t3")
    assert [table.name for table in made] == ["table3-a+t3", "table3-b+t3", "table3-first"]
    assert [table.name for table in draw_tables(f"{tmp_path}/a/t3, {tmp_path}/b/../a/t3")] == ["table3"]


def test_titles_begin_with_what_was_run_where_it_is_not_the_papers_data(drawn, tmp_path):
    table = drawn[0]
    assert all(made.caption.startswith("Table 3's rows on synthetic") for made in table.tables)
    title = " ".join(table.figure.legends[0].get_title().get_text().split())
    assert title.startswith("Table 3's rows on synthetic. In the paper: Ablation")
    (home,) = draw_tables(str(write_batch(tmp_path / "b", {"penn": 0.9}, trials=1, dataset="penn")))
    assert home.tables[0].caption.startswith("Table 3, whole videos. Ablation")
    assert home.figure.legends[0].get_title().get_text().startswith("Table 3. Ablation")


def test_a_resnet_without_a_file_of_weights_is_said_not_to_be_the_papers(tmp_path):
    def change(preset, made):
        return made | {"backbone": "resnet50", "backbone_weights": weights[preset]}

    weights = {"penn_resnet50": "index", "penn_resnet50_lstp_1": "random", "penn_resnet50_lstp_mtf": "file"}
    folder = write_batch(tmp_path / "b", dict.fromkeys(weights, 0.5), tables=["table5"], change=change, trials=1)
    notes = [note for note in draw_tables(str(folder))[0].tables[0].notes if "BYOL" in note]
    assert notes == [
        "The paper's ResNet-50 rows use BYOL weights; here RN50 have timm's supervised ImageNet weights.",
        "The paper's ResNet-50 rows use BYOL weights; here RN50 + LSTP-1 have RANDOM weights.",
    ]


def test_rows_pre_trained_on_other_data_say_so(tmp_path):
    def change(preset, made):
        return made | {"dataset": data.get(preset, "penn")}

    data = {"kinetics400": "folder", "kinetics400_carl": "kinetics400"}
    rows = ("penn", "penn_from_kinetics", "penn_zero_shot_kinetics", "penn_carl_from_kinetics", *data)
    folder = write_batch(tmp_path / "b", dict.fromkeys(rows, 0.5), tables=["table2"], change=change, trials=1)
    notes = [note for note in draw_tables(str(folder))[0].tables[0].notes if "pre-trained on" in note]
    assert notes == ["MVF Pre., MVF Pre. Fine.: pre-trained on folder, not Kinetics-400."]


def test_few_videos_give_an_interval_without_a_mark(tmp_path):
    few, enough = (
        draw_tables(str(write_batch(tmp_path / str(videos), videos=videos)))[0].tables[2] for videos in (4, 5)
    )
    gaps = [{row[:3]: row[3] for row in table.rows}["Last", "3", "whole videos"] for table in (few, enough)]
    assert gaps == ["-10.00‡ [-10.00, -10.00]", "-10.00‡† [-10.00, -10.00]"]
    assert any("fewer than 5 videos" in note for note in few.notes)
    assert few.notes[-1] == (
        "Validation videos that both rows share: 4 in 1 action (Class., Progress, Kendall's tau, Retrieval)."
    )


def test_an_action_that_one_row_lacks_gives_no_mark():
    sides = [report(level, 1) for level in (0.8, 0.4)]
    first = sides[0]["videos"]["whole"]["classification"]
    assert compare(sides[:1], sides[1:], "whole", "classification").holds
    sides[0]["videos"] = {"whole": {"classification": first | {"bowl": first["squat"]}}}
    found = compare(sides[:1], sides[1:], "whole", "classification")
    assert found.videos == (0, 7) and found.interval[0] > 0 and not found.holds


def test_what_is_no_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no batch in .*: python -m mvf batch"):
        read_batches(str(tmp_path))
    (tmp_path / "batch.json").write_text('{"tables": ["table3"]')
    with pytest.raises(ValueError, match="batch.json is not a batch manifest"):
        read_batches(str(tmp_path))
    write_batch(tmp_path / "b", {"penn": 0.5}, tables=["tabel3"])
    with pytest.raises(ValueError, match='did you mean "table3"'):
        draw_tables(str(tmp_path / "b"))
    write_batch(tmp_path / "c", {"penn": 0.5}, tables=["penn"])
    with pytest.raises(ValueError, match="c: runs of presets and no table; show them by -p runs '.*c/[*]'"):
        draw_tables(str(tmp_path / "c"))


def test_reports_without_a_score_or_videos_give_no_difference():
    bare = {"scores": {"classification": 0.5}}
    assert trial_values([bare], "cropped", "classification") == []
    assert compare([bare], [bare], "whole", "progression") is None
    found = compare([bare], [bare], "whole", "classification")
    assert (found.mean, found.spread, found.interval) == (0, None, None)
    assert not found.holds and not found.exceeds_spread


@pytest.mark.slow
def test_the_notebook_draws_the_tables_of_batches_alone(drawn, tmp_path):
    execute("figures", tmp_path / "figures.ipynb", tables=str(drawn[1]), out=str(tmp_path / "figures"))
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"table3.md", "table3.pdf", "table3.png"}


def test_a_control_of_the_reports_is_compared_over_the_videos_of_all_trials():
    trials = [report(level, seed) for seed, level in enumerate((0.8, 0.9), start=1)]
    for trial in trials:
        sums = trial["videos"]["whole"]["classification"]
        low = {action: {v: [0.5 * n, n] for v, (_, n) in by.items()} for action, by in sums.items()}
        trial["videos"] |= {"cropped": {"classification": sums}, "controls": {"motion_pca": {"classification": low}}}
        trial["cropped"] = {"model": trial["scores"], "motion_pca": {"classification": 0.5}}
    found = compare(trials, trials, "cropped", "classification", "motion_pca")
    assert found.mean == pytest.approx(np.mean(trial_values(trials, "cropped", "classification")) - 0.5)
    assert found.interval[0] <= found.mean <= found.interval[1] and found.interval[0] > 0
    del trials[0]["videos"]["controls"]  # of an older version
    assert compare(trials, trials, "cropped", "classification", "motion_pca").interval is None


def test_settings_of_a_batch_are_words_and_no_code(tmp_path):
    folder = write_batch(tmp_path / "table3")
    manifest = json.loads((folder / "batch.json").read_text())
    manifest["parameters"]["data_options"] = {"train_videos": 18, "actions": ["squat", "golf_swing"]}
    (folder / "batch.json").write_text(json.dumps(manifest))
    (table,) = draw_tables(str(folder))
    said = "epochs 2, data_options (train_videos 18; actions squat, golf_swing)."
    caption = " ".join(table.figure.get_supxlabel().split())
    assert said in caption and any(said in note for note in table.tables[0].notes) and "{" not in caption


def test_an_r_squared_below_zero_has_no_rank_and_no_difference(tmp_path):
    def change(preset, made):
        made["scores"]["progression"] = made["cropped"]["model"]["progression"] = -4.0 - made["seed"]
        made["controls"]["position_only"] = made["controls"]["position_only"] | {"progression": -99.0}
        return made

    (table,) = draw_tables(str(write_batch(tmp_path / "table3", change=change)))
    whole, cropped, differences = table.tables[:3]
    column = whole.columns.index("Progress")
    assert lines(whole, "Multi.", "3")[0][1] == lines(cropped, "Multi.", "3")[0][1] == "below the mean"
    assert "below the mean" in str(whole) and "-99" not in str(whole).replace("−", "-")
    runs = {i for i, row in enumerate(whole.rows) if "run" in row}
    assert not [cell for cell in (*whole.best, *whole.second) if cell[1] == column and cell[0] in runs]
    assert {row[differences.columns.index("Progress")] for row in differences.rows} == {"–"}
    assert any("R² is below zero" in note and "Multi. 3 (Progress" in note for note in whole.notes)
