"""Export to ONNX with a dynamic batch and dynamic spatial axes, and run it with ONNX Runtime."""

import importlib
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.torchscript import run_monai_export
from dcd_ext.errors import UserError

# float32 sums in another order; logits are of the order of 1 to 10
ONNX_TOLERANCE = 1e-4
_AXES = {0: "batch", 2: "x", 3: "y", 4: "z"}
_OPSET = 17


def export_onnx(bundle: BundleFolder, path: Path) -> Path:
    """Write ONNX of ``models/model.pt`` with MONAI's ``onnx_export``.

    The exporter that torch calls legacy is asked for: it keeps spatial axes dynamic in one pass over the trace.

    Raises:
        UserError: if ``onnx`` is missing or the export fails.
    """
    onnx = require("onnx")
    converter = {
        "input_names": ["image"],
        "output_names": ["pred"],
        "dynamic_axes": {"image": _AXES, "pred": _AXES},
        "dynamo": False,
        "opset_version": _OPSET,
    }
    run_monai_export("onnx_export", bundle, path, converter_kwargs=converter)
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


def run_onnx(path: Path, image: torch.Tensor) -> torch.Tensor:
    """Output of an ONNX file for ``image`` (B, M, X, Y, Z), on the CPU."""
    return torch.from_numpy(session(path).run(None, {"image": image.numpy()})[0])
