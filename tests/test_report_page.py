"""The page of a run: complete, self-contained, safe, and right about what differs between two runs."""

from __future__ import annotations

import base64
import io
import json
import re
from functools import partial
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mvf.config import load_config
from mvf.evaluation import write_report
from mvf.evaluation.bootstrap import combine, paired_interval, verdict
from mvf.training.run import HISTORY, claim_folder, write_history
from mvf.workbench import plotting
from mvf.workbench import report as page
from mvf.workbench.plotting.table import GLOSSARY
from mvf.workbench.report import sections, write_page
from mvf.workbench.report.sections import (
    Chart,
    changed_videos,
    gaps_of,
    localization_differences,
    read_run,
    score_verdicts,
)
from mvf.workbench.widgets import AlignmentPlayer
from tests.browser.lab import wait_for
from tests.widgets.page import start_browser

SCORES = {"classification": 0.5, "progression": 0.4, "kendall_tau": 0.6, "retrieval@5": 0.3, "retrieval@10": 0.2}
VIDEOS = [f"squat_{i}" for i in range(6)]
HOSTILE = "<script>alert(1)</script>"


class Seen(HTMLParser):
    """Tags with their attributes, and the text of each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


def pieces(right: float, jitter: int = 0) -> dict:
    """Sums of six videos: `right` of ten frames each, give or take."""
    noise = np.random.default_rng(jitter).normal(0, 0.2, len(VIDEOS)) if jitter else np.zeros(len(VIDEOS))
    two = {name: [right + e, 10.0] for name, e in zip(VIDEOS, noise)}
    four = {name: [[10.0 - right + e, 10.0, 5.0, 22.5], [4.0, 10.0, 5.0, 22.5]] for name, e in zip(VIDEOS, noise)}
    by_score = {"classification": two, "progression": four, "kendall_tau": two, "retrieval@5": two}
    return {place: {score: {"squat": by} for score, by in by_score.items()} for place in ("whole", "cropped")}


def report_of(config, value=0.5, **more) -> dict:
    scores = dict.fromkeys(SCORES, value)
    low = dict.fromkeys(SCORES, 0.1)
    said = {name: verdict(value, 0.1, (0.2, 0.4)) for name in SCORES}
    return {
        "dataset": config.dataset, "preset": config.preset, "seed": config.seed, "data_seed": 0, "epochs": 3,
        "backbone": config.backbone, "backbone_weights": "index", "objective": "scl", "supervision": "none",
        "scores": scores, "cropped": {"model": scores, "position_only": low, "backbone_motion": low},
        "controls": {"position_only": low, "untrained": low}, "per_action": {"squat": scores},
        "label_fractions": {"0.1": {"classification": 0.3}, "1.0": {"classification": 0.5}},
        "verdicts": said | {f"cropped.{name}": text for name, text in said.items()},
        "localization": {"entity_1": {"auroc": 0.9, "lift": 3.0}, "uniform": {"auroc": 0.5, "lift": 1.0}, "area": 0.1},
        "coverage": {"train": {"found": 5, "expected": 6, "unreadable": {"squat_9": "cut short"}}},
        "skipped": {"alignment_error": "one video only"}, "judged_on": "aa", "videos": pieces(10 * value),
    } | more  # fmt: skip


def build(parent, name="run", value=0.5, settings=None, **more):
    """A run folder as training and evaluation leave it; `more` are fields of its report."""
    config, folder = load_config("synthetic", **(settings or {})), parent / name
    claim_folder(folder, config)
    rows = [[i, 9 * i, 2.0 / i, 1e-3, 3.0, 1.0, 300.0] for i in (1, 2, 3)]
    write_history(folder, [dict(zip(HISTORY, row)) for row in rows])
    write_report(report_of(config, value, **more), folder / "metrics.json")
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def make(tmp_path):
    return partial(build, tmp_path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two runs and the text of the page that compares them."""
    folder = tmp_path_factory.mktemp("compared")
    runs = build(folder), build(folder, "other", 0.4, settings={"seed": 2})
    (runs[0] / "figures").mkdir()
    Image.new("RGB", (40, 30)).save(runs[0] / "figures" / "attention_1.png")
    return runs, text_of(*runs)


@pytest.fixture
def uncharted(monkeypatch):
    """Pages without charts, which take nearly all the time of writing one."""
    monkeypatch.setattr(sections, "chart", lambda *_: None)


def text_of(*arguments) -> str:
    return write_page(*arguments).read_text(encoding="utf-8")


def test_the_page_is_one_file_that_asks_for_nothing_and_runs_nothing(compared):
    _, text = compared
    seen = Seen(text)
    targets = [
        value for _, a in seen.tags for key, value in a.items() if key in ("src", "href", "xlink:href", "srcset")
    ]
    assert targets and all(target.startswith(("data:", "#")) for target in targets)
    assert not seen.of("script", "link", "iframe", "object") and "@import" not in text
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", text))
    policy = next(a["content"] for a in seen.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert not any(key.startswith("on") for _, attributes in seen.tags for key in attributes)


def test_scores_and_controls_have_the_names_that_people_read(compared):
    _, text = compared
    keys = ("kendall_tau", "auroc", "alignment_error", "backbone_motion", "position_only", "AP@5")
    assert not [key for key in keys if key in text]
    assert all(escape(name) in text for name in ("Kendall's tau", "AUROC", "retrieval@5", "alignment error"))


def test_a_screen_reader_finds_its_way(compared):
    _, text = compared
    seen = Seen(text)
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1
    assert all(a.get("scope") in ("col", "row") for a in seen.of("th")) and len(seen.of("caption")) >= 8
    assert all(row.count('<th scope="row"') >= 1 for row in re.findall(r"<tr>.*?</tr>", text) if "<td" in row)
    assert all(a.get("alt") for a in seen.of("img")) and all(a.get("aria-label") for a in seen.of("svg"))
    names = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(names) == len(set(names))
    assert {a["href"][1:] for a in seen.of("a")} == {a["id"] for a in seen.of("h2")}
    assert "A: run<" in text and "B: other<" in text  # text of a chart is text
    assert seen.of("html")[0]["lang"] == "en" and any(a.get("name") == "viewport" for a in seen.of("meta"))


def test_nothing_that_a_file_says_becomes_markup(make):
    sums = json.loads(json.dumps(pieces(4)).replace("squat_0", HOSTILE))
    both = {"skipped": {"localization": HOSTILE}, "coverage": {"val": {"unreadable": {HOSTILE: HOSTILE}}}}
    first = make('a"><b>', videos=sums, warning=HOSTILE, settings={"data_root": HOSTILE}, **both)
    twin = json.loads(json.dumps(sums).replace("[4.0, 10.0]", "[5.0, 10.0]"))
    second = make("b", videos=twin, per_action={HOSTILE: SCORES}, settings={"data_root": HOSTILE, "seed": 2}, **both)
    text = text_of(first, second)
    assert HOSTILE not in text and text.count("&lt;script&gt;") > 10 and 'a"><b>' not in text
    assert not Seen(text).of("script")


def test_warnings_come_before_every_number(make, uncharted):
    weak = {"position_only": dict.fromkeys(SCORES, 0.9)}
    text = text_of(make(warning="the backbone has RANDOM weights", controls=weak, supervision="video, assumed"))
    box = text[text.index("<aside") : text.index("</aside>")]
    assert "RANDOM weights" in box and "was assumed" in box
    assert "On whole videos none of the 4 scores beats its controls." in box and "cropped windows none" not in box
    assert text.index("<aside") < text.index("0.500") < text.index("On cropped windows, the test that counts")
    assert text.index("On cropped windows, the test") < text.index(">On whole videos<")
    assert "<aside" not in text_of(make("sound"))


def test_a_score_is_read_against_its_strongest_control_and_the_clock():
    report = report_of(load_config("synthetic"))
    assert [score.reading for score in score_verdicts(report)] == ["▲ above every control"] * 8
    report["verdicts"]["cropped.kendall_tau"] = verdict(0.5, 0.1, (-0.1, 0.9))
    report["cropped"]["backbone_motion"] = {"classification": 0.5}
    readings = {(score.place, score.name): score.reading for score in score_verdicts(report)}
    assert readings["cropped", "kendall_tau"] == "≈ not distinguishable from the clock"
    assert readings["cropped", "classification"] == "▼ not above backbone motion, 0.500"
    report["cropped_differences"] = {"backbone_motion": {"classification": [0.0, -0.1, 0.1]}}
    readings = {(score.place, score.name): score.reading for score in score_verdicts(report)}
    assert readings["cropped", "classification"] == "≈ level with backbone motion, 0.500"
    assert readings["whole", "classification"] == "▲ above every control", "an interval on cropped windows says nothing"


def test_what_a_run_is_good_for_is_said_first_in_plain_words(make, uncharted):
    model = dict.fromkeys(SCORES, 0.5) | {"progression": -1.0}
    low, motion = dict.fromkeys(SCORES, 0.1), dict.fromkeys(SCORES, 0.1) | {"retrieval@5": 0.49, "kendall_tau": 0.6}
    gaps = {"backbone_motion": {"retrieval@5": [0.01, -0.02, 0.04], "kendall_tau": [-0.1, -0.2, -0.05]}}
    cropped = {"model": model, "position_only": low, "backbone_motion": motion}
    text = text_of(make(cropped=cropped, cropped_differences=gaps))
    first = text[text.index("What the run is good for</h2>") : text.index("</section>")]
    said = [re.sub("<[^>]*>", "", item) for item in re.findall("<li>(.*?)</li>", first)]
    assert said == [
        "▲Telling the phase of a frame: classification 0.500, above every control",
        "≈Finding the same moment in other videos: retrieval@5 0.500, level with backbone motion, 0.490",
        "▼Telling how far away the next phase is: progression, below the mean: no gain over any control",
        "▼Keeping the frames of two videos in order: Kendall&#x27;s tau 0.500, not above backbone motion, 0.600",
    ]
    assert f'<abbr title="{GLOSSARY["backbone motion"]}">backbone motion</abbr>' in first


def test_the_same_run_gives_the_same_bytes(compared, tmp_path):
    runs, text = compared
    assert write_page(*runs, tmp_path / "again.html") == tmp_path / "again.html"
    assert (
        (tmp_path / "again.html").read_bytes() == (runs[0] / "report-against-other.html").read_bytes() == text.encode()
    )


def test_settings_that_differ_from_the_preset_come_first(make, uncharted):
    text = text_of(make(settings={"learning_rate": 0.25, "seed": 7}))
    changed = text[text.index("Settings that differ from the preset") : text.index("settings</summary>")]
    assert "learning_rate" in changed and "0.25" in changed and "seed" in changed and "num_frames" not in changed
    assert "num_frames" in text[text.index("settings</summary>") :]


def test_what_is_missing_is_named_with_what_to_run(make, tmp_path, uncharted):
    with pytest.raises(ValueError, match="is not a run folder"):
        write_page(tmp_path)
    folder = make()
    (folder / "model.safetensors").unlink()
    (folder / "history.csv").unlink()
    text = text_of(folder)
    assert "no checkpoint (model.safetensors)" in text and "no history.csv" in text and "probe.ipynb" in text
    assert "squat_9" in text and "cut short" in text and "one video only" in text
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no report .* python -m mvf train synthetic --run-dir"):
        write_page(folder)
    write_history(folder, [])
    with pytest.raises(ValueError, match="no report .* python -m mvf evaluate"):
        write_page(folder)


def test_unlabelled_videos_still_make_a_page(make):
    nothing = dict.fromkeys(("scores", "cropped", "controls", "per_action", "label_fractions", "verdicts"), {})
    bare = nothing | {"localization": {}, "videos": {}, "skipped": {"classification": "no label"}}
    text = text_of(make(**bare), make("other", **bare))
    assert text.count("Label some clips at the end of align.ipynb") == 1 and "no score in common" in text
    assert "No phase could be scored: no label." in text and not re.search("<h2[^>]*>(Scores|Localization)", text)


def test_a_crash_leaves_the_old_page(make, monkeypatch, uncharted):
    path = write_page(make())
    before = path.read_bytes()
    monkeypatch.setattr(page, "page", lambda *_: "\ud800")  # cannot be encoded: fails in the middle of writing
    with pytest.raises(UnicodeEncodeError):
        write_page(path.parent)
    assert path.read_bytes() == before and not list(path.parent.glob(".report*"))


def test_differences_are_the_paired_bootstrap_of_the_videos():
    config = load_config("synthetic")
    first, second = report_of(config, 0.7, videos=pieces(7, 1)), report_of(config, 0.5, videos=pieces(5, 2))
    gaps = gaps_of(first, second)
    assert [gap.place for gap in gaps] == ["cropped"] * 4 + ["whole"] * 4
    for gap in gaps:
        sides = [
            {"squat": np.array([r["videos"][gap.place][gap.score]["squat"][v] for v in VIDEOS])}
            for r in (first, second)
        ]
        assert gap.found.interval == paired_interval(*sides) and gap.found.mean == pytest.approx(0.2)
        assert gap.values == (0.7, 0.5)
    swapped = gaps_of(second, first)[0].found.interval
    assert swapped == pytest.approx(tuple(-end for end in reversed(gaps[0].found.interval)))


def test_intervals_are_put_in_words(make, uncharted):
    first, same = make(value=0.7, videos=pieces(7, 1)), make("same", 0.7, videos=pieces(7, 3), settings={"seed": 2})
    low = make("low", 0.5, videos=pieces(5, 2), settings={"seed": 3})
    assert "▲ higher: the interval excludes 0" in text_of(first, low)
    assert "▼ lower: the interval excludes 0" in text_of(low, first)
    text = text_of(first, same)
    assert "≈ no difference shown" in text and "higher: the" not in text
    few = {p: {s: {"squat": dict(list(by["squat"].items())[:3])} for s, by in scores.items()}
           for p, scores in pieces(5, 2).items()}  # fmt: skip
    assert "fewer than 5 videos" in text_of(first, make("few", 0.5, videos=few, settings={"seed": 4}))


def test_videos_that_changed_most_come_first():
    first, second = ({"videos": pieces(7, jitter)} for jitter in (1, 2))
    rows = changed_videos(first, second, "cropped", "classification", most=3)
    gaps = {}
    for video in VIDEOS:
        one, two = (r["videos"]["cropped"]["classification"]["squat"][video] for r in (first, second))
        gaps[video] = combine(np.array(one)) - combine(np.array(two))
    assert [row[1] for row in rows] == sorted(gaps, key=lambda video: -abs(gaps[video]))[:3]
    assert rows[0][2] - rows[0][3] == pytest.approx(gaps[rows[0][1]])
    first["videos"]["cropped"]["classification"]["squat"]["squat_0"] = [0.0, 0.0]  # no labelled frame: no value
    assert "squat_0" not in [row[1] for row in changed_videos(first, second, "cropped", "classification")]


def test_localization_is_compared_where_both_have_it(make, uncharted):
    sides = [{"entity_1": {v: {"auroc": base + i / 100} for i, v in enumerate(VIDEOS)}} for base in (0.8, 0.7)]
    reports = [{"videos": {"localization": side}} for side in sides]
    ((name, metric, found),) = localization_differences(*reports)
    assert (name, metric, found.videos) == ("entity_1", "auroc", (6,))
    assert found.mean == pytest.approx(0.1) and found.interval == pytest.approx((0.1, 0.1)) and found.holds
    assert localization_differences(reports[0], {"videos": {}}) == []
    for side in sides:
        side |= {name: {v: {"auroc": 0.5} for v in VIDEOS} for name in ("uniform", "centre", "actor_mask")}
    runs = [make(str(i), videos=pieces(5) | report["videos"], settings={"seed": i}) for i, report in enumerate(reports)]
    text = text_of(*runs)
    assert "These intervals pool all actions" in text
    compared = text.rpartition("Localization, A minus B")[2].partition("</table>")[0]
    assert "entity 1" in compared and not any(name in compared for name in ("uniform", "centre", "actor mask"))


def test_the_page_shows_differences_attention_and_the_figure_of_localization(make, monkeypatch):
    monkeypatch.setattr(sections, "chart", lambda figure, label, *_: Chart("", label, label, 1))
    row = {"mean": 0.1, "interval": [0.05, 0.15], "videos": 9}
    attention = {"videos": 9, "overlap": [[1.0, 0.25], [0.25, 1.0]], "entropy": {"entity_1": 0.5, "entity_2": 0.7}}
    text = text_of(make(localization_differences={"entity_1 - centre": {"auroc": row}}, attention=attention))
    assert "paired differences over videos" in text and "+0.100 [.050, .150]" in text
    assert "Attention without masks: means over 9 videos" in text and "Localization of run" in text


def test_runs_evaluated_on_different_data_are_not_compared(make):
    first = make()
    with pytest.raises(ValueError, match=r"different data: data_seed \(there 3, here 0\), stride \(there 5, here 2\)"):
        write_page(first, make("b", settings={"data_seed": 3, "stride": 5}))
    with pytest.raises(ValueError, match="judged_on do not .*python -m mvf evaluate"):
        write_page(first, make("c", judged_on="bb"))
    assert not (first / "report.html").exists()


def test_a_run_is_not_compared_with_itself(make, tmp_path):
    first = make()
    (tmp_path / "link").symlink_to(first)
    for other in (first, tmp_path / "link", first / ".." / first.name):
        with pytest.raises(ValueError, match="are the same run: name another run"):
            write_page(first, other)


def test_one_folder_of_data_has_many_paths(make, tmp_path, uncharted):
    def against(other, **more):
        return text_of(first, make(f"b{len(list(tmp_path.iterdir()))}", settings={"data_root": str(other)}, **more))

    first = make(settings={"data_root": str(tmp_path / "data")})
    others = {f"other_{name}": sums for name, sums in pieces(5)["whole"]["classification"]["squat"].items()}
    apart = {"videos": {"whole": {"classification": {"squat": others}}}}
    assert "Differences" in against(tmp_path / "x" / ".." / "data", judged_on="bb", **apart)  # the path resolves
    assert "Differences" in against(tmp_path / "moved", **apart)  # the marks agree
    assert "Differences" in against(tmp_path / "moved", judged_on="bb")  # the videos are the same
    for more in (apart, {"videos": {}}):
        with pytest.raises(ValueError, match=r"different data: data_root \(there '.*moved', here '.*data'\)"):
            against(tmp_path / "moved", judged_on="bb", **more)
    with pytest.raises(ValueError, match="different data: data_root .*, stride"):
        write_page(first, make("c", settings={"data_root": str(tmp_path / "moved"), "stride": 5}))


def test_runs_that_kept_no_sums_of_videos_say_so(make, uncharted):
    first = make()
    (first / "metrics.videos.json").unlink()
    text = text_of(first, make("other", settings={"seed": 2}))
    assert "No intervals: A stored no sums per video" in text and "– no interval" in text
    assert "changed most" not in text


def test_pictures_and_movies_go_into_the_page_or_are_named(make, monkeypatch, uncharted):
    folder = make() / "figures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "attention_1.png")
    Image.new("RGB", (65, 40), "red").save(folder / "small_one.png")
    Image.new("RGB", (8, 8)).save(folder / "controls.png")
    Image.new("RGB", (8, 8)).save(folder / "film.gif")
    Image.new("RGB", (8, 8)).save(folder / "overlay.gif")
    plotting.save_figure(plotting.plot_message("there are no videos"), folder / "retrieval")
    film = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 64 * 48 * 3).reshape(5, 48, 64, 3)
    plotting.save_animation(film, folder / "overlay.mp4")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.mp4").write_bytes(b"no movie")
    text = text_of(folder.parent)
    assert text.count("data:image/webp") == 2 and text.count("data:image/png") == 1  # the large one, the poster; small
    assert (
        text.count("data:image/gif") == text.count("data:video/mp4") == 1 and "<b>small one</b> </figcaption>" in text
    )
    assert "<b>film</b>" in text and "<b>retrieval</b>" not in text  # a message is no picture
    assert all(f"<li>broken.{kind}: cannot be read" in text for kind in ("png", "mp4")) and "controls.png" not in text
    size = (folder / "attention_1.png").stat().st_size
    monkeypatch.setattr(sections, "BUDGET", 1500)
    monkeypatch.setattr(sections, "LARGEST_MOVIE", 10)
    small = text_of(folder.parent)
    assert len(text) - len(small) > 0.1 * size and "<li>attention_1.png: the page would be too large" in small
    assert "<li>overlay.mp4: 0.0 MB; the limit for a movie is 0.0 MB" in small and "data:image/png" in small


def test_a_movie_shows_a_frame_from_its_middle_before_it_plays(make, uncharted):
    folder = make() / "figures"
    folder.mkdir()
    film = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 64 * 48 * 3).reshape(5, 48, 64, 3)
    plotting.save_animation(film, folder / "attention.mp4")
    (video,) = Seen(text_of(folder.parent)).of("video")
    kind, data = video["poster"].split(",")
    poster = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert kind == "data:image/webp;base64" and poster.shape == (48, 64, 3) and abs(poster.mean() - 100) < 5
    assert video["style"] == "aspect-ratio: 1 / 0.82", "as tall as the picture and the controls below it"


def test_figures_come_in_reading_order_and_those_read_alike_are_folded(make, uncharted):
    folder = make() / "figures"
    folder.mkdir()
    names = ("my_figure", "confusion", "embeddings", "retrieval", "deviation", "alignment", "attention_1",
             "attention_2", "transfer")  # fmt: skip
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    plotting.save_animation(np.zeros((3, 8, 8, 3), np.uint8), folder / "attention.mp4")
    text = text_of(folder.parent)
    headings = re.findall("<h2[^>]*>([^<]*)</h2>", text)
    assert headings == [
        "At a glance", "What the run is good for", "Where it looks", "Alignment", "Deviation", "Retrieval",
        "Embeddings", "Phases", "More figures", "Scores and controls", "Localization", "Training", "Coverage",
        "Configuration",
    ]  # fmt: skip
    order = ["attention", "attention 1", "attention 2", "alignment", "transfer", "deviation", "retrieval", "embeddings",
             "confusion"]  # fmt: skip
    assert re.findall("<figcaption><b>([^<]*)</b>", text)[:10] == [*order, "my figure"]
    assert "<summary>1 more like this</summary><figure" in text.replace("\n", "")


BROWSER = """<!doctype html><meta charset="utf-8"><title>x</title><p id="said">no script: 5 -1</p>
<script type="application/json" id="state">{"frames": [1, -2]}</script>
<script type="module">
const said = document.getElementById("said"), { frames } = JSON.parse(document.getElementById("state").textContent);
const tried = await fetch("data:text/plain,x").catch(() => "nothing fetched");
said.textContent = `${frames.length} "frames" & ${7 -3}, ${tried}`;
try { parent.document.title = "broken out"; } catch { said.textContent += ", nothing reached"; }
</script><script>document.title = "second";</script>"""


@pytest.fixture(scope="module")
def driver():
    driver = start_browser("--disable-features=IsolateSandboxedIframes")  # else frames have consoles of their own
    yield driver
    driver.quit()


@pytest.fixture
def browsers(make, uncharted):
    """A run with stills of everything, a browser of attention and one of a kind that the page does not know."""
    folder = make() / "figures"
    folder.mkdir()
    for name in ("attention_1", "attention_figure_1", "alignment", "retrieval"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    (folder / "attention_browser.html").write_text(BROWSER, encoding="utf-8")
    (folder / "unknown.html").write_text(BROWSER, encoding="utf-8")
    return folder.parent


def test_a_browser_stands_in_a_frame_of_its_own_instead_of_its_still(browsers):
    seen = Seen(text := text_of(browsers))
    (frame,) = seen.of("iframe")
    assert frame["srcdoc"] == BROWSER and "allow-same-origin" not in frame["sandbox"] and frame["title"]
    assert "<b>attention 1</b>" not in text and "<b>attention figure 1</b>" in text and "<b>alignment</b>" in text
    assert not seen.of("script"), "scripts are in frames only"
    policy = next(a["content"] for a in seen.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    scripts = policy.partition("script-src ")[2].split()
    assert len(scripts) == 2 and all(script.startswith("'sha256-") for script in scripts) and "unsafe" not in scripts[0]


def test_a_browser_runs_from_a_file_and_reaches_nothing(browsers, driver):
    path = write_page(browsers)
    injected = "<main><script>document.title = 'injected'</script>"
    path.write_text(path.read_text(encoding="utf-8").replace("<main>", injected), encoding="utf-8")
    driver.get_log("browser")
    driver.get(path.as_uri())
    frame = driver.find_element("css selector", "iframe")
    driver.execute_script("arguments[0].scrollIntoView()", frame)
    driver.switch_to.frame(frame)
    said = '2 "frames" & 4, nothing fetched, nothing reached'
    wait_for(lambda: driver.find_element("css selector", "#said").text == said, "the frame's script", 10)
    assert driver.execute_script("return document.title") == "second"
    driver.switch_to.default_content()
    assert driver.title.startswith("run"), "a script in the page itself does not run"
    blocked = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert len(blocked) >= 2 and all("Content Security Policy" in message for message in blocked), blocked


def test_a_page_with_frames_has_a_clean_console(browsers, driver):
    quiet = BROWSER.replace('await fetch("data:text/plain,x").catch(() => "nothing fetched")', '""')
    (browsers / "figures" / "attention_browser.html").write_text(quiet, encoding="utf-8")
    driver.get_log("browser")
    driver.get(write_page(browsers).as_uri())
    driver.execute_script("arguments[0].scrollIntoView()", driver.find_element("css selector", "iframe"))
    driver.switch_to.frame(0)
    wait_for(lambda: "frames" in driver.find_element("css selector", "#said").text, "the frame's script", 10)
    driver.switch_to.default_content()
    assert driver.get_log("browser") == []


def test_a_frame_is_as_high_as_its_pictures_need(make, driver):
    run, videos = make(), {name: np.full((4, 90, 120, 3), 90, np.uint8) for name in "abc"}
    maps = {name: np.arange(4) for name in "bc"}
    phases = {name: [0, 0, 1, 1] for name in videos}
    AlignmentPlayer(videos, maps, "a", phases=phases).save_html(run / "figures" / "alignment_player.html")
    driver.set_window_size(1000, 900)
    driver.get(write_page(run).as_uri())
    frame = driver.find_element("css selector", "iframe")
    driver.execute_script("arguments[0].scrollIntoView()", frame)
    driver.switch_to.frame(frame)
    wait_for(lambda: driver.find_elements("css selector", "[data-ready=true]"), "the player", 10)
    free = "return innerHeight - document.querySelector('[data-mvf]').lastElementChild.getBoundingClientRect().bottom"
    assert 0 <= driver.execute_script(free) < 80 and driver.execute_script("return innerHeight") > 300
    driver.switch_to.default_content()


def test_an_unlabelled_run_shows_its_clips(tmp_path, uncharted):
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(4):
        frames = np.full((12, 48, 64, 3), 40 * i, np.uint8)
        plotting.save_animation(frames, clips / f"clip_{i}.mp4", fps=24)
    bare = dict.fromkeys(("scores", "cropped", "controls", "per_action", "label_fractions", "verdicts"), {})
    bare |= {"localization": {}, "videos": {}, "skipped": {"classification": "no validation frame is labelled"}}
    folder = tmp_path / "run"
    config = load_config("folder", data_root=str(clips))
    claim_folder(folder, config)
    write_report(report_of(config, **bare), folder / "metrics.json")
    text = text_of(folder)
    shown = text.partition('id="clips"')[2].partition("</section>")[0]
    assert shown.count("data:image/webp") == 4 and shown.count("12 frames, 0.5 s, ") == 4
    assert all(f"<b>clip_{i}</b>" in shown for i in range(4)) and "validation" in shown
    for clip in clips.iterdir():
        clip.unlink()
    assert "The clips cannot be shown: " in text_of(folder)
    labelled = text_of(build(tmp_path, "labelled"))
    assert 'id="clips"' not in labelled


def test_a_run_of_history_alone_is_read_without_its_model(make):
    run = read_run(make())
    assert [row["epoch"] for row in run.history] == [1, 2, 3] and run.name == "run"


def test_captions_say_what_a_figure_shows_and_not_its_name_again(make, uncharted):
    folder = make() / "figures"
    folder.mkdir()
    known = [key for chapter in sections.STORY for key in chapter.captions if key[-1] != "_" and "browser" not in key]
    for name in (*known, "attention_1", "my_figure"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    text = text_of(folder.parent)
    for name, caption in re.findall(r"<figcaption><b>([^<]*)</b> ([^<]*)</figcaption>", text):
        assert not caption.lower().startswith(name.lower()), (name, caption)
    assert 'alt="my figure"' in text and 'alt=""' not in text
    assert "Phases carried" in sections.caption_of("transfer")
    drawn = plotting.plot_progression(np.zeros((9, 1)), np.ones((9, 1))).axes[0].get_ylabel()
    assert "time since" in drawn and "Time since" in sections.caption_of("progression")


def test_an_r_squared_below_zero_is_below_the_mean_and_beats_no_control(make, uncharted):
    model, clock = (dict.fromkeys(SCORES, value) | {"progression": r} for value, r in ((0.5, -4.25), (0.1, -99.5)))
    older = verdict(-4.25, -99.5, (50.0, 120.0))
    controls = {"position_only": clock}
    report = {"scores": model, "cropped": {"model": model} | controls, "controls": controls,
              "verdicts": dict.fromkeys(("progression", "cropped.progression"), older)}  # fmt: skip
    folder = make(**report)
    text = text_of(folder)
    rows = {(s.place, s.name): s for s in score_verdicts(read_run(folder).report)}
    for place in ("cropped", "whole"):
        assert not rows[place, "progression"].beaten and rows[place, "classification"].beaten
        assert rows[place, "progression"].reading == "▼ below the mean: no gain over any control"
    assert ">progression</abbr>, <abbr" in text
    assert not any(number in text for number in ("4.25", "99.5", "95.25", "the pixels add")), "no gain is claimed"
    assert text.count(">below the mean<") >= 6


def test_negative_numbers_on_the_page_have_a_minus_sign_and_names_of_files_a_hyphen(make, uncharted):
    low = dict.fromkeys(SCORES, 0.5) | {"kendall_tau": -0.25}
    skipped = {"cropped.kendall_tau": "-3 is too low", "video a - b.mp4": "cut short"}
    text = text_of(make("run-3", cropped={"model": low, "position_only": low}, skipped=skipped))
    seen = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert "−0.250" in seen and "-0.250" not in seen and "−3 is too low" in seen
    assert "run-3" in seen and "video a - b.mp4" in seen
    assert "kendall_tau" not in seen and "cropped: Kendall" in seen
