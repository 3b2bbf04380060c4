"""The suites of ``dcd benchmark``: their file, and the runs that it stands for."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import Run
from dcd_ext.errors import UserError
from dcd_ext.readers import read_json

logger = logging.getLogger(__name__)
# a part of the data as a suite calls it, and the section of a data list that it is
SECTIONS = {"selection": "validation", "test": "test"}


def read_suite(path: Path) -> dict[str, Any]:
    """The content of a suite file, in which no entry is missing, mistyped or unknown."""
    suite: dict[str, Any] = read_json(path, "suite", "suite", "see dcd benchmark --help")
    for method, entry in suite["methods"].items():
        for key in ("seeds", "students"):
            if unknown := [name for name in entry.get(key, ()) if name not in suite[key]]:
                where = f"{path}, methods.{method}.{key}"
                step = "correct it, unless the suite was shortened: nothing is run for it"
                what = f"not in the suite's {key}"
                logger.warning("%s", UserError(what, where, ", ".join(map(str, suite[key])), unknown[0], step))
    return suite


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
    return Run(folder, bundle, files, options, {SECTIONS[s]: s for s in suite["score"]}, scoring, teacher)
