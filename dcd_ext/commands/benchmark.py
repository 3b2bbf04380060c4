"""Train and evaluate every (student, method, seed) of a suite by the bundles' own commands; finished runs are skipped.

A suite is a JSON file:
  bundles       folder of a bundle, with {role} where teacher, student or student_dcd stands
  dataset_dir   prepared data, and fold, the held-out fold
  score         what is evaluated: "selection" (the held-out fold), "test"
  options       config entries of all runs
  role_options  optional: those of one role, such as {"student": {...}, "student_dcd": {...}}
  teacher_seed  seed of the one teacher, trained first
  teacher_ckpt  optional: its weights, which are then scored and used, not trained
  seeds         numbers
  students      name -> config entries, such as {"r4": {}, "r8": {"reduction_factor": 8}}
  methods       name -> role (default student_dcd), config (a file of configs/methods), seeds, students, config entries
Results lie below OUTPUT/student/method/seed. The tables, OUTPUT/student_part.html, .md and .json, are written from
whatever runs are finished; --tables only writes them. Folders of one suite that were filled on several machines are
merged by copying them into each other.
"""

import argparse
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import Run, refuse_other_options, run_all, time_to_go
from dcd_ext.commands.common import add_jobs, raise_failures
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_atomically
from dcd_ext.readers import read_json
from dcd_ext.report import compare, load_runs, write_report
from dcd_ext.tables import to_text

logger = logging.getLogger(__name__)

EXAMPLE = "dcd benchmark suite.json --output runs/benchmark --methods plain dcd --seeds 1 2 --jobs 2"
_SECTIONS = {"selection": "validation", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", type=Path, metavar="SUITE.json", help="what to run, see above")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--students", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these")
    parser.add_argument("--tables", action="store_true", help="train and score nothing, only write the tables")
    add_jobs(parser, default=1)


def run(options: argparse.Namespace) -> int:
    suite = read_suite(options.suite)
    only = {key: getattr(options, key) for key in ("students", "methods", "seeds")}
    for key, chosen in only.items():
        unknown = [name for name in chosen or () if name not in suite[key]]
        if unknown:
            raise UserError(f"not in the suite's {key}", f"--{key}", _names(suite[key]), unknown[0], "correct it")
    runs = suite_runs(suite, options.output, **only)
    if not options.tables and (file := suite.get("teacher_ckpt")):
        _use_teacher(Path(file), options.output / "teacher" / f"seed{suite['teacher_seed']}")
    errors = {} if options.tables else run_all(runs, options.jobs)
    finished = sum(run.is_finished for run in runs)
    left = f": {time_to_go(runs, options.jobs)}" if finished < len(runs) else ""
    print(f"{finished} of {len(runs)} runs in {options.output} are finished{left}")
    write_tables(suite, options.output)
    raise_failures(errors, len(runs))
    return 0


def write_tables(suite: dict[str, Any], output: Path) -> None:
    """Compare what is finished of the whole suite: a page for each student and scored part.

    Raises:
        UserError: if a run in ``output`` is of another suite, or runs were scored on other cases.
    """
    runs = [run for run in suite_runs(suite, output) if run.is_scored]
    for run in runs:
        refuse_other_options(run)
    teachers = [f"teacher={run.folder}" for run in runs if run.folder.parent == output / "teacher"]
    plain = [name for name, entry in suite["methods"].items() if entry.get("role") == "student"]
    for student in suite["students"]:
        folders = [f"{r.folder.parent.name}={r.folder}" for r in runs if r.folder.parent.parent == output / student]
        names = {folder.partition("=")[0] for folder in [*teachers, *folders]}
        if len(names) < 2:
            print(f"{student}: fewer than two methods are finished, nothing to compare yet")
            continue
        baseline = next((name for name in plain if name in names), None)
        for part in suite["score"]:
            compared = load_runs([f"{folder}/{part}" for folder in [*teachers, *folders]])
            for scored in compared:  # the first records did not say it
                scored.metrics.setdefault("section", _SECTIONS[part])
            page = output / f"{student}_{part}.html"
            tables = write_report(compared, compare(compared, baseline), page, pictures=0)
            print(f"\n{student}, {part}\n{to_text(tables[0])}\n{page}, {page.with_suffix('.md').name} and .json")


def _use_teacher(weights: Path, folder: Path) -> None:
    """Put given weights where the teacher's training would have put its own."""
    if not weights.is_file():
        step = "correct 'teacher_ckpt' of the suite, or leave it out to train the teacher"
        raise UserError("no teacher", weights, "its weights", "a folder" if weights.is_dir() else "no such file", step)
    models, given = folder / "models", sha256(weights)
    there = models / "model.pt"
    if sha256(there) != given if there.is_file() else (folder / "checkpoint_last.pt").exists():
        step = "choose another --output, or delete the folder, and what was distilled from it"
        raise UserError("run with another teacher", folder, weights, "other weights", step)
    # the tasks of an array do this at once, and one may read what another copies
    if not there.is_file():
        write_atomically(there, lambda name: shutil.copyfile(weights, name))
    (models / "trained").touch()


def read_suite(path: Path) -> dict[str, Any]:
    """The content of a suite file, in which no entry is missing, mistyped or unknown."""
    suite: dict[str, Any] = read_json(path, "suite", "suite", "see dcd benchmark --help")
    for method, entry in suite["methods"].items():
        for key in ("seeds", "students"):
            if unknown := [name for name in entry.get(key, ()) if name not in suite[key]]:
                where = f"{path}, methods.{method}.{key}"
                step = "correct it, unless the suite was shortened: nothing is run for it"
                what = f"not in the suite's {key}"
                logger.warning("%s", UserError(what, where, _names(suite[key]), unknown[0], step))
    return suite


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def suite_runs(
    suite: dict[str, Any],
    output: Path,
    students: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
) -> list[Run]:
    """The teacher, if a method needs it, and the runs; seeds outermost, so that early results compare methods.

    ``None`` stands for all of the suite's.
    """
    teacher = output / "teacher" / f"seed{suite['teacher_seed']}"
    runs = []
    for seed in seeds or suite["seeds"]:
        for student in students or suite["students"]:
            for method in methods or suite["methods"]:
                entry = dict(suite["methods"][method])
                role, overlay = entry.pop("role", "student_dcd"), entry.pop("config", None)
                if seed in entry.pop("seeds", suite["seeds"]) and student in entry.pop("students", [student]):
                    folder = output / student / method / f"seed{seed}"
                    needs = teacher if role == "student_dcd" else None
                    options = {**suite["students"][student], **entry, "seed": seed}
                    runs.append(_run(suite, folder, role, overlay, options, needs))
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
    of_role = suite.get("role_options", {}).get(role, {})
    data = {"dataset_dir": Path(suite["dataset_dir"]), "fold": suite["fold"]}
    options = {**suite["options"], **of_role, **data, **entries}
    if teacher:
        options["teacher_ckpt"] = teacher / "models" / "model.pt"
    # evaluation in full precision, whatever the training did
    scoring = {"save_predictions": False, "amp": False}
    return Run(folder, bundle, files, options, {_SECTIONS[s]: s for s in suite["score"]}, scoring, teacher)
