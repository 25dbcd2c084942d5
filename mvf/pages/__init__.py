"""What the notebooks show: a run's arrays, assembled into the figures and tables of `plotting`; one file a notebook."""

from mvf.pages.alignment import alignment_figure, check_alignment, transfer_figure, transfer_table
from mvf.pages.attention import attention_figure, attention_grid, teaser, temporal_figure, write_movie
from mvf.pages.probe import (
    confusion_figure,
    embedding_figure,
    of_action,
    phase_words,
    progression_figure,
    retrieval_figure,
    similarity_figure,
)
from mvf.pages.training import bank_table, coverage_table, model_table

__all__ = [
    "alignment_figure",
    "attention_figure",
    "attention_grid",
    "bank_table",
    "check_alignment",
    "confusion_figure",
    "coverage_table",
    "embedding_figure",
    "model_table",
    "of_action",
    "phase_words",
    "progression_figure",
    "retrieval_figure",
    "similarity_figure",
    "teaser",
    "temporal_figure",
    "transfer_figure",
    "transfer_table",
    "write_movie",
]
