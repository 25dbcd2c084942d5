"""Figures of the probe say what they show of few videos."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mvf.embedding import EmbeddedVideo
from mvf.workbench.notebook.probe import probe_actions, retrieval_figure
from mvf.workbench.notebook.session import Splits

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "probe.ipynb"


@pytest.mark.parametrize(
    "count, said", [(2, "the only other validation video"), (4, "3 of 3 other"), (9, "5 of 8 other validation videos")]
)
def test_retrieval_counts_the_neighbours_that_there_are(count, said):
    names = [f"squat_{i}" for i in range(count)]
    videos = [
        EmbeddedVideo(name, "squat", np.random.default_rng(i).random((6, 4)), None) for i, name in enumerate(names)
    ]
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    records = [SimpleNamespace(name=name, action="squat", phase_names=(), frames=lambda *_: pictures) for name in names]
    figure = retrieval_figure(Splits([], records, [], videos, None))
    assert figure.get_suptitle().startswith(f"squat: nearest frames, in {said}")
    assert sum(bool(axes.images) for axes in figure.axes) == 4 * (1 + min(count - 1, 5))


def test_the_notebook_promises_no_more_neighbours_than_there_may_be():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["id"] == "retrieval-text")
    assert "five at most" in text


def test_a_phase_that_no_frame_has_yet_needs_no_row():
    vectors = np.random.default_rng(0).random((8, 4), np.float32)
    phases = np.repeat([0, 1], 4)
    videos = [[EmbeddedVideo(name, "squat", vectors, phases)] for name in ("a", "b")]
    records = [SimpleNamespace(name=name, action="squat", phase_names=("down", "hold", "up")) for name in ("a", "b")]
    (probe,) = probe_actions(*videos, records)
    assert probe.num_phases == 2 and probe.names == ("down", "hold") and probe.confusion.shape == (2, 2)
