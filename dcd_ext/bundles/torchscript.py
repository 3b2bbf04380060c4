"""Export to TorchScript: traced by MONAI's ``ckpt_export``, without debug records, which hold paths of this machine."""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError


def run_monai_export(command: str, bundle: BundleFolder, path: Path, **options: Any) -> None:
    """``python -m monai.bundle COMMAND``, in a fresh process: TorchScript counts its classes within one."""
    options.update(net_id="network_def", filepath=path, ckpt_file=bundle.weights)
    options.update(meta_file="configs/metadata.json", config_file="configs/inference.json")
    options.update(use_trace=True, input_shape=list(bundle.smallest_input()))
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    line = [sys.executable, "-m", "monai.bundle", command, *words]
    result = subprocess.run(line, cwd=bundle.root, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise UserError(f"monai.bundle {command} failed", bundle.root, "exit code 0", last[0], "read the message")


def export_torchscript(bundle: BundleFolder, path: Path) -> Path:
    """Write TorchScript of ``models/model.pt``, with metadata and inference config inside.

    The network is traced: scripting fails on ``dynamic_network_architectures``, and a trace of these networks holds for
    every input whose sides the strides divide. The archive keeps its name for good: its readers look records up below
    the name it was written with. So write to a folder of its own and rename, as ``export`` and ``pack`` do.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        run_monai_export("ckpt_export", bundle, made)
        strip_debug_records(made, path)
    return path


def load_torchscript(path: Path) -> Any:
    """On the CPU, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 announces the end of TorchScript
        return torch.jit.load(str(path), map_location="cpu").eval()


def strip_debug_records(source: Path, target: Path) -> None:
    """Copy a TorchScript archive without its debug records: they hold the paths and sources of this machine."""
    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(target))
    # the writer adds these itself
    own = ("version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment")
    for name in reader.get_all_records():
        if name not in own and not name.endswith(".debug_pkl"):
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
