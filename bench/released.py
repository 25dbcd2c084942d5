"""Writes a run as a released head (first version)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mvf.config import config_text
from mvf.files import atomic
from mvf.models.stored import RELEASED, save_model
from mvf.training.run import load_run


def write_head(run: str | Path, out: str | Path, card: str) -> None:
    """Writes a run as a released head: its settings, its trained tensors in float16, and its model card.

    The same run gives the same bytes. What computes features is left to the machine that opens it.
    """
    trained = load_run(run)
    config, model = replace(trained.config, engine="auto", precision="auto"), trained.model.of("")
    for name, text in (("config.json", config_text(config)), ("README.md", card)):
        with atomic(Path(out) / name) as path:
            path.write_text(text, encoding="utf-8")
    save_model(out, model.architecture.as_dict(), in_float16(model.trained_state()), model.backbone)


def in_float16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those in float32 as float16."""
    return {name: t.half() if t.dtype == torch.float32 else t for name, t in tensors.items()}


if __name__ == "__main__":
    write_head(
        sys.argv[1],
        RELEASED / "drawn",
        "# Placeholder\n\nNot the released head: a run of 720 steps on 36 drawn videos, written through the same path so that the plumbing can be tried. `python bench/released.py` replaces it.\n",
    )
