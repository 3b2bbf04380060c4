"""Check a task file before bundles are built: one mistyped number costs a training."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match

from dcd_ext.errors import UserError

_SCHEMA = json.loads(Path(__file__).with_name("task_schema.json").read_text("utf-8"))
_HELP = "see docs/add_a_task.md"


def check_task_file(task: Mapping[str, Any], path: Path) -> None:
    """Every entry is there and of its kind, and entries that say the same thing twice agree.

    Raises:
        UserError: on a missing, mistyped or contradictory entry.
    """
    error = best_match(Draft202012Validator(_SCHEMA).iter_errors(task))
    if error is not None:
        raise _unusable(error, path)
    common, about = task["common"], task["metadata"]
    stages = len(common["strides"])
    _agree(path, "features", stages, len(common["features"]), "one per entry of 'strides'")
    _agree(path, "n_blocks", stages, len(common["n_blocks"]), "one per entry of 'strides'")
    _agree(path, "inputs", common["in_channels"], len(about["inputs"]), "'in_channels' names")
    _agree(path, "outputs", common["num_classes"], len(about["outputs"]), "'num_classes' names")
    if task["fragments"].get("region_values") is None:  # several regions share a label value
        named = task["evaluate"]["class_names"]
        _agree(path, "class_names", about["outputs"][1:], named, "'outputs' without background")
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


def _unusable(error: ValidationError, path: Path) -> UserError:
    """What the schema finds, in our words."""
    where = list(error.absolute_path)
    if error.validator == "required":
        key = next(name for name in error.validator_value if name not in error.instance)
        expected = f"'{key}' in section '{where[0]}'" if where else f"a section '{key}'"
        return UserError("incomplete task", path, expected, "none", _HELP)
    expected = f"{error.validator} {json.dumps(error.validator_value)}"
    name = " ".join(map(str, where)) or "the file"
    return UserError(f"unusable entry: {name}", path, expected, repr(error.instance)[:80], _HELP)


def _agree(path: Path, key: str, expected: object, found: object, meaning: str) -> None:
    """Two numbers or lists of the file that have to be equal."""
    if expected != found:
        raise UserError(f"'{key}' contradicts the rest of the task", path, f"{expected} ({meaning})", found, _HELP)
