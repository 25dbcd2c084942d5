"""Quality costs of merged tokens, by frames and entities, and of the clock of long videos.

    python bench/long_quality.py merge      cropped windows of about 70 to 2,300 frames, 1, 3 and 6 entities
    python bench/long_quality.py clock      videos of about 2,900 frames, embedded whole and in chunks

Scores the runs of `bench/merge_quality.py` (preset `synthetic`: clips of 32 frames), seeds 1 to 3 in runs/merge. Runs
with other numbers of entities: `python bench/merge_quality.py -p entities 6 -p localization false --out runs/merge_6`.
The longer videos are synthetic and repeat their action up to 60 times. A probe is fitted on training videos of that
length and scored on validation videos; every window or video is embedded whole. Differences are paired by seed, with a
90 % Student's interval, beside the controls on the same frames; a model that does not beat them shows nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from bench_bank import paired_interval
from torch import Tensor
from tqdm import tqdm

from mvf.bank import FeatureBank
from mvf.chunks import Chunking
from mvf.config import Config
from mvf.data import find_videos
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo, fuse_video, pool_video
from mvf.evaluation.controls import position_clock, untrained_model, windows
from mvf.evaluation.scoring import Protocol, Rounds, count_phases, score_rounds
from mvf.models.mvformer import MVFormer
from mvf.workbench.notebook.session import open_model
from mvf.workbench.plotting import Table

ENTITIES = {1: "runs/merge_1", 3: "runs/merge", 6: "runs/merge_6"}
SETS = {(1, 2): (36, 24), (6, 9): (12, 10), (17, 17): (5, 5), (60, 60): (3, 3)}  # repeats: training, validation videos
SEEDS, MERGE, AT_ONCE = (1, 2, 3), 0.5, 10**6
CHUNKINGS = {
    "at once": Chunking(AT_ONCE),
    "chunks of 1,000, a clock each, as published": Chunking(1000),
    "200 shared and faded, a clock each": Chunking(1000, 200, True),
    "200 shared and faded, one clock": Chunking(1000, 200, True, True),
}

Embed = Callable[[Tensor, slice], np.ndarray]  # (pooled tokens of a video, its frames) -> embeddings


def open_run(entities: int, name: str) -> tuple[MVFormer, Config]:
    """Opens a model of merge_quality.py and its settings."""
    folder = Path(ENTITIES[entities], name)
    if not folder.exists():
        raise SystemExit(f"there is no {folder}: python bench/merge_quality.py --out {folder.parent} makes it")
    return open_model(folder)


def drawn_videos(repeats: tuple[int, int], train: int, val: int) -> dict[str, Sequence[VideoRecord]]:
    options = {"train_videos": train, "val_videos": val, "repeats": repeats}
    return {split: find_videos("synthetic", split, **options) for split in ("train", "val")}


def score(
    videos: dict[str, Sequence[VideoRecord]], model: MVFormer, ways: dict[str, Embed], whole: bool = False
) -> dict[str, dict[str, float]]:
    """Scores one model by each way of embedding; the backbone's features are stored.

    Args:
        videos: Videos of both splits.
        model: The model, whose pooling is used.
        ways: Ways of embedding the tokens, by name.
        whole: Scores whole videos instead of the windows of reports.
    """
    cache = FeatureBank(model.backbone, None, "auto")
    rounds: dict[str, dict[str, Rounds]] = {name: {} for name in ways}
    for split, records in videos.items():
        cache.ensure(records)
        for record in records:
            tokens = pool_video(model, record, cache)
            crops = [slice(0, len(tokens))] if whole else windows(record.name, len(tokens))
            for name, embed in ways.items():
                found = rounds[name].setdefault(split, [[] for _ in crops])
                for part, crop in zip(found, crops):
                    video = EmbeddedVideo(record.name, record.action, embed(tokens, crop), record.phases[crop])
                    part.append(video)
    any_way = next(iter(rounds.values()))
    protocol = Protocol(count_phases([video for part in any_way.values() for video in part[0]]))
    return {name: score_rounds(found["train"], found["val"], protocol).means() for name, found in rounds.items()}


def fusing(model: MVFormer, merge: float = 0.0, chunking: Chunking = CHUNKINGS["at once"]) -> Embed:
    """Embeds windows or videos with some of the tokens merged."""

    def embed(tokens: Tensor, crop: slice) -> np.ndarray:
        model.fusion.token_merge = merge
        return fuse_video(model, tokens[crop], **asdict(chunking))

    return embed


def telling_time(model: MVFormer) -> Embed:
    """Embeds with the position table alone, the control `position_only`."""
    clock = position_clock(model.architecture.num_frames, model.architecture.fusion_width, AT_ONCE, model)
    return lambda tokens, crop: clock(crop.stop - crop.start)


def merge_table(entities_wanted: Sequence[int], repeats_wanted: Sequence[tuple[int, int]]) -> Table:
    """Tabulates the scores for every number of frames and entities."""
    rows = []
    for repeats in repeats_wanted:
        videos = drawn_videos(repeats, *SETS[repeats])
        lengths = [c.stop - c.start for r in videos["val"] for c in windows(r.name, r.num_frames)]
        for entities in entities_wanted:
            by_seed: dict[str, list[float]] = {}
            for seed in tqdm(SEEDS, desc=f"{np.mean(lengths):.0f} frames, {entities} entities"):
                plain, config = open_run(entities, f"plain-{seed}")
                merging, _ = open_run(entities, f"trained-{MERGE:g}-{seed}")
                blank = untrained_model(config, plain)
                ways = {"none": fusing(plain), "switched": fusing(plain, MERGE), "place": telling_time(plain)}
                found = score(videos, plain, ways)
                found |= score(videos, merging, {"trained": fusing(merging, MERGE)})
                found |= score(videos, blank, {"untrained": fusing(blank)})
                for name, scores in found.items():
                    by_seed.setdefault(name, []).append(scores["classification"])
            means = [f"{np.mean(by_seed[name]):.3f}" for name in ("none", "untrained", "place")]
            differences = [difference(by_seed[name], by_seed["none"]) for name in ("switched", "trained")]
            rows.append((f"{np.mean(lengths):.0f}", str(entities), *means, *differences))
    columns = ("frames", "entities", "not merged", "untrained", "place alone", "switched on", "trained with it")
    caption = f"Cropped classification, token_merge = {MERGE:g} minus none, {len(SEEDS)} seeds, 90 % and by seed"
    return Table(tuple(rows), columns, caption)


def clock_table() -> Table:
    """Tabulates the scores of whole videos for every way of chunking."""
    videos = drawn_videos((60, 60), 5, 5)
    by_way: dict[str, list[float]] = {}
    for seed in tqdm(SEEDS, desc="clocks"):
        model, config = open_run(3, f"plain-{seed}")
        blank = untrained_model(config, model)
        ways = {name: fusing(model, chunking=chunking) for name, chunking in CHUNKINGS.items()}
        found = score(videos, model, ways | {"place alone": telling_time(model)}, whole=True)
        found |= score(videos, blank, {"untrained, at once": fusing(blank)}, whole=True)
        for name, scores in found.items():
            by_way.setdefault(name, []).append(scores["classification"])
    base = by_way["at once"]
    rows = [
        (name, f"{np.mean(ours):.3f}", "" if ours is base else difference(ours, base)) for name, ours in by_way.items()
    ]
    frames = np.mean([record.num_frames for record in videos["val"]])
    columns = ("embedded", "classification", "minus at once")
    caption = f"Whole videos of {frames:.0f} frames, 3 entities, {len(SEEDS)} seeds, 90 % and by seed"
    return Table(tuple(rows), columns, caption)


def difference(ours: Sequence[float], base: Sequence[float]) -> str:
    """Formats the mean, the 90 % interval and every seed."""
    each = np.subtract(ours, base)
    middle, half = paired_interval(each)
    return f"{middle:+.3f} ± {half:.3f} ({', '.join(f'{value:+.3f}' for value in each)})"


def main() -> None:
    """Prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=("merge", "clock"))
    parser.add_argument("--entities", type=int, nargs="+", choices=ENTITIES, default=list(ENTITIES))
    parser.add_argument("--sets", type=int, default=len(SETS), help="number of lengths, from the shortest")
    options = parser.parse_args()
    print(merge_table(options.entities, list(SETS)[: options.sets]) if options.question == "merge" else clock_table())


if __name__ == "__main__":
    main()
