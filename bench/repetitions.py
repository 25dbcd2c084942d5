"""Repetitions in one recording: how alike its frames are, as a figure, and how well they are counted and cut.

    python bench/repetitions.py RUN [--action squat]                a drawn recording of five repetitions
    python bench/repetitions.py RUN --clips FOLDER pull-up_14       the clips of a folder that begin so, joined
    python bench/repetitions.py --measure VAL LEFT_OUT DRAWN --clips FOLDER NAME      figures/repetitions.md

A model that knows the content sees every repetition come back: lines parallel to the diagonal, one repetition apart. A
clock cannot: there a frame is like its neighbours in time alone.

Measured are three runs: VAL on the validation recordings of a folder whose clips (`..._rep00`, `..._rep01`, ...) are
one repetition each; LEFT_OUT, trained without the recording NAME, on that one; DRAWN on drawn recordings.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure

import mvf
from mvf.data import VideoRecord
from mvf.embedding import evaluating, fuse_video, pool_features, stored_bank, video_features
from mvf.evaluation.controls import position_clock
from mvf.evaluation.repetitions import find_repetitions
from mvf.files import atomic
from mvf.models.motion import differences, unit
from mvf.training.run import REPOSITORY
from mvf.workbench.notebook.session import open_model
from mvf.workbench.plotting import MISSING, PAGE, Table, paper_figure, save_figure
from mvf.workbench.plotting.probe import number_frames
from mvf.workbench.plotting.style import draw_ribbon, phase_colours, set_caption

CAPTION = (
    "Cosine similarity of every frame to every frame of one recording of {count} repetitions ({what}). {lines} White "
    "lines are where they begin, triangles the cuts found in the embedding. A clock cannot show lines parallel to the "
    "diagonal, since no moment of it comes back."
)
SHOWN = ("clock", "trained half", "embedding")  # in the figure
PICTURE = 16  # side of the grey pictures of the control `frame difference`, in pixels
LAG = 2  # frames to both sides between which it takes the difference
LONG = range(6, 20)  # repetitions of the recording that was left out of training
NEAR = 0.2  # share of a repetition by which a cut may be off
NOTES = """Runs of consecutive repetitions of one recording, in order. `count`: all are found; `±1`: at most one too
many or too few; `cuts`: true bounds between two repetitions with a found one at most 20 % of a repetition
away (anywhere in a pause between them); `ends`: of those recordings with idle time that were cut, the
beginning of the first and the end of the last repetition within 20 %; `single`: recordings of one repetition
that are not cut, and how many there are. `motion half`: the motion skip alone, which needs no training;
`trained half`: the embedding without the skip; `clock`: the position table; `grey frames`: pictures of 16 ×
16 pixels, minus their mean over the recording; `frame difference`: such a picture two frames later minus
that two frames before. All vectors have unit norm, and one rule, with one setting, cuts them all."""


@dataclass(frozen=True)
class Recording:
    """What the embeddings of a recording are made from, and where its repetitions begin and end (ends excluded).

    Attributes:
        mean, tokens, pictures: (T, C), (T, N, D) and (T, PICTURE²).
        begins, ends: (K,) frames.
        place: Where there is idle time: `none`, `before`, `after` or `both`.
    """

    name: str
    mean: np.ndarray
    tokens: np.ndarray
    pictures: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    place: str = "none"

    def between(self, first: int, stop: int, place: str = "none") -> Recording:
        """The frames from `first` to `stop`, with the repetitions that lie within."""
        inside = (self.begins >= first) & (self.ends <= stop)
        arrays = {name: getattr(self, name)[first:stop] for name in ("mean", "tokens", "pictures")}
        bounds = {name: getattr(self, name)[inside] - first for name in ("begins", "ends")}
        return replace(self, **arrays, **bounds, place=place)


def read_recording(model: mvf.MVFormer, record: VideoRecord, whole: bool) -> Recording:
    """A video as a recording of one repetition, or of those that its phases tell."""
    patches, cls = video_features(model, record, stored_bank(model, record))
    with torch.inference_mode(), evaluating(model):
        tokens = pool_features(model, patches, cls).cpu().numpy()
    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in record.frames())
    pictures = [cv2.resize(frame, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA).ravel() for frame in grey]
    phases = np.zeros(record.num_frames, int) if whole or record.phases is None else record.phases
    mean, numbers = patches.mean(dim=1).numpy(), np.stack(pictures).astype(np.float32)
    return Recording(record.name, mean, tokens, numbers, *bounds_of(phases))


def bounds_of(phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the repetitions begin and end that (T,) phases tell: each begins where the number falls."""
    acting = np.flatnonzero(phases >= 0)
    again = np.flatnonzero(np.diff(phases[acting]) < 0) + 1
    return acting[[0, *again]], acting[[*(again - 1), -1]] + 1


def joined(clips: Sequence[Recording]) -> Recording:
    """Clips that follow one another, as one recording."""
    starts = np.cumsum([0, *(len(clip.mean) for clip in clips)])[:-1]
    arrays = {name: np.concatenate([getattr(c, name) for c in clips]) for name in ("mean", "tokens", "pictures")}
    bounds = {n: np.concatenate([getattr(c, n) + s for c, s in zip(clips, starts)]) for n in ("begins", "ends")}
    return replace(clips[0], **arrays, **bounds)


def embeddings_of(model: mvf.MVFormer, recording: Recording, training_frames: int) -> dict[str, np.ndarray]:
    """(T, E) of unit norm by name: the embedding, its halves, and the controls."""
    mean, pictures = recording.mean, recording.pictures
    trained = fuse_video(model, torch.from_numpy(recording.tokens))
    motion = {} if model.motion is None else {"motion half": model.motion(mean)}
    (moved,) = differences(pictures, np.arange(len(pictures)), (LAG,))
    return {
        "embedding": trained if model.motion is None else model.motion.add_to(trained, mean),
        **motion,
        "trained half": trained,
        "clock": position_clock(training_frames, model.architecture.fusion_width, model=model)(len(mean)),
        "grey frames": unit(pictures - pictures.mean(axis=0)),
        "frame difference": unit(moved),
    }


def folder_parts(clips: Sequence[Recording], counts: Sequence[int], every: int = 1) -> list[Recording]:
    """Runs of so many consecutive clips of one recording (names are equal up to `_rep`), joined; single ones too.

    Runs of several begin at every `every`-th clip.
    """
    found = []
    for _, part in groupby(clips, lambda clip: clip.name.rpartition("_rep")[0]):
        own = list(part)
        runs = [[clip] for clip in own]
        runs += [own[first : first + n] for n in counts for first in range(0, len(own) - n + 1, every)]
        found += [joined(run) for run in runs]
    return found


def idle_parts(recording: Recording) -> Iterator[Recording]:
    """Parts of a recording with 1 to all of its repetitions: from the first or to the last, with idle time or not."""
    begins, ends, length = recording.begins, recording.ends, len(recording.mean)
    for count in range(1, len(begins) + 1):
        yield recording.between(begins[0], ends[count - 1])
        yield recording.between(0, ends[count - 1], "before")
        yield recording.between(begins[-count], length, "after")
    yield recording.between(0, length, "both")


@dataclass(frozen=True)
class Outcome:
    """What was found in one recording: its true count, the found one, and which true bounds and ends were met."""

    true: int
    found: int
    cuts: tuple[bool, ...]
    ends: tuple[bool, ...]


def outcome(embeddings: np.ndarray, recording: Recording) -> Outcome:
    """Cuts a recording and compares the cuts with its repetitions."""
    cuts, begins, ends = find_repetitions(embeddings).cuts, recording.begins, recording.ends
    near = NEAR * (ends - begins).mean()
    pauses = zip(ends, begins[1:])
    met = tuple(any(end - near <= cut <= begin + near for cut in cuts[1:-1]) for end, begin in pauses)
    at_ends = (bool(abs(cuts[0] - begins[0]) <= near), bool(abs(cuts[-1] - ends[-1]) <= near))
    judged = recording.place != "none" and len(begins) > 1 < len(cuts) - 1
    return Outcome(len(begins), len(cuts) - 1, met, at_ends if judged else ())


def rows_of(
    title: str, recordings: Sequence[tuple[mvf.MVFormer, Recording]], training_frames: int
) -> list[tuple[str, ...]]:
    """The rows of one set, a row an embedding."""
    found: dict[str, list[Outcome]] = {}
    for model, recording in recordings:
        for name, vectors in embeddings_of(model, recording, training_frames).items():
            found.setdefault(name, []).append(outcome(vectors, recording))
    return [(title, name, *_cells(outcomes)) for name, outcomes in found.items()]


def _cells(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    several, single = [o for o in outcomes if o.true > 1], [o for o in outcomes if o.true == 1]
    shares = (
        [o.found == o.true for o in several],
        [abs(o.found - o.true) <= 1 for o in several],
        [met for o in several for met in o.cuts],
        [met for o in several for met in o.ends],
        [o.found == 1 for o in single],
    )
    cells = [f"{np.mean(share):.2f}" if share else MISSING for share in shares]
    return (str(len(several)), *cells[:-1], f"{cells[-1]} of {len(single)}" if single else MISSING)


def measure(runs: Sequence[Path], folder: str, left_out: str, every: int) -> Table:
    """Counts and cuts the recordings of three sets with one run each; see the top of this file."""
    rows = []
    for title, run, wanted in (("validation", runs[0], ""), (left_out, runs[1], left_out)):
        model, config = open_model(run)
        records = [r for s in ("train", "val") for r in mvf.data.find_videos("folder", s, folder) if left_out in r.name]
        records = records if wanted else mvf.data.find_videos("folder", "val", folder)
        clips = [read_recording(model.of(r.action), r, True) for r in sorted(records, key=lambda r: r.name)]
        parts = folder_parts(clips, LONG if wanted else range(2, 6), every if wanted else 1)
        own = model.of(records[0].action)
        rows += rows_of(title, [(own, part) for part in parts], config.num_frames)
    model, config = open_model(runs[2])
    drawn = {"data_seed": 78, "val_videos": 6, "repeats": (8, 8), "idle": (20, 60)}
    alone = {"data_seed": 79, "val_videos": 12, "repeats": (1, 1), "idle": (20, 60)}
    several, one = (mvf.data.find_videos("synthetic", "val", **options) for options in (drawn, alone))
    read = [read_recording(model.of(r.action), r, False) for r in (*several, *one)]
    columns = ("recordings", "vectors", "several", "count", "±1", "cuts", "ends", "single")
    return Table((*rows, *drawn_rows(model.of, read, config.num_frames)), columns)


def drawn_rows(
    model_of: Callable[[str], mvf.MVFormer], read: Sequence[Recording], frames: int
) -> list[tuple[str, ...]]:
    """The rows of drawn recordings, by where they have idle time."""
    parts = [part for recording in read for part in idle_parts(recording)]
    rows = []
    for place in ("none", "before", "after", "both"):
        here = [(model_of(part.name.rpartition("_")[0]), part) for part in parts if part.place == place]
        title = f"drawn, {'no idle time' if place == 'none' else f'idle time {place}'}"
        rows += rows_of(title, here, frames)
    return rows


def write_measures(table: Table, command: str) -> None:
    """Writes figures/repetitions.md."""
    text = "\n\n".join(["# Repetitions counted and cut", f"`{command}`", NOTES.replace("\n", " "), str(table)])
    with atomic(REPOSITORY / "figures" / "repetitions.md") as path:
        path.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


def plot_repetitions(
    found: dict[str, np.ndarray],
    starts: Sequence[int],
    cuts: Sequence[int],
    phases: np.ndarray | None,
    caption: str,
) -> Figure:
    """Draws one self-similarity a panel, with the first frames of the repetitions, and the cuts found below."""
    with paper_figure(PAGE, PAGE / len(found) + 0.75) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, vectors) in zip(panels, found.items()):
            image = axes.imshow(vectors @ vectors.T, cmap="viridis", vmin=-0.2, vmax=1, interpolation="nearest")
            for start in starts[1:]:
                axes.axvline(start - 0.5, color="white", linewidth=0.6)
                axes.axhline(start - 0.5, color="white", linewidth=0.6)
            axes.set(title=name, xlabel="frame", yticks=[])
            if phases is not None:
                ribbon = axes.inset_axes((-0.06, 0, 0.045, 1))
                draw_ribbon(ribbon, phases, phase_colours(phases.max() + 1), True)
                ribbon.set_ylim(len(phases) - 0.5, -0.5)  # frame 0 on top, as in the picture
                ribbon.set_yticks([])
        panels[-1].plot(
            cuts, [len(vectors) - 1] * len(cuts), "^", color="white", markersize=6, scalex=False, scaley=False
        )
        side = panels[0] if phases is None else panels[0].child_axes[0]
        number_frames(side.yaxis)
        side.set_ylabel("frame")
        figure.colorbar(image, ax=list(panels), label="cosine similarity", pad=0.01, shrink=0.8)
        set_caption(figure, caption)
    return figure


def main() -> None:
    """Embeds the recording and draws it, or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="run folder")
    parser.add_argument("--action", default="squat", help="of the drawn recording")
    parser.add_argument("--clips", nargs=2, metavar=("FOLDER", "NAME"), help="clips whose names begin so, in order")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures" / "repetitions", help="file without suffix")
    parser.add_argument("--measure", nargs=3, type=Path, metavar=("VAL", "LEFT_OUT", "DRAWN"), help="run folders")
    parser.add_argument("--every", type=int, default=1, help="of NAME only runs that begin at every n-th clip")
    options = parser.parse_args()
    if bool(options.measure) == bool(options.run) or options.measure and not options.clips:
        parser.error("give RUN, or --measure with three runs and --clips")
    if options.measure:
        table = measure(options.measure, *options.clips, options.every)
        given = (Path(argument).name for argument in sys.argv[1:])  # without the folders of this machine
        write_measures(table, f"python bench/repetitions.py {shlex.join(given)}")
        return
    model, config = open_model(options.run)
    if options.clips:
        folder, start = options.clips
        both = [record for split in ("train", "val") for record in mvf.data.find_videos("folder", split, folder)]
        records = sorted((r for r in both if r.name.startswith(start)), key=lambda record: record.name)
    else:
        records = mvf.data.find_videos(
            "synthetic", "val", data_seed=77, val_videos=1, actions=(options.action,), repeats=5, idle=20
        )
    own, whole = model.of(records[0].action), bool(options.clips)
    recording = joined([read_recording(own, record, whole) for record in records])
    vectors = embeddings_of(own, recording, config.num_frames)
    cuts = find_repetitions(vectors["embedding"]).cuts
    what = f"clips {start}…" if whole else f"a drawn {options.action} that no model has seen"
    lines = "" if whole else "At the left the phases."
    caption = CAPTION.format(count=len(recording.begins), what=what, lines=lines).replace("  ", " ")
    phases, shown = None if whole else records[0].phases, {name: vectors[name] for name in SHOWN}
    save_figure(plot_repetitions(shown, recording.begins, cuts, phases, caption), options.out)


if __name__ == "__main__":
    main()
