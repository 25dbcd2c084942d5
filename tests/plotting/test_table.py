"""Tables miss nothing and escape text."""

import numpy as np
import pytest

from mvf.workbench import plotting
from mvf.workbench.plotting.localization import MAPS, MEASURES, map_name
from mvf.workbench.plotting.scores import CONTROLS, GROUPS, SCORES, score_words
from mvf.workbench.plotting.table import GLOSSARY, explain
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


def test_html_names_a_group_of_rows_once():
    rows = (("squat", "model", "0.5"), ("squat", "clock", "0.5"), ("bowl", "model", "0.5"))
    table = plotting.Table(rows, ("action", "embedding", "score"))
    assert (table._repr_html_().count("squat"), str(table).count("squat")) == (1, 2)
    single = plotting.Table((("squat", "0.5"), ("squat", "0.6")), ("action", "score"))
    assert single._repr_html_().count("squat") == 2, "rows with one heading keep it"


def test_headings_and_names_of_scores_say_what_they_mean():
    rows = (("model", "below the mean", "entity"), ("position only (clock)", "0.5", "squat_000"))
    html = plotting.Table(rows, ("embedding", "progression", "video"))._repr_html_()
    for word in ("progression", "below the mean", "position only"):
        assert f'title="{GLOSSARY[word].replace(chr(39), "&#x27;")}"' in html, word
    assert html.count("<abbr") == 3, "neither names of videos nor ordinary words are explained"
    assert "<abbr" not in str(plotting.Table(rows, ("embedding", "progression", "video")))


@pytest.mark.parametrize("name", [*SCORES.values(), *CONTROLS.values(), *GROUPS.values(), *map(map_name, MAPS),
                                  *(score_words(measure) for measure in MEASURES)])  # fmt: skip
def test_the_glossary_explains_every_score_control_map_and_measure(name):
    assert explain(name) or name == "model"


def test_no_entry_of_the_glossary_is_spare():
    entries = {meaning: word for word, meaning in GLOSSARY.items()}
    assert len(entries) == len(GLOSSARY) and all(explain(word) == meaning for meaning, word in entries.items())
    assert all(meaning[0].lower() == meaning[0] or meaning.startswith(("R²", "AUROC")) for meaning in entries)
