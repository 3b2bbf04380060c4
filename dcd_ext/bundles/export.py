"""Export a bundle's network to TorchScript and ONNX with MONAI, each compared with the network itself."""

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError

TS_TOLERANCE = 1e-5
# float32 sums in another order; logits are of the order of 1 to 10
ONNX_TOLERANCE = 1e-4
_INPUTS = ((2, 1), (3, 2))
_AXES = {0: "batch", 2: "x", 3: "y", 4: "z"}
_OPSET = 17


class Format(NamedTuple):
    """How to write a format, how to run a file of it, and how far its output may be from the network's."""

    make: Callable[[BundleFolder, Path], Path]
    run: Callable[[Path, torch.Tensor], torch.Tensor]
    tolerance: float
    file: str


def _run_monai_export(command: str, bundle: BundleFolder, path: Path, **options: Any) -> None:
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
        _run_monai_export("ckpt_export", bundle, made)
        _strip_debug_records(made, path)
    return path


def _strip_debug_records(source: Path, target: Path) -> None:
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


def load_torchscript(path: Path) -> Any:
    """On the CPU, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 announces the end of TorchScript
        return torch.jit.load(str(path), map_location="cpu").eval()


def export_onnx(bundle: BundleFolder, path: Path) -> Path:
    """Write ONNX of ``models/model.pt``, with a dynamic batch and dynamic spatial axes.

    The exporter that torch calls legacy is asked for: it keeps spatial axes dynamic in one pass over the trace.
    Refused if ``onnx`` is missing or the export fails.
    """
    onnx = require("onnx")
    converter = {
        "input_names": ["image"],
        "output_names": ["pred"],
        "dynamic_axes": {"image": _AXES, "pred": _AXES},
        "dynamo": False,
        "opset_version": _OPSET,
    }
    _run_monai_export("onnx_export", bundle, path, converter_kwargs=converter)
    onnx.checker.check_model(str(path))
    return path


def require(package: str) -> Any:
    """Import an optional package; refused with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as e:
        step = f"pip install {package}"
        raise UserError(f"{package} is not installed", "export", package, "nothing", step) from e


def session(path: Path) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU, with torch's number of threads."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run_onnx(path: Path, image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session(path).run(None, {"image": image.numpy()})[0])


FORMATS = {
    "torchscript": Format(
        export_torchscript, lambda path, image: load_torchscript(path)(image), TS_TOLERANCE, "model.ts"
    ),
    "onnx": Format(export_onnx, _run_onnx, ONNX_TOLERANCE, "model.onnx"),
}


def compare(path: Path, kind: Format, bundle: BundleFolder, next_step: str) -> float:
    """Largest difference between an export and the network, over other shapes and batches than the traced one.

    Refused, with ``next_step``, where it is not below the format's tolerance.
    """
    eager, differences = bundle.network(), []
    for times, batch in _INPUTS:
        image = bundle.random_input(times, batch)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            differences.append((kind.run(path, image) - eager(image)).abs().max())
    # Python's max drops a NaN, torch's keeps it
    difference = float(torch.stack(differences).max())
    if not difference < kind.tolerance:
        raise UserError("export differs", path.name, f"within {kind.tolerance}", difference, next_step)
    return difference


def export(root: Path, formats: Sequence[str]) -> Iterator[tuple[Path, float]]:
    """Export a bundle with ``models/model.pt`` to keys of ``FORMATS``: each file, and its largest difference.

    Refused if an export fails or differs; an earlier file then stays as it was.
    """
    bundle = BundleFolder(root)
    bundle.network()  # a checkpoint that does not fit is told here, in one line
    for name in formats:
        kind, models = FORMATS[name], bundle.root / "models"
        with tempfile.TemporaryDirectory(dir=models) as folder:
            # under its final name: readers of TorchScript look below the name it was written with
            made = kind.make(bundle, Path(folder, kind.file))
            difference = compare(made, kind, bundle, "report it")
            path = made.replace(models / kind.file)
        yield path, difference
