"""``bundle_src``: what bundles are built from, and how its fragments are merged.

Each bundle is complete and works when copied away alone, so what bundles share is written once, in ``bundle_src``:
``base`` (workflows), ``tasks`` (one small file per data set), ``roles`` (teacher, student, student_dcd) and ``methods``
(other distillation losses, overlays of the DCD student). The fragments are merged by the rules of MONAI's
``ConfigParser`` (``::`` addresses an entry, ``+`` extends one) and every ``%`` macro is replaced by what it names.
"""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

import dcd_ext
from dcd_ext.errors import UserError

PACKAGE = Path(dcd_ext.__file__).parent
# the sources lie beside the package in a clone, and inside it in a wheel (see setup.py)
ROOT = PACKAGE / "_sources" if (PACKAGE / "_sources").is_dir() else PACKAGE.parent
BUNDLE_SRC = ROOT / "bundle_src"


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
        raise UserError("no such task", name, expected, "neither", "see docs/add_a_task.md")
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.json", path.name):
        raise UserError("unusable name", path, "letters, digits, '_', '-' and .json", path.name, "rename the file")
    return path


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
                step = "see docs/add_a_task.md"
                raise UserError("config entry cannot be merged", key, "an entry of the base configs", e, step) from e
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
