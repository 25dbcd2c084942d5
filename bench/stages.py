"""Measures what every stage of a trained model holds: table and figure of docs/what_the_embedding_learns.md.

    python bench/stages.py RUN [RUN ...] [--out FOLDER]

A stage is what leaves one part of the model, from the mean patch of the backbone to the embedding. Each is scored by
the report's own functions on the `cropped` windows: probes are fitted on windows of the training videos and scored on
windows of the validation videos, each of which runs through the temporal fusion as a clip of its own. The same is done
with the stage's differences over ±2, ±5 and ±9 frames of the window appended. Runs of several seeds give means and two
standard deviations. Writes `stages.md`, `stages.png` and `stages.pdf`; a run with a bank reads its features from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from tqdm.auto import tqdm

from mvf.bank import FeatureBank
from mvf.config import Config
from mvf.data import VideoRecord, find_config_videos
from mvf.embedding import EmbeddedVideo, add_motion, add_velocity, evaluating, pool_features, video_features
from mvf.evaluation.controls import Controls, add_motion_map, fuse_batch, untrained_model, windows
from mvf.evaluation.protocol import FEATURES, TOGETHER, clocks_of, grouped
from mvf.evaluation.report import header
from mvf.evaluation.scoring import (
    Features,
    Protocol,
    Rounds,
    Scored,
    action_task,
    alignment,
    kept_frames,
    standardiser,
)
from mvf.files import atomic
from mvf.models.motion import MotionMap
from mvf.models.mvformer import FrameEmbedder, MVFormer
from mvf.training.run import REPOSITORY
from mvf.workbench.notebook.session import clean_bank, open_model
from mvf.workbench.plotting import MISSING, PAGE, Table, paper_figure, save_figure
from mvf.workbench.plotting.style import OKABE_ITO, set_caption

MAJORITY, CLOCK, BACKBONE, EMBEDDING = "majority class", "clock", "backbone", "embedding"
MOTION, BEFORE = "motion_pca", "embedding + skip weighted by spread"
OWN_MOTION, SKIP = "motion skip alone", "embedding + motion skip"
CLOSED = (MOTION, BEFORE, OWN_MOTION, SKIP)
UNIT = (CLOCK, EMBEDDING, *CLOSED)  # of unit norm and scored as they are; the others are z-scored
TITLES = {
    BACKBONE: "backbone, mean patch",
    MOTION: "motion_pca (no training)",
    OWN_MOTION: "motion skip alone (no training)",
}
MOVED = "with differences: "
COLUMNS = {
    "classification": "cls",
    "retrieval@5": "ret",
    "alignment_error": "align ↓",
    MOVED + "classification": "cls with differences",
    MOVED + "retrieval@5": "ret with differences",
}
NOTES = (
    "Every stage on windows of 50 to 80 % of a video. cls: phase classification by a linear probe; ret: retrieval@5; "
    "align: alignment error of windows with whole videos, where uniform guessing gives 1/3 and lower is better.",
    "With differences: the stage and its differences over ±2, ±5 and ±9 frames, ends of the window clamped.",
    "Stages of unit norm (clock, embedding, motion_pca) are scored as they are, all others, and all with differences, "
    "z-scored on training frames and divided by the root of their width, as the report does with the backbone.",
)
Scores = dict[str, float]
Values = Mapping[str, Mapping[str, Sequence[float]]]  # by stage and score, one value a run


@dataclass(frozen=True)
class Measured:
    """The stages of one run: its settings, what was scored, scores by stage (with `width`), and gaps in them."""

    config: Config
    about: str
    rows: dict[str, Scores]
    notes: list[str]


def measure(folder: Path) -> Measured:
    """Scores all stages of a run.

    Raises:
        ValueError: if a split has no phase labels; the message names the run and the split.
    """
    model, config = open_model(folder)
    found = {split: find_config_videos(config, split, allow_empty=True) for split in ("train", "val")}
    records = [[v for v in videos if not model.actions or v.action in model.actions] for videos in found.values()]
    for split, videos in zip(("training", "validation"), records):
        if not any(video.phases is not None and (video.phases >= 0).any() for video in videos):
            raise ValueError(
                f"{folder}: none of the {len(videos)} {split} videos of {config.dataset} has phase labels, and stages "
                "are scored by probes of the phase: label videos of both splits (docs/design.md, section 5)"
            )
    cache = clean_bank(model, config)
    if cache is not None:
        cache.ensure(sum(records, []))
    train, val = (embed_stages(model, videos, config, cache) for videos in records)
    motion = MotionMap.fit([video.embeddings for video in train.whole[BACKBONE][0]])
    for controls in (train, val):
        add_motion_map(controls, "motion_pca", lambda action: motion)
    add_parts_of_skip(model, config, train, val)
    protocol = grouped(train.whole[CLOCK][0], val.whole[CLOCK][0], config)[2]
    rows, gaps = {MAJORITY: {"classification": majority(train.cropped[CLOCK], val.cropped[CLOCK])}}, {}
    for name in tqdm(
        sorted(train.whole, key=lambda name: CLOSED.index(name) if name in CLOSED else -1), unit="stage", desc="score"
    ):
        rows[name], missing = score_stage(name, train, val, protocol)
        gaps |= missing
    head = header(config, model, found["train"])
    about = (
        f"{len(records[0])} training and {len(records[1])} validation videos of {config.dataset} (data seed "
        f"{config.data_seed}), preset {config.preset}, objective {config.objective}, {config.epochs} epochs, backbone "
        f"{config.backbone} (weights: {head['backbone_weights']})"
    )
    warning = [head["warning"]] if "warning" in head else []
    return Measured(config, about, rows, [*warning, *(f"{score}: {reason}" for score, reason in gaps.items())])


def add_parts_of_skip(model: FrameEmbedder, config: Config, train: Controls, val: Controls) -> None:
    """Adds a skip that augmentation weighs by itself, and the embedding with a skip weighted by spread in its place."""
    motion = None if model.actions else model.motion
    if motion is None or config.motion_weighting == "spread":
        return
    means = [video.embeddings for video in train.whole[BACKBONE][0]]
    spread = MotionMap.fit(means, config.embedding_size, motion.offsets, motion.context)
    spread = replace(spread, strength=motion.strength)
    for rounds_of in (train.whole, train.cropped, val.whole, val.cropped):
        rounds_of[OWN_MOTION] = [[_replaced(v, motion(v.embeddings)) for v in part] for part in rounds_of[BACKBONE]]
        rounds_of[BEFORE] = [
            [_replaced(v, spread.add_to(v.embeddings, m.embeddings)) for v, m in zip(*parts)]
            for parts in zip(rounds_of[EMBEDDING], rounds_of[BACKBONE])
        ]


def _replaced(video: EmbeddedVideo, array: np.ndarray) -> EmbeddedVideo:
    return EmbeddedVideo(video.name, video.action, array, video.phases)


# ----------------------------------------------------------------------------------------------------------------------
# Stages of clips


def embed_stages(
    model: FrameEmbedder, records: Sequence[VideoRecord], config: Config, cache: FeatureBank | None
) -> Controls:
    """Computes all stages of whole videos and of their windows, reading each video's features once."""
    controls, untrained = Controls(), untrained_model(config, model)
    clock = clocks_of(config, model)["position_only"]
    with torch.inference_mode(), evaluating(model):
        for record in tqdm(records, unit="video", desc="stages"):
            network = model.of(record.action)
            features = before = video_features(network, record, cache, config.precision)
            if untrained.backbone is not network.backbone:  # its last blocks were trained
                before = video_features(untrained, record, None, config.precision)
            tokens, mean = pool_features(network, *features), before[0].mean(dim=1).numpy()
            crops = windows(record.name, len(mean))
            controls.starts[record.name] = [crop.start for crop in crops]
            for rounds_of, parts in ((controls.whole, [slice(None)]), (controls.cropped, crops)):
                for i, part in enumerate(parts):
                    stages = clip_stages(network, tokens[part], mean[part], config.chunk)
                    for name, array in ({CLOCK: clock(len(mean[part]))} | stages).items():
                        rounds = rounds_of.setdefault(name, [[] for _ in parts])
                        rounds[i].append(_video(record, part, array, config))
    return controls


def _video(record: VideoRecord, part: slice, array: np.ndarray, config: Config) -> EmbeddedVideo:
    action = record.action if config.judge == "action" else TOGETHER
    return EmbeddedVideo(record.name, action, array, None if record.phases is None else record.phases[part])


def clip_stages(model: MVFormer, tokens: Tensor, mean: np.ndarray, chunk: int) -> dict[str, np.ndarray]:
    """Pooled tokens (T, N, D) and mean patches (T, C) of a clip -> every stage (T, width), by name."""
    entered, blocks, embedding = fusion_stages(model, add_velocity(model, tokens, mean), chunk)
    several, from_first = tokens.shape[1] > 1, model.architecture.readout == "cls"
    stages = {"pooled entities, joined": tokens.flatten(1)} if several else {}
    stages["pooled entity 1" if model.pooling.makes_entities else "pooled token"] = tokens[:, 0]
    stages["token MLP, entities joined" if several else "token MLP"] = entered.flatten(1)
    read = "" if not several else ", entity 1" if from_first else ", mean entity"
    for i, block in enumerate(blocks, start=1):
        stages[f"block {i}{read}"] = block[:, 0] if from_first else block.mean(dim=1)
    arrays = {name: stage.float().cpu().numpy() for name, stage in stages.items()}
    skip = {} if model.motion is None else {SKIP: add_motion(model, embedding, mean)}
    return {BACKBONE: mean, **arrays, EMBEDDING: embedding, **skip}


def fusion_stages(model: MVFormer, tokens: Tensor, chunk: int) -> tuple[Tensor, list[Tensor], np.ndarray]:
    """Pooled tokens (T, N, D) -> what enters the fusion, what leaves each block (T, N, W), and the embedding (T, E).

    The fusion runs with its first block, with its first two, and so on: where tokens are merged, each has its own
    value again only at the end.
    """
    blocks, left = model.fusion.blocks, []
    heard: list[tuple[Tensor, Tensor]] = []
    hook = model.fusion.register_forward_hook(lambda _, given, out: heard.append((given[0][0], out[0])))
    try:
        for depth in range(1, len(blocks) + 1):
            heard.clear()
            model.fusion.blocks = blocks[:depth]
            (embedding,) = fuse_batch(model, tokens[None], chunk)
            entered, out = map(torch.cat, zip(*heard))
            left.append(out)
    finally:
        model.fusion.blocks = blocks
        hook.remove()
    return entered, left, embedding


# ----------------------------------------------------------------------------------------------------------------------
# Scores


def score_stage(name: str, train: Controls, val: Controls, protocol: Protocol) -> tuple[Scores, dict[str, str]]:
    """Scores of a stage on windows, without and with differences over time, and reasons for those that are missing."""
    fitted, asked = train.cropped[name], val.cropped[name]
    plain = probe(fitted, asked, protocol, None if name in UNIT else FEATURES["backbone_mean"])
    moved = probe(fitted, asked, protocol, FEATURES["backbone_motion"])
    scores: Scores = {"width": fitted[0][0].embeddings.shape[1], **plain.means()}
    scores |= {MOVED + score: value for score, value in moved.means().items()}
    try:
        return scores | {"alignment_error": align(name, train, val, protocol)}, plain.skipped()
    except ValueError as error:
        return scores, plain.skipped() | {"alignment_error": str(error)}


def probe(train: Rounds, val: Rounds, protocol: Protocol, features: Features | None) -> Scored:
    """Classification and retrieval@5 as reports score windows (`mvf.evaluation.scoring.score_rounds`)."""
    scored = Scored()
    for action in sorted({video.action for video in val[0]}):
        settings = protocol.num_phases[action], protocol.stride, protocol.probe, features
        task = action_task(train, val, action, *settings)
        scored.add(action, "classification", lambda task=task: task.phase_counts().sum(axis=1))
        scored.add(action, "retrieval@5", partial(task.retrieval, 5))
    return scored


def align(name: str, train: Controls, val: Controls, protocol: Protocol) -> float:
    """Alignment error of the windows with whole videos, z-scored with whole training videos unless of unit norm."""
    (whole,), crops = val.whole[name], val.cropped[name]
    if name not in UNIT:
        fitted = train.whole[name][0]
        actions = {video.action for video in whole}
        scale = {a: standardiser(kept_frames([v for v in fitted if v.action == a])[0]) for a in actions}
        whole, *crops = ([_scaled(video, scale[video.action]) for video in part] for part in (whole, *crops))
    return alignment([(v, val.starts[v.name][i]) for i, part in enumerate(crops) for v in part], whole, protocol)


def _scaled(video: EmbeddedVideo, scale: Features) -> EmbeddedVideo:
    return EmbeddedVideo(video.name, video.action, scale(video.embeddings), video.phases)


def majority(train: Rounds, val: Rounds) -> float:
    """Accuracy of the most frequent phase of the training windows as the answer for every frame, over actions."""
    shares = []
    for action in {video.action for video in val[0]}:
        fitted, asked = (_phases(rounds, action) for rounds in (train, val))
        if len(fitted) and len(asked):
            shares.append(np.mean(asked == np.bincount(fitted).argmax()))
    return float(np.mean(shares))


def _phases(rounds: Rounds, action: str) -> np.ndarray:
    labels = [v.phases for part in rounds for v in part if v.action == action and v.phases is not None]
    return np.concatenate([part[part >= 0] for part in labels] or [np.zeros(0, int)])


# ----------------------------------------------------------------------------------------------------------------------
# Table and figure


def stages_table(values: Values, notes: Sequence[str] = ()) -> Table:
    """Tabulates the mean over runs of every score of every stage, with two standard deviations where there are more."""
    rows = []
    for name, scores in values.items():
        width = f"{scores['width'][0]:.0f}" if "width" in scores else MISSING
        rows.append((TITLES.get(name, name), width, *(_cell(scores.get(column)) for column in COLUMNS)))
    return Table(tuple(rows), ("stage", "width", *COLUMNS.values()), notes=(*NOTES, *notes))


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return MISSING
    return f"{np.mean(values):.3f}" + (f" ± {2 * np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def pool_runs(runs: Sequence[Measured]) -> tuple[Values, list[str]]:
    """Values of all runs by stage and score, and what is to be said about them.

    Raises:
        ValueError: if the runs do not have the same stages.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.rows.keys() != first.rows.keys():
            raise ValueError(
                f"runs must have the same stages, got {', '.join(first.rows)}, and then {', '.join(run.rows)}"
            )
    values = {
        name: {score: [run.rows[name][score] for run in runs if score in run.rows[name]] for score in scores}
        for name, scores in first.rows.items()
    }
    settings = [run.config.as_dict() for run in runs]
    varied = [name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)]
    notes = [f"{first.about}; {'seed' if len(runs) == 1 else 'seeds'} {', '.join(str(r.config.seed) for r in runs)}."]
    notes += ["Mean ± two standard deviations over the runs."] if len(runs) > 1 else []
    notes += [f"The runs differ in {', '.join(varied)}."] if set(varied) - {"seed"} else []
    return values, notes + list(dict.fromkeys(note for run in runs for note in run.notes))


OWN, WITH_MOVEMENT, REFERENCE = OKABE_ITO[0], OKABE_ITO[5], "#595959"
PANELS = {
    "classification": "phase classification",
    "retrieval@5": "retrieval@5",
    "alignment_error": "alignment error, reversed",
}
CAPTION = (
    "cropped windows of validation videos, right is better. Blue: what the vectors of a stage hold, by a linear probe "
    "or nearest neighbours. Vermillion: the same with their differences over ±2, ±5 and ±9 frames beside them. The "
    "band is movement that the course of the vectors shows, and that a single vector does not hold."
)


def plot_stages(values: Values, about: str) -> Figure:
    """Draws every stage from the backbone downwards, by itself and with its differences over time, beside the clock."""
    path = [name for name in values if name not in (MAJORITY, CLOCK, *CLOSED)]
    fused = [name for name in path if name.startswith("block") or name == EMBEDDING]
    groups = {
        "each frame alone": [name for name in path if name not in fused],
        "all frames of the clip": fused,
        "movement in closed form": [name for name in CLOSED if name in values],
    }
    rows = [name for title, names in groups.items() for name in (title, *names)]
    with paper_figure(PAGE, 1.25 + 0.165 * len(rows)) as figure:
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (score, title) in zip(panels, PANELS.items()):
            _draw_panel(axes, values, score, rows, path)
            axes.set_xlabel(title, labelpad=2)
        panels[0].set_yticks(range(len(rows)), [TITLES.get(name, name) for name in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        for label, name in zip(panels[0].get_yticklabels(), rows):
            label.set(**{"style": "italic", "color": REFERENCE} if name in groups else {})
            label.set_fontweight("bold" if name == (SKIP if SKIP in rows else EMBEDDING) else "normal")
        panels[-1].invert_xaxis()
        handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels())}
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles))
        set_caption(figure, f"{about}: {CAPTION}")
    return figure


def _draw_panel(axes: Axes, values: Values, score: str, rows: Sequence[str], path: Sequence[str]) -> None:
    """Draws a dot at the mean of every stage, joined along `path`, and bars of two standard deviations over runs."""
    for name, style in ((CLOCK, (0, (3, 2))), (MAJORITY, (0, (1, 1.5)))):
        if values[name].get(score):
            value = np.mean(values[name][score])
            axes.axvline(value, color=REFERENCE, linestyle=style, linewidth=0.9, label=name, zorder=1)
    lines = []
    for key, colour, label in (
        (score, OWN, "the stage"),
        (MOVED + score, WITH_MOVEMENT, "and its differences over time"),
    ):
        found = {name: values[name][key] for name in rows if values.get(name, {}).get(key)}
        for name, runs in found.items():
            place, mean = rows.index(name), np.mean(runs)
            if len(runs) > 1:
                ends = mean + 2 * np.std(runs, ddof=1) * np.array([-1, 1])
                axes.plot(ends, [place] * 2, color=colour, linewidth=4.5, alpha=0.3, solid_capstyle="butt")
            axes.plot(mean, place, "o", color=colour, markersize=4, label=label)
        joined = {rows.index(name): np.mean(found[name]) for name in path if name in found}
        axes.plot(list(joined.values()), list(joined), color=colour, linewidth=1)
        lines.append(joined)
    if lines[0].keys() == lines[1].keys():
        axes.fill_betweenx(list(lines[0]), *(list(line.values()) for line in lines), color=WITH_MOVEMENT, alpha=0.08)
    axes.grid(axis="y", color="#EBEBEB", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.1)


def main() -> None:
    """Measures the runs and writes the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders: seeds of one setting")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures", help="default: figures/ of the repository")
    options = parser.parse_args()
    try:
        runs = [measure(folder) for folder in options.runs]
        values, notes = pool_runs(runs)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    table = stages_table(values, notes)
    names = " ".join(folder.resolve().name for folder in options.runs)
    about = f"{runs[0].config.dataset}, {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
    options.out.mkdir(parents=True, exist_ok=True)
    save_figure(plot_stages(values, about), options.out / "stages")
    text = f"# Stage by stage\n\n`python bench/stages.py {names}`\n\n{table}\n\n![The table as a figure](stages.png)\n"
    with atomic(options.out / "stages.md") as path:
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{table}\n")


if __name__ == "__main__":
    main()
