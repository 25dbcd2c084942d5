"""In JupyterLab the notebooks run, and their widgets show the right frames, without an error in the page's console."""

import papermill
import pytest

from tests.browser import checks
from tests.browser.conftest import NOTEBOOKS


def test_attention_browser_shows_the_right_frames_and_maps_and_lasts(run, open_notebook, reopen):
    with open_notebook("attention", run_dir="run", videos=2, rows=2, image_size=checks.IMAGE_SIZE) as page:
        page.run_all()
        checks.attention_browser_follows_its_controls(page, run)
    for kernel in (True, False):
        with reopen("attention", kernel=kernel) as page:
            checks.reopened_browser_scrubs(page, "attention-browser")
            page.screenshot("reopened")


@pytest.mark.slow
def test_hovering_over_an_embedding_shows_its_frame(run, open_notebook, reopen):
    with open_notebook("probe", run_dir="run") as page:
        page.run_all()
        checks.explorer_follows_the_mouse(page, run)
        page.save()
    for kernel in (True, False):
        with reopen("probe", kernel=kernel) as page:
            checks.reopened_browser_scrubs(page, "embedding-explorer", "figure canvas")
            checks.reopened_browser_scrubs(page, "retrieval-browser")
            page.screenshot("reopened")


@pytest.mark.slow
def test_a_label_set_by_keyboard_is_written_when_it_is_accepted(run, open_notebook, reopen):
    with open_notebook("align", run_dir="run") as page:
        page.run_all()
        checks.labeler_writes_what_is_accepted(page, run.folder / "figures" / "labels" / "videos.csv")
        page.save()
    for kernel in (True, False):
        with reopen("align", kernel=kernel) as page:
            checks.reopened_browser_scrubs(page, "alignment-player")
            checks.reopened_browser_scrubs(page, "deviation-player")
            page.screenshot("reopened")


@pytest.mark.slow
def test_an_executed_notebook_shows_pictures_and_once_trusted_its_browsers(run, lab, reopen):
    executed = lab.root / "executed.ipynb"
    papermill.execute_notebook(
        str(NOTEBOOKS / "align.ipynb"), str(executed), {"run_dir": str(run.folder)}, kernel_name="python3"
    )
    with reopen("executed") as page:
        checks.shows_the_picture_alone(page, "player")
    lab.trust(executed.name)
    for kernel in (True, False):
        with reopen("executed", kernel=kernel) as page:
            checks.reopened_browser_scrubs(page, "alignment-player")
