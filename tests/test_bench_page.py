"""The page of benchmarks: sections come and go, what is written by hand stays."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

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
