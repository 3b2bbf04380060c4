"""Export to TorchScript: traced by MONAI's ``ckpt_export``, then freed of what only this machine knows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from dcd_ext.errors import UserError
from dcd_ext.share.folder import BundleFolder

__all__ = ["export_torchscript", "load_torchscript", "run_monai", "strip_debug_records"]


def run_monai(command: str, cwd: Path, **options: Any) -> str:
    """``python -m monai.bundle ...`` in a fresh process: TorchScript numbers its classes within one.

    Args:
        command: of ``monai.bundle``.
        cwd: working directory.
        options: its options; values are written as Python literals.

    Returns:
        What it printed.

    Raises:
        UserError: if it fails; the end of its output is part of the message.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    line = [sys.executable, "-m", "monai.bundle", command, *words]
    result = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise UserError(f"monai.bundle {command} failed", cwd, "exit code 0", last[0], "read the message")
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
    # beside the target: on another file system the last step would be a copy, which can end half-way
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        run_monai(
            "ckpt_export",
            cwd=bundle.root,
            net_id="network_def",
            filepath=made,
            ckpt_file=bundle.weights,
            meta_file="configs/metadata.json",
            config_file="configs/inference.json",
            use_trace=True,
            input_shape=list(bundle.smallest_input()),
        )
        plain = Path(folder, "plain", path.name)
        plain.parent.mkdir()
        strip_debug_records(made, plain)
        plain.replace(path)
    return path


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
