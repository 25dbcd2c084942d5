"""Figures of `align.ipynb`: two aligned videos, and phases transferred from one clip to the others."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure

from mvf.alignment import align, transfer_phases
from mvf.config import nearest
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.protocol import clocks_of
from mvf.evaluation.segments import propose
from mvf.workbench import plotting
from mvf.workbench.notebook import probe
from mvf.workbench.notebook.deviation import check_references
from mvf.workbench.notebook.probe import of_action, phase_words
from mvf.workbench.notebook.segments import passes_note, proposal_scores
from mvf.workbench.notebook.session import Session, Splits
from mvf.workbench.plotting.overlays import resized

PRINTED = 240  # pixels: width of a frame in a figure
METHODS = MappingProxyType({"dtw": "Dynamic time warping, open ends", "nearest": "Nearest frame for each frame"})


def check_alignment(
    session: Session,
    method: str,
    stored: int,
    table: str = "",
    named: str = "",
    references: str = "",
    compare: str = "",
) -> None:
    """Checks the parameters of `align.ipynb` before any long computation."""
    if method not in METHODS:
        raise ValueError(f'unknown alignment method "{method}"; {nearest(method, METHODS)}')
    if stored < 1:
        raise ValueError(f"stored_frames must be at least 1, got {stored}")
    if table and not table.endswith(".csv"):
        raise ValueError(f'table must be a .csv file, like videos.csv, got "{table}"')
    if named or references or compare:
        train, val = (session.find_videos(split, allow_empty=True) for split in ("train", "val"))
        records = Splits(train, val, [], [], None).everything[0]
        if named:
            probe.named_videos(named, records)
        good, clip = check_references(references, compare, records)
        for record in (*good, *([clip] if clip else [])):
            if record.num_frames < 2:
                raise ValueError(f"{record.name} has one frame, and movement needs two: compare others")


def alignment_figure(splits: Splits, action: str = "", method: str = "dtw", named: str = "") -> Figure:
    """Draws the alignment of the first two videos of an action, or that are named: its path and pairs of frames."""
    shown = probe.compared(splits, action, named)
    if len(shown.videos) < 2:
        return plotting.plot_message("no action has two videos")
    records = {record.name: record for record in shown.records}
    a, b = shown.videos[:2]
    words = filter(None, (f"{METHODS[method]}.", shown.note, passes_note([a, b])))
    return plotting.plot_alignment(
        _pictures(records[a.name]), _pictures(records[b.name]), align(a, b, method), a.embeddings @ b.embeddings.T,
        names=[a.name, b.name], caption=" ".join(words),
    )  # fmt: skip


def _pictures(record: VideoRecord) -> np.ndarray:
    """(T, H, W, 3) frames, no wider than they are printed: all frames of a phone's video do not fit in memory."""
    return np.stack([resized(f, min(len(f), round(len(f) * PRINTED / f.shape[1]))) for f in record.frames()])


def transferred_from(
    splits: Splits, labelled: str = "", action: str = ""
) -> tuple[EmbeddedVideo, list[EmbeddedVideo]] | str:
    """Chooses the clip whose phases are transferred, and the other videos of its action.

    Args:
        splits: The videos.
        labelled: Name of the labelled clip; empty for the first training video of `action` that has labels.
        action: Name of the action, if no clip is named; empty for the one with the most phases.

    Returns:
        The clip and the other videos; or a sentence that says why there are none.

    Raises:
        ValueError: if the named clip does not exist or has no labels.
    """
    _, both = splits.everything
    clips = probe.labelled(both if labelled else of_action(both, action))
    clip = next((video for video in clips if labelled in ("", video.name)), None)
    if clip is None and labelled:
        known = nearest(labelled, [video.name for video in clips]) if clips else "no video is labelled"
        raise ValueError(f'labelled="{labelled}" is not a labelled video; {known}')
    if clip is None:
        return "no video has labelled phases: label a clip below"
    others = [video for video in both if video.action == clip.action and video is not clip]
    return clip, others


def transfer(
    splits: Splits, labelled: str = "", action: str = "", method: str = "dtw"
) -> tuple[EmbeddedVideo, list[EmbeddedVideo], list[np.ndarray]] | str:
    """Transfers the phases of a clip to the other videos of its action, by `dtw` or `nearest`; see `transferred_from`.

    Returns:
        The clip, the other videos and their phases; or a sentence that says why there are none.
    """
    found = transferred_from(splits, labelled, action)
    return found if isinstance(found, str) else (*found, transfer_phases(*found, method))


def transfer_figure(splits: Splits, labelled: str = "", action: str = "", method: str = "dtw") -> Figure:
    """Draws the phases transferred from a labelled clip to the other videos of its action, beside the true ones."""
    found = transfer(splits, labelled, action, method)
    if isinstance(found, str):
        return plotting.plot_message(found)
    clip, others, phases = found
    if not others:
        return plotting.plot_message(f"{clip.name} is the only video of {clip.action}")
    shown = slice(0, 52)
    true = [v.phases if v.phases is not None else np.full(len(v.embeddings), -1) for v in others[shown]]
    words = f"Labelled: {clip.name}; method: {method}; {len(true)} of {len(others)} videos."
    names = [video.name for video in others[shown]]
    return plotting.plot_transfer(phases[shown], true, names, phase_words(splits, clip.action), caption=words)


def transfer_table(
    session: Session, splits: Splits, labelled: str = "", action: str = "", method: str = "dtw"
) -> plotting.Table:
    """Tabulates how good transferred phases are where labels exist, for the model and its position table.

    The scores are those of `mvf.evaluation.segments.segment_scores`; boundary errors are in frames.
    """
    found = transferred_from(splits, labelled, action)
    if isinstance(found, str):
        return plotting.Table((), ("embedding",), found)
    clip, others = found
    records = {record.name: record for record in splits.everything[0]}
    clock = clocks_of(session.config, session.model)["position_only"]
    proposals = propose([clip], others, method)
    scores = proposal_scores(proposals, [records[video.name] for video in others], [clip], clock, method)
    columns = list(dict.fromkeys(name for row in scores.values() for name in row))
    rows = tuple((name, *(plotting.cell(row.get(column)) for column in columns)) for name, row in scores.items())
    caption = (
        f"Phases of {clip.name} transferred to {len(others)} other videos of {clip.action} ({method}), whole videos"
    )
    note = passes_note([clip, *others])
    return plotting.Table(rows, ("embedding", *columns), f"{caption}. {note}" if note else caption)
