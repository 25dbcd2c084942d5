"""What `train.ipynb` shows of the data and the model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mvf.bank import build_bank
from mvf.bank_files import free_bytes
from mvf.config import Config
from mvf.data import VideoList, VideoRecord
from mvf.data.index import SHOWN
from mvf.models.mvformer import MVFormer
from mvf.training.run import action_config
from mvf.workbench import plotting


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


def bank_table(config: Config, model: MVFormer, records: VideoList) -> plotting.Table:
    """What the features of the augmented views take on the disk, before any is made."""
    if config.features != "banked":
        return plotting.Table((("online: nothing is stored", ""),), ("feature bank", "GB"))
    banks = [(build_bank(own, model.backbone, part), part) for own, part in _runs(config, records)]
    whole, missing = (
        sum(bank.predicted_bytes(part, config.bank_views, whole=whole) for bank, part in banks) / 1e9
        for whole in (True, False)
    )
    folders = dict.fromkeys(bank.folder for bank, _ in banks)
    kept = f"{config.bank_channels} of {model.backbone.channels}" if config.bank_channels else model.backbone.channels
    rows = (
        (f"{config.bank_views} views, {config.bank_dtype}, {kept} channels", f"{whole:.3f}"),
        ("of it still to be written", f"{missing:.3f}"),
        ("free on the disk", f"{free_bytes(banks[0][0].folder) / 1e9:.1f}"),
    )
    return plotting.Table(rows, ("feature bank", "GB"), notes=tuple(map(str, folders)))


def _runs(config: Config, records: VideoList) -> Iterator[tuple[Config, list[VideoRecord]]]:
    """The runs that training consists of, with their videos: one, or one an action."""
    if not config.per_action:
        yield config, records
        return
    for action in sorted({record.action for record in records}):
        yield action_config(config, action), [record for record in records if record.action == action]


def _part_sizes(model: MVFormer) -> dict[str, int]:
    """Numbers of every part, of the backbone frozen and trained ones apart."""
    sizes: dict[str, int] = {}
    for name, part in model.named_children():
        for p in part.parameters():
            frozen = " (frozen)" if name == "backbone" and not p.requires_grad else ""
            sizes[name + frozen] = sizes.get(name + frozen, 0) + p.numel()
    return sizes
