"""The notebooks, by papermill, on tiny settings; and what they look like in the repository."""

import json
from pathlib import Path

import nbformat
import papermill
import pytest

from tests.conftest import TINY

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = ("train", "probe", "attention", "align", "figures", "colab")


def execute(name, output, /, **parameters):
    papermill.execute_notebook(
        str(NOTEBOOKS / f"{name}.ipynb"), str(output), parameters=parameters, cwd=str(output.parent),
        progress_bar=False, kernel_name="python3",
    )  # fmt: skip
    return nbformat.read(output, as_version=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks") / "run"
    folder.mkdir()
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "backbone", "layers")}
    execute("train", folder / "train.ipynb", run_dir=str(folder), backbone=TINY["backbone"], layers=[2, 4],
            epochs=2, overrides=json.dumps(overrides))  # fmt: skip
    return folder


def test_train_writes_a_run_with_its_report_and_figures(run):
    report = json.loads((run / "metrics.json").read_text())
    assert report["backbone_weights"] == "random" and report["cropped"]["model"]
    assert {p.name for p in (run / "figures").iterdir()} >= {"history.png", "controls.png", "controls.pdf"}


def test_probe_and_attention_draw_their_figures(run):
    execute("probe", run / "probe.ipynb", run_dir=str(run))
    notebook = execute("attention", run / "attention.ipynb", run_dir=str(run), videos=2, rows=2, knockouts=True)
    wanted = {
        "confusion",
        "progression",
        "similarity",
        "retrieval",
        "embeddings",
        "label_fractions",
        "attention_1",
        "attention_2",
        "attention_figure_1",
        "attention_figure_3",
        "localization",
        "temporal_attention",
        "knockouts",
    }
    assert wanted <= {p.stem for p in (run / "figures").glob("*.png")}
    (shown,) = next(cell.outputs for cell in notebook.cells if cell.id == "browser")
    assert {"text/html", "image/jpeg", "text/plain"} == set(shown.data) and "<script" in shown.data["text/html"]
    page = run / "figures" / "attention_browser.html"
    assert shown.data["text/plain"] == f"Attention browser of 2 videos; {page} shows it without a kernel"
    assert {"embedding_explorer.html", "retrieval_browser.html", page.name} <= {p.name for p in page.parent.iterdir()}
    assert (run / "figures" / "attention.gif").exists() and (run / "figures" / "attention.mp4").exists()
    assert all((run / f"{name}.ipynb").stat().st_size < 8e6 for name in ("attention", "probe"))


def test_align_carries_phases_and_opens_the_labeler(run):
    notebook = execute("align", run / "align.ipynb", run_dir="../run", videos="val/squat_000, squat_001, squat_000")
    assert {"alignment", "transfer", "deviation"} <= {p.stem for p in (run / "figures").glob("*.png")}
    texts = {cell.id: json.dumps(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}
    assert "Deviation player of 2 videos" in texts["deviation"]
    assert {"deviation_player.html", "deviation.csv"} <= {p.name for p in (run / "figures").iterdir()}
    assert "run_dir is empty" not in texts["setup"] and "0%|" not in json.dumps(texts)
    assert "labelled videos and 0 others" in texts["segments"] and (run / "figures" / "segments.csv").exists()
    assert "f1@50" in texts["transfer"]
    assert "position only (clock)" in texts["transfer"] and "image/jpeg" in texts["labeler"]
    assert not (run / "figures" / "videos.csv").exists(), "nothing is written before a label is accepted"


@pytest.mark.slow
def test_a_run_judged_without_training_passes_through_the_notebook(run, tmp_path):
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "backbone", "layers")}
    execute("train", tmp_path / "train.ipynb", run_dir=str(tmp_path), backbone=TINY["backbone"], layers=[2, 4],
            epochs=0, init_from=str(run), overrides=overrides)  # fmt: skip
    reports = [json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path)]
    assert reports[0]["scores"] == reports[1]["scores"] and (tmp_path / "figures" / "history.png").exists()


def test_figures_gathers_runs(run, tmp_path):
    execute("figures", tmp_path / "figures.ipynb", runs=str(run), out=str(tmp_path / "figures"))
    text = (tmp_path / "figures" / "results.md").read_text()
    assert "position only" in text and "synthetic" in text
    assert (tmp_path / "figures" / "controls.png").exists()


@pytest.mark.slow
def test_unlabelled_clips_train_and_say_what_is_skipped(shared, tmp_path):
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "data_options")}
    execute("train", tmp_path / "train.ipynb", dataset="folder", data_root=str(shared / "real" / "clips"),
            run_dir=str(tmp_path), epochs=1, overrides=overrides)  # fmt: skip
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert "classification" in report["skipped"] and "localization" in report["skipped"]


@pytest.mark.slow
def test_unlabelled_clips_can_be_probed_aligned_and_labelled(shared, tmp_path):
    overrides = {name: value for name, value in TINY.items() if name not in ("epochs", "data_options")}
    execute("train", tmp_path / "train.ipynb", dataset="folder", data_root=str(shared / "real" / "clips"),
            run_dir=str(tmp_path), epochs=1, overrides=overrides)  # fmt: skip
    probed = execute("probe", tmp_path / "probe.ipynb", run_dir=str(tmp_path))
    outputs = [output for cell in probed.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert said.count("no validation frame is labelled") == 1, "a reason is said once"
    notebook = execute("align", tmp_path / "align.ipynb", run_dir=str(tmp_path), table=str(tmp_path / "videos.csv"))
    texts = {cell.id: json.dumps(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}
    assert "no segments yet: label a clip" in texts["segments"]
    assert "no video has labelled phases" in texts["transfer"] and "image/jpeg" in texts["labeler"]


def test_the_notebook_for_colab_shows_any_run(run, tmp_path):
    """Where mvf is installed it installs nothing; the last cells are a browser and the labeler."""
    drawn = {"train_videos": 1, "val_videos": 1, "actions": ["squat"], "height": 48, "width": 56}
    notebook = execute("colab", tmp_path / "colab.ipynb", run_dir=str(run), drawn=drawn)
    shown = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert shown["install"] == [] and "image/png" in shown["maps"][0].data
    assert "<script" in shown["browser"][0].data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in shown["labeler"][-1].data


def test_a_misspelt_parameter_stops_the_batch_and_its_message_comes_first(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute("train", tmp_path / "train.ipynb", run_dir=str(tmp_path), epoch=1)
    shown = str(caught.value).strip().splitlines()
    assert "Exception encountered" in shown[1]
    assert shown[2].startswith("ValueError: ") and 'did you mean "epochs"' in shown[2]


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_thin_and_without_outputs(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 14
    for cell in code:
        assert cell.outputs == [] and cell.execution_count is None
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 12
        assert "def " not in cell.source and "class " not in cell.source
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_only_make_figures_writes_the_repositorys_own():
    default = papermill.inspect_notebook(str(NOTEBOOKS / "figures.ipynb"))["out"]["default"]
    lines = (NOTEBOOKS.parent / "Makefile").read_text().splitlines()
    assert default == '""' and ["-p out ../figures" in line for line in lines if "figures.ipynb" in line] == [True]


def test_the_picture_comes_before_the_numbers():
    cells = [cell["id"] for cell in nbformat.read(NOTEBOOKS / "attention.ipynb", as_version=4).cells]
    assert cells.index("figures") < cells.index("film") < cells.index("numbers") < cells.index("check")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_print_a_manual(name):
    parameters = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    assert parameters and all(p["help"] and p["inferred_type_name"] != "None" for p in parameters.values())
