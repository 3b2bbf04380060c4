"""Scores a reader can check: metrics of a case, summaries over cases."""

from dcd_ext.evaluation.case_metrics import EMPTY_RULE, LESION_RULE, METRICS, case_metrics, lesion_counts
from dcd_ext.evaluation.feature_maps import DetailMaps
from dcd_ext.evaluation.pool import ScoringPool
from dcd_ext.evaluation.record import count_flops, dataset_record, network_record
from dcd_ext.evaluation.scoring import prediction_path, score_file
from dcd_ext.evaluation.summary import NAN_RULE, class_mean, summarise

__all__ = [
    "EMPTY_RULE",
    "LESION_RULE",
    "METRICS",
    "NAN_RULE",
    "DetailMaps",
    "ScoringPool",
    "case_metrics",
    "class_mean",
    "count_flops",
    "dataset_record",
    "lesion_counts",
    "network_record",
    "prediction_path",
    "score_file",
    "summarise",
]
