"""The commands of a bundle's README: read them, and run them."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dcd_ext.bundles.card import readme_commands
from dcd_ext.errors import UserError

__all__ = ["command_problem", "run_commands"]

# options of ``monai.bundle run`` itself; all others are config entries
_OPTIONS = {"bundle_root", "config_file", "meta_file", "logging_file", "tracking", "args_file", "workflow_type"}
_RUN = re.compile(
    r"(?:python|torchrun(?: --standalone| --nnodes=\d+| --nproc_per_node=\d+)*) -m monai\.bundle run(?: |$)"
)
# one short pass through training, instead of hours
_SHORT = ["--max_epochs", "1", "--iterations_per_epoch", "1", "--val_interval", "1", "--num_workers", "0"]


def _config_files(options: dict[str, str]) -> list[str]:
    value = options.get("config_file", "")
    return list(ast.literal_eval(value)) if value.startswith("[") else [value]


def _split(command: str) -> tuple[str, dict[str, str]] | None:
    """Run id and options of a ``monai.bundle run`` command line, and of nothing else; None for any other line."""
    match = _RUN.match(command)
    if match is None:
        return None
    rest = shlex.split(command[match.end() :])
    run_id = rest.pop(0) if rest and not rest[0].startswith("--") else "run"
    return run_id, dict(zip([w.removeprefix("--") for w in rest[::2]], rest[1::2], strict=False))


def command_problem(command: str, root: Path, packed: bool) -> str | None:
    """What keeps a command from running, judged by the files alone.

    Args:
        command: one command line.
        root: the bundle's folder.
        packed: whether commands are run in the bundle's folder, or in the collection's.
    """
    collection = None if packed else _collection(root)
    parts = _split(command)
    if parts is None:
        script = next((w for w in shlex.split(command) if w.startswith("scripts/")), None)
        # a bundle alone names scripts of the collection, which are not here
        return f"no {script}" if script and collection and not (collection / script).is_file() else None
    run_id, options = parts
    merged: dict[str, object] = {}
    for file in _config_files(options):
        inside = file if packed else file.removeprefix(f"bundles/{root.name}/")
        if Path(inside).is_absolute() or ".." in Path(inside).parts or not (root / inside).is_file():
            return f"no {file}"
        merged.update(json.loads((root / inside).read_text("utf-8")))
    if run_id not in merged:
        return f"no run id {run_id}"
    for key, value in options.items():
        if key not in _OPTIONS and key not in merged:
            return f"no config entry {key}"
        if value.startswith(("$", "%")):  # MONAI would evaluate it
            return f"an expression as --{key}"
    return None


def _collection(root: Path) -> Path | None:
    """The collection a bundle lies in; None for one that was copied away alone."""
    folder = root.resolve().parents[1]
    return folder if (folder / "bundle_src").is_dir() and root.resolve().parent.name == "bundles" else None


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
