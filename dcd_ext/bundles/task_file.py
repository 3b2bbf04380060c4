"""Read a task file before bundles are built: one mistyped number costs a training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.readers import read_json

_HELP = "see docs/add_a_task.md"


def read_task_file(path: Path) -> dict[str, Any]:
    """The content of a task file, in which every entry is there and of its kind and none contradicts another."""
    task = read_json(path, "task", "task file", _HELP)
    common, about = task["common"], task["metadata"]
    check_network(common, path)
    _agree(path, "inputs", common["in_channels"], len(about["inputs"]), "'in_channels' names")
    _agree(path, "outputs", common["num_classes"], len(about["outputs"]), "'num_classes' names")
    if task["fragments"].get("region_values") is None:  # several regions share a label value
        named = task["evaluate"]["class_names"]
        _agree(path, "class_names", about["outputs"][1:], named, "'outputs' without background")
    return task


def check_network(entries: Mapping[str, Any], where: object) -> None:
    """Refuse ``features``, ``n_blocks`` and sides of ``patch_size`` that do not fit the ``strides``, with what does."""
    stages = len(entries["strides"])
    for key in ("features", "n_blocks"):
        _agree(where, key, stages, len(entries[key]), "one per entry of 'strides'")
    for axis, side in enumerate(entries["patch_size"]):
        factor = math.prod(stride[axis] for stride in entries["strides"])
        if side % factor:
            raise UserError(
                f"the patch does not fit the strides along {'xyz'[axis]}",
                where,
                f"a side divisible by {factor}",
                side,
                f"choose {max(1, round(side / factor)) * factor}, or fewer strides of 2",
            )


def _agree(where: object, key: str, expected: object, found: object, meaning: str) -> None:
    """Two numbers or lists of the file that have to be equal."""
    if expected != found:
        raise UserError(f"'{key}' contradicts the other entries", where, f"{expected} ({meaning})", found, _HELP)
