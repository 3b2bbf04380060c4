"""Read evaluated runs and make sure that they can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

__all__ = ["Run", "load_runs"]

_FORMAT = "dcd-metrics-1"
_REQUIRED = ("class_names", "nsd_tolerance_mm", "parameters", "seconds_per_case", "summary", "cases")
_SCORES = ("status", "dice", "hd95_mm", "nsd")


@dataclass(frozen=True)
class Run:
    """One evaluated network.

    Attributes:
        name: how the report calls it.
        path: its folder.
        metrics: content of ``metrics.json``.
        training: content of ``training.json``, or None.
    """

    name: str
    path: Path
    metrics: dict[str, Any]
    training: dict[str, Any] | None

    @property
    def cases(self) -> dict[str, Any]:
        """Case -> class -> scores."""
        return {case: entry["classes"] for case, entry in self.metrics["cases"].items()}

    @property
    def classes(self) -> list[str]:
        """Names of the foreground classes."""
        return list(self.metrics["class_names"])


def load_runs(arguments: Sequence[str]) -> list[Run]:
    """Read runs and refuse those that cannot be paired.

    Args:
        arguments: folders with ``metrics.json``, each written ``folder`` or ``name=folder``.

    Raises:
        UserError: for fewer than two runs, an incomplete one, or runs of different tasks, classes or cases.
    """
    if len(arguments) < 2:
        raise UserError("nothing to compare", "RUN...", "two folders or more", len(arguments), "name another run")
    pairs = [_split(argument) for argument in arguments]
    paths = [path.resolve() for _, path in pairs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError("run given twice", path, "each folder once", paths.count(path), "leave one out")
    runs = [Run(n, p, *_read(p)) for n, p in zip(_names(pairs), paths, strict=True)]
    for run in runs[1:]:
        _check_pair(runs[0], run)
    return runs


def _split(argument: str) -> tuple[str, Path]:
    """Name (may be empty) and folder; a folder whose own name has a ``=`` is a folder."""
    name, equals, path = argument.partition("=")
    return (name, Path(path)) if equals and not Path(argument).exists() else ("", Path(argument))


def _names(pairs: Sequence[tuple[str, Path]]) -> list[str]:
    """The last part of each path that tells the runs apart; ``eval`` in a bundle says nothing."""
    names = []
    for name, path in pairs:
        full = path.resolve()
        names.append(name or (full.parent.name if full.name == "eval" else full.name))
    for name in names:
        if names.count(name) > 1:
            raise UserError("two runs have one name", name, "different names", "the same", "write name=folder")
    return names


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    file = path / "metrics.json"
    if not file.is_file():
        found = "training.json only" if (path / "training.json").is_file() else "no such file"
        raise UserError("run is incomplete", path, "metrics.json", found, "run the bundle's 'evaluating' with it")
    metrics = _json(file)
    missing = [key for key in _REQUIRED if key not in metrics]
    if metrics.get("format") != _FORMAT or missing:
        found = f"{metrics.get('format')}" + (f" without {', '.join(missing)}" if missing else "")
        raise UserError("not a result of an evaluation", file, f"format {_FORMAT}", found, "evaluate the run again")
    if not metrics["cases"]:
        raise UserError("run is incomplete", file, "scored cases", "none", "evaluate the run again")
    for case, entry in metrics["cases"].items():
        for name in metrics["class_names"]:
            scores = entry.get("classes", {}).get(name, {})
            lacking = [key for key in _SCORES if key not in scores]
            if lacking:
                where = f"{file}, case {case}, class {name}"
                raise UserError("run is incomplete", where, lacking[0], "nothing", "evaluate the run again")
    training = path / "training.json"
    return metrics, _json(training) if training.is_file() else None


def _json(file: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError("duplicate case", file, f"'{key}' once", keys.count(key), "evaluate the run again")
        return dict(pairs)

    try:
        content = json.loads(file.read_text("utf-8"), object_pairs_hook=unique)
    except UserError:
        raise
    except (OSError, ValueError) as e:
        raise UserError("file cannot be read", file, "JSON", f"{type(e).__name__}: {e}", "evaluate again") from e
    if not isinstance(content, dict):
        raise UserError("file cannot be read", file, "a JSON object", type(content).__name__, "evaluate again")
    return content


def _check_pair(first: Run, other: Run) -> None:
    """Everything that would make a paired difference meaningless."""
    where = f"{first.name} and {other.name}"
    next_step = "compare runs of one task that were evaluated on one fold"
    for key, what in (
        ("task", "runs of different tasks"),
        ("class_names", "runs with different classes"),
        ("nsd_tolerance_mm", "runs with different NSD tolerances"),
    ):
        one, two = first.metrics.get(key), other.metrics.get(key)
        if one != two:
            raise UserError(what, where, one, two, next_step)
    only = sorted(set(first.cases) ^ set(other.cases))
    if only:
        owner = first.name if only[0] in first.cases else other.name
        found = f"{len(only)} in one only, e.g. {only[0]} in {owner}"
        raise UserError("runs with different cases", where, "the same cases", found, next_step)
