"""Mean, standard error and counts over cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from dcd_ext.evaluation.case_metrics import METRICS

NAN_RULE = (
    "nan_excluded is the convention of MONAI's defaults, for comparison only: hd95_mm leaves out missed and "
    "false-alarm masks, dice leaves out false alarms, and so their means improve with every miss"
)

Case = Mapping[str, Mapping[str, Any]]


def summarise(cases: Sequence[Case], class_names: Sequence[str]) -> dict[str, Any]:
    """Summarise the results of :func:`dcd_ext.evaluation.case_metrics.case_metrics`.

    Returns:
        For each class, and for ``mean`` over the classes of each case: mean and standard error of the mean (SEM, None
        for fewer than two values) of every metric and the number of values ``n``, the same under ``nan_excluded``
        (:data:`NAN_RULE`), and the counts of empty, missed and false-alarm masks.
    """
    summary: dict[str, Any] = {}
    for name in (*class_names, "mean"):
        names = class_names if name == "mean" else [name]
        summary[name] = {
            key: {
                **mean_sem([class_mean(case, names, key) for case in cases]),
                "nan_excluded": mean_sem([class_mean(case, names, key, metric.nan_status) for case in cases]),
            }
            for key, metric in METRICS.items()
        }
        for status in ("empty", "missed", "false_alarm"):
            summary[name][status] = sum(case[n]["status"] == status for case in cases for n in names)
    return summary


def class_mean(case: Case, names: Sequence[str], metric: str, without: Sequence[str] = ()) -> float | None:
    """Mean of a metric over the classes of one case, or None if none counts; a status in ``without`` does not."""
    values = [case[n][metric] for n in names if case[n][metric] is not None and case[n]["status"] not in without]
    return float(np.mean(values)) if values else None


def mean_sem(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard error of the mean and number of the values that are not None; None where they are too few."""
    kept = [v for v in values if v is not None]
    return {
        "mean": float(np.mean(kept)) if kept else None,
        "sem": float(stats.sem(kept)) if len(kept) > 1 else None,
        "n": len(kept),
    }
