"""Tables of `train.ipynb`: the videos, the model, the feature bank."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mvf.bank import build_bank
from mvf.bank_files import free_bytes
from mvf.config import Config
from mvf.data import VideoList, VideoRecord
from mvf.data.index import SHOWN
from mvf.embedding import backbone_of
from mvf.models.mvformer import MVFormer
from mvf.training.run import action_config
from mvf.workbench import plotting


def coverage_table(records: VideoList) -> plotting.Table:
    """Tabulates the number of videos of each action, and which were left out and why."""
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
    """Tabulates tensor shapes in a model for frames (B, T, 3, S, S), and the parameters of its modules."""
    shown = frames[:, :2]  # all frames would take minutes on a CPU
    out = model(shown, velocity=torch.zeros(*shown.shape[:2], model.velocity_width))
    tensors = {
        "frames (B, T, 3, H, W)": frames,
        "attention (B, T, N, P)": out.attention,
        "entities (B, T, N, D)": out.entities,
        "embeddings (B, T, E)": out.embeddings,
        "projections (B, T, E)": out.projections,
    }
    shapes = {name: None if t is None else (t.shape[0], frames.shape[1], *t.shape[2:]) for name, t in tensors.items()}
    return plotting.shapes_table(shapes, _parameter_counts(model))


def bank_table(config: Config, model: MVFormer, records: VideoList) -> plotting.Table:
    """Tabulates the disk space of the augmented views' features before any is computed."""
    if config.features != "banked":
        return plotting.Table((("online: nothing is stored", ""),), ("feature bank", "GB"))
    backbone = backbone_of(model)
    banks = [(build_bank(own, backbone, part), part) for own, part in _runs(config, records)]
    whole, missing = (
        sum(bank.predicted_bytes(part, config.bank_views, whole=whole) for bank, part in banks) / 1e9
        for whole in (True, False)
    )
    folders = dict.fromkeys(bank.folder for bank, _ in banks)
    kept = f"{config.bank_channels} of {backbone.channels}" if config.bank_channels else backbone.channels
    rows = (
        (f"{config.bank_views} views, {config.bank_dtype}, {kept} channels", f"{whole:.3f}"),
        ("not yet written", f"{missing:.3f}"),
        ("free on the disk", f"{free_bytes(banks[0][0].folder) / 1e9:.1f}"),
    )
    return plotting.Table(rows, ("feature bank", "GB"), notes=tuple(map(str, folders)))


def _runs(config: Config, records: VideoList) -> Iterator[tuple[Config, list[VideoRecord]]]:
    """Returns the runs of a training with their videos: one run, or one per action."""
    if not config.per_action:
        yield config, records
        return
    for action in sorted({record.action for record in records}):
        yield action_config(config, action), [record for record in records if record.action == action]


def _parameter_counts(model: MVFormer) -> dict[str, int]:
    """Counts the parameters of each module; those of the backbone separately as frozen and trained."""
    sizes: dict[str, int] = {}
    for name, module in model.named_children():
        for p in module.parameters():
            frozen = " (frozen)" if name == "backbone" and not p.requires_grad else ""
            sizes[name + frozen] = sizes.get(name + frozen, 0) + p.numel()
    return sizes
