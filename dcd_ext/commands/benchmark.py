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
import shutil
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import refuse_other_options, run_all, time_to_go
from dcd_ext.bundles.suites import SECTIONS, read_suite, suite_runs
from dcd_ext.commands.common import add_jobs, raise_failures
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_atomically
from dcd_ext.report import compare, load_runs, write_report
from dcd_ext.tables import to_text

EXAMPLE = "dcd benchmark suite.json --output runs/benchmark --methods plain dcd --seeds 1 2 --jobs 2"


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
            known = ", ".join(map(str, suite[key]))
            raise UserError(f"not in the suite's {key}", f"--{key}", known, unknown[0], "correct it")
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
                scored.metrics.setdefault("section", SECTIONS[part])
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
