"""Build the Decathlon-style ``datalist.json`` that every bundle reads."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case
from dcd_ext.data.folds import assign_folds
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError

logger = logging.getLogger(__name__)


def portable_path(path: Path, output: Path) -> str:
    """The path to write into a data list that lies in the folder ``output``.

    Relative when the file lies inside ``output`` or inside its parent folder, so that the two can move together;
    absolute otherwise, so that the output can move alone.
    """
    # the file itself may be a link (git-annex, DVC): keep its own name, resolve only its folder
    file = path.parent.resolve() / path.name
    folder = output.resolve()
    # "../x" seen from a link to the folder would point elsewhere, therefore only for a folder reached without links
    beside = folder == Path(os.path.abspath(output)) and folder.parent != Path(folder.anchor)
    if file.is_relative_to(folder) or (beside and file.is_relative_to(folder.parent)):
        return Path(os.path.relpath(file, folder)).as_posix()
    return str(file)


def _entry(case: Case, output: Path) -> dict[str, Any]:
    """One item of the list; a single image is a string, as in the Decathlon."""
    images = [portable_path(image, output) for image in case.images]
    entry: dict[str, Any] = {"image": images[0] if len(images) == 1 else images}
    if case.label is not None:
        entry["label"] = portable_path(case.label, output)
    entry |= {"case": case.case, "subject": case.subject}
    return entry | {key: portable_path(path, output) for key, path in case.extra.items()}


def refuse_case_folders(cases: Sequence[Case], output: Path) -> None:
    """Refuse an output folder in which a case's name is a path: MONAI's ``load_decathlon_datalist`` makes it one."""
    for case in cases:
        if (output / case.case).exists():
            what, step = "the output folder contains a folder named as a case", "choose a new folder as --output"
            raise UserError(what, output / case.case, "an output folder of its own", output, step)


def build_datalist(
    cases: Sequence[Case], task: Task, output: Path, folds: int = 5, seed: int = 12345, **notes: Any
) -> dict[str, Any]:
    """Build the content of a ``datalist.json`` for the folder ``output``.

    Cases without a label become ``test``; ``notes`` are further top-level entries, such as ``grid``.
    Fewer than two ``folds`` are refused.
    """
    labelled = [case for case in cases if case.label is not None]
    numbers = assign_folds([case.subject for case in labelled], folds, seed)
    if 0 < len(set(numbers)) < folds:
        logger.warning("too few labelled subjects: %d of %d folds are empty", folds - len(set(numbers)), folds)
    training = [_entry(case, output) | {"fold": number} for case, number in zip(labelled, numbers, strict=True)]
    test = [_entry(case, output) for case in cases if case.label is None]
    return {
        "name": task.name,
        "task": task.name,
        "tensorImageSize": "3D",
        "modality": {str(channel): name for channel, name in enumerate(task.modalities)},
        "labels": {str(value): name for value, name in task.labels.items()},
        **notes,
        "folds": folds,
        "seed": seed,
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
