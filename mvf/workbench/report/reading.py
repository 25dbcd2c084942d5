"""Interprets reports: compares each score with its strongest control, and two runs with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvf.config import DATA_FIELDS, Config
from mvf.evaluation import read_report
from mvf.evaluation.bootstrap import combine, mean_interval
from mvf.evaluation.scoring import KEPT
from mvf.files import data_folder
from mvf.training.run import read_config, read_history
from mvf.workbench.plotting.scores import control_name, score_groups
from mvf.workbench.tables.trials import FEWEST, Difference

PLACES = {"cropped": "cropped windows", "whole": "whole videos"}  # the decisive test is first
UNCLEAR = "not distinguishable"


@dataclass(frozen=True)
class ReportedRun:
    """The contents of a run folder that the page needs; the model is not among them.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        report: Its `metrics.json` and the report files beside it.
        history: Rows of `history.csv`; empty if there is no such file.
    """

    folder: Path
    config: Config
    report: Mapping
    history: Sequence[Mapping[str, float]]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read_run(folder: str | Path) -> ReportedRun:
    """Reads the configuration, report and history of a run folder.

    Raises:
        ValueError: if there is no run or no report; the message has the command that makes one.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not (folder / "metrics.json").exists():
        trained = (folder / "history.csv").exists()
        command = f"evaluate {folder}" if trained else f"train {config.preset} --run-dir {folder}"
        raise ValueError(f"{folder} has no report (metrics.json): python -m mvf {command} makes one")
    try:
        history = read_history(folder)
    except FileNotFoundError:
        history = []
    return ReportedRun(folder, config, read_report(folder / "metrics.json"), history)


@dataclass(frozen=True)
class ScoreVerdict:
    """A score of the model beside its strongest control.

    Attributes:
        place: `cropped` or `whole`.
        name: Name of the score.
        value: The model's score.
        rival: Name of the strongest control; empty if no control was scored.
        best: Score of that control.
        verdict: The report's sentence.
    """

    place: str
    name: str
    value: float
    rival: str
    best: float
    verdict: str

    @property
    def beaten(self) -> bool:
        """Whether the model is above every control and distinguishable from the clock."""
        return self.value > self.best and UNCLEAR not in self.verdict

    @property
    def reading(self) -> str:
        """The comparison with the controls as text that begins with a symbol."""
        if not self.rival:
            return "– no control was scored"
        if self.value <= self.best:
            return f"▼ not above {self.rival}, {self.best:.3f}"
        return "▲ above every control" if self.beaten else "≈ not distinguishable from the clock"


def score_verdicts(report: Mapping) -> list[ScoreVerdict]:
    """Compares the paper's four scores with their controls, `cropped` first.

    Example:
        >>> report = {"scores": {"kendall_tau": 0.8}, "controls": {"untrained": {"kendall_tau": 0.9}}}
        >>> [score.reading for score in score_verdicts(report)]
        ['▼ not above untrained, 0.900']
    """
    groups = score_groups(report)
    found = [(place, score) for place in PLACES for score in KEPT if score in groups.get(place, {}).get("model", {})]
    return [_score_verdict(groups[place], place, score, report.get("verdicts") or {}) for place, score in found]


def _score_verdict(members: Mapping[str, Mapping], place: str, score: str, verdicts: Mapping[str, str]) -> ScoreVerdict:
    own = ("model", "reversed")  # the same embeddings of reversed windows are no rival
    rivals = {name: values[score] for name, values in members.items() if name not in own and score in values}
    rival = max(rivals, key=rivals.__getitem__, default="")
    verdict = verdicts.get(score if place == "whole" else f"cropped.{score}", "")
    best = rivals.get(rival, -np.inf)
    return ScoreVerdict(place, score, members["model"][score], control_name(rival), best, verdict)


def check_same_data(first: ReportedRun, second: ReportedRun) -> None:
    """Refuses to compare two runs that were evaluated on different data.

    A folder can have several paths. If only `data_root` differs, the data count as the same if both paths resolve to
    the same folder, the fingerprints `judged_on` agree, or both reports score the same validation videos.

    Raises:
        ValueError: if the data differ; the message names the settings that differ.
    """
    here, there = first.config.as_dict(), second.config.as_dict()
    changed = [f"{k} (there {there[k]!r}, here {here[k]!r})" for k in DATA_FIELDS if here[k] != there[k]]
    marks = [run.report.get("judged_on") for run in (first, second)]
    if [k for k in DATA_FIELDS if here[k] != there[k]] == ["data_root"]:
        roots = [data_folder(settings["data_root"]).resolve() for settings in (here, there)]
        same_videos = _scored_videos(first.report) == _scored_videos(second.report) != set()
        same = roots[0] == roots[1] or marks[0] == marks[1] is not None or same_videos
    else:
        same = not changed and marks[0] == marks[1]
    if same:
        return
    why = ", ".join(changed) or (
        f"the settings agree but the fingerprints judged_on do not ({marks[0]}, {marks[1]}), so one report is of other "
        "data or from an older version: run python -m mvf evaluate again"
    )
    raise ValueError(
        f"{second.folder} and {first.folder} were evaluated on different data: {why}. Compare runs on the same data"
    )


def _scored_videos(report: Mapping) -> set[tuple[str, str]]:
    """Returns (action, name) of every validation video with stored sums."""
    by_score = [score for place in PLACES for score in report.get("videos", {}).get(place, {}).values()]
    return {(action, video) for actions in by_score for action, videos in actions.items() for video in videos}


def read_difference(found: Difference) -> str:
    """Describes a difference as text that begins with a symbol.

    Example:
        >>> read_difference(Difference(0.1, None, (0.05, 0.15), (6,))), read_difference(Difference(0.1, None, None))
        ('▲ higher: the interval excludes 0', '– no interval: too few videos, or their sums were not stored')
    """
    if found.interval is None:
        return "– no interval: too few videos, or their sums were not stored"
    if found.interval[0] <= 0 <= found.interval[1]:
        return "≈ no difference shown: the interval contains 0"
    if not found.holds:
        return f"? the interval excludes 0, but an action has fewer than {FEWEST} videos"
    return f"{'▲ higher' if found.mean > 0 else '▼ lower'}: the interval excludes 0"


def changed_videos(
    first: Mapping, second: Mapping, place: str, score: str, most: int = 10
) -> list[tuple[str, str, float, float]]:
    """Returns (action, video, value in `first`, value in `second`) for the videos whose scores differ most."""
    sides = [report.get("videos", {}).get(place, {}).get(score, {}) for report in (first, second)]
    rows = []
    for action in sorted(sides[0].keys() & sides[1].keys()):
        for video in sorted(sides[0][action].keys() & sides[1][action].keys()):
            values = [float(combine(np.asarray(side[action][video], float))) for side in sides]
            if np.isfinite(values).all() and values[0] != values[1]:
                rows.append((action, video, *values))
    return sorted(rows, key=lambda row: -abs(row[2] - row[3]))[:most]


def localization_differences(first: Mapping, second: Mapping) -> list[tuple[str, str, Difference]]:
    """Returns (map, metric, difference) of the localization that both reports store per video."""
    sides = [report.get("videos", {}).get("localization", {}) for report in (first, second)]
    found = []
    for name in (name for name in sides[0] if name in sides[1]):
        rows = [side[name] for side in sides]
        videos = sorted(rows[0].keys() & rows[1].keys())
        for metric in dict.fromkeys(metric for video in videos for metric in rows[0][video]):
            both = [[row[video].get(metric) for row in rows] for video in videos]
            pairs = np.array([pair for pair in both if None not in pair], float)
            if len(pairs):
                gaps = pairs[:, 0] - pairs[:, 1]
                found.append((name, metric, Difference(gaps.mean(), None, mean_interval(gaps), (len(gaps),))))
    return found
