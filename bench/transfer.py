"""Measures the accuracy of phases transferred from one labelled video to all others of its action.

    python bench/transfer.py RUN [RUN ...] [--root FOLDER] [--labelled 20]

Every training clip (or `--labelled` of them, evenly spaced) is the labelled clip in turn. `mvf.transfer_phases` gives
the phases of all other clips of both splits, whole and on three windows of 50 to 80 % of each
(`mvf.evaluation.controls.windows`). A window is embedded as if it were a whole video; the labelled clip is always
whole. Accuracy is the share of labelled frames of all other clips with the right phase. The table has its mean and two
standard deviations over labelled clips and runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

import mvf
from mvf.alignment import transfer_phases
from mvf.data import find_config_videos
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.controls import (
    apply_clock,
    backbone_motion,
    embed_controls,
    position_clock,
    untrained_model,
)
from mvf.evaluation.scoring import Rounds
from mvf.metrics.neighbours import one_thread
from mvf.training.run import Run
from mvf.workbench.notebook.session import clean_bank, with_data
from mvf.workbench.plotting import Table

METHODS = {"nearest": ("nearest", False), "dtw, closed ends": ("dtw", False), "dtw, open ends": ("dtw", True)}

Kinds = dict[str, tuple[Rounds, Rounds]]  # by embedding: whole videos (one round), windows (three)


def embed_kinds(run: Run, root: str) -> tuple[Kinds, int]:
    """Returns all embeddings, training videos first, and the number of training videos."""
    config = with_data(run.config, data_root=root) if root else run.config
    splits = [find_config_videos(config, split) for split in ("train", "val")]
    records, cache = sum(splits, []), clean_bank(run.model, config)
    whole = mvf.embed(run.model, records, chunk=config.chunk, cache=cache, precision=config.precision)
    controls = embed_controls(run.model, untrained_model(config, run.model), records, config, cache)
    clock = position_clock(config.num_frames, config.fusion_width, config.chunk, run.model)
    kinds = {
        "model": ([whole], controls.cropped["model"]),
        "position_only": (apply_clock([whole], clock), apply_clock(controls.cropped["model"], clock)),
        "untrained": (controls.whole["untrained"], controls.cropped["untrained"]),
        "backbone_motion": (_motion(controls.whole["backbone"]), _motion(controls.cropped["backbone"])),
    }
    return kinds, len(splits[0])


def _motion(rounds: Rounds) -> Rounds:
    """Z-scores `backbone_motion` over each video's frames, as in `align_views.py`."""
    moved = [[replace(video, embeddings=backbone_motion(video.embeddings)) for video in videos] for videos in rounds]
    return [[replace(v, embeddings=_standard(v.embeddings)) for v in videos] for videos in moved]


def _standard(frames: np.ndarray) -> np.ndarray:
    return (frames - frames.mean(axis=0)) / np.maximum(frames.std(axis=0), 1e-6)


def accuracy(source: EmbeddedVideo, rounds: Rounds, method: str, open_ends: bool) -> float:
    """Share of the labelled frames of all videos except the labelled one that get their true phase."""
    others = [v for videos in rounds for v in videos if v.name != source.name and v.phases is not None]
    right = frames = 0
    for video, phases in zip(others, transfer_phases(source, others, method, open_ends)):
        known = video.phases >= 0
        right, frames = right + int((phases == video.phases)[known].sum()), frames + int(known.sum())
    return right / frames


def measure(kinds: Kinds, chosen: Sequence[int]) -> dict[tuple[str, str, str], list[float]]:
    """Returns one accuracy per labelled video by embedding, method, and whole videos or windows."""
    scores = defaultdict(list)
    for i in tqdm(chosen, unit="labelled clip"):
        for name, (whole, cropped) in kinds.items():
            for method, settings in METHODS.items():
                for part, rounds in (("whole", whole), ("windows", cropped)):
                    scores[name, method, part].append(accuracy(whole[0][i], rounds, *settings))
    return scores


def main() -> None:
    """Transfers phases and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of different seeds, which are pooled")
    parser.add_argument("--root", default="", help="folder of the videos, if the run's own path is not valid here")
    parser.add_argument("--labelled", type=int, default=0, help="number of training clips to label in turn; 0: all")
    options = parser.parse_args()
    pooled = defaultdict(list)
    for folder in options.runs:
        kinds, count = embed_kinds(mvf.load_run(folder), options.root)
        chosen = np.unique(np.linspace(0, count - 1, options.labelled or count).round().astype(int))
        with one_thread():
            for key, values in measure(kinds, chosen).items():
                pooled[key] += values
    videos = len(kinds["model"][0][0])
    print(table(pooled, f"{len(chosen)} clips in turn labelled, the other {videos - 1}: frame accuracy"))


def table(scores: dict[tuple[str, str, str], list[float]], caption: str) -> Table:
    """Tabulates the mean over the labelled clips and two standard deviations."""
    names = dict.fromkeys((name, method) for name, method, _ in scores)
    rows = tuple((*key, *(_cell(scores[*key, part]) for part in ("whole", "windows"))) for key in names)
    return Table(rows, ("embedding", "method", "whole", "windows"), f"{caption}, mean ± 2 sd")


def _cell(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {2 * np.std(values, ddof=min(1, len(values) - 1)):.3f}"


if __name__ == "__main__":
    main()
