"""Every figure fits a page, cuts no text off, and is saved as PNG and PDF."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mvf.workbench import plotting
from mvf.workbench.plotting.style import fit_words
from tests.plotting.examples import frames, history, report, similarity


def one_of_each():
    phases = np.array([-1, 0, 0, 1, 1, 1])
    row = plotting.RetrievalRow(frames()[0], "a, up", list(frames()[1:6]), list("bcdef"), [True, False] * 2 + [True])
    maps = np.random.default_rng(1).random((6, 2, 4, 4))
    yield "history", plotting.plot_history(history())
    yield "views", plotting.plot_views((frames(), frames() / 255), (np.arange(6), np.arange(6) + 4))
    yield "controls", plotting.plot_controls(report())
    yield "fractions", plotting.plot_label_fractions(report()["label_fractions"])
    yield "confusion", plotting.plot_confusion([[8, 2], [0, 10]], ["up", "down"])
    yield "progression", plotting.plot_progression(np.zeros((6, 2)), np.ones((6, 2)), ["top", "impact"])
    yield "similarity", plotting.plot_similarity(similarity(6, 6), [(0, 0), (5, 5)], phases, phases)
    yield "embeddings", plotting.plot_embeddings([np.ones((6, 2))], [phases])
    yield "retrieval", plotting.plot_retrieval([row])
    yield "attention", plotting.plot_attention(frames(), maps, maps[:, 0], contour_mass=0.6, layer="Layer 12.")


@pytest.fixture(scope="module")
def figures():
    return dict(one_of_each())


def test_every_figure_fits_a_column_or_a_page_and_nothing_stays_open(figures):
    for name, figure in figures.items():
        width, height = figure.get_size_inches()
        assert plotting.COLUMN - 0.01 <= width <= plotting.PAGE + 0.01 and height < 9.5, name
    assert plt.get_fignums() == []


def test_no_text_is_cut_off_at_the_edge(figures):
    for name, figure in figures.items():
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, name


def test_importing_and_plotting_leave_matplotlibs_settings_alone(figures):
    before = dict(mpl.rcParams)
    plotting.plot_history(history()).draw_without_rendering()
    assert dict(mpl.rcParams) == before


def test_a_figure_shows_itself_as_one_png(figures):
    assert figures["history"]._repr_png_().startswith(b"\x89PNG")


def test_saving_writes_png_and_pdf_with_real_text_and_leaves_no_other_file(figures, tmp_path):
    png, pdf = plotting.save_figure(figures["history"], tmp_path / "figures" / "v1.2")
    assert {path.name for path in png.parent.iterdir()} == {"v1.2.png", "v1.2.pdf"}
    assert Image.open(png).width == round(plotting.PAGE * 200)
    first = pdf.read_bytes()
    assert b"/FontFile2" in first and b"/Type3" not in first  # TrueType outlines, which journals ask for
    assert plotting.save_figure(figures["history"], tmp_path / "again")[1].read_bytes() == first


def test_phase_colours_differ_for_any_number_of_phases():
    for count in (2, 8, 30):
        assert len(set(plotting.phase_colours(count))) == count


def test_words_break_at_spaces_and_underscores_and_only_where_they_must():
    assert fit_words("squat", 2) == "squat" and fit_words("", 2) == ""
    assert fit_words("clean_and_jerk_001 #37", 1.1) == "clean_and_jerk_001\n#37"
    assert all(len(line) <= 10 for line in fit_words("x" * 25, 0.565).split("\n"))
