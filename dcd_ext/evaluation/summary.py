"""Mean, standard error and counts over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["METRICS", "summarise"]

METRICS = ("dice", "hd95_mm", "nsd")


def summarise(cases: Sequence[Mapping[str, Mapping[str, Any]]], class_names: Sequence[str]) -> dict[str, Any]:
    """Summarise per-case metrics.

    Args:
        cases: results of :func:`dcd_ext.evaluation.case_metrics.case_metrics`.
        class_names: the foreground classes.

    Returns:
        For each class, and for ``mean`` over the classes of each case: mean and standard error of the mean (SEM, NaN
        becomes None) of every metric, the number of values ``n`` and the counts of empty, missed and false-alarm masks.
    """
    summary: dict[str, Any] = {}
    for name in class_names:
        entries = [case[name] for case in cases]
        summary[name] = {metric: _mean_sem([e[metric] for e in entries]) for metric in METRICS}
        for status in ("empty", "missed", "false_alarm"):
            summary[name][status] = sum(e["status"] == status for e in entries)
    summary["mean"] = {
        metric: _mean_sem([_mean_over_classes(case, class_names, metric) for case in cases]) for metric in METRICS
    }
    return summary


def _mean_over_classes(case: Mapping[str, Mapping[str, Any]], names: Sequence[str], metric: str) -> float | None:
    values = [case[name][metric] for name in names if case[name][metric] is not None]
    return float(np.mean(values)) if values else None


def _mean_sem(values: Sequence[float | None]) -> dict[str, Any]:
    kept = [v for v in values if v is not None]
    return {
        "mean": float(np.mean(kept)) if kept else None,
        "sem": float(stats.sem(kept)) if len(kept) > 1 else None,
        "n": len(kept),
    }
