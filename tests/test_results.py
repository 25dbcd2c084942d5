"""Rows of runs: what is averaged, and what is kept apart."""

import pytest

from mvf.results import grouped, matching_folders, row_name

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
