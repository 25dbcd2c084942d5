"""Aligns cameras of one take pairwise. The answer is known, because frame i is the same instant in all cameras.

    python bench/align_views.py RUN [RUN ...] VIDEOS [--warps 5]

`VIDEOS` holds `<take>_cam<N>.mp4`. For every ordered pair of cameras of a take, query and reference are each cut to a
window of 50 to 80 % and played at a piecewise tempo of 0.6 to 1.6 (`random_warp` in warped.py); otherwise the identity
would win. The error of a frame is the number of instants (frames of the take) between it and the frame it is aligned
with. Only frames whose instant is in the reference's window count, because the others have no correct answer. The
median is over all frames of all pairs of one set of warps. The table has its mean and two standard deviations over
warps and runs, and the same for the difference to the straight line on the same warps, because most of the spread is
due to the difficulty of the warps. A warped video is embedded as if it were whole.

`model` is the trained part alone, `with skip` the embedding that `mvf.embed` gives, where the run has a motion skip.
`straight line` aligns frame t with the frame at the same share of the reference. `backbone_motion` is z-scored over
each video's frames, which removes the camera's appearance; that was chosen on these takes, in favour of this control.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from warped import random_warp

import mvf
from mvf.alignment import align
from mvf.data.records import VideoRecord
from mvf.data.video import VideoFile
from mvf.embedding import add_motion, fuse_video, pool_features, video_features
from mvf.evaluation.controls import backbone_motion, position_clock, untrained_model
from mvf.metrics.neighbours import one_thread
from mvf.models.mvformer import MVFormer
from mvf.training.run import Run
from mvf.workbench.notebook.session import clean_bank
from mvf.workbench.plotting import Table

NAME = re.compile(r"(?P<take>.+)_cam(?P<camera>\d+)")
METHODS = {"nearest": ("nearest", False), "dtw, closed ends": ("dtw", False), "dtw, open ends": ("dtw", True)}

Errors = dict[tuple[str, str], list[np.ndarray]]


@dataclass(frozen=True)
class Camera:
    """The features of one camera, from which every warp is made.

    Attributes:
        take: Name of the take; its cameras show the same instants.
        tokens: (T, N, D) pooled tokens by network.
        mean: (T, C) mean of the patches.
    """

    take: str
    tokens: dict[str, torch.Tensor]
    mean: np.ndarray


def find_takes(folder: Path) -> dict[str, list[VideoRecord]]:
    """Finds the cameras of every take.

    Raises:
        ValueError: if no take has two.
    """
    takes = defaultdict(list)
    for path in sorted(folder.glob("*.mp4")):
        if match := NAME.fullmatch(path.stem):
            takes[match["take"]].append(VideoRecord(path.stem, match["take"], VideoFile(path)))
    takes = {take: cameras for take, cameras in takes.items() if len(cameras) > 1}
    if not takes:
        raise ValueError(f"{folder} needs at least two files <take>_cam<N>.mp4 of one take, got none")
    for take, cameras in takes.items():
        if len({camera.num_frames for camera in cameras}) > 1:
            counts = {camera.name: camera.num_frames for camera in cameras}
            raise ValueError(f"the cameras of {take} must have equal numbers of frames, got {counts}")
    return takes


def read_cameras(run: Run, networks: dict[str, MVFormer], takes: dict[str, list[VideoRecord]]) -> list[Camera]:
    """Pools the backbone features of every source frame; a warp selects rows of them."""
    cache, cameras = clean_bank(run.model, run.config), []
    records = [record for take in takes.values() for record in take]
    if cache is not None:
        cache.ensure(records)
    for record in tqdm(records, unit="camera", desc="features"):
        features = video_features(run.model, record, cache, run.config.precision)
        with torch.inference_mode():
            tokens = {name: pool_features(network.eval(), *features) for name, network in networks.items()}
        cameras.append(Camera(record.action, tokens, features[0].mean(dim=1).numpy()))
    return cameras


def embed_warp(run: Run, networks: dict[str, MVFormer], camera: Camera, index: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the (T, E) embeddings of the camera's frames `index`, by kind of embedding."""
    chunk = run.config.chunk
    embedded = {name: fuse_video(network, camera.tokens[name][index], chunk) for name, network in networks.items()}
    skip = {"with skip": add_motion(run.model.of(""), embedded["model"], camera.mean[index])}
    embedded |= skip if run.config.motion_skip else {}
    motion = backbone_motion(camera.mean[index])
    width = run.config.fusion_width
    clock = position_clock(run.config.num_frames, width, chunk, run.model)(len(index))
    return embedded | {
        "backbone_motion": (motion - motion.mean(0)) / np.maximum(motion.std(0), 1e-6),
        "position_only": clock,
    }


def pairs(cameras: list[Camera]) -> Iterator[tuple[int, int]]:
    """Yields ordered pairs of different cameras of the same take."""
    numbered = permutations(range(len(cameras)), 2)
    return ((a, b) for a, b in numbered if cameras[a].take == cameras[b].take)


def warp_errors(run: Run, networks: dict[str, MVFormer], cameras: list[Camera], warp: int) -> Errors:
    """Returns the errors in frames of all pairs of one set of warps, by embedding and method."""
    generator, errors = np.random.default_rng(warp), defaultdict(list)
    sides = []
    for _ in ("query", "reference"):
        drawn = [random_warp(len(camera.mean), generator) for camera in cameras]
        sides.append([(index, embed_warp(run, networks, c, index)) for c, index in zip(cameras, drawn)])
    for a, b in pairs(cameras):
        (instants, query), (truth, reference) = sides[0][a], sides[1][b]
        both = (instants >= truth[0]) & (instants <= truth[-1])
        line = np.rint(np.linspace(0, len(truth) - 1, len(instants))).astype(int)
        errors["straight line", ""].append(np.abs(truth[line] - instants)[both])
        for name in query:
            for label, (method, open_ends) in METHODS.items():
                index = align(query[name], reference[name], method, open_ends)
                errors[name, label].append(np.abs(truth[index] - instants)[both])
    return errors


def main() -> None:
    """Aligns the videos and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of different seeds, which are pooled")
    parser.add_argument("videos", type=Path, help="folder of <take>_cam<N>.mp4")
    parser.add_argument("--warps", type=int, default=5, help="number of sets of warps")
    options = parser.parse_args()
    takes, medians = find_takes(options.videos), defaultdict(list)
    for folder in options.runs:
        run = mvf.load_run(folder)
        networks = {"model": run.model, "untrained": untrained_model(run.config, run.model)}
        cameras = read_cameras(run, networks, takes)
        for warp in tqdm(range(options.warps), unit="warp"):
            with one_thread():
                for key, errors in warp_errors(run, networks, cameras, warp).items():
                    medians[key].append(float(np.median(np.concatenate(errors))))
    print(table(medians, len(options.runs), options.warps))


def table(medians: dict[tuple[str, str], list[float]], runs: int, warps: int) -> Table:
    """Tabulates medians and differences to the straight line on the same warps: mean and two standard deviations."""
    line = np.array(medians["straight line", ""])
    rows = tuple((*key, _spread(values), *_against(np.array(values) - line)) for key, values in medians.items())
    caption = f"Median absolute error in frames, mean ± 2 sd over {warps} warps x {runs} runs"
    return Table(rows, ("embedding", "method", "error", "minus straight line", "below it"), caption)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {2 * np.std(values, ddof=min(1, len(values) - 1)):.1f}"


def _against(differences: np.ndarray) -> tuple[str, str]:
    if not differences.any():
        return "0", ""
    return _spread(differences), f"{(differences < 0).sum()} of {len(differences)}"


if __name__ == "__main__":
    main()
