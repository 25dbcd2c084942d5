"""Widgets that show computed arrays in a notebook."""

from mvf.workbench.widgets.alignment import AlignmentPlayer
from mvf.workbench.widgets.attention import AttentionBrowser
from mvf.workbench.widgets.explorer import EmbeddingExplorer
from mvf.workbench.widgets.labeler import PhaseLabeler
from mvf.workbench.widgets.retrieval import RetrievalBrowser

__all__ = ["AlignmentPlayer", "AttentionBrowser", "EmbeddingExplorer", "PhaseLabeler", "RetrievalBrowser"]
