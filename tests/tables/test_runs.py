"""Rows of runs: what is averaged, and what is kept apart."""

import json

import pytest

from mvf.config import load_config
from mvf.workbench.tables import runs
from mvf.workbench.tables.runs import (
    ENTITIES,
    by_entity,
    differences_table,
    grouped,
    matching_folders,
    plot_results,
    read_reports,
    row_name,
    runs_table,
    tables,
)

RUN = {
    "dataset": "synthetic", "data_seed": 11, "preset": "synthetic", "objective": "scl", "sampling": "content",
    "backbone": "dinov2_vits14", "backbone_weights": "index", "seed": 1,
}  # fmt: skip


def test_a_usual_run_is_named_by_data_and_sampling():
    assert row_name(RUN) == "synthetic (data seed 11), content sampling"


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"preset": "penn_last_1", "backbone": "dino_vitb8"}, "penn_last_1, content sampling"),
        ({"objective": "lav"}, "lav objective, content sampling"),
        ({"backbone": "resnet50"}, "resnet50, content sampling"),
        ({"backbone_weights": "random"}, "content sampling, RANDOM backbone"),
        ({"backbone_weights": "file"}, "content sampling, backbone from a file"),
        ({"backbone_weights": "unknown"}, "content sampling, unknown backbone"),
    ],
)
def test_runs_of_another_method_are_another_row(changed, named):
    assert row_name(RUN | changed) == f"synthetic (data seed 11), {named}"
    assert len(grouped({"first": RUN, "second": RUN | changed, "third": RUN | {"seed": 2}})) == 2


def test_a_folder_that_matches_twice_counts_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    patterns = f"{tmp_path}/*, {tmp_path}/run, {tmp_path}/run/../run"
    assert matching_folders(patterns, "metrics.json") == [tmp_path / "run"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "default_folder", lambda config: tmp_path / "runs" / "demo-1")
    for name in ("a", "b"):
        (tmp_path / "runs" / name / "figures").mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.json").write_text("{}")
    (tmp_path / "runs" / "b" / "figures" / "controls.png").write_bytes(b"picture")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_a_relative_pattern_is_taken_from_here_and_then_from_the_repository(repository):
    wanted = [repository / "runs" / name for name in ("a", "b")]
    for pattern in ("runs/*", "runs/a, runs/b", "../runs/*", f"{repository}/runs/*"):
        assert [path.resolve() for path in matching_folders(pattern, "metrics.json")] == wanted
    with pytest.raises(ValueError, match="there is no runs/c/metrics.json, here or at"):
        matching_folders("runs/a, runs/c", "metrics.json")
    with pytest.raises(ValueError, match=r"no finished run in runs/c: .* there are .*/runs/a, .*/runs/b"):
        read_reports("runs/c")


def test_figures_are_copied_from_the_first_run_that_has_some_or_from_the_one_that_is_named(repository):
    out = runs.figures_folder()
    assert out == repository / "runs" / "figures" and runs.figures_folder("../figures").name == "figures"
    reports = {str(repository / "runs" / name): {} for name in ("a", "b")}
    assert runs.copy_figures(reports, out) == [out / "controls.png"] == runs.copy_figures({}, out, "runs/b")
    assert runs.copy_figures({}, out) == []
    with pytest.raises(ValueError, match=r"runs/a has no figures: run probe.ipynb and attention.ipynb on it"):
        runs.copy_figures(reports, out, "runs/a")
    with pytest.raises(ValueError, match="runs/c is not a finished run"):
        runs.copy_figures(reports, out, "runs/c")


def looked(entity, head, seed):
    videos = {f"v{i}": {"auroc": entity + 0.01 * i, "lift": 2.0} for i in range(6)}
    rivals = {f"v{i}": {"auroc": head + 0.01 * i, "lift": 3.0} for i in range(6)}
    overlap = [[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]]
    found = {"videos": {"localization": {"entity_1": videos, "head_best": rivals}}, "attention": {"overlap": overlap}}
    return found | {"supervision": "video"}


def test_what_entity_1_adds_is_paired_by_video_over_runs():
    rows = {"row": [looked(0.9, 0.8, 1), looked(0.9, 0.7, 2)]}
    (line,) = differences_table(rows, ("auroc", "lift")).rows
    assert line == ("row", "video", "2", "head best", "+0.150 [0.150, 0.150]", "-1.000 [-1.000, -1.000]")
    few = [{"videos": {"localization": {name: {"v0": {"auroc": 1.0}} for name in ("entity_1", "head_best")}}}]
    assert differences_table({"row": few}, ("auroc",)).rows == (), "one video has no interval"


def test_an_entitys_overlap_is_its_mean_with_the_others():
    assert by_entity(looked(1, 1, 1))["entity_2"]["overlap"] == pytest.approx(0.4)
    assert by_entity({}) == {name: {} for name in ENTITIES}


def test_runs_with_competition_a_penalty_or_merged_tokens_or_motion_are_rows_of_their_own():
    plain = {"dataset": "penn", "preset": "penn", "sampling": "published", "backbone_weights": "hub"}
    others = (
        {"entity_competition": True},
        {"overlap_penalty": 0.5},
        {"token_merge": 0.5},
        {"token_merge": 0.25},
        {"motion_skip": 2.5},
        {"motion_skip": 2.5, "motion_weighting": "augmentation"},
        {"velocity": True},
    )
    assert len({row_name(plain | more) for more in ({}, *others)}) == 8


def test_every_table_says_which_labels_training_consumed():
    def run(objective, labels, seed):
        scores = {"model": {"classification": 0.5}, "untrained": {"classification": 0.3}}
        return RUN | {"objective": objective, "supervision": labels, "seed": seed, "scores": scores["model"],
                      "controls": {"untrained": scores["untrained"]}, "cropped": scores}  # fmt: skip

    reports = {f"{o}-{s}": run(o, labels, s) for o, labels in (("scl", "none"), ("lav", "video")) for s in (1, 2)}
    assert [row[2] for row in runs_table(reports).rows] == ["none", "none", "video", "video"]
    for table in (tables(reports)[name] for name in ("cropped", "scores")):
        labels = {(row[0].count("lav"), row[3]): row[1] for row in table.rows}
        assert labels == {(0, "model"): "none", (0, "untrained"): "–", (1, "model"): "video", (1, "untrained"): "–"}


def test_headings_stay_in_their_panel_and_rows_below_them():
    scores = {name: {"classification": 0.5, "retrieval@5": 0.4} for name in ("model", "untrained")}
    long = RUN | {"preset": "folder", "objective": "lav", "backbone_weights": "random", "motion_skip": 1.0}
    figure = plot_results({"a": RUN | {"cropped": scores}, "b": long | {"cropped": scores}})
    figure.draw_without_rendering()
    left, right = figure.axes
    boxes = [text.get_window_extent() for text in left.texts]
    assert len(boxes) == 2 and all(box.x1 < left.bbox.x1 < right.bbox.x0 for box in boxes)
    ticks = [label.get_window_extent().y1 for label in left.get_yticklabels()]
    assert boxes[0].y0 >= ticks[0] - 3 and ticks[1] - 3 >= boxes[1].y1 > boxes[1].y0 >= ticks[2] - 3
    assert sum(line.get_marker() == "o" and len(line.get_xdata()) > 0 for line in left.lines) == 4


def test_data_from_a_folder_have_the_name_of_the_folder(tmp_path):
    for name in ("pullups", "squats"):
        folder = tmp_path / name
        folder.mkdir()
        report = RUN | {"dataset": "folder", "preset": "folder", "scores": {}}
        (folder / "metrics.json").write_text(json.dumps(report))
        config = load_config("folder", data_root=f"../clips/{name}/")
        (folder / "config.json").write_text(json.dumps(config.as_dict()))
    rows = [row_name(report) for report in read_reports(f"{tmp_path}/*").values()]
    assert rows == ["pullups, content sampling", "squats, content sampling"]
