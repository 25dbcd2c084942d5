"""MV-Former (Walmer et al., arXiv 2311.10873) as a research workbench.

`import mvf` is quick: a public name imports the module that defines it when it is first used.
"""

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvf import data, losses, metrics
    from mvf.alignment import align, align_all, alignment_path, transfer_phases
    from mvf.attention import TemporalAttention, attention_maps, temporal_attention
    from mvf.clip import Clip
    from mvf.config import load_config
    from mvf.embedding import EmbeddedVideo, embed
    from mvf.evaluation import evaluate
    from mvf.models import build_model, load_official_checkpoint
    from mvf.models.mvformer import MVFormer, MVFormerOutput
    from mvf.training import train
    from mvf.training.run import Run, load_run

__all__ = [
    "Clip",
    "EmbeddedVideo",
    "MVFormer",
    "MVFormerOutput",
    "Run",
    "TemporalAttention",
    "align",
    "align_all",
    "alignment_path",
    "attention_maps",
    "build_model",
    "data",
    "embed",
    "evaluate",
    "load_config",
    "load_official_checkpoint",
    "load_run",
    "losses",
    "metrics",
    "temporal_attention",
    "train",
    "transfer_phases",
]


# The module that defines each public name; a folder of the package stands for itself.
_HOMES = {
    "data": "data", "losses": "losses", "metrics": "metrics",
    "align": "alignment", "align_all": "alignment", "alignment_path": "alignment", "transfer_phases": "alignment",
    "TemporalAttention": "attention", "attention_maps": "attention", "temporal_attention": "attention",
    "Clip": "clip",
    "load_config": "config",
    "EmbeddedVideo": "embedding", "embed": "embedding",
    "evaluate": "evaluation",
    "build_model": "models", "load_official_checkpoint": "models",
    "MVFormer": "models.mvformer", "MVFormerOutput": "models.mvformer",
    "train": "training",
    "Run": "training.run", "load_run": "training.run",
}  # fmt: skip

try:
    __version__ = version("mvf")
except PackageNotFoundError:  # the repository is on the path without being installed
    __version__ = "unknown"


if not TYPE_CHECKING:  # a type checker reports misspelt names only without it

    def __getattr__(name: str) -> object:
        """Imports the home of a public name when it is first used, and keeps the name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'mvf' has no attribute {name!r}")
        module = import_module(f"mvf.{_HOMES[name]}")
        globals()[name] = value = module if name == _HOMES[name] else getattr(module, name)
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _warn_of_two_opencvs() -> None:
    """Warns when two wheels of OpenCV are installed: both write the folder `cv2`."""
    installed = []
    for name in ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless", "opencv-python-headless"):
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(installed) > 1:
        warnings.warn(
            f"{' and '.join(installed)} are both installed and overwrite each other's files, so `import cv2` may fail "
            "(the ones without -headless want libGL) or give either: uninstall all of them, then "
            "pip install opencv-python-headless",
            stacklevel=2,
        )


_warn_of_two_opencvs()
