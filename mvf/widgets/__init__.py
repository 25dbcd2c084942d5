"""Widgets for notebooks: arrays already computed, shown live in the page."""

from mvf.widgets.alignment import AlignmentPlayer
from mvf.widgets.attention import AttentionBrowser
from mvf.widgets.explorer import EmbeddingExplorer
from mvf.widgets.labeler import PhaseLabeler
from mvf.widgets.retrieval import RetrievalBrowser

__all__ = ["AlignmentPlayer", "AttentionBrowser", "EmbeddingExplorer", "PhaseLabeler", "RetrievalBrowser"]
