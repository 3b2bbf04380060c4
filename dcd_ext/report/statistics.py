"""Paired statistics, all from SciPy; only Holm's correction is written out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dcd_ext.evaluation.summary import mean_sem

RESAMPLES = 9999


def describe(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Mean, standard error of the mean and 95 % bootstrap interval of one value per case.

    Returns:
        ``mean``, ``sem``, ``ci95`` (low, high) and ``n``; None where there are too few values.
    """
    return {**mean_sem(values), "ci95": bootstrap_interval(values, seed)}


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> list[float] | None:
    """95 % interval of the mean, bias-corrected and accelerated (BCa), from ``scipy.stats.bootstrap``.

    Returns:
        Low and high; the value itself if all are equal; None for fewer than two.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return [float(values[0])] * 2
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # an estimate without spread, in a sample of two or three, makes BCa undefined
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": 1000, "vectorized": True, "method": method}
            rng = np.random.default_rng(seed)
            interval = stats.bootstrap((values,), np.mean, random_state=rng, **options).confidence_interval
        if np.isfinite(interval).all():
            break
    return [float(interval.low), float(interval.high)]


def paired_tests(one: Sequence[float], other: Sequence[float]) -> dict[str, float | None]:
    """Paired t-test and Wilcoxon signed-rank test, both two-sided, of two values per case.

    Returns:
        ``t_p`` and ``wilcoxon_p``: None for fewer than two pairs, 1 if no pair differs. ``t_p`` is None, too, where all
        pairs differ by the same: the t-test divides by the spread of the differences.
    """
    if len(one) < 2:
        return {"t_p": None, "wilcoxon_p": None}
    if np.array_equal(one, other):
        return {"t_p": 1.0, "wilcoxon_p": 1.0}
    differences = np.subtract(one, other)
    spread = np.ptp(differences) > 1e-9 * np.abs(differences).max()
    t_p = float(stats.ttest_rel(one, other).pvalue) if spread else None
    return {"t_p": t_p, "wilcoxon_p": float(stats.wilcoxon(one, other).pvalue)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the p-values of related tests; None stays None and does not count."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = adjusted[i] = max(largest, min(1.0, (len(known) - rank) * p))
    return adjusted
