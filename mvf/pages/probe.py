"""What `probe.ipynb` shows: embedded videos, assembled into the figures of `plotting`."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from mvf import plotting, probing
from mvf.alignment import alignment_path
from mvf.embedding import EmbeddedVideo
from mvf.workflow import Splits


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
    pair = probing.first_pair(of_action(splits.val, action))
    if pair is None:
        return plotting.plot_message("no action has two validation videos")
    similarity = pair[0].embeddings @ pair[1].embeddings.T
    names, path = [v.name for v in pair], alignment_path(*pair)
    return plotting.plot_similarity(
        similarity, path, *(v.phases for v in pair), names, phase_words(splits, pair[0].action)
    )


def retrieval_figure(splits: Splits, action: str = "") -> Figure:
    """Frames of one validation video, each with the five nearest frames of other videos."""
    videos = of_action(splits.val, action)
    if len(videos) < 2:
        return plotting.plot_message("retrieval needs two validation videos of one action")
    records = {record.name: record for record in splits.val_records}
    words = phase_words(splits, videos[0].action)
    rows = []
    for t in probing.query_frames(videos[0]):
        found = [(videos[i], frame) for i, frame in probing.nearest_frames(videos, 0, t)]
        rows.append(plotting.RetrievalRow(
            probing.frame_at(records[videos[0].name], t), _caption(videos[0], t, words),
            [probing.frame_at(records[video.name], frame) for video, frame in found],
            [_caption(video, frame, words) for video, frame in found],
            [_same(_phase(video, frame), _phase(videos[0], t)) for video, frame in found],
        ))  # fmt: skip
    return plotting.plot_retrieval(rows, title=f"{videos[0].action}: nearest frames in other validation videos")


def embedding_figure(splits: Splits, action: str = "", most: int = 8) -> Figure:
    """Validation videos of one action in two dimensions."""
    videos = of_action(splits.val, action)[:most]
    if not videos:
        return plotting.plot_message("there are no validation videos")
    points = probing.two_dimensions(videos)
    return plotting.plot_embeddings(
        points, [v.phases for v in videos], phase_words(splits, videos[0].action),
        title=f"{videos[0].action}, {len(videos)} validation videos", caption="First two principal components.",
    )  # fmt: skip


def of_action(videos: Sequence[EmbeddedVideo], action: str) -> list[EmbeddedVideo]:
    """Videos of `action`, or of the one with the most phases (the first by name among equals)."""
    phases = {v.action: 0 for v in sorted(videos, key=lambda v: v.action)}
    for video in videos:
        if video.phases is not None:
            phases[video.action] = max(phases[video.action], int(video.phases.max(initial=-1)) + 1)
    if action and action not in phases:
        raise ValueError(f'no video of action "{action}"; there are {", ".join(phases)}')
    wanted = action or max(phases, key=phases.get, default="")
    return [video for video in videos if video.action == wanted]


def phase_words(splits: Splits, action: str) -> tuple[str, ...] | None:
    """Names of an action's phases; None where they have none."""
    names = next((r.phase_names for r in splits.val_records if r.action == action), ())
    return names or None


def _phase(video: EmbeddedVideo, frame: int) -> int:
    return -1 if video.phases is None else int(video.phases[frame])


def _same(phase: int, other: int) -> bool | None:
    return None if min(phase, other) < 0 else phase == other


def _caption(video: EmbeddedVideo, frame: int, words: Sequence[str] | None) -> str:
    phase = _phase(video, frame)
    word = "" if phase < 0 else f"\n{words[phase] if words else f'phase {phase}'}"
    return f"{video.name} #{frame}{word}"
