"""``bundle_src``: what bundles are built from, and how its fragments are merged.

Each bundle is complete and works when copied away alone, so what bundles share is written once, in ``bundle_src``:
``base`` (workflows), ``tasks`` (one small file per data set), ``roles`` (teacher, student, student_dcd) and ``methods``
(other distillation losses, overlays of the DCD student). The fragments are merged by the rules of MONAI's
``ConfigParser`` (``::`` addresses an entry, ``+`` extends one) and every ``%`` macro is replaced by what it names.
"""

import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

import dcd_ext
from dcd_ext.errors import UserError
from dcd_ext.readers import read_json

PACKAGE = Path(dcd_ext.__file__).parent
# the sources lie beside the package in a clone, and inside it in a wheel (see setup.py)
ROOT = PACKAGE / "_sources" if (PACKAGE / "_sources").is_dir() else PACKAGE.parent
BUNDLE_SRC = ROOT / "bundle_src"
_HELP = "see docs/add_a_task.md"


def shipped_tasks() -> list[str]:
    """Names of the tasks in ``bundle_src``; ``brats24.quickstart.json`` is an overlay of one."""
    return sorted(p.stem for p in (BUNDLE_SRC / "tasks").glob("*.json") if "." not in p.stem)


def roles() -> list[str]:
    """What a task's bundles are: student, student_dcd, teacher."""
    return sorted(p.stem for p in (BUNDLE_SRC / "roles").glob("*.json"))


def find_task(name: str) -> Path:
    """The task file that a path or the name of a shipped task means; one that cannot name bundles is refused."""
    path = BUNDLE_SRC / "tasks" / f"{name}.json" if name in shipped_tasks() else Path(name)
    if not path.is_file():
        expected = f"a task file or one of {', '.join(shipped_tasks())}"
        raise UserError("no such task", name, expected, "neither", _HELP)
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.json", path.name):
        raise UserError("unusable name", path, "letters, digits, '_', '-' and .json", path.name, "rename the file")
    return path


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
    """Refuse ``features``, ``n_blocks``, ``kd_stages`` and ``patch_size`` that do not fit the ``strides``."""
    stages = len(entries["strides"])
    for key in ("features", "n_blocks"):
        _agree(where, key, stages, len(entries[key]), "one per entry of 'strides'")
    if (deepest := max(entries.get("kd_stages", [0]))) >= stages:
        raise UserError("no such stage", f"{where}, kd_stages", f"0 to {stages - 1}", deepest, "see docs/ablations.md")
    for axis, side in enumerate(entries["patch_size"]):
        factor = math.prod(stride[axis] for stride in entries["strides"])
        if side % factor:
            what = f"the patch does not fit the strides along {'xyz'[axis]}"
            step = f"choose {max(1, round(side / factor)) * factor}, or fewer strides of 2"
            raise UserError(what, where, f"a side divisible by {factor}", side, step)


def _agree(where: object, key: str, expected: object, found: object, meaning: str) -> None:
    """Two numbers or lists of the file that have to be equal."""
    if expected != found:
        raise UserError(f"'{key}' contradicts the other entries", where, f"{expected} ({meaning})", found, _HELP)


def load(path: Path) -> dict[str, Any]:
    """One JSON fragment."""
    return ConfigParser.load_config_file(path)


def merge(*fragments: dict[str, Any]) -> dict[str, Any]:
    """Merge fragments from left to right and resolve their macros after each; an entry without a place is refused."""
    parser = ConfigParser({})
    for fragment in fragments:
        for key, value in deepcopy(fragment).items():
            try:
                merge_kv(parser, key, value)
            except (KeyError, ValueError, TypeError, IndexError) as e:  # MONAI has no error of its own for it
                raise UserError("config entry cannot be merged", key, "an entry of the base configs", e, _HELP) from e
        parser.resolve_macro_and_relative_ids()
    config: Any = parser.config
    return config


def prune(config: Any) -> Any:
    """Drop entries that a task switches off for good (``"_disabled_": true``) and the switch of those it keeps."""
    if isinstance(config, list):
        return [prune(v) for v in config if not (isinstance(v, dict) and v.get("_disabled_") is True)]
    if isinstance(config, dict):
        return {k: prune(v) for k, v in config.items() if not (k == "_disabled_" and v is False)}
    return config


def to_json(config: dict[str, Any]) -> str:
    """JSON for people: indented, but a list of numbers stays on one line."""
    text = json.dumps(config, indent=4, ensure_ascii=False)
    return re.sub(r"\[[-\d.,\s]+\]", lambda m: "[" + " ".join(m[0][1:-1].split()) + "]", text) + "\n"
