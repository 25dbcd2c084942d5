"""The page of benchmarks keeps what is written by hand; the table of stages says what reports say."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mvf
from bench import stages
from mvf.models import Architecture
from mvf.models.mvformer import MVFormer
from mvf.workbench.notebook.session import embed_splits

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page():
    """The program, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("bench_page", ROOT / "bench" / "page.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_section_replaces_its_own_and_leaves_the_rest(page):
    before = "# Benchmarks\n\nBy hand.\n\n## Pooling\n\nold\n\n## A training step\n\nkept\n"
    after = page.placed(before, "## Pooling\n\nnew\n")
    assert after == "# Benchmarks\n\nBy hand.\n\n## A training step\n\nkept\n\n## Pooling\n\nnew\n"
    assert page.placed(after, "## Pooling\n\nnew\n") == after


def test_every_script_is_there_and_every_title_is_one(page):
    scripts = {benchmark.command.split()[0] for benchmark in page.BENCHMARKS.values()}
    assert all((ROOT / "bench" / script).is_file() for script in scripts)
    assert {path.name for path in (ROOT / "bench").glob("bench_*.py")} <= scripts
    titles = [benchmark.title for benchmark in page.BENCHMARKS.values()]
    assert len(set(titles)) == len(titles)


def test_a_failure_and_company_on_the_machine_are_said(page, monkeypatch, tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "one.py").write_text("import sys; print('## Title\\n| a |\\n| --- |'); sys.exit(3)")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "LISTEN", 0.1)
    seconds = iter([0.0, 0.15, 0.15, 0.15])
    monkeypatch.setattr(page, "ticks", lambda: {"busy": next(seconds), "stolen": 0.0})
    monkeypatch.setattr(page.os, "cpu_count", lambda: 2)
    section, status = page.run(page.Benchmark("One", "one.py", "1 s"), quick=False)
    assert status == 3
    assert "exit status 3" in section and "75% busy before (NOT ALONE" in section
    assert section.count("## ") == 1 and "**Title**" in section, "a section has one heading, its own"


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        (
            {"motion_skip": 2.5, "features": "banked", "fusion_blocks": 2, "motion_weighting": "augmentation"},
            ["pooled entities, joined", "pooled entity 1", "token MLP, entities joined"]
            + [
                "block 1, entity 1",
                "block 2, entity 1",
                "embedding",
                "motion_pca",
                "embedding + skip weighted by spread",
            ]
            + ["motion skip alone", "embedding + motion skip"],
        ),
        (
            {"per_action": True, "pooling": "mean", "readout": "mean", "token_merge": 0.5},
            ["pooled token", "token MLP", "block 1", "embedding", "motion_pca"],
        ),
    ],
)
def test_stages_say_what_the_report_says(tiny, tmp_path, monkeypatch, settings, own):
    config = tiny(localization=False, **settings)
    run = mvf.train(config, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["stages.py", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    stages.main()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"stages.md", "stages.png", "stages.pdf"}
    lines = (tmp_path / "out" / "stages.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    table = {name: cells for name, *cells in rows}
    names = ("majority class", "clock", "backbone", *own)
    assert [*table][2:] == [stages.TITLES.get(name, name) for name in names]

    split = embed_splits(run.model, config)
    records = {"train_records": split.train_records, "val_records": split.val_records}
    report = mvf.evaluate(split.train, split.val, config, run.model, **records, cache=split.cache)
    last = own[-1] if "skip" in own[-1] else "embedding"
    for name, control in ((last, "model"), ("clock", "position_only"), ("motion_pca", "motion_pca")):
        wanted = [report["cropped"][control][score] for score in ("classification", "retrieval@5")]
        errors = {"model": report["alignment_error"]} | report["alignment_error_controls"]
        wanted += [errors[control]["window"]]
        assert table[stages.TITLES.get(name, name)][1:4] == [f"{value:.3f}" for value in wanted]
    moved = report["cropped"]["backbone_motion"]
    assert table["backbone, mean patch"][4] == f"{moved['classification']:.3f}"


def test_stages_need_labels_and_say_so(tiny, tmp_path, monkeypatch):
    mvf.train(tiny(epochs=1), tmp_path / "run")
    found = stages.find_config_videos

    def unlabelled(*arguments, **options):
        return [replace(record, annotations={}) for record in found(*arguments, **options)]

    monkeypatch.setattr(stages, "find_config_videos", unlabelled)
    with pytest.raises(ValueError, match="none of the 6 training videos of synthetic has phase labels"):
        stages.measure(tmp_path / "run")


@pytest.mark.parametrize("readout", ["cls", "mean"])
@pytest.mark.parametrize("pooling", ["lstp", "fixed_width", "max", "mean", "cls"])
def test_the_last_block_gives_the_embedding(pooling, readout):
    small = {"entity_width": 8, "token_width": 8, "fusion_width": 8, "fusion_heads": 2, "fusion_blocks": 3}
    model = MVFormer(Architecture(12, 12, pooling=pooling, readout=readout, token_merge=0.3, **small)).eval()
    clip = torch.randn(1, 9, 4, 12), torch.randn(1, 9, 12)
    with torch.inference_mode():
        found = stages.clip_stages(model, model.pool(*clip)[0][0], clip[0][0].mean(dim=1).numpy(), chunk=5)
        last = next(array for name, array in found.items() if name.startswith("block 3"))
        again = torch.nn.functional.normalize(model.embedding(torch.from_numpy(last)), dim=-1)
    assert torch.allclose(again, torch.from_numpy(found["embedding"]), atol=1e-6)
    assert {len(array) for array in found.values()} == {9} and len(model.fusion.blocks) == 3


def test_runs_of_several_seeds_are_averaged_and_others_refused(tiny):
    runs = [stages.Measured(tiny(seed=i), "", {"clock": {"width": 4, "classification": i / 10}}, []) for i in (1, 2, 3)]
    values, notes = stages.pool_runs(runs)
    assert "0.200 ± 0.200" in str(stages.stages_table(values, notes)) and "seeds 1, 2, 3" in notes[0]
    with pytest.raises(ValueError, match="same stages"):
        stages.pool_runs([runs[0], replace(runs[1], rows={})])
