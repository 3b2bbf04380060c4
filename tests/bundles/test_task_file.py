"""A task file that contradicts itself is refused before anything is built."""

from __future__ import annotations

import contextlib
from copy import deepcopy
from pathlib import Path

import pytest

from dcd_ext.bundles.task_file import check_task_file
from dcd_ext.errors import UserError
from tests.conftest import ROOT, TASKS, read_json

# set by every shipped task, but with a default in base/train.json
OPTIONAL = {"iterations_per_epoch", "val_interval", "normalize_nonzero", "whole_volume"}


def _task(name: str = "brats24"):
    return read_json(ROOT / "bundle_src" / "tasks" / f"{name}.json")


@pytest.mark.parametrize("name", TASKS)
def test_shipped_tasks_pass(name: str) -> None:
    check_task_file(_task(name), ROOT)


def test_what_every_shipped_task_has_is_demanded() -> None:
    """A key that the build begins to need is refused by name where it is missing, not by a KeyError."""
    tasks = [_task(name) for name in TASKS]
    for section in tasks[0]:
        for key in set.intersection(*(set(task[section]) for task in tasks)) - OPTIONAL:
            task = deepcopy(tasks[0])
            del task[section][key]
            with pytest.raises(UserError, match=f"expected '{key}' in section '{section}', found none"):
                check_task_file(task, ROOT)


@pytest.mark.parametrize(
    ("section", "key", "value", "text"),
    [
        ("train", None, None, "expected a section 'train', found none"),
        ("fragments", "mirror_axes", None, "expected 'mirror_axes' in section 'fragments', found none"),
        ("common", "features", [32, 64], "'features' contradicts .* expected 6 .one per entry of 'strides'., found 2"),
        ("common", "n_blocks", [1], "'n_blocks' contradicts .* expected 6 .* found 1"),
        ("common", "in_channels", 3, "'inputs' contradicts .* expected 3 .'in_channels' names., found 4"),
        ("common", "num_classes", 6, "'outputs' contradicts .* expected 6 .* found 5"),
        ("common", "pixdim", 1.0, 'unusable entry: common pixdim – t.json – expected type "array", found 1.0'),
        ("common", "features", [32, "64"], "unusable entry: common features 1 – .* found '64'"),
        ("common", "patch_size", [0, 32, 32], "unusable entry: common patch_size 0 – .* expected minimum 1, found 0"),
        ("common", "strides", [[2, 2]] * 6, "unusable entry: common strides . – .* expected minItems 3"),
        ("fragments", "mirror_axes", [0, 3], "unusable entry: fragments mirror_axes 1 – .* found 3"),
        ("distillation", "start", 1.5, "unusable entry: distillation start – .* expected maximum 1, found 1.5"),
        ("metadata", "inputs", "T1", "unusable entry: metadata inputs"),
        ("common", "pixdim", [1.0], "'pixdim' contradicts .* expected 3 .* found 1"),
        (
            "evaluate",
            "class_names",
            ["NETC", "SNFH", "RC", "ET"],
            r"'class_names' contradicts .* found \['NETC', 'SNFH', 'RC",
        ),
        (
            "common",
            "patch_size",
            [112, 160, 100],
            "does not fit the strides along z – t.json – expected a side divisible by 32, found 100 – choose 96",
        ),
    ],
)
def test_a_contradiction_is_named(section: str, key: str | None, value: object, text: str) -> None:
    task = deepcopy(_task())
    if key is None:
        del task[section]
    elif value is None:
        del task[section][key]
    else:
        task[section][key] = value
    with pytest.raises(UserError, match=text):
        check_task_file(task, "t.json")


def test_any_json_is_refused_in_one_line() -> None:
    """Whatever one entry is replaced by, the file passes or is refused: never a traceback of ours."""
    for section in _task():
        for key in (None, *_task()[section]):
            for value in (None, -1, 0.5, "x", [], {}, [[]], [None], [{"a": 1}], True, 10**400):
                task = _task()
                if key is None:
                    task[section] = value
                else:
                    task[section][key] = value
                with contextlib.suppress(UserError):
                    check_task_file(task, Path("t.json"))
    for value in (None, 1, "x", [], [1]):
        with pytest.raises(UserError, match='unusable entry: the file – t.json – expected type "object"'):
            check_task_file(value, Path("t.json"))
