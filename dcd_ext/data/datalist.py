"""Build the Decathlon-style ``datalist.json`` that every bundle reads: its entries, their folds, and parts of these.

The selection part is the fold that training holds out: it chooses the epoch, so its scores are too good. The test part
chooses nothing.
"""

import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case
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
    """The content of a ``datalist.json`` for the folder ``output``; fewer than two ``folds`` are refused.

    Cases without a label become ``test``; ``notes`` are further top-level entries, such as ``grid``.
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


def assign_folds(subjects: Sequence[str], folds: int = 5, seed: int = 12345) -> list[int]:
    """The fold, from 0, of each case; cases of one subject share it. Fewer than two ``folds`` are refused.

    Subjects are shuffled, then handed out from the one with most scans to the one with fewest, each to the fold with
    fewest cases so far. The order of the input does not matter.

    Example:
        >>> assign_folds(["a", "a", "b", "c"], folds=2)
        [0, 0, 1, 1]
    """
    if folds < 2:
        raise UserError("too few folds", "--folds", "2 or more", folds, "leave --folds out for 5")
    scans = Counter(subjects)
    order = sorted(scans)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda subject: -scans[subject])  # stable: the shuffle decides among equals
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for subject in order:
        fold_of[subject] = sizes.index(min(sizes))
        sizes[fold_of[subject]] += scans[subject]
    return [fold_of[subject] for subject in subjects]


def hold_out_test(content: dict[str, Any], fold: int) -> dict[str, Any]:
    """The data list with one fold, labels and all, as its test part; refused if either side would be empty."""
    training = [case for case in content["training"] if case["fold"] != fold]
    test = [{k: v for k, v in case.items() if k != "fold"} for case in content["training"] if case["fold"] == fold]
    _check_fold(content, "--test_fold", fold, test, training)
    return _with_parts(content, training, test)


def thin_training(content: dict[str, Any], selection_fold: int, share: float, seed: int) -> dict[str, Any]:
    """The data list with a seeded share of its training part; the selection fold, listed first, keeps all its cases."""
    if not 0 < share < 1:
        raise UserError("no share", "--training_share", "more than 0, less than 1", share, "leave it out for all cases")
    selection = [case for case in content["training"] if case["fold"] == selection_fold]
    others = [case for case in content["training"] if case["fold"] != selection_fold]
    random.Random(seed).shuffle(others)
    kept = sorted(others[: int(len(others) * share)], key=lambda case: case["case"])
    _check_fold(content, "--selection_fold", selection_fold, selection, kept)
    return _with_parts(content, selection + kept, content["test"])


def _check_fold(content: dict[str, Any], option: str, fold: int, inside: list[Any], outside: list[Any]) -> None:
    if not inside or not outside:
        folds = sorted({case["fold"] for case in content["training"]})
        found = f"{len(inside)} cases in fold {fold} and {len(outside)} to train on"
        raise UserError("a part without a case", option, f"one of the folds {folds}", found, "choose another fold")


def _with_parts(content: dict[str, Any], training: list[Any], test: list[Any]) -> dict[str, Any]:
    counts = {"numTraining": len(training), "numTest": len(test)}
    return {**content, **counts, "training": training, "test": test}
