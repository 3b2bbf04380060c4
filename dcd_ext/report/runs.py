"""Read evaluated runs and make sure that they can be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

_FORMAT = "dcd-metrics-1"
_REQUIRED = ("class_names", "nsd_tolerance_mm", "parameters", "seconds_per_case", "summary", "cases")
_SCORES = ("status", "dice", "hd95_mm", "nsd")
_AGAIN = "evaluate the run again"


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
    metrics = _json(file)
    missing = [key for key in _REQUIRED if key not in metrics]
    if metrics.get("format") != _FORMAT or missing:
        found = f"{metrics.get('format')}" + (f" without {', '.join(missing)}" if missing else "")
        raise UserError("not a result of an evaluation", file, f"format {_FORMAT}", found, _AGAIN)
    if not metrics["cases"]:
        raise UserError("run is incomplete", file, "scored cases", "none", _AGAIN)
    for case, entry in metrics["cases"].items():
        for name in metrics["class_names"]:
            scores = entry.get("classes", {}).get(name, {})
            if lacking := [key for key in _SCORES if key not in scores]:
                where = f"{file}, case {case}, class {name}"
                raise UserError("run is incomplete", where, lacking[0], "nothing", _AGAIN)
    return metrics, _json(training) if training.is_file() else None


def _json(file: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise UserError(f"duplicate case {key}", file, next_step=_AGAIN)
        return dict(pairs)

    try:
        content = json.loads(file.read_text("utf-8"), object_pairs_hook=unique)
    except UserError:  # a ValueError, too
        raise
    except (OSError, ValueError) as e:
        raise UserError("file cannot be read", file, "JSON", f"{type(e).__name__}: {e}", _AGAIN) from e
    if not isinstance(content, dict):
        raise UserError("file cannot be read", file, "a JSON object", type(content).__name__, _AGAIN)
    return content


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
