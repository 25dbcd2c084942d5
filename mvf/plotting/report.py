"""Tables of `metrics.json`: every score beside its controls, `cropped` first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from mvf.plotting.tables import Table, cell

SCORES: Mapping[str, str] = MappingProxyType(
    {
        "classification": "classification",
        "progression": "progression",
        "kendall_tau": "Kendall's tau",
        "retrieval@5": "retrieval@5",
        "retrieval@10": "retrieval@10",
        "retrieval@15": "retrieval@15",
        "alignment_error": "alignment error ↓",
    }
)
CONTROLS: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "position_only": "position only (clock)",
        "frame_count": "frame count (clock)",
        "frozen_frame": "frozen frame (counting)",
        "untrained": "untrained",
        "backbone_mean": "backbone mean",
        "backbone_motion": "backbone motion",
        "shuffled_order": "shuffled order",
        "untrained_shuffled": "untrained, shuffled",
    }
)
GROUPS: Mapping[str, str] = MappingProxyType({"cropped": "cropped windows", "whole": "whole videos"})
HEADLINE = ("model", "position_only", "untrained", "backbone_motion")


def control_name(name: str) -> str:
    """A control's name in words.

    Example:
        >>> control_name("frozen_frame"), control_name("entity_1")
        ('frozen frame (counting)', 'entity 1')
    """
    return CONTROLS.get(name, name.replace("_", " "))


def score_groups(report: Mapping) -> dict[str, dict[str, Mapping]]:
    """The scores of a report: group -> embedding -> scores, `cropped` first, the model first in each.

    Example:
        >>> score_groups({"scores": {"kendall_tau": 0.9}, "cropped": {"model": {"kendall_tau": 0.8}}})
        {'cropped': {'model': {'kendall_tau': 0.8}}, 'whole': {'model': {'kendall_tau': 0.9}}}
    """
    whole = {"model": report.get("scores") or {}, **(report.get("controls") or {})}
    groups = {
        "cropped": _with_alignment(report, report.get("cropped") or {}, "window"),
        "whole": _with_alignment(report, whole, "whole"),
    }
    return {
        group: {name: members[name] for name in dict.fromkeys((*CONTROLS, *members)) if members.get(name)}
        for group, members in groups.items()
        if any(members.values())
    }


def _with_alignment(report: Mapping, members: Mapping[str, Mapping], kind: str) -> dict[str, Mapping]:
    """Adds the alignment errors, which reports keep apart: window to whole for `cropped`, else whole to whole."""
    errors = {"model": report.get("alignment_error") or {}, **(report.get("alignment_error_controls") or {})}
    found = {name: {"alignment_error": values[kind]} for name, values in errors.items() if kind in values}
    return {name: {**members.get(name, {}), **found.get(name, {})} for name in dict.fromkeys((*members, *found))}


def present(names: Iterable[str], rows: Iterable[Mapping]) -> list[str]:
    """The names that at least one row has a value for."""
    rows = list(rows)
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def _caption(report: Mapping) -> str:
    weights = report.get("backbone_weights", "unknown")
    return (
        f"{report.get('dataset', 'embeddings')}: objective {report.get('objective', 'unknown')} "
        f"(supervision {report.get('supervision', 'unknown')}), backbone {report.get('backbone', 'unknown')} "
        f"(weights: {weights}), {cell(report.get('epochs'))} epochs, seed {cell(report.get('seed'))}, "
        f"data seed {cell(report.get('data_seed'))}"
    )


def _notes(report: Mapping) -> tuple[str, ...]:
    notes = [report["warning"]] if report.get("warning") else []
    for split, coverage in (report.get("coverage") or {}).items():
        notes += [f"{split}: {name} left out: {why}" for name, why in (coverage.get("unreadable") or {}).items()]
    return (*notes, *(f"{name} skipped: {reason}" for name, reason in (report.get("skipped") or {}).items()))


def report_table(report: Mapping, scores: Sequence[str] = tuple(SCORES)) -> Table:
    """The table to read first: each score of the model beside its controls, and the verdict.

    Scores on cropped windows come first, because there the clock does not know where the window starts. A score that
    could not be computed is a dash, with the reason below the table.

    Args:
        report: What `mvf.evaluate` returns, or a `metrics.json`.
        scores: Which scores, in order.

    Example:
        >>> report = {"scores": {"classification": 0.96}, "controls": {"position_only": {"classification": 0.92}},
        ...           "verdicts": {"classification": "0.960: the clock alone 0.920, the pixels add 0.040"}}
        >>> report_table(report, scores=["classification"]).rows[0][1:4]
        ('classification', '0.960', '0.920')
    """
    groups = score_groups(report)
    columns = present(HEADLINE, groups.values()) or ["model"]
    verdicts = report.get("verdicts") or {}
    rows = []
    for group, members in groups.items():
        for score in present(scores, [*members.values(), report.get("skipped") or {}]):
            values = (cell(members.get(name, {}).get(score)) for name in columns)
            verdict = verdicts.get(score if group == "whole" else f"cropped.{score}", "")
            rows.append((GROUPS[group], SCORES.get(score, score), *values, verdict))
    headings = ("on", "score", *map(control_name, columns), "verdict")
    return Table(tuple(rows), headings, _caption(report), _notes(report))


def scores_table(report: Mapping) -> Table:
    """Every embedding that was scored, the model and all controls, by every score.

    Example:
        >>> print(scores_table({"scores": {"kendall_tau": 0.9}, "controls": {"untrained": {"kendall_tau": 0.7}}}))
        All scores
        <BLANKLINE>
        | on           | embedding | Kendall's tau |
        | ------------ | --------- | ------------: |
        | whole videos | model     |         0.900 |
        | whole videos | untrained |         0.700 |
    """
    groups = score_groups(report)
    scores = present(SCORES, [values for members in groups.values() for values in members.values()])
    rows = [
        (GROUPS[group], control_name(name), *(cell(values.get(score)) for score in scores))
        for group, members in groups.items()
        for name, values in members.items()
    ]
    strong = tuple(i for i, row in enumerate(rows) if row[1] == "model")
    columns = ("on", "embedding", *(SCORES[score] for score in scores))
    return Table(tuple(rows), columns, "All scores", _notes(report), strong)


def actions_table(report: Mapping) -> Table:
    """The model's scores on whole videos, one row an action."""
    actions = report.get("per_action") or {}
    scores = present(SCORES, actions.values())
    rows = tuple((name, *(cell(values.get(score)) for score in scores)) for name, values in actions.items())
    return Table(rows, ("action", *(SCORES[score] for score in scores)), "Scores by action, whole videos")


def kinds_table(report: Mapping) -> Table:
    """Accuracy of phases apart by kind: a pose, or a pose passed in two directions, which needs motion.

    Example:
        >>> print(kinds_table({"phase_kinds": {"pose": {"classification": {"model": 0.9}}}}))
        Phase classification by kind of phase, whole videos
        <BLANKLINE>
        | embedding |  pose |
        | --------- | ----: |
        | model     | 0.900 |
    """
    kinds = {kind: values.get("classification") or {} for kind, values in (report.get("phase_kinds") or {}).items()}
    names = present(CONTROLS, kinds.values())
    rows = tuple((control_name(name), *(cell(values.get(name)) for values in kinds.values())) for name in names)
    return Table(rows, ("embedding", *kinds), "Phase classification by kind of phase, whole videos", strong=(0,))
