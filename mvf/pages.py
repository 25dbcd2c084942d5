"""What the notebooks show: a run's arrays, assembled into the figures and tables of `plotting`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mvf import plotting, probing
from mvf.data import VideoList
from mvf.data.opening import SHOWN
from mvf.embedding import EmbeddedVideo
from mvf.looking import LookedVideo
from mvf.models.mvformer import MVFormer
from mvf.workflow import Splits

# train ----------------------------------------------------------------------------------------------------------


def coverage_table(records: VideoList) -> plotting.Table:
    """Videos by action, and what was left out with its reason."""
    actions = sorted({record.action for record in records})
    chosen = [[r for r in records if r.action == action] for action in actions]
    rows = tuple(
        (
            action,
            str(len(part)),
            str(sum(r.num_frames for r in part)),
            " | ".join(part[0].phase_names) or plotting.cell(None),
        )
        for action, part in zip(actions, chosen)
    )
    found = records.coverage
    left_out = list(found.unreadable.items())
    notes = tuple(f"left out: {name}: {reason}" for name, reason in left_out[:SHOWN])
    notes += (f"left out: {len(left_out) - SHOWN} more",) if len(left_out) > SHOWN else ()
    caption = f"{found.found} of {found.expected} videos"
    return plotting.Table(rows, ("action", "videos", "frames", "phases"), caption, notes)


@torch.no_grad()
def model_table(model: MVFormer, frames: Tensor) -> plotting.Table:
    """Shapes on the way through a model, and the parameters of its parts; frames (B, T, 3, S, S)."""
    out = model(frames[:, :2])  # all of them would take minutes on a CPU
    tensors = {
        "frames (B, T, 3, H, W)": frames,
        "attention (B, T, N, P)": out.attention,
        "entities (B, T, N, D)": out.entities,
        "embeddings (B, T, E)": out.embeddings,
        "projections (B, T, E)": out.projections,
    }
    shapes = {name: None if t is None else (t.shape[0], frames.shape[1], *t.shape[2:]) for name, t in tensors.items()}
    return plotting.shapes_table(shapes, _part_sizes(model))


def _part_sizes(model: MVFormer) -> dict[str, int]:
    """Numbers of every part, of the backbone frozen and trained ones apart."""
    sizes: dict[str, int] = {}
    for name, part in model.named_children():
        for p in part.parameters():
            frozen = " (frozen)" if name == "backbone" and not p.requires_grad else ""
            sizes[name + frozen] = sizes.get(name + frozen, 0) + p.numel()
    return sizes


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
    if not videos:
        return plotting.plot_message("there are no validation videos")
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
    wanted = action or max(phases, key=phases.get, default="")
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


# attention ----------------------------------------------------------------------------------------------------------


def attention_figure(video: LookedVideo, look: Mapping) -> Figure:
    """The layout of the paper's Figure 3."""
    rows = np.unique(np.linspace(0, len(video.frames) - 1, look["rows"] + 2).round().astype(int)[1:-1])
    layers = (
        f"entities: layers {', '.join(map(str, video.entity_layers))}; head: layer {video.layer}, {video.head_rule}"
    )
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
