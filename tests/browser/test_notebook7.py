"""In Notebook 7 the widgets do what they do in JupyterLab."""

import pytest

from tests.browser import checks


@pytest.mark.slow
def test_attention_browser_shows_the_right_frames_and_maps_and_lasts(run, open_notebook, reopen):
    with open_notebook(
        "attention", view="notebooks", run_dir="run", videos=2, rows=2, image_size=checks.IMAGE_SIZE
    ) as page:
        page.run_all()
        checks.attention_browser_follows_its_controls(page, run)
    with reopen("attention", "notebooks", kernel=False) as page:
        checks.reopened_browser_scrubs(page, "attention-browser")
        page.screenshot("reopened")
