"""The study of objectives: every objective on the same two models and the same data, which no paper has."""

from __future__ import annotations

from functools import cache

from mvf.config import stored_presets
from mvf.losses import OBJECTIVES
from mvf.losses.objective import SUPERVISION
from mvf.sights import LABELS
from mvf.tables.paper import Column, PaperTable, Row

DATASETS = {"synthetic": "study", "folder": "study_pullups"}  # the preset that puts scl on each
MODELS = {"LSTP + MTF": "", "late fusion": "_late"}  # endings of presets
REFERENCE = "scl"  # which the base presets train with
ALIGNMENT = "alignment_error"
READINGS = {"lrprop": "lrprop (our reading)"}  # objectives of which no code and no formula could be read
MEASURES = {
    "classification": ("class., %", True),
    "progression": ("progression, R²", False),
    "kendall_tau": ("Kendall's tau", False),
    "retrieval@5": ("retrieval@5, %", True),
    ALIGNMENT: ("alignment error", False),
}


@cache
def studies() -> dict[str, PaperTable]:
    """The study on both data sets, and on each alone, by name: tables of which the paper prints no cell.

    Example:
        >>> studies()["study"].rows[0].presets
        {'synthetic': 'study', 'folder': 'study_pullups'}
        >>> list(studies()), studies()["study_folder"].rows[-1].labels
        (['study', 'study_synthetic', 'study_folder'], ('late fusion', 'vsp_f', 'frame'))
    """
    return {"study": _study("study", *DATASETS)} | {f"study_{name}": _study(f"study_{name}", name) for name in DATASETS}


def objectives() -> dict[str, str]:
    """Every objective of the study and the labels that it consumes, those that consume the least first."""
    families = {preset.objective for preset in stored_presets().values() if preset.objective}
    labels = {name: OBJECTIVES[name].labels for name in (REFERENCE, *sorted(families))}
    return dict(sorted(labels.items(), key=lambda item: SUPERVISION.index(item[1])))


def _study(name: str, *datasets: str) -> PaperTable:
    columns = tuple(
        Column(dataset, heading, dataset, score, percent)
        for dataset in datasets
        for score, (heading, percent) in MEASURES.items()
    )
    empty = ("-",) * len(columns)
    rows = tuple(
        Row((model, READINGS.get(objective, objective), labels), _presets(objective, ending, datasets), empty)
        for model, ending in MODELS.items()
        for objective, labels in objectives().items()
    )
    return PaperTable(
        name=name,
        title="What the objective brings: all else is the same",
        labels=("model", "objective", LABELS),
        columns=columns,
        rows=rows,
        notes=(),
        reference=rows[0].labels,
    )


def _presets(objective: str, ending: str, datasets: tuple[str, ...]) -> dict[str, str]:
    own = "" if objective == REFERENCE else f"_{objective}"
    return {dataset: f"{DATASETS[dataset]}{ending}{own}" for dataset in datasets}
