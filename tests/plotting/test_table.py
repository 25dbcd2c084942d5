"""Tables miss nothing and escape text."""

import numpy as np
import pytest

from mvf.workbench import plotting
from tests.plotting.examples import report


def test_small_tables_show_missing_values_as_dashes():
    assert plotting.actions_table(report()).rows[0] == ("squat", "0.910", "–")
    assert plotting.kinds_table(report()).rows == (("model", "0.900"), ("shuffled order", "0.800"))
    config = plotting.config_table({"learning_rate": 1e-4, "layers": (4, 8), "chunk": None})
    assert config.rows == (("learning_rate", "0.0001"), ("layers", "4, 8"), ("chunk", "–"))
    assert plotting.shapes_table({"frames": np.zeros((2, 3)), "cls": None}).rows == (("frames", "2 x 3"), ("cls", "–"))


def test_html_escapes_text_and_holds_every_cell():
    html = plotting.Table((("<b>", "0.5"),), ("name", "value"), "A & B", ("note",))._repr_html_()
    assert "&lt;b&gt;" in html and "A &amp; B" in html and "note" in html and "text-align:right" in html
    with pytest.raises(ValueError, match="2 cells, got 1"):
        plotting.Table((("a",),), ("name", "value"))
