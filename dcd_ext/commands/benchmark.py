"""Train and evaluate every (student, method, seed) of a suite by the bundles' own commands; finished runs are skipped.

A suite is a JSON file:
  bundles       folder of a bundle, with {role} where teacher, student or student_dcd stands
  dataset_dir   prepared data, and fold, the held-out fold
  score         what is evaluated: "selection" (the held-out fold), "test"
  options       config entries of all runs
  teacher_seed  seed of the one teacher, trained first
  seeds         numbers
  students      name -> config entries, such as {"r4": {}, "r8": {"reduction_factor": 8}}
  methods       name -> role (default student_dcd), config (a file of configs/methods), seeds, students, config entries
Results lie below OUTPUT/student/method/seed.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import Run, run_all
from dcd_ext.commands.common import add_jobs, raise_failures
from dcd_ext.errors import UserError

EXAMPLE = "dcd benchmark suite.json --output runs/benchmark --methods plain dcd --seeds 1 2 --jobs 2"
_KEYS = {
    "bundles": str,
    "dataset_dir": str,
    "fold": int,
    "score": list,
    "options": dict,
    "teacher_seed": int,
    "seeds": list,
    "students": dict,
    "methods": dict,
}
_SECTIONS = {"selection": "validation", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", type=Path, metavar="SUITE.json", help="what to run, see above")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these")
    add_jobs(parser, default=1)


def run(options: argparse.Namespace) -> int:
    suite = read_suite(options.suite)
    for key in ("methods", "seeds"):
        chosen = getattr(options, key)
        unknown = [name for name in chosen or () if name not in suite[key]]
        if unknown:
            raise UserError(f"not in the suite's {key}", f"--{key}", _names(suite[key]), unknown[0], "correct it")
    runs = suite_runs(suite, options.output, options.methods or suite["methods"], options.seeds or suite["seeds"])
    raise_failures(run_all(runs, options.jobs), len(runs))
    print(f"{len(runs)} runs in {options.output}")
    return 0


def read_suite(path: Path) -> dict[str, Any]:
    """The content of a suite file, in which no entry is missing, mistyped or unknown."""
    try:
        suite: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise UserError("no suite", path, "JSON", f"{type(e).__name__}: {e}", "see dcd benchmark --help") from e
    found = suite if isinstance(suite, dict) else {}
    for key, kind in _KEYS.items():
        if not isinstance(found.get(key), kind):
            expected = f"'{key}' as {kind.__name__}"
            raise UserError("incomplete suite", path, expected, found.get(key), "see dcd benchmark --help")
    unknown = [key for key in found if key not in _KEYS] + [part for part in found["score"] if part not in _SECTIONS]
    if unknown:
        known = _names([*_KEYS, *_SECTIONS])
        raise UserError("unknown entry", path, known, unknown[0], "correct the spelling")
    return found


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def suite_runs(suite: dict[str, Any], output: Path, methods: Iterable[str], seeds: Iterable[int]) -> list[Run]:
    """The teacher, if a method needs it, and the runs; seeds outermost, so that early results compare methods."""
    teacher = output / "teacher" / f"seed{suite['teacher_seed']}"
    runs = []
    for seed in seeds:
        for student, entries in suite["students"].items():
            for method in methods:
                entry = dict(suite["methods"][method])
                role, overlay = entry.pop("role", "student_dcd"), entry.pop("config", None)
                if seed in entry.pop("seeds", suite["seeds"]) and student in entry.pop("students", [student]):
                    folder = output / student / method / f"seed{seed}"
                    needs = teacher if role == "student_dcd" else None
                    runs.append(_run(suite, folder, role, overlay, {**entries, **entry, "seed": seed}, needs))
    if any(r.teacher for r in runs):
        runs.insert(0, _run(suite, teacher, "teacher", None, {"seed": suite["teacher_seed"]}, None))
    return runs


def _run(
    suite: dict[str, Any], folder: Path, role: str, overlay: str | None, entries: dict[str, Any], teacher: Path | None
) -> Run:
    bundle = suite["bundles"].format(role=role)
    files = [f"{bundle}/configs/train.json"] + ([f"{bundle}/configs/methods/{overlay}.json"] if overlay else [])
    for file in files:
        if not Path(file).is_file():
            raise UserError("no such config", file, "a file", "none", "correct 'bundles' or 'methods' of the suite")
    options = {**suite["options"], "dataset_dir": suite["dataset_dir"], "fold": suite["fold"], **entries}
    if teacher:
        options["teacher_ckpt"] = teacher / "models" / "model.pt"
    # evaluation in full precision, whatever the training did
    scoring = {"save_predictions": False, "amp": False}
    return Run(folder, bundle, files, options, {_SECTIONS[s]: s for s in suite["score"]}, scoring, teacher)
