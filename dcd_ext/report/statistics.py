"""Paired statistics from SciPy; Holm's correction and the test over trainings and cases are written out."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

from dcd_ext.evaluation.summary import mean_sem

RESAMPLES = 9999


def describe(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """``mean``, ``sem``, ``n`` and 95 % interval ``ci95`` of one value per case; None where they are too few."""
    return {**mean_sem(values), "ci95": bootstrap_interval(values, seed)}


def mean_sd(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard deviation and number of one value per training; the deviation is None for fewer than two."""
    kept = [v for v in values if v is not None]
    return {
        "mean": float(np.mean(kept)) if kept else None,
        "sd": float(np.std(kept, ddof=1)) if len(kept) > 1 else None,
        "n": len(kept),
    }


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> list[float] | None:
    """95 % interval of the mean, bias-corrected and accelerated (BCa), from ``scipy.stats.bootstrap``.

    The value itself, twice, if all are equal; None for fewer than two.
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
    """Two-sided p-values of two values per case: ``t_p`` of the paired t-test, ``wilcoxon_p`` of the signed-rank test.

    None for fewer than two pairs, 1 if no pair differs. ``t_p`` is None, too, where all pairs differ by the same: the
    t-test divides by the spread of the differences.
    """
    if len(one) < 2:
        return {"t_p": None, "wilcoxon_p": None}
    if np.array_equal(one, other):
        return {"t_p": 1.0, "wilcoxon_p": 1.0}
    differences = np.subtract(one, other)
    spread = np.ptp(differences) > 1e-9 * np.abs(differences).max()
    t_p = float(stats.ttest_rel(one, other).pvalue) if spread else None
    return {"t_p": t_p, "wilcoxon_p": float(stats.wilcoxon(one, other).pvalue)}


def trainings_test(one: np.ndarray, other: np.ndarray, fixed: bool = False) -> dict[str, Any]:
    """Test two methods, each trained several times, for a difference that holds for new trainings and new cases.

    Both are random factors. As in Clark's min F' (J Verbal Learn Verbal Behav 12, 335, 1973), the variance of the
    difference is that of a t-test over the trainings' means, their spread pooled over the two methods, plus that of a
    paired t-test over the cases' means; what both contain is counted twice. Two or three trainings make Satterthwaite's
    degrees of freedom too many, so the limit of t is Cochran's (Biometrics 20, 191, 1964): the limits of the two tests,
    weighted by their variances. Methods that are equal, also in the spread of their trainings, test different in at
    most the stated share of trials; docs/evaluate.md says in how many those of unequal spread do.

    Args:
        one: scores (trainings, cases) of a method.
        other: those of the other method on the same cases; the number of trainings may differ.
        fixed: ``one`` is a given network, of which no other training is meant: its trainings have no spread.

    Returns:
        ``trainings_p``, two-sided, and the 95 % interval ``ci95`` of ``one`` minus ``other``; None for fewer than four
        trainings in all (with one and two the test would not keep its level), three beside a fixed one, or two cases.
    """
    drawn, cases = [other] if fixed else [one, other], one.shape[1]
    freedom = sum(len(scores) - 1 for scores in drawn)
    if freedom < 2 or cases < 2:
        return {"trainings_p": None, "ci95": None}
    pooled = sum(float(((m - m.mean()) ** 2).sum()) for m in (s.mean(1) for s in drawn)) / freedom
    difference = one.mean(0) - other.mean(0)
    over_trainings, over_cases = (
        pooled * sum(1 / len(scores) for scores in drawn),
        float(difference.var(ddof=1)) / cases,
    )
    parts = ((freedom, over_trainings), (cases - 1, over_cases))
    mean, variance = float(difference.mean()), over_trainings + over_cases
    if variance == 0:
        return {"trainings_p": None if mean else 1.0, "ci95": [mean, mean]}

    def limit(p: float) -> float:
        return sum(part * float(stats.t.isf(p / 2, degrees)) for degrees, part in parts) / variance

    error = variance**0.5
    tiny = 1e-12  # a p-value between 0 and 1, where the limit is infinite and 0
    beyond = abs(mean) / error >= limit(tiny)
    p = tiny if beyond else optimize.brentq(lambda q: limit(q) - abs(mean) / error, tiny, 1)
    reach = limit(0.05) * error
    return {"trainings_p": float(p), "ci95": [mean - reach, mean + reach]}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the p-values of related tests; None stays None and does not count."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = adjusted[i] = max(largest, min(1.0, (len(known) - rank) * p))
    return adjusted
