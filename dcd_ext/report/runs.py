"""Read evaluated runs and make sure that they can be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.evaluation import METRICS
from dcd_ext.readers import read_metrics, read_training


@dataclass(frozen=True)
class Run:
    """One evaluated network, or a method's: trained several times, it is compared by the means over the trainings."""

    name: str  # how the report calls it
    path: Path  # its folder
    metrics: dict[str, Any]  # content of metrics.json; of several trainings, the means of their cases
    training: dict[str, Any] | None  # content of training.json; of several, of the first
    trainings: tuple["Run", ...] = ()  # of a method that was trained more than once

    @cached_property
    def cases(self) -> dict[str, Any]:
        """Case -> class -> scores."""
        return {case: entry["classes"] for case, entry in self.metrics["cases"].items()}

    @property
    def classes(self) -> list[str]:
        return list(self.metrics["class_names"])


def load_runs(arguments: Sequence[str]) -> list[Run]:
    """Read folders with ``metrics.json``, each written ``folder`` or ``name=folder``, and refuse unpaired ones.

    Folders that are given the same name are trainings of one method, and become one run. Fewer than two runs are
    refused, an incomplete one, trainings of a method that are one, and runs of different tasks, classes or cases.
    """
    named = [(*_split(argument), _has_name(argument)) for argument in arguments]
    if twice := [path for path, count in Counter(path for _, path, _ in named).items() if count > 1]:
        raise UserError("run given twice", twice[0], next_step="leave one out")
    by_name: dict[str, list[Run]] = {}
    for name, path, _ in named:
        by_name.setdefault(name, []).append(Run(name, path, *_read(path)))
    for name, _, given in named:
        if not given and len(by_name[name]) > 1:
            step = "write name=folder; equal names, so given, are trainings of one method"
            raise UserError("two runs have one name", name, next_step=step)
    if len(by_name) < 2:
        raise UserError("nothing to compare", "RUN...", "runs of two names or more", len(by_name), "name another run")
    for name, group in by_name.items():
        weights = [digest for run in group if (digest := run.metrics.get("weights_sha256"))]
        if len(set(weights)) < len(weights):
            step = "train each with a --seed of its own, or leave one out"
            raise UserError("trainings of one method with the same weights", name, "others", weights[0][:16], step)
    runs = [run for group in by_name.values() for run in group]
    for run in runs[1:]:
        _check_pair(runs[0], run)
    return [merge_trainings(group) for group in by_name.values()]


def merge_trainings(group: Sequence[Run]) -> Run:
    """One run of several trainings of a method: each score the mean over those that count it."""
    first = group[0]
    if len(group) == 1:
        return first
    cases = {
        case: {"classes": {name: _mean_scores([run.cases[case][name] for run in group]) for name in first.classes}}
        for case in first.cases
    }
    seconds = float(np.mean([run.metrics["seconds_per_case"] for run in group]))
    metrics = {**first.metrics, "cases": cases, "summary": {}, "seconds_per_case": seconds}
    return Run(first.name, first.path, metrics, first.training, tuple(group))


def _mean_scores(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over trainings; the status is that of most of them."""
    keys = [key for key in METRICS if all(key in entry for entry in entries)]
    kept = {key: [entry[key] for entry in entries if entry[key] is not None] for key in keys}
    status = Counter(entry["status"] for entry in entries).most_common(1)[0][0]
    means = {key: float(np.mean(values)) if values else None for key, values in kept.items()}
    # of the entry's further numbers, what the truth says is the same in all
    return {**{k: v for k, v in entries[0].items() if k == "lesions_true"}, "status": status, **means}


def _has_name(argument: str) -> bool:
    """Whether it is ``name=folder``; a folder whose own name has a ``=`` is a folder."""
    return "=" in argument and not Path(argument).exists()


def _split(argument: str) -> tuple[str, Path]:
    """Name and folder; ``eval`` in a bundle says nothing."""
    name, _, folder = argument.partition("=") if _has_name(argument) else ("", "", argument)
    path = Path(folder).resolve()
    return name or (path.parent.name if path.name == "eval" else path.name), path


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Metrics and, where there is one, the training record of a run."""
    file, training = path / "metrics.json", path / "training.json"
    if not training.is_file():  # a run that was scored on several parts has a folder for each
        training = path.parent / "training.json"
    if not file.is_file():
        found = "training.json only" if training.is_file() else "no such file"
        raise UserError("run is incomplete", path, "metrics.json", found, "run the bundle's 'evaluating' with it")
    return read_metrics(file), read_training(training) if training.is_file() else None


def _check_pair(first: Run, other: Run) -> None:
    """Everything that would make a paired difference meaningless."""
    where = f"{first.name} and {other.name}"
    next_step = "compare runs of one task that were evaluated on one fold"
    for key, what in (("task", "tasks"), ("class_names", "classes"), ("nsd_tolerance_mm", "NSD tolerances")):
        one, two = first.metrics.get(key), other.metrics.get(key)
        if one != two:
            raise UserError(f"runs with different {what}", where, one, two, next_step)
    if only := sorted(set(first.cases) ^ set(other.cases)):
        owner = first.name if only[0] in first.cases else other.name
        found = f"{len(only)} in one only, e.g. {only[0]} in {owner}"
        raise UserError("runs with different cases", where, "the same cases", found, next_step)
