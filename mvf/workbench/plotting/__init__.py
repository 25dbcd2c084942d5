"""Figures and tables, drawn from plain arrays.

Functions return a figure and keep no reference to it. A notebook shows the figure at the end of a cell, and
`save_figure` writes it as PNG and PDF at the size of a paper's column or page.

Example:
    >>> figure = plot_history([{"epoch": 1, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 3.0}])
    >>> len(figure.axes)
    3
"""

from mvf.workbench.plotting.alignment import plot_alignment, plot_transfer, transferred_accuracy
from mvf.workbench.plotting.attention import (
    AttentionBlock,
    plot_attention,
    plot_attention_grid,
    plot_teaser,
    plot_temporal_attention,
)
from mvf.workbench.plotting.deviation import FramePair, axis_bottom, draw_deviation, plot_deviation
from mvf.workbench.plotting.knockouts import knockouts_table, plot_knockouts
from mvf.workbench.plotting.localization import (
    attention_table,
    localization_differences_table,
    localization_table,
    map_name,
    plot_localization,
)
from mvf.workbench.plotting.movies import attention_movie, save_animation
from mvf.workbench.plotting.overlays import overlay, strongest_patches
from mvf.workbench.plotting.probe import (
    RetrievalRow,
    plot_embeddings,
    plot_progression,
    plot_retrieval,
    plot_similarity,
    plot_views,
)
from mvf.workbench.plotting.scores import (
    LivePlot,
    actions_table,
    folded_report,
    kinds_table,
    plot_confusion,
    plot_controls,
    plot_history,
    plot_label_fractions,
    plot_message,
    report_table,
    scores_table,
)
from mvf.workbench.plotting.style import COLUMN, PAGE, PaperFigure, paper_figure, phase_colours, save_figure
from mvf.workbench.plotting.table import MISSING, NOT_RUN, Folded, Table, cell, config_table, shapes_table
from mvf.workbench.plotting.trials import StudyPanel, TrialPanel, plot_study, plot_trials

__all__ = [
    "COLUMN",
    "MISSING",
    "NOT_RUN",
    "PAGE",
    "AttentionBlock",
    "Folded",
    "FramePair",
    "LivePlot",
    "PaperFigure",
    "RetrievalRow",
    "StudyPanel",
    "Table",
    "TrialPanel",
    "actions_table",
    "attention_table",
    "attention_movie",
    "axis_bottom",
    "cell",
    "config_table",
    "draw_deviation",
    "folded_report",
    "kinds_table",
    "localization_differences_table",
    "knockouts_table",
    "localization_table",
    "map_name",
    "overlay",
    "paper_figure",
    "phase_colours",
    "plot_alignment",
    "plot_attention",
    "plot_attention_grid",
    "plot_confusion",
    "plot_controls",
    "plot_deviation",
    "plot_embeddings",
    "plot_history",
    "plot_knockouts",
    "plot_label_fractions",
    "plot_localization",
    "plot_message",
    "plot_progression",
    "plot_retrieval",
    "plot_similarity",
    "plot_study",
    "plot_teaser",
    "plot_transfer",
    "plot_temporal_attention",
    "plot_trials",
    "plot_views",
    "report_table",
    "save_animation",
    "save_figure",
    "scores_table",
    "shapes_table",
    "strongest_patches",
    "transferred_accuracy",
]
