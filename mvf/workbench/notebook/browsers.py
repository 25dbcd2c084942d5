"""Makes the notebooks' widgets from embeddings and attention maps that are already computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from mvf.alignment import align
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo
from mvf.files import data_folder
from mvf.workbench import plotting
from mvf.workbench.notebook import probe
from mvf.workbench.notebook.attention import AttentionVideo
from mvf.workbench.notebook.deviation import ComparedClip
from mvf.workbench.notebook.segments import passes_note, write_split_segments
from mvf.workbench.notebook.session import Session, Splits
from mvf.workbench.plotting.overlays import resized
from mvf.workbench.widgets import AlignmentPlayer, AttentionBrowser, EmbeddingExplorer, PhaseLabeler, RetrievalBrowser
from mvf.workbench.widgets.frames import Browser

Shown = TypeVar("Shown", bound=Browser)


@dataclass(frozen=True)
class SampledVideos:
    """Every n-th frame of several videos, so that a notebook with a stored widget stays small.

    Attributes:
        frames: Video name -> (T, H, W, 3) uint8.
        rows: Video name -> (T,) rows of these frames among the video's embeddings.
        numbers: Video name -> (T,) numbers of these frames in the file, which differ in a resampled video.
        embeddings: Video name -> (T, E) embeddings of these frames.
        phases: Video name -> (T,) phases of these frames, or None.
        times: Video name -> (T,) seconds of these frames, or None.
    """

    frames: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]
    phases: dict[str, np.ndarray | None]
    times: dict[str, np.ndarray | None]


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
    sampled = SampledVideos({}, {}, {}, {}, {}, {})
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
        sampled.times[video.name] = None if record.frame_times is None else record.frame_times[rows]
    return sampled


def attention_browser(videos: Sequence[AttentionVideo], figures: str | Path = "") -> AttentionBrowser:
    """Makes a browser of the maps of `attention_videos`, which opens on the layer and head that the figures show.

    Args:
        videos: The videos.
        figures: Folder for `attention_browser.html`; empty for none.
    """
    if not videos:
        raise ValueError("there is no video to browse: give at least one of `attention_videos`")
    first = videos[0]
    browser = AttentionBrowser(
        {video.name: (video.frames, video.entities, video.heads) for video in videos},
        numbers={video.name: video.numbers for video in videos},
        times={video.name: video.times for video in videos},
        phases={video.name: video.phases for video in videos},
        phase_names={video.name: video.phase_names for video in videos if video.phase_names},
        layer_names=first.layer_names or None,
        layer=first.layers.index(first.layer) if first.layers else 0,
        head={video.name: video.head for video in videos},
        height=240,
        max_frames=max(len(video.frames) for video in videos),
    )
    return _kept(browser, figures)


def embedding_explorer(
    splits: Splits, action: str = "", stored: int = 240, figures: str | Path = "", most: int = 8
) -> EmbeddingExplorer | Figure:
    """Makes an explorer of the frames of one action as points in two dimensions.

    Args:
        splits: The videos.
        action: Name of the action; empty for the one with the most phases.
        stored: Maximum number of frames of all videos together.
        figures: Folder for `embedding_explorer.html`; empty for none.
        most: Maximum number of videos.
    """
    shown = probe.compared(splits, action)
    videos = shown.videos[:most]
    if not videos:
        return plotting.plot_message("there are no videos")
    sampled = sample_videos(shown.records, videos, stored, 200)
    points = probe.two_dimensions(videos)
    kept = {video.name: p[sampled.rows[video.name]] for video, p in zip(videos, points)}
    total = np.concatenate([video.embeddings for video in videos]).var(axis=0).sum()
    shares = np.concatenate(points).var(axis=0) / max(total, 1e-12)
    browser = EmbeddingExplorer(
        kept,
        sampled.frames,
        axes=[f"PC {i}, {share:.0%} of the variance".replace("%", " %") for i, share in enumerate(shares, start=1)],
        **_shown(sampled, splits, videos, 200),
    )
    return _kept(browser, figures)


def retrieval_browser(
    splits: Splits, action: str = "", stored: int = 240, figures: str | Path = "", most: int = 8
) -> RetrievalBrowser | Figure:
    """Makes a browser of a frame of one action and its nearest frames in other videos; see `embedding_explorer`."""
    shown = probe.compared(splits, action)
    videos = shown.videos[:most]
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two videos of one action")
    sampled = sample_videos(shown.records, videos, stored, 200)
    browser = RetrievalBrowser(sampled.frames, sampled.embeddings, **_shown(sampled, splits, videos, 200))
    return _kept(browser, figures)


def alignment_player(
    splits: Splits,
    action: str = "",
    method: str = "dtw",
    stored: int = 240,
    figures: str | Path = "",
    most: int = 4,
    named: str = "",
) -> AlignmentPlayer | Figure:
    """Makes a player of videos of one action, or of those that are named, warped to the time of the first.

    See `embedding_explorer`.
    """
    shown = probe.compared(splits, action, named)
    videos = shown.videos if named else shown.videos[:most]
    if len(videos) < 2:
        return plotting.plot_message("alignment needs two videos of one action")
    sampled = sample_videos(shown.records, videos, stored, 240)
    reference, maps = videos[0], {}
    for video in videos[1:]:
        found = align(reference, video, method)[sampled.rows[reference.name]]
        maps[video.name] = np.abs(found[:, None] - sampled.rows[video.name]).argmin(axis=1)
    note = passes_note(videos)
    browser = AlignmentPlayer(sampled.frames, maps, reference.name, note=note, **_shown(sampled, splits, videos, 240))
    return _kept(browser, figures)


def deviation_player(
    splits: Splits, compared: ComparedClip | str, stored: int = 240, figures: str | Path = ""
) -> AlignmentPlayer | Figure:
    """Makes a player of a compared clip and its nearest reference on the clip's clock, with the curve below.

    Args:
        splits: The videos.
        compared: What `compare_clip` returns.
        stored: Maximum number of frames of both together.
        figures: Folder for `deviation_player.html`; empty for none.
    """
    if isinstance(compared, str):
        return plotting.plot_message(compared)
    clip, found = compared.video, compared.found
    reference = compared.references[found.closest]
    records = [compared.record, compared.reference_records[found.closest]]
    sampled = sample_videos(records, [clip, reference], stored, 240)
    rows, last = sampled.rows[clip.name], len(sampled.rows[clip.name]) - 1
    partners = np.abs(found.matched[found.closest][rows][:, None] - sampled.rows[reference.name]).argmin(axis=1)
    moments = []
    for moment in found.moments:
        start, end, peak = np.searchsorted(rows, (moment.start, moment.end, moment.peak)).clip(0, last).tolist()
        end = last + 1 if moment.end > rows[-1] else max(end, start + 1)
        moments.append(replace(moment, start=start, end=end, peak=min(max(peak, start), end - 1)))
    shown = replace(
        found,
        matched=found.matched[:, rows],
        distance=found.distance[rows],
        band=found.band[rows],
        moments=tuple(moments),
    )
    player = AlignmentPlayer(
        sampled.frames,
        {reference.name: partners},
        clip.name,
        deviation=shown,
        **_shown(sampled, splits, [clip], 240),
    )
    return _kept(player, figures, moments[0].peak if moments else None)


def _shown(sampled: SampledVideos, splits: Splits, videos: Sequence[EmbeddedVideo], height: int) -> dict[str, Any]:
    """Returns what all browsers show of sampled videos beside their frames."""
    names = probe.phase_words(splits, videos[0].action)
    shown = {"phases": sampled.phases, "numbers": sampled.numbers, "times": sampled.times}
    return {**shown, "phase_names": names, "height": height}


def _kept(browser: Shown, figures: str | Path, frame: int | None = None) -> Shown:
    """Turns a browser to a frame, by default the middle of its video's action, and writes it to the folder `figures`.

    Nothing is written if the folder is empty text.
    """
    browser.frame = browser.middle if frame is None else frame
    if figures:
        browser.save_html(Path(figures) / f"{browser.title.lower().replace(' ', '_')}.html")
    return browser


def phase_labeler(
    session: Session, splits: Splits, action: str = "", path: str | Path = "", method: str = "dtw"
) -> PhaseLabeler:
    """Makes a labeler of all videos of one action, training videos first; labelled ones give proposals for the others.

    Its button "Write segments" calls `write_split_segments`.

    Args:
        session: The session; if its data set is a folder, that folder contains `videos.csv`.
        splits: The videos.
        action: Name of the action; empty for the one with the most phases.
        path: The table to write; if empty, the folder's, or for other data sets `labels/videos.csv` beside the figures.
        method: How segments are proposed; see `mvf.evaluation.segments.propose`.
    """
    known, embedded = splits.everything
    videos = probe.of_action(embedded, action)
    records = {record.name: record for record in known}
    own = session.config.dataset == "folder"
    folder = data_folder(session.config.data_root) if own else session.figures / "labels"
    return PhaseLabeler(
        {video.name: records[video.name] for video in videos},
        Path(path) if path else folder / "videos.csv",
        embeddings={video.name: video.embeddings for video in videos},
        phase_names=probe.phase_words(splits, videos[0].action) if videos else None,
        write_segments=lambda labeler: write_split_segments(session, splits, labeler, action, method),
    )


def _smaller(frame: np.ndarray, height: int) -> np.ndarray:
    return resized(frame, height) if frame.shape[0] > height else frame
