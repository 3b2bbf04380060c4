"""Export to TorchScript: traced by MONAI's ``ckpt_export``, then freed of what only this machine knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dcd_ext.errors import UserError
from dcd_ext.share.folder import BundleFolder

__all__ = ["export_torchscript", "load_torchscript", "run_monai", "strip_debug_records"]


def run_monai(*arguments: str, cwd: Path) -> str:
    """``python -m monai.bundle ...`` in a fresh process: TorchScript numbers its classes within one.

    Args:
        arguments: the command line.
        cwd: working directory.

    Returns:
        What it printed.

    Raises:
        UserError: if it fails; the end of its output is part of the message.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise UserError(f"monai.bundle {arguments[0]} failed", cwd, "exit code 0", last[0], "read the message")
    return result.stdout + result.stderr


def export_torchscript(bundle: BundleFolder, path: Path | None = None) -> Path:
    """Write ``models/model.ts`` from ``models/model.pt``, with metadata and inference config inside.

    The network is traced: scripting fails on ``dynamic_network_architectures``, and a trace of these networks holds for
    every input whose sides the strides divide. The archive keeps its name for good: its readers look records up below
    the name it was written with.

    Args:
        bundle: a bundle with weights.
        path: the archive; default ``models/model.ts``.

    Raises:
        UserError: if the export fails.
    """
    path = path or bundle.root / "models" / "model.ts"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        run_monai(
            *("ckpt_export", "--net_id", "network_def", "--filepath", str(made), "--ckpt_file", str(bundle.weights)),
            *("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"),
            *("--use_trace", "True", "--input_shape", _literal(bundle.smallest_input())),
            cwd=bundle.root,
        )
        plain = Path(folder, "plain", path.name)
        plain.parent.mkdir()
        strip_debug_records(made, plain)
        shutil.move(plain, path)
    return path


def _literal(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def load_torchscript(path: Path) -> Any:
    """A TorchScript module on the CPU, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 announces the end of TorchScript
        return torch.jit.load(str(path), map_location="cpu").eval()


def strip_debug_records(source: Path, target: Path) -> None:
    """Copy a TorchScript archive without its debug records: they hold the paths and sources of this machine.

    Args:
        source: archive.
        target: the copy, under the same file name.
    """
    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(target))
    # the writer adds these itself
    own = ("version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment")
    for name in reader.get_all_records():
        if name not in own and not name.endswith(".debug_pkl"):
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
