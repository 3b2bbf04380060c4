"""Read evaluated runs and make sure that they can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.readers import read_metrics, read_training


@dataclass(frozen=True)
class Run:
    """One evaluated network."""

    name: str  # how the report calls it
    path: Path  # its folder
    metrics: dict[str, Any]  # content of metrics.json
    training: dict[str, Any] | None  # content of training.json

    @property
    def cases(self) -> dict[str, Any]:
        """Case -> class -> scores."""
        return {case: entry["classes"] for case, entry in self.metrics["cases"].items()}

    @property
    def classes(self) -> list[str]:
        """Names of the foreground classes."""
        return list(self.metrics["class_names"])


def load_runs(arguments: Sequence[str]) -> list[Run]:
    """Read folders with ``metrics.json``, each written ``folder`` or ``name=folder``, and refuse unpaired ones.

    Raises:
        UserError: for fewer than two runs, an incomplete one, or runs of different tasks, classes or cases.
    """
    if len(arguments) < 2:
        raise UserError("nothing to compare", "RUN...", "two folders or more", len(arguments), "name another run")
    pairs = [_split(argument) for argument in arguments]
    for values, what, step in (
        ([path for _, path in pairs], "run given twice", "leave one out"),
        ([name for name, _ in pairs], "two runs have one name", "write name=folder"),
    ):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise UserError(what, twice[0], next_step=step)
    runs = [Run(name, path, *_read(path)) for name, path in pairs]
    for run in runs[1:]:
        _check_pair(runs[0], run)
    return runs


def _split(argument: str) -> tuple[str, Path]:
    """Name and folder; a folder whose own name has a ``=`` is a folder, and ``eval`` in a bundle says nothing."""
    name, equals, folder = argument.partition("=")
    if not equals or Path(argument).exists():
        name, folder = "", argument
    path = Path(folder).resolve()
    return name or (path.parent.name if path.name == "eval" else path.name), path


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Metrics and, where there is one, the training record of a run."""
    file, training = path / "metrics.json", path / "training.json"
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
