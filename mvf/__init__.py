"""MV-Former (Walmer et al., arXiv 2311.10873) as a research workbench."""

import warnings
from importlib.metadata import PackageNotFoundError, version

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


def _warn_of_two_opencvs() -> None:
    """Says where another wheel of OpenCV lies beside the one that mvf installs: both write the folder `cv2`."""
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
