"""Makes the notebooks' widgets from embeddings and attention maps that are already computed."""

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
from mvf.workbench.notebook.attention import AttentionVideo
from mvf.workbench.notebook.session import Session, Splits
from mvf.workbench.plotting.overlays import resized
from mvf.workbench.widgets import AlignmentPlayer, AttentionBrowser, EmbeddingExplorer, PhaseLabeler, RetrievalBrowser


@dataclass(frozen=True)
class SampledVideos:
    """Every n-th frame of several videos, so that a notebook with a stored widget stays small.

    Attributes:
        frames: Video name -> (T, H, W, 3) uint8.
        rows: Video name -> (T,) rows of these frames among the video's embeddings.
        numbers: Video name -> (T,) numbers of these frames in the file, which differ in a resampled video.
        embeddings: Video name -> (T, E) embeddings of these frames.
        phases: Video name -> (T,) phases of these frames, or None.
    """

    frames: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]
    phases: dict[str, np.ndarray | None]


def sample_videos(
    records: Sequence[VideoRecord], videos: Sequence[EmbeddedVideo], most: int, height: int
) -> SampledVideos:
    """Reads every n-th frame of embedded videos.

    Args:
        records: Records, including those of the videos.
        videos: The videos with their embeddings.
        most: Maximum number of frames of all videos together, but at least one per video.
        height: Maximum height in pixels; taller frames are shrunk.
    """
    if not videos:
        raise ValueError("there are no videos to browse: the data set has no video of this action")
    if most < 1:
        raise ValueError(f"stored_frames must be at least 1, got {most}")
    found = {record.name: record for record in records}
    step = max(1, -(-sum(len(video.embeddings) for video in videos) // most))
    sampled = SampledVideos({}, {}, {}, {}, {})
    for video in videos:
        record = found[video.name]
        numbers, first = np.unique(record.frame_numbers[::step], return_index=True)  # a higher fps repeats frames
        wanted = set(first.tolist())
        frames = [_smaller(frame, height) for i, frame in enumerate(record.frames(step=step)) if i in wanted]
        rows = first * step
        sampled.frames[video.name] = np.stack(frames)
        sampled.rows[video.name], sampled.numbers[video.name] = rows, numbers
        sampled.embeddings[video.name] = video.embeddings[rows]
        sampled.phases[video.name] = None if video.phases is None else video.phases[rows]
    return sampled


def attention_browser(videos: Sequence[AttentionVideo], export: str | Path = "") -> AttentionBrowser:
    """Makes a browser of the maps of `attention_videos`."""
    if not videos:
        raise ValueError("there is no video to browse: give at least one of `attention_videos`")
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
    """Makes an explorer of the frames of one action as points in two dimensions."""
    shown = probe.compared(splits, action)
    videos = shown.videos[:most]
    if not videos:
        return plotting.plot_message("there are no videos")
    sampled = sample_videos(shown.records, videos, stored, 160)
    points = probe.two_dimensions(videos)
    kept = {video.name: p[sampled.rows[video.name]] for video, p in zip(videos, points)}
    names = probe.phase_words(splits, videos[0].action)
    return EmbeddingExplorer(
        kept, sampled.frames, phases=sampled.phases, phase_names=names, numbers=sampled.numbers, height=160
    )


def retrieval_browser(splits: Splits, action: str = "", stored: int = 240, most: int = 8) -> RetrievalBrowser | Figure:
    """Makes a browser of a frame of one action and its nearest frames in other videos."""
    shown = probe.compared(splits, action)
    videos = shown.videos[:most]
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two videos of one action")
    sampled = sample_videos(shown.records, videos, stored, 140)
    names = probe.phase_words(splits, videos[0].action)
    return RetrievalBrowser(
        sampled.frames,
        sampled.embeddings,
        phases=sampled.phases,
        phase_names=names,
        numbers=sampled.numbers,
        height=140,
    )


def alignment_player(
    splits: Splits, action: str = "", method: str = "dtw", stored: int = 240, most: int = 4, named: str = ""
) -> AlignmentPlayer | Figure:
    """Makes a player of videos of one action, or of all those that are named, warped to the time of the first."""
    shown = probe.compared(splits, action, named)
    videos = shown.videos if named else shown.videos[:most]
    if len(videos) < 2:
        return plotting.plot_message("alignment needs two videos of one action")
    sampled = sample_videos(shown.records, videos, stored, 160)
    reference, maps = videos[0], {}
    for video in videos[1:]:
        found = align(reference, video, method)[sampled.rows[reference.name]]
        maps[video.name] = np.abs(found[:, None] - sampled.rows[video.name]).argmin(axis=1)
    names = probe.phase_words(splits, reference.action)
    return AlignmentPlayer(
        sampled.frames,
        maps,
        reference.name,
        phases=sampled.phases,
        phase_names=names,
        numbers=sampled.numbers,
        height=160,
    )


def phase_labeler(session: Session, splits: Splits, action: str = "", path: str | Path = "") -> PhaseLabeler:
    """Makes a labeler of all videos of one action, training videos first; labelled ones give proposals for the others.

    Args:
        session: The session; if its data set is a folder, that folder contains `videos.csv`.
        splits: The videos.
        action: Name of the action; empty for the one with the most phases.
        path: The table to write; if empty, the folder's, or for other data sets `labels/videos.csv` beside the figures.
    """
    known, embedded = splits.everything
    videos = probe.of_action(embedded, action)
    records = {record.name: record for record in known}
    own = session.config.dataset == "folder"
    folder = Path(session.config.data_root) if own else session.figures / "labels"
    return PhaseLabeler(
        {video.name: records[video.name] for video in videos},
        Path(path) if path else folder / "videos.csv",
        embeddings={video.name: video.embeddings for video in videos},
        phase_names=probe.phase_words(splits, videos[0].action) if videos else None,
    )


def with_still(browser: object) -> tuple[object, ...]:
    """Returns a widget and its picture as an ordinary output, because reopened notebooks lose their widgets."""
    return (browser, browser.still()) if hasattr(browser, "still") else (browser,)


def _smaller(frame: np.ndarray, height: int) -> np.ndarray:
    return resized(frame, height) if frame.shape[0] > height else frame
