"""Seeded cross-validation folds that never split a subject, and the parts of a data list made from them.

The selection part is the fold that training holds out: it chooses the epoch, so its scores are too good. The test part
chooses nothing.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dcd_ext.errors import UserError


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
