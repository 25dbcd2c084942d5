"""Measures frames per second and bytes sent of an attention browser with 120 frames and 3 entities.

    python bench/bench_widgets.py [FOLDER_FOR_THE_PAGE]

Targets: at least 30 frames per second in headless Chromium, at most 8 MB. Frames are moving crops of a photograph, 373
x 280, as hard to compress as real footage; maps are noise of 16 x 16 patches, 3 entities and one layer of 6 heads.
`drawing` draws 120 frames in a row and waits for each, the maximum speed of the page. `dragging` moves the slider once
per animation frame until all 120 are shown, the speed that a person sees (at most 60 per second on most screens).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mvf.workbench.widgets import AttentionBrowser  # noqa: E402
from tests.widgets.page import Page, start_browser  # noqa: E402

FRAMES = 120
DRAG = """
const slider = root.querySelector("input[type=range]"), done = args[args.length - 1], began = performance.now();
const step = (t) => {
  if (t === args[0]) return done(performance.now() - began);
  slider.value = t;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => step(t + 1));
};
requestAnimationFrame(() => step(0));
"""
log = logging.getLogger("bench")


def make_browser() -> AttentionBrowser:
    """Makes an attention browser of a video of `FRAMES` frames."""
    picture = load_sample_image("china.jpg")
    frames = np.stack([picture[t // 2 : t // 2 + 280, t : t + 373] for t in range(FRAMES)])
    generator = np.random.default_rng(0)
    entities, heads = generator.random((FRAMES, 3, 16, 16)), generator.random((1, FRAMES, 6, 16, 16))
    return AttentionBrowser({"crops": (frames, entities**4, heads**4)})


def main(folder: Path) -> None:
    browser, driver = make_browser(), start_browser()
    log.info("sent: %.2f MB (target at most 8)", browser.nbytes / 1e6)
    try:
        for settings in ({}, {"view": "side by side", "outline": True, "normalise": "video"}):
            for name, value in settings.items():
                setattr(browser, name, value)
            page = Page(driver, browser, folder / "page.html", width=1250)
            drawing = min(page.run("return root.mvfBenchmark(args[0])", FRAMES) for _ in range(3))
            dragging = driver.execute_async_script(
                f"const root = document.querySelector('[data-mvf]'), args = arguments; {DRAG}", FRAMES
            )
            shown = settings or "as it opens"
            rates = FRAMES / drawing * 1000, FRAMES / dragging * 1000
            log.info("%s: drawing %.0f, dragging %.0f frames/s (target 30)", shown, *rates)
    finally:
        driver.quit()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
