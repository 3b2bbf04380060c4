"""Scores a reader can check: metrics of a case, summaries over cases."""

from dcd_ext.evaluation.case_metrics import EMPTY_RULE, case_metrics
from dcd_ext.evaluation.summary import METRICS, summarise

__all__ = ["EMPTY_RULE", "METRICS", "case_metrics", "summarise"]
