"""Check a task file of ``bundle_src/tasks`` before bundles are built: one mistyped number costs a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

__all__ = ["check_task_file"]

_KEYS = {
    "common": (
        "in_channels",
        "num_classes",
        "features",
        "n_blocks",
        "strides",
        "patch_size",
        "pixdim",
        "reduction_factor",
        "min_features",
    ),
    "fragments": ("mirror_axes", "rotate_range"),
    "train": (),
    "evaluate": ("class_names", "nsd_tolerance_mm"),
    "distillation": ("kd_weight", "start", "ramp", "teacher_ckpt"),
    "metadata": (
        "title",
        "data_source",
        "data_type",
        "image_classes",
        "label_classes",
        "inputs",
        "outputs",
        "references",
    ),
    "readme": ("task_title", "task_name", "data", "data_license", "prepare"),
}
_HELP = "see docs/add_a_task.md"


def check_task_file(task: Mapping[str, Any], path: Path) -> None:
    """Every entry is there, and entries that say the same thing twice agree.

    Args:
        task: the parsed file.
        path: named in errors.

    Raises:
        UserError: on the first missing or contradictory entry.
    """
    for section, keys in _KEYS.items():
        entries = task.get(section)
        if not isinstance(entries, Mapping):
            raise UserError("incomplete task", path, f"a section '{section}'", "none", _HELP)
        for key in keys:
            if key not in entries:
                raise UserError("incomplete task", path, f"'{key}' in section '{section}'", "none", _HELP)
    common, about = task["common"], task["metadata"]
    stages = len(common["strides"])
    _agree(path, "features", stages, len(common["features"]), "one per entry of 'strides'")
    _agree(path, "n_blocks", stages, len(common["n_blocks"]), "one per entry of 'strides'")
    _agree(path, "inputs", common["in_channels"], len(about["inputs"]), "'in_channels' names")
    _agree(path, "outputs", common["num_classes"], len(about["outputs"]), "'num_classes' names")
    _agree(path, "class_names", about["outputs"][1:], task["evaluate"]["class_names"], "'outputs' without background")
    for key in ("patch_size", "pixdim"):
        _agree(path, key, 3, len(common[key]), "one number per axis x, y, z")
    for axis, side in enumerate(common["patch_size"]):
        factor = math.prod(stride[axis] for stride in common["strides"])
        if side % factor:
            raise UserError(
                f"the patch does not fit the strides along {'xyz'[axis]}",
                path,
                f"a side divisible by {factor}",
                side,
                f"choose {max(1, round(side / factor)) * factor}, or fewer strides of 2",
            )


def _agree(path: Path, key: str, expected: object, found: object, meaning: str) -> None:
    """Two numbers or lists of the file that have to be equal."""
    if expected != found:
        raise UserError(f"'{key}' contradicts the rest of the task", path, f"{expected} ({meaning})", found, _HELP)
