"""The commands of a bundle's README: read them, and run them."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dcd_ext.errors import UserError
from dcd_ext.share.card import readme_commands

__all__ = ["command_problem", "run_commands"]

# options of ``monai.bundle run`` itself; all others are config entries
_OPTIONS = {"bundle_root", "config_file", "meta_file", "logging_file", "tracking", "args_file", "workflow_type"}
# one short pass through training, instead of hours
_SHORT = ["--max_epochs", "1", "--iterations_per_epoch", "1", "--val_interval", "1", "--num_workers", "0"]


def _config_files(options: dict[str, str]) -> list[str]:
    value = options.get("config_file", "")
    return list(ast.literal_eval(value)) if value.startswith("[") else [value]


def _split(command: str) -> tuple[str, dict[str, str]] | None:
    """Run id and options of a ``monai.bundle run`` command line; None for any other."""
    words = shlex.split(command)
    if "monai.bundle" not in words or words[words.index("monai.bundle") + 1] != "run":
        return None
    rest = words[words.index("monai.bundle") + 2 :]
    run_id = rest.pop(0) if rest and not rest[0].startswith("--") else "run"
    return run_id, dict(zip([w.removeprefix("--") for w in rest[::2]], rest[1::2], strict=False))


def command_problem(command: str, root: Path, packed: bool) -> str | None:
    """What keeps a command from running, judged by the files alone.

    Args:
        command: one command line.
        root: the bundle's folder.
        packed: whether commands are run in the bundle's folder, or in the collection's.
    """
    where = root if packed else root.parents[1]
    parts = _split(command)
    if parts is None:
        words = shlex.split(command)
        script = next((w for w in words if w.startswith("scripts/")), None)
        # a packed bundle's README names scripts of the collection, which are not here
        return f"no {script}" if script and not packed and not (where / script).is_file() else None
    run_id, options = parts
    merged: dict[str, object] = {}
    for file in _config_files(options):
        if not (where / file).is_file():
            return f"no {file}"
        merged.update(json.loads((where / file).read_text("utf-8")))
    if run_id not in merged:
        return f"no run id {run_id}"
    unknown = set(options) - _OPTIONS - set(merged)
    return f"no config entry {sorted(unknown)[0]}" if unknown else None


def run_commands(root: Path, dataset_dir: Path) -> Iterator[tuple[str, str]]:
    """Run every command of a packed bundle's README in a copy, training for one iteration.

    Args:
        root: the bundle's folder.
        dataset_dir: prepared data of the task, which takes the place of ``prepared/<task>``.

    Yields:
        Command, and what was done with it.

    Raises:
        UserError: if one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, root.name)
        shutil.copytree(root, copy)
        for command in readme_commands((root / "docs" / "README.md").read_text("utf-8")):
            words = shlex.split(command)
            parts = _split(command)
            if words[0] == "sha256sum":
                if shutil.which("sha256sum") is None:
                    yield command, "not run: no sha256sum on this system"
                    continue
            elif parts is None:
                yield command, "not run: it installs or prepares"
                continue
            else:
                needed = _teacher_missing(parts[0], copy)
                if needed:
                    yield command, f"not run: needs {needed}"
                    continue
                words = [str(dataset_dir.resolve()) if w.startswith("prepared/") else w for w in words]
                words += _SHORT if parts[0] == "training" else []
            _run(words, copy, command)
            yield command, "ran"


def _teacher_missing(run_id: str, root: Path) -> str | None:
    config = json.loads((root / "configs" / "train.json").read_text("utf-8"))
    return "the teacher's weights" if run_id == "training" and "teacher_ckpt" in config else None


def _run(words: list[str], cwd: Path, command: str) -> None:
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "torchrun":
        words[:1] = [sys.executable, "-m", "torch.distributed.run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=environment)
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
        raise UserError("README command fails", "docs/README.md", "exit code 0", lines or result.returncode, command)
