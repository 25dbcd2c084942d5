"""The frozen-feature tasks and the localization scores: pure functions of arrays (docs/design.md, section 7).

Videos are lists of (T, E) embeddings with lists of (T,) integer phases, frames of phase below 0 being dropped first.
A score that cannot be computed raises ValueError with the reason.
"""

from mvf.metrics.alignment import alignment_error, alignment_error_pairs, event_times
from mvf.metrics.attention import (
    attention_auroc,
    attention_average_precision,
    attention_entropy,
    attention_jaccard,
    attention_lift,
    attention_mass,
    attention_overlap,
    attention_set_size,
    attention_steadiness,
    density_share,
    effective_share,
    patch_shares,
    pointing_game,
    region_area,
)
from mvf.metrics.classification import count_correct, phase_classification, phase_confusion, predict_phases
from mvf.metrics.kendall import kendall_tau, kendall_tau_pairs
from mvf.metrics.neighbours import labelled_frames, nearest_in_videos
from mvf.metrics.progression import phase_progression, predict_progression, progression_score
from mvf.metrics.retrieval import retrieval_precision, retrieval_precisions, retrieval_video_precisions
from mvf.metrics.segmentation import boundary_errors, edit_score, segment_f1

__all__ = [
    "alignment_error",
    "alignment_error_pairs",
    "attention_auroc",
    "attention_average_precision",
    "attention_entropy",
    "attention_jaccard",
    "attention_lift",
    "attention_mass",
    "attention_overlap",
    "attention_set_size",
    "attention_steadiness",
    "boundary_errors",
    "count_correct",
    "density_share",
    "edit_score",
    "effective_share",
    "event_times",
    "kendall_tau",
    "kendall_tau_pairs",
    "labelled_frames",
    "patch_shares",
    "nearest_in_videos",
    "phase_classification",
    "phase_confusion",
    "phase_progression",
    "pointing_game",
    "predict_phases",
    "predict_progression",
    "progression_score",
    "region_area",
    "retrieval_precision",
    "retrieval_precisions",
    "retrieval_video_precisions",
    "segment_f1",
]
