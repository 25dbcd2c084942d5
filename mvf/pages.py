"""What the notebooks show: a run's arrays, assembled into the figures and tables of `plotting`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mvf import plotting, probing
from mvf.data import VideoList, VideoRecord, find_config_videos
from mvf.embedding import EmbeddedVideo
from mvf.maps import attention_maps
from mvf.models.mvformer import MVFormer
from mvf.workflow import Splits, Subject

# train ----------------------------------------------------------------------------------------------------------


def coverage_table(records: VideoList) -> plotting.Table:
    """Videos by action, and what was left out with its reason."""
    actions = sorted({record.action for record in records})
    chosen = [[r for r in records if r.action == action] for action in actions]
    rows = tuple(
        (action, str(len(part)), str(sum(r.num_frames for r in part)), " | ".join(part[0].phase_names) or plotting.cell(None))
        for action, part in zip(actions, chosen)
    )
    found = records.coverage
    notes = tuple(f"left out: {name}: {reason}" for name, reason in found.unreadable.items())
    caption = f"{found.found} of {found.expected} videos"
    return plotting.Table(rows, ("action", "videos", "frames", "phases"), caption, notes)


@torch.no_grad()
def model_table(model: MVFormer, frames: Tensor) -> plotting.Table:
    """Shapes on the way through a model, and the parameters of its parts; frames (B, T, 3, S, S)."""
    out = model(frames)
    tensors = {
        "frames (B, T, 3, H, W)": frames, "attention (B, T, N, P)": out.attention, "entities (B, T, N, D)": out.entities,
        "embeddings (B, T, E)": out.embeddings, "projections (B, T, E)": out.projections,
    }
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children() if part is not None}
    return plotting.shapes_table(tensors, {("backbone (frozen)" if k == "backbone" else k): v for k, v in parts.items() if v})


# probe ----------------------------------------------------------------------------------------------------------


def confusion_figure(probe: probing.Probe | None) -> Figure:
    """Confusion matrix of one action."""
    if probe is None:
        return plotting.plot_message("no action has labels of two phases in both splits")
    return plotting.plot_confusion(probe.confusion, probe.names, title=f"{probe.action}: frames of validation videos")


def progression_figure(probe: probing.Probe | None) -> Figure:
    """Progression of the first validation video of one action."""
    if probe is None:
        return plotting.plot_message("no action has labels of two phases in both splits")
    predicted, true = (part[0] for part in probe.progression)
    names = [f"end of {name}" for name in probe.names[:-1]]
    return plotting.plot_progression(predicted, true, names, title=probe.videos[0].name)


def similarity_figure(splits: Splits, action: str = "") -> Figure:
    """Two validation videos of one action, frame by frame."""
    pair = probing.first_pair(_of_action(splits.val, action))
    if pair is None:
        return plotting.plot_message("no action has two validation videos")
    similarity = pair[0].embeddings @ pair[1].embeddings.T
    names, path = [v.name for v in pair], plotting.alignment_path(similarity)
    return plotting.plot_similarity(similarity, path, *(v.phases for v in pair), names, _words(splits, pair[0].action))


def retrieval_figure(splits: Splits, action: str = "") -> Figure:
    """Frames of one validation video, each with the five nearest frames of other videos."""
    videos = _of_action(splits.val, action)
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two validation videos of one action")
    records = {record.name: record for record in splits.val_records}
    words = _words(splits, videos[0].action)
    rows = []
    for t in probing.query_frames(videos[0]):
        found = [(videos[i], frame) for i, frame in probing.nearest_frames(videos, 0, t)]
        rows.append(plotting.RetrievalRow(
            probing.frame_at(records[videos[0].name], t), _caption(videos[0], t, words),
            [probing.frame_at(records[video.name], frame) for video, frame in found],
            [_caption(video, frame, words) for video, frame in found],
            [_phase(video, frame) == _phase(videos[0], t) for video, frame in found],
        ))  # fmt: skip
    return plotting.plot_retrieval(rows, title=f"{videos[0].action}: nearest frames in other validation videos")


def embedding_figure(splits: Splits, action: str = "", most: int = 8) -> Figure:
    """Validation videos of one action in two dimensions."""
    videos = _of_action(splits.val, action)[:most]
    points = probing.two_dimensions(videos)
    return plotting.plot_embeddings(
        points, [v.phases for v in videos], _words(splits, videos[0].action),
        title=f"{videos[0].action}, {len(videos)} validation videos", caption="First two principal components.",
    )  # fmt: skip


def _of_action(videos: Sequence[EmbeddedVideo], action: str) -> list[EmbeddedVideo]:
    """Videos of `action`, or of the one with the most phases (the first by name among equals)."""
    phases = {v.action: 0 for v in sorted(videos, key=lambda v: v.action)}
    for video in videos:
        if video.phases is not None:
            phases[video.action] = max(phases[video.action], int(video.phases.max(initial=-1)) + 1)
    if action and action not in phases:
        raise ValueError(f'no video of action "{action}"; there are {", ".join(phases)}')
    wanted = action or max(phases, key=phases.get)
    return [video for video in videos if video.action == wanted]


def _words(splits: Splits, action: str) -> tuple[str, ...] | None:
    names = next((r.phase_names for r in splits.val_records if r.action == action), ())
    return names or None


def _phase(video: EmbeddedVideo, frame: int) -> int:
    return -1 if video.phases is None else int(video.phases[frame])


def _caption(video: EmbeddedVideo, frame: int, words: Sequence[str] | None) -> str:
    phase = _phase(video, frame)
    word = "" if phase < 0 else f"\n{words[phase] if words else f'phase {phase}'}"
    return f"{video.name} #{frame}{word}"


# attention ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LookedVideo:
    """A video with its maps, frame by frame.

    Attributes:
        name: Of the video.
        frames: (T, H, W, 3) uint8.
        entities: (T, N, h, w), or None.
        heads: (T, heads, h, w) of one block, or None.
        layer: Number of that block.
        entity_layers: Blocks that the entities read.
        head: Which head the figure shows, from 0.
        head_rule: How it was chosen.
        numbers: Position of every frame in the video.
    """

    name: str
    frames: np.ndarray
    entities: np.ndarray | None
    heads: np.ndarray | None
    layer: int
    entity_layers: tuple[int, ...]
    head: int
    head_rule: str
    numbers: np.ndarray

    @property
    def head_names(self) -> list[str]:
        return [] if self.heads is None else [f"head {i + 1}" for i in range(self.heads.shape[1])]

    @property
    def head_name(self) -> str:
        return "no class token" if self.heads is None else f"CLS head {self.head + 1} ({self.head_rule})"


def look_at(subject: Subject, report: Mapping, look: Mapping) -> list[LookedVideo]:
    """Maps of validation videos, of different actions as far as there are."""
    records = _one_an_action(find_config_videos(subject.config, "val"), look["videos"])
    return [_look(subject.model, record, report, look) for record in records]


def _look(model: MVFormer, record: VideoRecord, report: Mapping, look: Mapping) -> LookedVideo:
    maps = attention_maps(model, record, (look["layer"],), look["image_size"])
    step = -(-record.num_frames // look["stored_frames"])
    frames = np.stack(list(record.frames(step=step)))
    entities = None if maps.entities is None else maps.entities[::step]
    heads = None if maps.heads is None else maps.heads[0, ::step]
    head, rule = _choose_head(entities, heads, report, model.backbone.num_blocks in maps.layers)
    layer = maps.layers[0] if maps.layers else 0
    return LookedVideo(
        record.name, frames, entities, heads, layer, tuple(model.backbone.layers), head, rule, np.arange(len(frames)) * step
    )


def _choose_head(entities: np.ndarray | None, heads: np.ndarray | None, report: Mapping, last: bool) -> tuple[int, str]:
    """The head chosen on training videos; without masks or boxes the one most like entity 1."""
    if heads is None:
        return 0, ""
    chosen = report.get("localization", {}).get("head_best", {}).get("index")
    if chosen is not None and last:
        return chosen - 1, "chosen by AUROC on training videos"
    if entities is None:
        return 0, "the first: nothing to choose by"
    shares = heads / heads.sum((-1, -2), keepdims=True)
    overlap = np.minimum(shares, entities[:, :1]).sum((-1, -2)).mean(0)  # (heads,)
    return int(overlap.argmax()), "closest to entity 1"


def attention_figure(video: LookedVideo, look: Mapping) -> Figure:
    """The layout of the paper's Figure 3."""
    rows = np.unique(np.linspace(0, len(video.frames) - 1, look["rows"] + 2).round().astype(int)[1:-1])
    layers = f"entities: layers {', '.join(map(str, video.entity_layers))}; head: layer {video.layer}, {video.head_rule}"
    return plotting.plot_attention(
        video.frames[rows],
        None if video.entities is None else video.entities[rows],
        None if video.heads is None else video.heads[rows, video.head],
        head_names=(f"CLS head {video.head + 1}",),
        frame_numbers=video.numbers[rows].tolist(),
        normalise=look["normalise"],
        layer=layers,
        contour_mass=0.6,
        title=video.name,
    )


def _one_an_action(records: VideoList, count: int) -> list[VideoRecord]:
    """`count` records, going round the actions."""
    turn: dict[str, int] = {}
    order = []
    for record in records:
        turn[record.action] = turn.get(record.action, -1) + 1
        order.append((turn[record.action], len(order)))
    return [records[i] for _, i in sorted(order)[:count]]
