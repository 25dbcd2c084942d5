"""Draws how alike the frames of one recording of several repetitions are: figures/repetitions.png.

    python bench/repetitions.py RUN [--action squat]                a drawn recording of five repetitions
    python bench/repetitions.py RUN --clips FOLDER pull-up_14       the clips of a folder that begin so, joined

A model that knows the content sees every repetition come back: lines parallel to the diagonal, one repetition apart. A
clock cannot: there a frame is like its neighbours in time alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import mvf
from mvf.data import VideoRecord
from mvf.embedding import add_motion, evaluating, fuse_video, pool_features, video_features
from mvf.evaluation.controls import position_clock
from mvf.training.run import REPOSITORY
from mvf.workbench.notebook.session import open_model
from mvf.workbench.plotting import PAGE, paper_figure, save_figure
from mvf.workbench.plotting.probe import number_frames
from mvf.workbench.plotting.style import draw_ribbon, phase_colours, set_caption

CAPTION = (
    "Cosine similarity of every frame to every frame of one recording of {count} repetitions ({what}). {lines} White "
    "lines part the repetitions. A clock cannot show lines parallel to the diagonal, since no moment of it comes back."
)


def recording(model: mvf.MVFormer, records: Sequence[VideoRecord], training_frames: int) -> dict[str, np.ndarray]:
    """Embeddings (T, E) of clips that follow one another, joined to one: of the clock, the trained part, and both."""
    seen = [video_features(model, record) for record in records]
    patches = torch.cat([patches for patches, _ in seen])
    cls = None if seen[0][1] is None else torch.cat([cls for _, cls in seen])
    mean = patches.mean(dim=1).numpy()
    with torch.inference_mode(), evaluating(model):
        trained = fuse_video(model, pool_features(model, patches, cls))
    clock = position_clock(training_frames, model.architecture.fusion_width, model=model)(len(mean))
    skip = {} if model.motion is None else {"embedding, with skip": add_motion(model, trained, mean)}
    return {"clock": clock, "trained part": trained, **skip}


def plot_repetitions(
    found: dict[str, np.ndarray], starts: Sequence[int], phases: np.ndarray | None, caption: str
) -> Figure:
    """Draws one self-similarity a panel, with the first frames of the repetitions."""
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
                ribbon.set_yticks([])
        side = panels[0] if phases is None else panels[0].child_axes[0]
        number_frames(side.yaxis)
        side.set_ylabel("frame")
        figure.colorbar(image, ax=list(panels), label="cosine similarity", pad=0.01, shrink=0.8)
        set_caption(figure, caption)
    return figure


def main() -> None:
    """Embeds the recording and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--action", default="squat", help="of the drawn recording")
    parser.add_argument("--clips", nargs=2, metavar=("FOLDER", "NAME"), help="clips whose names begin so, in order")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures" / "repetitions", help="file without suffix")
    options = parser.parse_args()
    model, config = open_model(options.run)
    if options.clips:
        folder, start = options.clips
        both = [record for split in ("train", "val") for record in mvf.data.find_videos("folder", split, folder)]
        records = sorted((r for r in both if r.name.startswith(start)), key=lambda record: record.name)
    else:
        records = mvf.data.find_videos(
            "synthetic", "val", data_seed=77, val_videos=1, actions=(options.action,), repeats=5, idle=20
        )
    lengths = [record.num_frames for record in records]
    starts, phases = [0, *np.cumsum(lengths)[:-1]], None
    if not options.clips:
        phases = records[0].phases
        starts = [0, *[t for t in range(1, len(phases)) if phases[t] == 0 != phases[t - 1]][1:]]
    found = recording(model.of(records[0].action), records, config.num_frames)
    what = f"clips {start}…" if options.clips else f"a drawn {options.action} that no model has seen"
    lines = "" if phases is None else "At the left the phases."
    caption = CAPTION.format(count=len(starts), what=what, lines=lines)
    save_figure(plot_repetitions(found, starts, phases, caption), options.out)


if __name__ == "__main__":
    main()
