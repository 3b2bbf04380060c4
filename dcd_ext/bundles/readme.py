"""Static check of the commands in a bundle's README: none of them is run."""

import ast
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from dcd_ext.bundles.sums import SUMS

# options of ``monai.bundle run`` itself; all others are config entries
_OPTIONS = {"bundle_root", "config_file", "meta_file", "logging_file", "tracking", "args_file", "workflow_type"}
_FILES = ("config_file", "meta_file", "logging_file", "args_file")
_RUN = re.compile(
    r"(?:python|torchrun(?: --standalone| --nnodes=\d+| --nproc_per_node=\d+)*) -m monai\.bundle run(?: |$)"
)
_INSTALL = re.compile(r"python -m pip install( [\w.-]+(==[\w.]+)?)+")


def command_problem(command: str, root: Path, packed: bool) -> str | None:
    """What keeps a command line from running, in the bundle's folder if packed, else in the collection's."""
    if match := _RUN.match(command):
        return _run_problem(command[match.end() :], root, "" if packed else f"bundles/{root.name}/")
    words = shlex.split(command)
    if words[0] == "dcd":
        known = words[1:] and re.fullmatch(r"[a-z-]+", words[1])
        module = f"dcd_ext.commands.{words[1].replace('-', '_')}" if known else ""
        return None if module and importlib.util.find_spec(module) else f"no command {' '.join(words[:2])}"
    if words[:2] == ["sha256sum", "-c"]:
        return None if words[2:] == [SUMS] and (root / SUMS).is_file() else f"no {' '.join(words[2:])}"
    return None if _INSTALL.fullmatch(command) else f"an unknown program {words[0]}"


def _run_problem(arguments: str, root: Path, prefix: str) -> str | None:
    """Of ``monai.bundle run``: files, run id and config entries that do not exist."""
    words = shlex.split(arguments)
    run_id = words.pop(0) if words and not words[0].startswith("--") else "run"
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        return f"options and values of {arguments!r} do not pair up"
    options = [(name.removeprefix("--"), value) for name, value in zip(words[::2], words[1::2], strict=True)]
    merged: dict[str, Any] = {}
    for name, value in options:
        if value.startswith(("$", "%")):  # MONAI would evaluate it
            return f"an expression as --{name}"
        if name == "bundle_root" and value.rstrip("/") != (prefix.rstrip("/") or "."):
            return f"another bundle {value}"
        if name not in _FILES:
            continue
        for file in ast.literal_eval(value) if value.startswith("[") else [value]:
            inside = Path(file.removeprefix(prefix))
            if inside.is_absolute() or ".." in inside.parts or not (root / inside).is_file():
                return f"no {file}"
            if name == "config_file":
                merged.update(json.loads((root / inside).read_text("utf-8")))
    if run_id not in merged:
        return f"no run id {run_id}"
    parser = ConfigParser(merged)
    missing = [name for name, _ in options if name not in _OPTIONS and name not in parser]
    return f"no config entry {missing[0]}" if missing else None
