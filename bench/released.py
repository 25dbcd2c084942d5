"""Makes the released head `drawn`: trains it, judges it on data that chose nothing, writes it and its model card.

    python bench/released.py [--out runs/released] [--pullups FOLDER [--trained-on-pullups RUN ...]]
                             [--multiview FOLDER [--trained-on-multiview RUN ...]] [--clips FOLDER]

Everything is kept in `--out`, so the same command goes on where it was stopped. Without the folders of real videos
their tables are left out of the card. The head is seed 1 in float16; the other seeds give the spread. The same command
on the same machine gives the same bytes; on another one the training ends elsewhere, within about that spread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from align_views import find_takes, read_cameras, warp_errors
from held_out import spread, values_of
from matplotlib.figure import Figure
from torch import Tensor

import mvf
from mvf.config import Config, config_text, load_config
from mvf.data import find_config_videos
from mvf.evaluation import read_report
from mvf.evaluation.controls import untrained_model
from mvf.files import atomic
from mvf.metrics.neighbours import one_thread
from mvf.models.stored import RELEASED, save_model
from mvf.training.run import REPOSITORY, load_run
from mvf.workbench.notebook.attention import attention_videos, teaser
from mvf.workbench.notebook.session import open_session, stored_or_new_report
from mvf.workbench.plotting import Table, save_figure

HEAD, PRESET, SEEDS = "drawn", "synthetic", (1, 2, 3)
SETTINGS = {"data_seed": 21, "epochs": 224}  # 2,016 steps on 36 videos of all actions
JUDGED_ON = (31, 32)  # drawn sets on which nothing was chosen
JUDGED = {"data_options": {"train_videos": 36, "val_videos": 24}}
WARPS = 5  # of the cameras, as in align_views.py
MAPS = {
    "entity_1": "entity 1, all seeds",
    "head_best": "class-token head, last layer",
    "head_best_any_layer": "class-token head, any layer",
    "mean_training_mask": "mean mask (sees no frame)",
}
CONTROLS = {
    "motion_skip": "the motion skip alone, no training",
    "motion_pca": "`motion_pca`: movement in closed form",
    "untrained": "untrained",
    "position_only": "clock: position alone",
}

Report = Mapping[str, Any]


def main() -> None:
    """Trains, judges, and writes the head and its card."""
    options = _options()
    minutes: dict[str, float] = {}
    with timed(minutes, f"training, {len(SEEDS)} seeds"):
        runs = [train(options.out, seed) for seed in SEEDS]
    with timed(minutes, "writing"):
        write_head(runs[0], RELEASED / HEAD, f"# {HEAD}\n\nIts card is being made: python bench/released.py\n")
    card = Card(load_run(runs[0]).config)
    with timed(minutes, "drawn sets"):
        reports = [judge(run, data_seed=seed, **JUDGED) for seed in JUDGED_ON for run in runs]
        card.add(DRAWN_TEXT, scores_table({HEAD: reports}, reports), masks_table(reports))
    with timed(minutes, "float16"):
        card.add(float16_text(runs[0]))
    if options.pullups:
        with timed(minutes, "pull-ups"):
            found = [judge(runs[0], dataset="folder", data_root=options.pullups)]
            trained = [read_report(run / "metrics.json") for run in options.trained_on_pullups]
            card.add(PULLUPS_TEXT, scores_table({HEAD: found, "trained on pull-ups": trained}, found))
    if options.multiview:
        with timed(minutes, "cameras"):
            sources = {HEAD: runs[:1], "trained on these takes": options.trained_on_multiview}
            card.add(MULTIVIEW_TEXT, cameras_table(sources, options.multiview))
    if options.clips:
        with timed(minutes, "figure"):
            save_figure(clips_figure(runs[0], options.clips), options.out / "real_clips")
    write_head(runs[0], RELEASED / HEAD, card.text())
    took = "".join(f"  {part:20s} {m:5.1f} min\n" for part, m in {**minutes, "all": sum(minutes.values())}.items())
    sys.stdout.write(f"{RELEASED / HEAD}, {folder_size(RELEASED / HEAD) / 1e6:.1f} MB\n{took}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "released", help="folder of the runs")
    parser.add_argument("--pullups", default="", help="folder of clips of one pull-up each, with videos.csv")
    parser.add_argument("--trained-on-pullups", type=Path, nargs="*", default=[], help="runs to set beside it")
    parser.add_argument("--multiview", type=Path, help="folder of <take>_cam<N>.mp4")
    parser.add_argument("--trained-on-multiview", type=Path, nargs="*", default=[], help="runs to set beside it")
    parser.add_argument("--clips", default="", help="folder of real clips for a figure, OUT/real_clips.png")
    return parser.parse_args()


@contextmanager
def timed(minutes: dict[str, float], part: str) -> Iterator[None]:
    """Notes how many minutes the block takes."""
    start = time.perf_counter()
    yield
    minutes[part] = (time.perf_counter() - start) / 60


# ----------------------------------------------------------------------------------------------------------------------
# The head.


def train(out: Path, seed: int) -> Path:
    """Trains one seed, or returns the finished run."""
    return mvf.train(load_config(PRESET, seed=seed, **SETTINGS), out / f"{HEAD}-{seed}").folder


def write_head(run: str | Path, out: str | Path, card: str) -> None:
    """Writes a run as a released head: its settings, its trained tensors in float16, and its model card.

    The same run gives the same bytes. What computes features is left to the machine that opens it.
    """
    trained = load_run(run)
    config, model = replace(trained.config, engine="auto", precision="auto"), trained.model.of("")
    for name, text in (("config.json", config_text(config)), ("README.md", card)):
        with atomic(Path(out) / name) as path:
            path.write_text(text, encoding="utf-8")
    save_model(out, model.architecture.as_dict(), in_float16(model.trained_state()), model.backbone)


def in_float16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those in float32 as float16."""
    return {name: t.half() if t.dtype == torch.float32 else t for name, t in tensors.items()}


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# ----------------------------------------------------------------------------------------------------------------------
# What it is worth.


def judge(run: str | Path, **data: object) -> dict:
    """The report of a run on other data, without training on them; it is kept in the run's folder."""
    return stored_or_new_report(open_session(run, **data))


def scores_table(models: Mapping[str, Sequence[Report]], judged: Sequence[Report]) -> Table:
    """Scores on cropped windows of models and of the controls in `judged`, mean ± two standard deviations."""
    rows = [_score_row(name, reports, "recipe") for name, reports in models.items() if reports]
    rows += [_score_row(words, judged, name) for name, words in CONTROLS.items() if name in judged[0]["cropped"]]
    return Table(tuple(rows), ("embedding", "reports", "classification", "retrieval@5", "alignment error ↓"))


def _score_row(words: str, reports: Sequence[Report], name: str) -> tuple[str, ...]:
    columns = zip(*(values_of(report, name)[:3] for report in reports))
    return (words, str(len(reports)), *map(spread, columns))


def masks_table(reports: Sequence[Report]) -> Table:
    """How well maps find the actor's mask, and entity 1 minus each, with the widest ends of the reports' intervals."""
    rows = []
    own = reports[:: len(SEEDS)]  # of the head, seed 1
    cells = [spread([r["localization"]["entity_1"][metric] for r in own]) for metric in ("auroc", "lift")]
    rows.append(("entity 1 of this head (seed 1)", str(len(own)), *cells, "", ""))
    for name, words in MAPS.items():
        cells = [spread([r["localization"][name][metric] for r in reports]) for metric in ("auroc", "lift")]
        found = [r["localization_differences"].get(f"entity_1 - {name}") for r in reports]
        rows.append((words, str(len(reports)), *cells, *(_gap(found, metric) for metric in ("auroc", "lift"))))
    return Table(tuple(rows), ("map", "reports", "AUROC", "lift", "entity 1 minus it, AUROC", "lift, difference"))


def _gap(found: Sequence[Mapping | None], metric: str) -> str:
    """The mean difference over reports, and the widest ends of their intervals; empty if there is none."""
    parts = [one[metric] for one in found if one]
    if not parts:
        return ""
    low, high = min(p["interval"][0] for p in parts), max(p["interval"][1] for p in parts)
    return f"{np.mean([p['mean'] for p in parts]):+.3f} [{low:+.3f}, {high:+.3f}]"


def float16_text(run: Path) -> str:
    """What float16 changes: the largest change of a unit embedding, and of the scores on cropped windows."""
    data = {"data_seed": JUDGED_ON[0], **JUDGED}
    records = find_config_videos(open_session(run, **data).config, "val")
    pairs = zip(*(mvf.embed(load_run(source).model, records) for source in (run, HEAD)))
    moved = max(float(np.linalg.norm(a.embeddings - b.embeddings, axis=1).max()) for a, b in pairs)
    ours, theirs = (judge(source, **data)["cropped"]["model"] for source in (run, HEAD))
    changes = {score: abs(ours[score] - theirs[score]) for score in ("classification", "retrieval@5")}
    words = " and ".join(f"{score} by {change:.4f}" for score, change in changes.items())
    return (
        f"Stored in float16 and computed in float32: on set {JUDGED_ON[0]} that moves a unit embedding by at most "
        f"{moved:.4f}, and changes {words}."
    )


def cameras_table(sources: Mapping[str, Sequence[Path]], folder: Path) -> Table:
    """Median error in frames between synchronous cameras, as `align_views.py` measures it (dtw with open ends)."""
    takes, rows = find_takes(folder), {}
    for words, runs in sources.items():
        medians = defaultdict(list)
        for run in map(load_run, runs):
            networks = {"model": run.model, "untrained": untrained_model(run.config, run.model)}
            cameras = read_cameras(run, networks, takes)
            for warp in range(WARPS):
                with one_thread():
                    for key, errors in warp_errors(run, networks, cameras, warp).items():
                        medians[key].append(float(np.median(np.concatenate(errors))))
        if medians:
            rows |= {(words, "skip and training"): medians["with skip", "dtw, open ends"]}
            rows |= {(words, "training alone"): medians["model", "dtw, open ends"]}
            rows |= {("straight line", ""): medians["straight line", ""]}
    shown = tuple((*key, str(len(v)), spread(v)) for key, v in rows.items() if v)
    return Table(shown, ("embedding", "part", "warps × seeds", "frames ↓"))


def clips_figure(run: Path, folder: str) -> Figure:
    """Entity 1 and the class-token head closest to it, on a frame of each of some real clips."""
    settings = {"videos": 4, "rows": 3, "layer": -1, "head": "entity", "image_size": 224, "normalise": "frame"}
    session = open_session(run, dataset="folder", data_root=folder)
    videos = attention_videos(session, {}, settings | {"stored_frames": 12})
    return teaser(videos, settings)


# ----------------------------------------------------------------------------------------------------------------------
# The card.

DRAWN_TEXT = f"""## Drawn videos on which no setting was chosen

Sets {" and ".join(map(str, JUDGED_ON))}: other people, clothes, photographs and tempo than in training. The head \
is as it is; probes are fitted on 36 training videos of the set and judged on cropped windows of 24 others. Mean ± two \
standard deviations over seeds and sets. Alignment error: 1/3 is chance."""
PULLUPS_TEXT = """## Real pull-ups, without training on them

77 clips (60 for the probes, 17 of other people to judge on), cropped windows; the head, seed 1. They are not in the \
repository."""
MULTIVIEW_TEXT = f"""## Real cameras, without training on them

Two takes of a walk on a beam by four synchronous cameras, cut and played at a changing tempo, {WARPS} times \
(`bench/align_views.py`): median error of an alignment in frames."""
LIMITS = """## What it is not good for

- **Phases that differ in appearance, not in movement.** Most of what the embedding tells is the motion skip: movement \
in closed form. A moment in which nothing moves looks like any other.
- **Being trusted unmeasured.** Compare with `motion_pca` and the clock above: where the head is not above them, its \
training adds nothing. On drawn videos the three seeds together are level with the motion skip alone; on pull-ups, \
which it never saw, this head is above it. Training on 60 clips of one's own action did pay.
- **Telling how far along a trimmed clip is.** On pull-ups its alignment error is above the clock's, and it aligns \
the cameras no better than a straight line does: train on such clips, or read the trained half with a smaller \
`motion_skip`.
- **A sure actor.** In one of the three seeds entity 1 is not the actor; in this head it is.
- **Anything but one person in view.** It was trained on drawn people, one actor and at most two bystanders.
- **Recognising actions.** It tells where in an action a frame is, not which action it is.
"""


class Card:
    """The model card, part by part."""

    def __init__(self, config: Config) -> None:
        self.config, self.parts = config, [header(config)]

    def add(self, *parts: object) -> None:
        self.parts += [str(part).strip() for part in parts]

    def text(self) -> str:
        return "\n\n".join([*self.parts, LIMITS.strip(), self._again()]) + "\n"

    def _again(self) -> str:
        command = f"python bench/released.py {' '.join(_public(sys.argv[1:]))}".strip()
        return (
            f"## Make it again\n\n```sh\n{command}\n```\n\nThe same command on the same machine gives the same "
            "bytes. On another machine rounding differs, and training ends within about the spread above."
        )


def _public(words: Sequence[str]) -> Iterator[str]:
    """The words of a command without the folders of this machine."""
    for word in words:
        yield f"~/{Path(word).name}" if Path(word).is_absolute() else word


def header(config: Config) -> str:
    """What the head is, what it was trained on, and how."""
    videos = config.data_options["train_videos"]
    steps = config.epochs * -(-videos // config.batch_size)
    return f"""# {HEAD}

A trained head of MV-Former for a frozen {config.backbone} at {config.image_size} px: {config.entities} entities a \
frame, {config.embedding_size} numbers of embedding. It was trained on drawn videos only, without labels, so no \
licence of anyone's footage hangs on it. Apache-2.0, as the code.

```python
import mvf

model = mvf.MVFormer.from_pretrained("{HEAD}")
```

| | |
| --- | --- |
| data | `{config.dataset}`, data seed {config.data_seed}: {videos} drawn videos of all actions |
| recipe | preset `{config.preset}`: objective {config.objective}, {config.sampling} sampling, motion skip \
{config.motion_skip:g} |
| training | {config.epochs} epochs, {steps:,} steps of {config.batch_size} videos, seed {config.seed} of {SEEDS} |
| files | `config.json`, `model.safetensors` (float16), `model_config.json` |"""


if __name__ == "__main__":
    main()
