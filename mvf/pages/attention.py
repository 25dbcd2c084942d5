"""What `attention.ipynb` shows: maps in the layouts of the paper's figures, films, and attention over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf import plotting
from mvf.attention import temporal_attention
from mvf.data import find_config_videos
from mvf.looking import LookedVideo
from mvf.workflow import Subject, clean_bank

MOST_LOOKING = 400  # frames in a figure of attention over time


def attention_figure(video: LookedVideo, look: Mapping) -> Figure:
    """One video: rows are frames; columns the input, every entity, the chosen head."""
    return plotting.plot_attention_grid(
        [_block(video, look["rows"])], normalise=look["normalise"], layer=video.caption, contour_mass=0.6
    )


def attention_grid(videos: Sequence[LookedVideo], look: Mapping, report: Mapping) -> Figure:
    """The paper's Figure 3: two videos side by side; the input, entity 1, the background's, and the chosen head.

    The background's entity is the one that `report` names on training videos; without masks the second, as there.
    """
    chosen = _some(videos)[:2]
    entities = chosen[0].entities
    background = ((report.get("localization") or {}).get("background") or {}).get("index", 2)
    shown = None if entities is None else sorted({1, min(background, entities.shape[1])})
    return plotting.plot_attention_grid(
        [_block(video, look["rows"]) for video in chosen], shown=shown, normalise=look["normalise"], **_words(chosen)
    )


def teaser(videos: Sequence[LookedVideo], look: Mapping) -> Figure:
    """The paper's Figure 1: one frame of several videos; the input, entity 1 and the chosen head below each other."""
    blocks = [_block(video, 1) for video in _some(videos)[:6]]
    if videos[0].entities is None:
        return plotting.plot_attention_grid(blocks, transposed=True, normalise=look["normalise"], **_words(videos))
    return plotting.plot_teaser(blocks, normalise=look["normalise"], **_words(videos))


def write_movie(video: LookedVideo, path: Path, frames_per_second: float = 12) -> list[Path]:
    """A film of one video beside its maps, as GIF and as MP4; `path` has no suffix."""
    film = plotting.attention_movie(
        video.frames, video.entities, video.head_maps, _head_name(video), numbers=video.numbers, title=video.name
    )
    return [plotting.save_animation(film, path.with_suffix(kind), frames_per_second) for kind in (".gif", ".mp4")]


def temporal_figure(subject: Subject, video: LookedVideo, block: int = -1) -> Figure:
    """Which frames and entities the frames of one video look at in the fusion."""
    records = (r for split in ("val", "train") for r in find_config_videos(subject.config, split, allow_empty=True))
    record = next(record for record in records if record.name == video.name)
    bank = clean_bank(subject.model, subject.config)
    looking = np.unique(np.linspace(0, record.num_frames - 1, MOST_LOOKING).round().astype(int))
    seen = temporal_attention(subject.model, record, block, looking, chunk=subject.config.chunk, cache=bank)
    words = f"Fusion block {seen.block} of {seen.blocks}, readout tokens, mean over heads."
    names = None if seen.weights.shape[2] > 1 else ["the frame's token"]
    return plotting.plot_temporal_attention(
        seen.weights, names, seen.frames, title=video.name, caption=words, bounds=seen.bounds
    )


def _block(video: LookedVideo, rows: int) -> plotting.AttentionBlock:
    """Evenly spaced frames of a video, the first and the last left out."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1 frame a figure, got {rows}")
    index = np.unique(np.linspace(0, len(video.frames) - 1, rows + 2).round().astype(int)[1:-1])
    maps = (None if part is None else part[index] for part in (video.entities, video.head_maps))
    return plotting.AttentionBlock(video.frames[index], *maps, _head_name(video), video.numbers[index], video.name)


def _some(videos: Sequence[LookedVideo]) -> Sequence[LookedVideo]:
    if not videos:
        raise ValueError("there is no video to draw: look at one at least (mvf.looking.look_at)")
    return videos


def _head_name(video: LookedVideo) -> tuple[str, ...]:
    return (f"CLS head {video.head + 1}",)


def _words(videos: Sequence[LookedVideo]) -> dict[str, str]:
    """Layers and rules for a caption of several videos."""
    first = videos[0]
    layers = f"entities: layers {', '.join(map(str, first.entity_layers))}"
    heads = f"head: layer {first.layer}" if first.layers else first.head_name
    rules = dict.fromkeys(video.head_rule for video in videos)
    return {"layer": f"{layers}; {heads}", "head_rule": "; ".join(filter(None, rules))}
