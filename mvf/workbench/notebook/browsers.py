"""What the notebooks browse: widgets over embeddings and frames that are already there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf.alignment import align
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.workbench import plotting
from mvf.workbench.notebook import probe
from mvf.workbench.notebook.attention import LookedVideo
from mvf.workbench.notebook.session import Session, Splits
from mvf.workbench.plotting.overlays import resized
from mvf.workbench.widgets import AlignmentPlayer, AttentionBrowser, EmbeddingExplorer, PhaseLabeler, RetrievalBrowser


@dataclass(frozen=True)
class Shelf:
    """Videos at hand for a widget: of long ones every n-th frame, so that a notebook that stores it stays small.

    Attributes:
        frames: Video -> (T, H, W, 3) uint8.
        numbers: Video -> (T,) positions of these frames in the source.
        embeddings: Video -> (T, E) of these frames.
        phases: Video -> (T,) of these frames, or None.
    """

    frames: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]
    phases: dict[str, np.ndarray | None]


def shelve(records: Sequence[VideoRecord], videos: Sequence[EmbeddedVideo], most: int, height: int) -> Shelf:
    """Reads the frames of embedded videos.

    Args:
        records: Where the frames are; more may be given than are wanted.
        videos: Which, with their embeddings.
        most: Frames kept of all videos together; every video keeps one at least.
        height: Above which frames are made smaller, in pixels.
    """
    if not videos:
        raise ValueError("there are no videos to browse: the data set has none of this action")
    if most < 1:
        raise ValueError(f"stored_frames must be at least 1, got {most}")
    found = {record.name: record for record in records}
    step = max(1, -(-sum(len(video.embeddings) for video in videos) // most))
    shelf = Shelf({}, {}, {}, {})
    for video in videos:
        frames = np.stack([_smaller(frame, height) for frame in found[video.name].frames(step=step)])
        shelf.frames[video.name] = frames
        shelf.numbers[video.name] = np.arange(len(frames)) * step
        shelf.embeddings[video.name] = video.embeddings[::step]
        shelf.phases[video.name] = None if video.phases is None else video.phases[::step]
    return shelf


def attention_browser(videos: Sequence[LookedVideo], export: str | Path = "") -> AttentionBrowser:
    """Maps of `mvf.workbench.notebook.attention.look_at` over their frames."""
    if not videos:
        raise ValueError("there is no video to browse: look at one at least (mvf.workbench.notebook.attention.look_at)")
    first = videos[0]
    return AttentionBrowser(
        {video.name: (video.frames, video.entities, video.heads) for video in videos},
        numbers={video.name: video.numbers for video in videos},
        layer_names=[f"layer {layer}" for layer in first.layers] or None,
        head=first.head,
        height=220,
        export=export,
        max_frames=max(len(video.frames) for video in videos),
    )


def embedding_explorer(
    splits: Splits, action: str = "", stored: int = 240, most: int = 8
) -> EmbeddingExplorer | Figure:
    """Videos of one action in two dimensions; hovering shows the frame."""
    records, videos = splits.shown
    videos = probe.of_action(videos, action)[:most]
    if not videos:
        return plotting.plot_message("there are no videos")
    shelf = shelve(records, videos, stored, 160)
    points = probe.two_dimensions(videos)
    kept = {video.name: p[shelf.numbers[video.name]] for video, p in zip(videos, points)}
    names = probe.phase_words(splits, videos[0].action)
    return EmbeddingExplorer(
        kept, shelf.frames, phases=shelf.phases, phase_names=names, numbers=shelf.numbers, height=160
    )


def retrieval_browser(splits: Splits, action: str = "", stored: int = 240, most: int = 8) -> RetrievalBrowser | Figure:
    """Videos of one action: a frame, and its neighbours in the other videos."""
    records, videos = splits.shown
    videos = probe.of_action(videos, action)[:most]
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two videos of one action")
    shelf = shelve(records, videos, stored, 140)
    names = probe.phase_words(splits, videos[0].action)
    return RetrievalBrowser(
        shelf.frames, shelf.embeddings, phases=shelf.phases, phase_names=names, numbers=shelf.numbers, height=140
    )


def alignment_player(
    splits: Splits, action: str = "", method: str = "dtw", stored: int = 240, most: int = 4
) -> AlignmentPlayer | Figure:
    """Videos of one action on the clock of the first."""
    records, videos = splits.shown
    videos = probe.of_action(videos, action)[:most]
    if len(videos) < 2:
        return plotting.plot_message("alignment needs two videos of one action")
    shelf = shelve(records, videos, stored, 160)
    reference, maps = videos[0], {}
    for video in videos[1:]:
        found = align(reference, video, method)[shelf.numbers[reference.name]]
        maps[video.name] = np.abs(found[:, None] - shelf.numbers[video.name]).argmin(axis=1)
    names = probe.phase_words(splits, reference.action)
    return AlignmentPlayer(
        shelf.frames, maps, reference.name, phases=shelf.phases, phase_names=names, numbers=shelf.numbers, height=160
    )


def phase_labeler(
    session: Session, splits: Splits, action: str = "", path: str | Path = "", stored: int = 240, most: int = 12
) -> PhaseLabeler:
    """Videos of one action to label, training videos first; boundaries are proposed from those labelled so far.

    Args:
        session: Whose data folder holds `videos.csv` when the data set is a folder.
        splits: The videos.
        action: Which; empty: the one with the most phases.
        path: The table to write; empty: that of the folder, for other data sets `labels/videos.csv` beside the figures.
        stored: Frames kept of all videos together.
        most: Number of videos.
    """
    both = [*splits.train, *splits.val]
    videos = probe.of_action(both, action)[:most]
    shelf = shelve([*splits.train_records, *splits.val_records], videos, stored, 200)
    own = session.config.dataset == "folder"
    folder = Path(session.config.data_root) if own else session.figures / "labels"
    table = Path(path) if path else folder / "videos.csv"
    return PhaseLabeler(
        shelf.frames, table, embeddings=shelf.embeddings, numbers=shelf.numbers,
        lengths={video.name: len(video.embeddings) for video in videos},
        phase_names=probe.phase_words(splits, videos[0].action) if videos else None, height=200,
    )  # fmt: skip


def with_still(browser: object) -> tuple[object, ...]:
    """A widget and its picture as an ordinary output, since reopened notebooks have lost their widgets."""
    return (browser, browser.still()) if hasattr(browser, "still") else (browser,)


def _smaller(frame: np.ndarray, height: int) -> np.ndarray:
    return resized(frame, height) if frame.shape[0] > height else frame
