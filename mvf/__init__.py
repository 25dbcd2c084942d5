"""MV-Former (Walmer et al., arXiv 2311.10873) as a research workbench."""

from mvf import data, losses, metrics
from mvf.alignment import align, align_all, alignment_path, transfer_phases
from mvf.clip import Clip
from mvf.config import load_config
from mvf.embedding import EmbeddedVideo, embed
from mvf.evaluation import evaluate
from mvf.maps import attention_maps
from mvf.models import build_model, load_official_checkpoint
from mvf.models.mvformer import MVFormer, MVFormerOutput
from mvf.run_folder import Run, load_run
from mvf.temporal import TemporalAttention, temporal_attention
from mvf.training import train

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
