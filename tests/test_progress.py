"""A bar is tqdm's in a terminal, and in a notebook a line that ends as a sentence."""

import io

import IPython.display
import pytest

from mvf import progress


class Line:
    """IPython's handle of an output that is replaced."""

    def __init__(self, text):
        self.texts = [text]

    def update(self, data, raw):
        assert raw
        self.texts.append(data["text/plain"])


@pytest.fixture
def lines(monkeypatch):
    shown = []

    def display(data, raw, display_id):
        assert raw and display_id
        shown.append(Line(data["text/plain"]))
        return shown[-1]

    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", display)
    return shown


@pytest.mark.parametrize("leave", [True, False])
def test_in_a_notebook_a_finished_bar_is_a_sentence(lines, leave):
    list(progress.tqdm(range(24), "embedding", unit="video", leave=leave))
    (line,) = lines
    assert "0%" in line.texts[0] and line.texts[-1].startswith("embedding: 24 videos in 0.")


def test_a_bar_that_stops_says_how_far_it_came(lines, monkeypatch):
    with pytest.raises(KeyboardInterrupt), progress.tqdm(total=2000, desc="feature bank", unit="frame") as bar:
        bar.update(1500)
        bar.start_t -= 134
        raise KeyboardInterrupt
    assert lines[0].texts[-1] == "feature bank: 1,500 of 2,000 frames in 2 min 14 s"


def test_a_quick_bar_that_was_never_shown_leaves_nothing(lines):
    list(progress.tqdm(range(3), delay=5))
    list(progress.tqdm(range(3), disable=True))
    assert not lines


def test_in_a_terminal_it_is_tqdms_own(capsys):
    list(progress.tqdm(range(2), "embedding", file=(file := io.StringIO())))
    assert "embedding: 100%" in file.getvalue()
