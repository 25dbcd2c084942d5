"""What has to stand beside the study's tables: of which data and weights, what training did not improve, what lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mvf.tables.notes import coverage_notes
from mvf.tables.notes import subject as runs_of
from mvf.tables.paper import PaperTable
from mvf.tables.study import READINGS
from mvf.tables.study_fields import Field, fields
from mvf.tables.trials import Batch

PLACE_NOTES = {
    "cropped": "The test that counts: a clock does not know where a window starts.",
    "whole": "Frozen frame: the trained model fed one frame of the video over and over, which leaves it counting.",
}
NOTES = (
    "Mean ± two standard deviations (ddof 1) over seeds. Best bold, second underlined, of each model's objectives.",
    "Alignment error: of the event time of the nearest frame in another video, which is in [0, 1]; lower is better.",
    "Controls: untrained is the same model before training. A control's value of a seed is the mean over all "
    "objectives' runs of that seed. An alignment error of untrained models and of mean features is not measured.",
    "“video, assumed”: the clips have no action labels, and all are taken to be of one action.",
    f"{' and '.join(READINGS.values())}: only the abstract was readable, and no code was found.",
)
COST_NOTES = (
    "Seconds an epoch: median over the epochs of a run; mean ± two standard deviations (ddof 1) over seeds. "
    "Runs shared the machine: compare within this batch only.",
    "Trained parameters include the training-only head, not what an objective owns (sal: a classifier). "
    "Milliseconds a frame: embedding, backbone included; over the runs on all data sets.",
)


def subject(study: PaperTable, batch: Batch) -> str:
    """On what the rows were run, the folder of videos by its name."""
    root = batch.parameters.get("data_root")
    return runs_of(study, batch) + (f"; videos of {Path(str(root)).name}" if root else "")


def warnings(study: PaperTable, batch: Batch) -> tuple[str, ...]:
    """Why the numbers are not those of the study."""
    found = [
        (column.dataset, report) for row in study.rows for column in study.columns for report in batch.of(row, column)
    ]
    notes = []
    if any(report["backbone_weights"] == "random" for _, report in found):
        notes.append("RANDOM backbone weights: these scores say nothing of a pretrained one.")
    elsewhere = {(dataset, report["dataset"]) for dataset, report in found}
    notes += [f"Run on {there} in place of {here}." for here, there in sorted(elsewhere) if here != there]
    settings = {name: value for name, value in batch.parameters.items() if name != "data_root"}
    if settings:
        shown = ", ".join(f"{name} {value}" for name, value in settings.items())
        notes.append(f"Settings of this batch, not the presets' own: {shown}.")
    return tuple(notes)


def score_notes(study: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """How the numbers of a place are to be read, and why some lack."""
    return (PLACE_NOTES[place], *NOTES, *_skipped_notes(study, batch, place), *coverage_notes(study, batch))


def gain_notes(study: PaperTable, batch: Batch) -> tuple[str, ...]:
    """The objectives that training did not make better than the untrained model, or not by more than the spread."""
    worse, within, run = [], [], False
    for gain in (field for field in fields(study, "cropped") if field.minus):
        for row in study.rows:
            values = gain.values(batch.of(row, gain.column))
            run |= bool(values)
            name = f"{row.labels[1]} ({row.labels[0]}, {gain.column.dataset})"
            if values and np.mean(values) <= 0:
                worse.append(name)
            elif len(values) > 1 and np.mean(values) <= 2 * np.std(values, ddof=1):
                within.append(name)
    if not run:
        return ()
    notes = [f"NOT better than untrained in cropped classification: {'; '.join(worse) or 'none of what was run'}."]
    if within:
        notes.append(f"Better than untrained by no more than two standard deviations: {'; '.join(within)}.")
    return tuple(notes)


def _skipped_notes(study: PaperTable, batch: Batch, place: str) -> tuple[str, ...]:
    """Scores that finished runs lack, by data set, with the reason; not row by row, which mostly lack the same."""
    notes = []
    for field in (field for field in fields(study, place) if field.ranked):
        found = [report for row in study.rows for report in batch.of(row, field.column)]
        without = [report for report in found if field.of(report) is None]
        if without:
            reasons = dict.fromkeys(filter(None, (_reason(report, field) for report in without)))
            said = "; ".join(reasons) or "no reason given"
            notes.append(f"{field.heading}: lacking in {len(without)} of {len(found)} runs: {said}.")
    return tuple(notes)


def _reason(report: Mapping, field: Field) -> str:
    score = field.column.score
    cropped = (f"cropped.{score}", f"cropped.model.{score}", f"{score}.window", "cropped")
    names = (*(cropped if field.place == "cropped" else ()), score)
    return next((report["skipped"][name] for name in names if name in report.get("skipped", {})), "")
