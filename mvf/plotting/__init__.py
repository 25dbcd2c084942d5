"""Every figure and table, from plain arrays: what the notebooks import.

A figure is returned, never shown or kept: it shows itself when a notebook cell ends in it, and `save_figure` writes it
as PNG and PDF at the size of a paper's column or page.

Example:
    >>> figure = plot_history([{"epoch": 1, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 3.0}])
    >>> len(figure.axes)
    3
"""

from mvf.plotting.attention import overlay, plot_attention, save_animation, strongest_patches
from mvf.plotting.curves import (
    LivePlot,
    plot_confusion,
    plot_controls,
    plot_history,
    plot_label_fractions,
    plot_message,
)
from mvf.plotting.frames import RetrievalRow, plot_retrieval, plot_views
from mvf.plotting.probe import alignment_path, plot_embeddings, plot_phase_ribbons, plot_progression, plot_similarity
from mvf.plotting.report import actions_table, kinds_table, localization_table, report_table, scores_table
from mvf.plotting.style import COLUMN, PAGE, PaperFigure, paper_figure, phase_colours, save_figure
from mvf.plotting.tables import MISSING, NOT_RUN, Table, cell, config_table, shapes_table
from mvf.plotting.trials import TrialPanel, plot_trials

__all__ = [
    "COLUMN",
    "MISSING",
    "NOT_RUN",
    "PAGE",
    "LivePlot",
    "PaperFigure",
    "RetrievalRow",
    "Table",
    "TrialPanel",
    "actions_table",
    "alignment_path",
    "cell",
    "config_table",
    "kinds_table",
    "localization_table",
    "overlay",
    "paper_figure",
    "phase_colours",
    "plot_attention",
    "plot_confusion",
    "plot_controls",
    "plot_embeddings",
    "plot_history",
    "plot_label_fractions",
    "plot_message",
    "plot_phase_ribbons",
    "plot_progression",
    "plot_retrieval",
    "plot_similarity",
    "plot_trials",
    "plot_views",
    "report_table",
    "save_animation",
    "save_figure",
    "scores_table",
    "shapes_table",
    "strongest_patches",
]
