"""Seeded cross-validation folds that never split a subject and differ by as few cases as subjects allow."""

import random
from collections import Counter
from collections.abc import Sequence

from dcd_ext.errors import UserError


def assign_folds(subjects: Sequence[str], folds: int = 5, seed: int = 12345) -> list[int]:
    """Give every case a fold; cases of one subject share it.

    Subjects are shuffled, then handed out from the one with most scans to the one with fewest, each to the fold with
    fewest cases so far. The order of the input does not matter.

    Returns:
        The fold, from 0, of each case.

    Raises:
        UserError: when ``folds`` is below 2.

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
