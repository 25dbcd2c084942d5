"""Model folders as other versions wrote them."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch


def forget_checksums(folder: Path) -> None:
    """Makes a model folder one from before there were checksums, whose settings can then be changed."""
    path = folder / "model.safetensors"
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(path.read_bytes())))
