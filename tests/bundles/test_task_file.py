"""A task file that contradicts itself is refused before anything is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from dcd_ext.bundles.sources import read_task_file
from dcd_ext.errors import UserError
from tests.conftest import ROOT, TASKS, read_json

# set by every shipped task, but with a default in base/train.json
OPTIONAL = {"iterations_per_epoch", "val_interval", "normalize_nonzero", "whole_volume"}


def _task(name: str = "brats24"):
    return read_json(ROOT / "bundle_src" / "tasks" / f"{name}.json")


@pytest.fixture
def check(tmp_path: Path) -> Callable[[object], object]:
    """Reads a task from a file."""

    def write_and_read(task: object) -> object:
        (tmp_path / "t.json").write_text(json.dumps(task), "utf-8")
        return read_task_file(tmp_path / "t.json")

    return write_and_read


@pytest.mark.parametrize("name", TASKS)
def test_shipped_tasks_pass(name: str) -> None:
    read_task_file(ROOT / "bundle_src" / "tasks" / f"{name}.json")


def test_what_every_shipped_task_has_is_demanded(check: Callable) -> None:
    """A key that the build begins to need is refused by name where it is missing, not by a KeyError."""
    tasks = [_task(name) for name in TASKS]
    for section in tasks[0]:
        for key in set.intersection(*(set(task[section]) for task in tasks)) - OPTIONAL:
            task = deepcopy(tasks[0])
            del task[section][key]
            with pytest.raises(UserError, match=f"t.json, {section} – expected '{key}', found none"):
                check(task)


@pytest.mark.parametrize(
    ("section", "key", "value", "text"),
    [
        ("train", None, None, "t.json – expected 'train', found none"),
        ("fragments", "mirror_axes", None, "t.json, fragments – expected 'mirror_axes', found none"),
        ("common", "features", [32, 64], "'features' contradicts .* expected 6 .one per entry of 'strides'., found 2"),
        ("common", "n_blocks", [1], "'n_blocks' contradicts .* expected 6 .* found 1"),
        ("common", "in_channels", 3, "'inputs' contradicts .* expected 3 .'in_channels' names., found 4"),
        ("common", "num_classes", 6, "'outputs' contradicts .* expected 6 .* found 5"),
        ("common", "pixdim", 1.0, "unusable task file – .*t.json, common.pixdim – expected a list, found 1.0"),
        ("common", "features", [32, "64"], r"common.features\[1\] – expected a whole number, found '64'"),
        ("common", "patch_size", [0, 32, 32], r"common.patch_size\[0\] – expected at least 1, found 0"),
        ("common", "strides", [[2, 2]] * 6, r"common.strides\[0\] – expected at least 3 entries, found \[2, 2\]"),
        ("fragments", "mirror_axes", [0, 3], r"fragments.mirror_axes\[1\] – expected one of 0, 1, 2, found 3"),
        ("common", "", -628, r"t.json, common – expected the name of a config entry, found ''"),
        ("train", "train::", {}, "t.json, train – expected the name of a config entry, found 'train::'"),
        ("distillation", "start", 1.5, "distillation.start – expected at most 1, found 1.5"),
        ("metadata", "inputs", "T1", "metadata.inputs – expected a list, found 'T1'"),
        ("common", "pixdim", [1.0], r"common.pixdim – expected at least 3 entries, found \[1.0\]"),
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
            "does not fit the strides along z – .*t.json – expected a side divisible by 32, found 100 – choose 96",
        ),
    ],
)
def test_a_contradiction_is_named(section: str, key: str | None, value: object, text: str, check: Callable) -> None:
    task = deepcopy(_task())
    if key is None:
        del task[section]
    elif value is None:
        del task[section][key]
    else:
        task[section][key] = value
    with pytest.raises(UserError, match=text):
        check(task)


@pytest.mark.parametrize("value", [None, 1, "x", [], [1]])
def test_any_json_is_refused_in_one_line(value: object, check: Callable) -> None:
    with pytest.raises(UserError, match="unusable task file – .*t.json – expected an object, found"):
        check(value)
