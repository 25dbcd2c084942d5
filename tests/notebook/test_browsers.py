"""The browsers of the notebooks: what they are given, where they open and where their HTML files lie."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mvf.data.records import VideoList, VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.workbench.notebook import alignment_player, embedding_explorer, retrieval_browser
from mvf.workbench.notebook.session import Splits

COUNT = 20


class Timed:
    """Plain frames at 10 frames a second."""

    identity = "timed"
    times = np.arange(COUNT) / 10

    def count(self):
        return COUNT

    def frames(self, start=0, stop=None, step=1):
        return (np.full((12, 16, 3), 10 * i, np.uint8) for i in range(*slice(start, stop, step).indices(COUNT)))


@pytest.fixture
def splits():
    phases = np.repeat([-1, 0, 1, -1], [10, 4, 4, 2])
    records = [VideoRecord(name, "squat", Timed(), phase_names=("down", "up")) for name in "abc"]
    vectors = np.random.default_rng(0).normal(size=(3, COUNT, 5)) * [3, 2, 1, 1, 1]
    videos = [EmbeddedVideo(r.name, "squat", v, phases) for r, v in zip(records, vectors)]
    return Splits(VideoList([]), VideoList(records), [], videos, None)


@pytest.mark.parametrize("make", [embedding_explorer, retrieval_browser, alignment_player])
def test_a_browser_opens_in_the_middle_of_the_phases_with_seconds_and_is_written_as_html(splits, tmp_path, make):
    browser = make(splits, stored=30, figures=tmp_path / "figures")  # every second frame of 60
    assert browser.strips[0]["times"] == pytest.approx(0.2 * np.arange(10))
    assert browser.strips[0]["rate"] == pytest.approx(5)
    assert browser.strips[0]["numbers"][browser.frame] == 14  # 10 to 17 are labelled
    assert browser.palette["names"] == ["down", "up"]
    (page,) = (tmp_path / "figures").iterdir()
    assert page.name == f"{make.__name__}.html" and str(page) in repr(browser)


def test_without_a_folder_no_file_is_written(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repr(retrieval_browser(splits)) == "Retrieval browser of 3 videos" and not list(tmp_path.iterdir())


def test_the_explorer_names_the_explained_variance_of_its_axes(splits):
    shares = PCA(2).fit(np.concatenate([video.embeddings for video in splits.val])).explained_variance_ratio_
    wanted = [f"PC {i}, {100 * share:.0f} % of the variance" for i, share in enumerate(shares, start=1)]
    assert embedding_explorer(splits, stored=30).axes == wanted and shares[0] > 1.2 * shares[1]
