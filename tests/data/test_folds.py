"""Folds: reproducible, balanced, and never through a person."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from dcd_ext.data.datalist import assign_folds


def test_two_hundred_subjects_give_folds_of_forty() -> None:
    assert set(Counter(assign_folds([f"case{n}" for n in range(200)])).values()) == {40}


@pytest.mark.parametrize("seed", range(5))
def test_scans_of_a_subject_stay_together_and_folds_stay_balanced(seed: int) -> None:
    chance = random.Random(seed)
    subjects = [f"s{n}" for n in range(60) for _ in range(chance.choice((1, 1, 2, 5)))]
    folds = assign_folds(subjects, 5, seed)
    used = defaultdict(set)
    for subject, fold in zip(subjects, folds, strict=True):
        used[subject].add(fold)
    assert all(len(numbers) == 1 for numbers in used.values())
    sizes = Counter(folds).values()
    assert max(sizes) - min(sizes) <= 1


def test_order_of_the_input_does_not_matter_but_the_seed_does() -> None:
    subjects = [f"s{n}" for n in range(30)]
    first = dict(zip(subjects, assign_folds(subjects), strict=True))
    backwards = subjects[::-1]
    assert first == dict(zip(backwards, assign_folds(backwards), strict=True))
    assert first != dict(zip(subjects, assign_folds(subjects, seed=1), strict=True))


def test_few_subjects_fill_few_folds() -> None:
    assert assign_folds(["a"]) == [0]
    assert sorted(assign_folds(["a", "b", "c"])) == [0, 1, 2]


def test_one_fold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too few folds – --folds – expected 2 or more, found 1 –"):
        assign_folds(["a"], folds=1)
