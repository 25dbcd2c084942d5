"""The protocol of the four tasks, with controls that tell whether the scores mean anything."""

from mvf.evaluation.external import score_embeddings
from mvf.evaluation.protocol import evaluate
from mvf.evaluation.report import read_report, write_report

__all__ = ["evaluate", "read_report", "score_embeddings", "write_report"]
