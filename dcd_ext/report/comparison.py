"""Everything the report says in numbers, as one dictionary."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.evaluation import EMPTY_RULE, LESION_RULE, METRICS, class_mean
from dcd_ext.report.runs import Run
from dcd_ext.report.statistics import describe, holm, mean_sd, paired_tests, trainings_test


def pick(runs: Sequence[Run], wanted: str | None, default: str) -> str | None:
    """The name of a run: the wanted one, refused if it is not there, or the default if that is."""
    names = [run.name for run in runs]
    if wanted is not None and wanted not in names:
        raise UserError("no such run", wanted, f"one of {', '.join(names)}", wanted, "name one of the compared runs")
    return wanted or (default if default in names else None)


def score(run: Run, case: str, name: str, metric: str) -> float | None:
    """One score; ``mean`` is the mean over the classes of the case, None is an excluded (empty) mask."""
    classes = run.cases[case]
    return class_mean(classes, run.classes if name == "mean" else [name], metric)


def compare(
    runs: Sequence[Run], baseline: str | None = None, teacher: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compare runs case by case.

    Args:
        baseline: the run whose differences are tested; default ``student``, else the first.
        teacher: the run that ends the gap of which shares are given; default ``teacher``, if there is one.
        seed: of the bootstrap.

    Returns:
        ``runs`` (cost of each) and ``results``: metric -> class -> run -> mean, SEM, interval, difference, tests.
    """
    base = pick(runs, baseline, "student") or runs[0].name
    top = pick(runs, teacher, "teacher")
    first, metrics = runs[0], _metrics(runs)
    names = [*first.classes, "mean"] if len(first.classes) > 1 else first.classes
    return {
        "format": "dcd-comparison-1",
        "task": first.metrics.get("task"),
        "fold": first.metrics.get("fold"),
        "part": _part(first.metrics),
        "several_trainings": any(run.trainings for run in runs),
        "cases": sorted(first.cases),
        "classes": names,
        "metrics": metrics,
        "baseline": base,
        "teacher": top if top != base else None,
        "nsd_tolerance_mm": first.metrics["nsd_tolerance_mm"],
        "empty_rule": EMPTY_RULE,
        "lesion_rule": LESION_RULE if "lesion_f1" in metrics else None,
        "seed": seed,
        "runs": {run.name: _cost(run) for run in runs},
        "results": {m: {n: _result(runs, n, m, base, top, seed) for n in names} for m in metrics},
    }


def _part(metrics: dict[str, Any]) -> str:
    """What the cases were to the trainings."""
    fold, section = metrics.get("fold"), metrics.get("section")
    if section == "test":
        return "test part, which chose nothing"
    chosen = "selection scores: it also chose the epoch" if section else "selection scores if it also chose the epoch"
    return f"fold {fold} ({chosen})"


def _metrics(runs: Sequence[Run]) -> list[str]:
    """Metrics that every run has; lesions only where a tenth of the true masks has several."""
    entries = [entry for run in runs for case in run.cases.values() for entry in case.values()]
    present = [m for m in METRICS if all(m in entry for entry in entries)]
    counts = [n for n in (entry.get("lesions_true", 0) for entry in entries) if n > 0]
    several = sum(n > 1 for n in counts)
    return [m for m in present if m != "lesion_f1" or several > len(counts) / 10]


def _cost(run: Run) -> dict[str, Any]:
    m, training = run.metrics, run.training or {}
    epochs = training.get("epochs", [])
    trainings = run.trainings or (run,)
    statuses = [entry["status"] for r in trainings for case in r.cases.values() for entry in case.values()]
    return {
        "trainings": len(trainings),
        "parameters": m["parameters"],
        "flops_per_patch": m.get("flops_per_patch"),
        "patch": m.get("patch"),
        "seconds_per_case": m["seconds_per_case"],
        "device": m.get("environment", {}).get("device"),
        "training_seconds": mean_sd([(r.training or {}).get("seconds") for r in trainings])["mean"],
        "cpu_seconds": mean_sd([(r.training or {}).get("cpu_seconds") for r in trainings])["mean"],
        "epochs": epochs[-1]["epoch"] if epochs else None,
        "weights_sha256": m.get("weights_sha256"),
        # per training
        **{status: statuses.count(status) / len(trainings) for status in ("empty", "missed", "false_alarm")},
    }


def _result(runs: Sequence[Run], name: str, metric: str, base: str, top: str | None, seed: int) -> dict[str, Any]:
    """One class and metric: run -> numbers."""
    cases = sorted(runs[0].cases)
    values = {run.name: [score(run, case, name, metric) for case in cases] for run in runs}
    result: dict[str, Any] = {}
    for run in runs:
        conventional = run.metrics["summary"].get(name, {}).get(metric, {}).get("nan_excluded")
        kept = [v for v in values[run.name] if v is not None]
        result[run.name] = {**describe(kept, seed), "nan_excluded": conventional}
        if run.trainings:
            means = [mean_sd([score(r, case, name, metric) for case in cases])["mean"] for r in run.trainings]
            result[run.name]["trainings"] = mean_sd(means)
    others = [run.name for run in runs if run.name != base]
    by_name = {run.name: run for run in runs}
    for other in others:
        scores = [_training_scores(by_name[n], cases, name, metric) for n in (other, base)]
        counts = np.isfinite(np.concatenate(scores))
        # a case that one of the trainings excludes has no pair
        one, two = (s[:, counts.all(0)] for s in scores)
        difference = {"unpaired": int((counts.any(0) & ~counts.all(0)).sum()), **_difference(one, two, seed)}
        if by_name[other].trainings or by_name[base].trainings:
            difference["ci95_cases"] = difference["ci95"]
            # all are distilled from this one teacher
            given = other == top and not by_name[other].trainings
            difference.update(trainings_test(one, two, given))
        result[other]["difference"] = {"trainings_p": None, **difference}
    for test in ("t_p", "wilcoxon_p", "trainings_p"):
        adjusted = holm([result[other]["difference"][test] for other in others])
        for other, p in zip(others, adjusted, strict=True):
            result[other]["difference"][f"{test}_holm"] = p
    for other in others:
        if top is not None and top not in (other, base):
            gap = result[top]["difference"]
            # of the cases alone, where the trainings are too few
            interval = gap["ci95"] or gap.get("ci95_cases")
            clear = interval is not None and (interval[0] > 0 if METRICS[metric].higher_is_better else interval[1] < 0)
            # noise has no shares
            result[other]["gap_recovered"] = _gap(*(values[n] for n in (other, base, top))) if clear else None
    return result


def _training_scores(run: Run, cases: Sequence[str], name: str, metric: str) -> np.ndarray:
    """(trainings, cases), NaN for an excluded mask."""
    scores = [[score(r, case, name, metric) for case in cases] for r in run.trainings or (run,)]
    return np.array(scores, float)


def _difference(one: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    """Paired difference of the means over trainings, from scores (trainings, cases)."""
    means = [scores.mean(0).tolist() for scores in (one, other)]
    return {**describe([a - b for a, b in zip(*means, strict=True)], seed), **paired_tests(*means)}


def _gap(here: Sequence[float | None], base: Sequence[float | None], top: Sequence[float | None]) -> float | None:
    """Share of the way from baseline to teacher over the cases that all three count; None where there is no way."""
    triples = [t for t in zip(here, base, top, strict=True) if None not in t]
    if not triples:
        return None
    at, start, end = np.mean(np.array(triples, float), axis=0)
    return float((at - start) / (end - start)) if end != start else None
