"""The page for a client: phases, deviation and repetitions of clips, in seconds, on two sheets of paper."""

import base64
import re

import numpy as np
import pytest

import mvf
from mvf.__main__ import main
from mvf.embedding import EmbeddedVideo
from mvf.workbench.notebook.segments import find_clips
from mvf.workbench.report import clips as page
from tests.conftest import TINY
from tests.data.footage import write_images, write_video
from tests.widgets.page import start_browser

LENGTH = 40  # frames of a clip, of 2 seconds
STRAY = slice(16, 26)  # frames of "astray" that no other clip shows
HOSTILE = "<b>&\"'"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = mvf.load_config("synthetic", **TINY | {"epochs": 1})
    return mvf.train(config, tmp_path_factory.mktemp("run") / "run").folder


def embedded(model, records, precision="auto"):
    """A turn of a circle for each clip, three for "set"; "astray" leaves the plane of the circle."""
    found = []
    for record in records:
        numbers = record.frame_numbers
        angles = 2 * np.pi * numbers / LENGTH + 0.02 * {"a": 1, "ccc": 3}.get(record.name, 2)
        rows = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)
        if record.name == "astray":
            rows[STRAY] = [0, 0, 1]
        found.append(EmbeddedVideo(record.name, record.action, rows, record.phases, numbers))
    return found


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Three labelled clips and three others, one of three repetitions, and a file that is no video."""
    monkeypatch.setattr(page, "embed", embedded)
    folder = tmp_path / "clips"
    names = ("a", "bb", "ccc", "astray", f"like {HOSTILE}", "set")
    for name in names:
        write_video(folder / f"{name}.mp4", LENGTH * (3 if name == "set" else 1), fps=20)
    (folder / "cut.mp4").write_bytes(b"damaged")
    starts = {"a": "0;20", "bb": "0;24", "ccc": "0;20"}
    rows = [f'"{name.replace(chr(34), 2 * chr(34))}.mp4",{starts.get(name, "")}' for name in (*names, "cut")]
    (folder / "videos.csv").write_text("path,phases,phase_names\n" + "".join(f"{row},up;down\n" for row in rows))
    return folder


def values(run, clips, references="", labels=None):
    return page.clips_values(find_clips(run, clips, labels), references, clips, run)


def cards(found):
    return {card["name"]: card for card in found["cards"]}


def test_the_clip_that_leaves_the_references_is_first_with_its_seconds_and_pictures(run, clips):
    found = values(run, clips)
    first = found["cards"][0]
    assert first["name"] == "astray" and first["look"] == first["moments"][0]["text"]
    moment, place = first["clip"].moments[0]
    assert STRAY.start <= moment.peak < STRAY.stop and place == 0
    assert abs(moment.start - STRAY.start) <= 6 and abs(moment.end - STRAY.stop) <= 6  # the distance is smoothed
    assert len(first["moments"][0]["pictures"]) == 2 and first["moments"][0]["text"].startswith("0.")
    assert cards(found)[f"like {HOSTILE}"]["clip"].moments == []


def test_phases_stand_beside_the_references_and_those_by_hand_as_they_are(run, clips):
    found = cards(values(run, clips))
    assert [row["when"] for row in found["bb"]["rows"]] == ["0.00 to 1.20 s", "1.20 to 2.00 s"]
    up, down = found["bb"]["rows"]
    assert up["beside"] == "0.20 s longer than 1.00 ± 0.00 s" and up["confidence"] == "by hand"
    assert down["beside"] == "0.20 s shorter than 1.00 ± 0.00 s"
    new = found[f"like {HOSTILE}"]
    assert [row["name"] for row in new["rows"]] == ["up", "down"] and new["rows"][0]["beside"].endswith("1.07 ± 0.12 s")
    assert 0.5 < float(new["confidence"]) <= 1 and new["totals"]["up"] == new["rows"][0]["lasts"]
    assert [caption.split()[0] for _, caption in new["key_frames"]] == ["up", "down"]


def test_repetitions_are_compared_one_by_one(run, clips):
    card = cards(values(run, clips))["set"]
    assert card["repetitions"]["text"].startswith("3 repetitions of 2.00 ± 0.")
    cuts = [one.first for one in card["clip"].passes]
    assert np.abs(np.subtract(cuts, [0, LENGTH, 2 * LENGTH])).max() <= 2
    assert [len(one.video.embeddings) for one in card["clip"].passes] == np.diff([*cuts, 3 * LENGTH]).tolist()
    starts = [first for phase, first, _ in card["clip"].segments if phase == 0]
    assert starts == cuts, "every repetition begins with its own first phase"
    assert {row["when"] for row in card["rows"]} == {"3 ×"} and len(card["clip"].deviations) == 3


def test_idle_time_around_repetitions_is_left_out_and_moves_nothing(run, clips, monkeypatch):
    def idle_first(model, records, precision="auto"):
        found = embedded(model, records)
        for video in found:
            if video.name == "set":  # stands still, then moves from its own first moment on
                angles = 2 * np.pi * np.maximum(0, video.numbers - LENGTH) / LENGTH
                still = np.where(video.numbers < LENGTH, 1.0, 0.0)
                rows = np.stack([np.cos(angles) * (1 - still), np.sin(angles), still], axis=1)
                video.embeddings[:] = rows
        return found

    monkeypatch.setattr(page, "embed", idle_first)
    clip = cards(values(run, clips))["set"]["clip"]
    first, last = clip.passes[0].first, clip.passes[-1].stop
    assert len(clip.passes) == 2 and abs(first - LENGTH) <= 2 and last == 3 * LENGTH
    assert len(clip.phases) == len(clip.confidence) == 3 * LENGTH and (clip.phases[:first] == -1).all()
    assert [start for phase, start, _ in clip.segments if phase == 0] == [one.first for one in clip.passes]
    assert clip.lengths_of_passes.sum() == pytest.approx((last - first) / 20) and clip.sureness > 0.5


def test_the_test_by_hand_leaves_each_clip_out(run, clips, monkeypatch):
    seen = []
    propose = page.propose
    monkeypatch.setattr(page, "propose", lambda known, new: seen.append((known, new)) or propose(known, new))
    scores = values(run, clips)["scores"]
    assert set(scores) == {"model", "clock"} and 0.8 < scores["model"]["accuracy"] <= 1
    judged = [(known, new[0]) for known, new in seen if new[0].phases is not None]
    assert len(judged) == 6 and all(new.name not in {v.name for v in known} for known, new in judged)


def test_the_page_is_one_file_that_says_what_it_rests_on(run, clips, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", "--clips", str(run), str(clips), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert f"page {out}" in capsys.readouterr().out and {p.name for p in tmp_path.iterdir()} == {"clips", "page.html"}
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "<script" not in text and "<b>&amp;" not in text and "like &lt;b&gt;&amp;&#34;&#39;" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "Not readable: cut (" in text and "A clock, which knows only" in text and "Confidence, from 0 to 1" in text
    assert "Outside 0." in text and "Never outside the band" in text and text.count("<article") == 6


def test_without_labels_the_page_says_what_to_do(run, clips):
    (clips / "videos.csv").write_text("path\n" + "".join(f"{name}.mp4\n" for name in ("a", "bb", "set")))
    found = values(run, clips)
    assert found["references"] == [] and not any(card["rows"] or card["curve"] for card in found["cards"])
    assert len(cards(found)["a"]["key_frames"]) == 4
    text = page.rendered("clips.html", found)
    assert "label a good clip" in text and "because no clip is labelled" in text
    named = values(run, clips, "a")
    assert named["references"] == ["a"] and cards(named)["bb"]["curve"] and not cards(named)["a"]["curve"]
    assert cards(named)["bb"]["look"] == "", "with a single reference the band is the clip's own"
    assert "this clip is the only reference" in page.rendered("clips.html", named)


def test_clips_without_times_are_counted_in_frames(run, clips):
    write_images(clips / "pictures")
    with (clips / "videos.csv").open("a") as file:
        file.write("pictures,,\n")
    card = cards(values(run, clips))["pictures"]
    assert card["length"] == "12 frames" and card["rows"][0]["when"].startswith("frames 0 to")
    assert {row["beside"] for row in card["rows"]} == {""} and "frame " in card["key_frames"][0][1]
    assert "they have no time stamps" in page.rendered("clips.html", values(run, clips))


def test_one_clip_and_labels_from_elsewhere(run, clips, tmp_path):
    out = tmp_path / "one.html"
    alone = tmp_path / "other" / "new.mp4"
    write_video(alone, LENGTH, fps=20)
    command = ["report", "--clips", str(run), str(alone), "--labels", str(clips / "videos.csv"), "--out", str(out)]
    assert main(command) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("<article") == 1 and "All clips" not in text and "3 references: a, bb, ccc" in text
    assert main(["report", "--clips", str(run), str(clips / "bb.mp4"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("<article") == 1 and "by hand</td>" in text, "the table beside a single file labels it"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--references", "astry"], '--references="astry": there is no video "astry"; did you mean "astray"?'),
        (["--references", ","], "must name at least one video"),
        (["--labels", "clips.csv"], "--labels must be the videos.csv"),
    ],
)
def test_mistakes_are_one_line(run, clips, more, message, capsys):
    assert main(["report", "--clips", str(run), str(clips), *more]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mvf: ") and message in said
    assert not list(run.glob("clips-*"))


def test_flags_that_need_each_other_say_so(run, capsys):
    assert main(["report", str(run), "--labels", "videos.csv"]) == 1
    assert "add --clips" in capsys.readouterr().err
    assert main(["report", "--clips", str(run)]) == 1
    assert "--clips needs the clips" in capsys.readouterr().err


def test_actions_keep_to_themselves(run, clips):
    rows = "a.mp4,pull,0;20\nbb.mp4,pull,0;24\nccc.mp4,squat,0;20\nastray.mp4,pull,\nset.mp4,jump,\n"
    (clips / "videos.csv").write_text(f"path,action,phases\n{rows}")
    found = values(run, clips)
    by_name = cards(found)
    assert by_name["astray"]["curve"] and by_name["astray"]["rows"]
    assert by_name["set"]["curve"] is None and by_name["ccc"]["curve"] is None
    text = page.rendered("clips.html", found)
    assert "no reference shows the action jump" in text and "this clip is the only reference" in text


def test_a_model_that_was_trained_a_minute_ago_makes_a_page(run, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / "clips" / f"{name}.mp4", 20)
    (tmp_path / "clips" / "videos.csv").write_text("path,phases\na.mp4,0;10\nb.mp4,\n")
    assert main(["report", "--clips", str(run), str(tmp_path / "clips")]) == 0
    assert "phase 1" in (run / "clips-clips.html").read_text(encoding="utf-8")


def test_six_clips_print_on_two_sheets(run, clips, tmp_path):
    browser = start_browser()
    try:
        path = page.write_clips_page(run, clips, out=tmp_path / "page.html")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        )
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        options = {"preferCSSPageSize": True, "printBackground": True}
        pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", options)["data"])
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()
