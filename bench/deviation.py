"""Measures how well `mvf.evaluation.deviation` finds a stretch that does not belong: figures/deviation.md.

    python bench/deviation.py RUN [RUN ...] [--root FOLDER] [--references 10] [--copies 4]

In every validation video one stretch of a tenth of its frames is replaced by frames of another moment of the same
video, at least a quarter of the video away; the joins are cross-faded over five frames. References are training videos,
evenly spaced over the list. A stretch is found if it overlaps the first moment listed. Chance is what a moment of that
length finds when it is put anywhere. The videos as they are count false moments: some are true, since people differ.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

import mvf
from mvf.bank import FeatureBank
from mvf.data import VideoRecord
from mvf.embedding import embed_features, video_features
from mvf.evaluation.controls import position_clock
from mvf.evaluation.deviation import Deviation, Moment, deviation
from mvf.files import atomic
from mvf.models.motion import MotionMap, unit
from mvf.training.run import REPOSITORY, Run
from mvf.workbench.notebook.session import clean_bank, with_data
from mvf.workbench.plotting import MISSING, Table

SHARE, FARTHEST_FADE, APART = 0.1, 3, 0.25
WIDTH = 128  # of the training-free map
KINDS = ("trained embedding", "embedding with skip", "clock", "training-free", "frame difference")
Features = tuple[torch.Tensor, torch.Tensor | None, np.ndarray]  # patches, class tokens, small grey frames
Scores = dict[str, dict[str, list[float]]]


class Frames:
    """Frames in memory, as a source of a `VideoRecord`."""

    def __init__(self, frames: np.ndarray, identity: str) -> None:
        self.all, self.identity = frames, identity

    def count(self) -> int:
        return len(self.all)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return iter(self.all[start:stop:step])


def with_stretch(frames: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """(T, H, W, 3) frames with one stretch replaced, its first frame, and the first after it."""
    count, length = len(frames), max(3, round(SHARE * len(frames)))
    places = np.arange(FARTHEST_FADE, count - length - FARTHEST_FADE)
    start = int(generator.choice(places))
    other = int(generator.choice(places[np.abs(places - start) >= APART * count]))
    times = np.arange(count)
    rising = (times - start + FARTHEST_FADE) / (2 * FARTHEST_FADE)
    falling = (start + length - 1 - times + FARTHEST_FADE) / (2 * FARTHEST_FADE)
    weight = np.minimum(rising, falling).clip(0, 1)[:, None, None, None]
    there = frames[(times + other - start).clip(0, count - 1)]
    mixed = np.round((1 - weight) * frames + weight * there).astype(np.uint8)
    return mixed, start, start + length


def small_grey(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (T, 256): 16 x 16 grey pixels less their mean over the clip, of unit norm."""
    grey = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA) for f in frames]
    flat = np.stack(grey).reshape(len(frames), -1).astype(np.float32)
    return unit(flat - flat.mean(axis=0))


class Vectors:
    """Every kind of vectors of one run."""

    def __init__(self, run: Run, features: list[Features]) -> None:
        self.model, config = run.model, run.config
        self.motion = MotionMap.fit([patches.mean(dim=1).numpy() for patches, _, _ in features], WIDTH)
        self.clock = position_clock(config.num_frames, self.model.architecture.fusion_width, model=self.model)

    def of(self, features: Features) -> dict[str, np.ndarray]:
        patches, cls, grey = features
        models = (self.model.without_skip(), self.model)
        embedded = [embed_features(model, patches, cls) for model in models]
        return dict(zip(KINDS, (*embedded, self.clock(len(patches)), self.motion(patches.mean(dim=1).numpy()), grey)))


def compare(kind: str, references: list[dict[str, np.ndarray]], video: dict[str, np.ndarray]) -> Deviation:
    """Deviation by one kind of vectors; frame difference goes along the alignment of the trained embedding."""
    if kind != "frame difference":
        return deviation([r[kind] for r in references], video[kind])
    own = "trained embedding"
    return deviation([r[own] for r in references], video[own], ([r[kind] for r in references], video[kind]))


def measure(runs: list[Run], root: str, count: int, copies: int) -> list[Scores]:
    """For every run by kind: `found`, `length` and `chance` of each stretch, `false` moments of each video."""
    first = runs[0]
    config = with_data(first.config, data_root=root) if root else first.config
    cache = clean_bank(first.model, config)
    train, val = (mvf.data.find_config_videos(config, split) for split in ("train", "val"))

    def features(record: VideoRecord, stored: FeatureBank | None) -> Features:
        return (*video_features(first.model, record, stored, config.precision), small_grey(record.load()))

    known = [features(record, cache) for record in train]
    vectors = [Vectors(run, known) for run in runs]
    chosen = np.unique(np.linspace(0, len(train) - 1, count).round().astype(int))
    references = [[each.of(known[i]) for i in chosen] for each in vectors]
    scores: list[Scores] = [{kind: defaultdict(list) for kind in KINDS} for _ in runs]
    for record in tqdm(val, unit="video"):
        clean, frames = features(record, cache), record.load()
        for copy in range(-1, copies):
            seen, start, end = clean, 0, 0
            if copy >= 0:
                mixed, start, end = with_stretch(frames, np.random.default_rng([copy, *record.name.encode()]))
                source = Frames(mixed, f"{record.source.identity} with a stretch, {copy}")
                seen = features(VideoRecord(record.name, record.action, source), None)
            for each, known_as, into in zip(vectors, references, scores):
                video = each.of(seen)
                for kind in KINDS:
                    judge(into[kind], compare(kind, known_as, video).moments, start, end, len(frames))
    return scores


def judge(scores: dict[str, list[float]], moments: tuple[Moment, ...], start: int, end: int, count: int) -> None:
    """Adds what the moments of one video of `count` frames say; without a stretch all of them are false."""
    if not end:
        scores["false"].append(len(moments))
        return
    first = moments[0] if moments else None
    scores["found"].append(bool(first and first.start < end and first.end > start))
    if first:
        scores["length"].append((first.end - first.start) / count)
        scores["chance"].append(min(1, (first.end - first.start + end - start - 1) / count))


def main() -> None:
    """Measures the runs and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="runs of different seeds, on one data set")
    parser.add_argument("--root", default="", help="folder of the videos, if the run's own path is not valid here")
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--copies", type=int, default=4, help="stretches of every video, one at a time")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures" / "deviation.md")
    options = parser.parse_args()
    runs = measure([mvf.load_run(f) for f in options.runs], options.root, options.references, options.copies)
    rows = []
    for kind in KINDS:
        found = [np.mean(run[kind]["found"]) for run in runs]
        spread = f" ± {2 * np.std(found, ddof=1):.2f}" if len(runs) > 1 else ""
        values = [[x for run in runs for x in run[kind][name]] for name in ("chance", "length", "false")]
        rows.append((kind, f"{np.mean(found):.2f}{spread}", *(f"{np.mean(v):.2f}" if v else MISSING for v in values)))
    videos, stretches = (len(runs[0][KINDS[0]][name]) for name in ("false", "found"))
    caption = (
        f"Replaced stretches found by the first moment listed: {stretches} stretches of {videos} validation videos, "
        f"{options.references} references, {len(runs)} seeds (mean ± 2 sd). Length: of the first moment, as a share of "
        "the video. False: moments in a video that was left as it is"
    )
    table = Table(tuple(rows), ("vectors", "found", "chance", "length", "false"), caption)
    command = f"`python bench/deviation.py {' '.join(f.name for f in options.runs)} --references {options.references}`"
    with atomic(options.out) as temporary:
        temporary.write_text(f"# Deviation\n\n{table}\n\n{command}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
