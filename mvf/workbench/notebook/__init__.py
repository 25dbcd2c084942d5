"""Functions for the notebooks: their parameters, a session, and the figures and widgets of each."""

from mvf.workbench.notebook.align import alignment_figure, check_alignment, transfer_figure, transfer_table
from mvf.workbench.notebook.attention import (
    attention_figure,
    attention_grid,
    attention_videos,
    check_attention,
    teaser,
    temporal_figure,
    write_movie,
)
from mvf.workbench.notebook.browsers import (
    alignment_player,
    attention_browser,
    embedding_explorer,
    phase_labeler,
    retrieval_browser,
)
from mvf.workbench.notebook.parameters import read_parameters, run_config
from mvf.workbench.notebook.probe import (
    choose_probe,
    confusion_figure,
    embedding_figure,
    probe_actions,
    progression_figure,
    retrieval_figure,
    similarity_figure,
)
from mvf.workbench.notebook.session import (
    Session,
    embed_splits,
    open_session,
    report_on,
    stored_or_new_knock_outs,
    stored_or_new_report,
    summary,
)
from mvf.workbench.notebook.train import bank_table, coverage_table, model_table
from mvf.workbench.tables.draw import draw_tables
from mvf.workbench.tables.runs import copy_figures, plot_results, read_reports, runs_table, tables, write_tables

__all__ = [
    "Session",
    "alignment_figure",
    "alignment_player",
    "attention_browser",
    "attention_figure",
    "attention_grid",
    "attention_videos",
    "bank_table",
    "check_alignment",
    "check_attention",
    "choose_probe",
    "confusion_figure",
    "copy_figures",
    "coverage_table",
    "draw_tables",
    "embed_splits",
    "embedding_explorer",
    "embedding_figure",
    "model_table",
    "open_session",
    "phase_labeler",
    "plot_results",
    "probe_actions",
    "progression_figure",
    "read_parameters",
    "read_reports",
    "report_on",
    "retrieval_browser",
    "retrieval_figure",
    "run_config",
    "runs_table",
    "similarity_figure",
    "stored_or_new_knock_outs",
    "stored_or_new_report",
    "summary",
    "tables",
    "teaser",
    "temporal_figure",
    "transfer_figure",
    "transfer_table",
    "write_movie",
    "write_tables",
]
