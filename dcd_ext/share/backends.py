"""Ways to run a bundle's network on the CPU, all called like the network itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from monai.bundle import ConfigParser

from dcd_ext.errors import UserError
from dcd_ext.share.folder import BundleFolder
from dcd_ext.share.onnx_export import session
from dcd_ext.share.torchscript import load_torchscript

__all__ = ["BACKENDS", "Network", "build"]

Network = Callable[[torch.Tensor], torch.Tensor]


def _eager(bundle: BundleFolder) -> Network:
    return bundle.network()


def _torchscript(bundle: BundleFolder) -> Network:
    return load_torchscript(bundle.root / "models" / "model.ts")


def _optimized(bundle: BundleFolder) -> Network:
    """oneDNN for every convolution: at batch 1 and few channels torch would take a slow one of its own."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.optimize_for_inference(load_torchscript(bundle.root / "models" / "model.ts"))


def _onnx(bundle: BundleFolder) -> Network:
    runtime = session(bundle.root / "models" / "model.onnx")
    return lambda image: torch.from_numpy(runtime.run(None, {"image": image.numpy()})[0])


def _openvino(precision: str) -> Callable[[BundleFolder], Network]:
    """The network of the shipped overlay ``configs/fast_cpu.json``, in a chosen precision."""

    def make(bundle: BundleFolder) -> Network:
        parser = ConfigParser()
        parser.read_config([str(bundle.root / "configs" / f"{name}.json") for name in ("inference", "fast_cpu")])
        parser.update({"bundle_root": str(bundle.root), "openvino_config#INFERENCE_PRECISION_HINT": precision})
        parser.parse()
        for statement in range(len(parser["imports"])):
            parser.get_parsed_content(f"imports::{statement}")
        return parser.get_parsed_content("network")

    return make


BACKENDS: dict[str, Callable[[BundleFolder], Network]] = {
    "eager": _eager,
    "torchscript": _torchscript,
    "torchscript optimized": _optimized,
    "onnxruntime": _onnx,
    "openvino f32": _openvino("f32"),
    "openvino bf16": _openvino("bf16"),
}


def build(bundle: BundleFolder, backend: str) -> Network:
    """The network of a bundle as one of ``BACKENDS`` runs it.

    Raises:
        UserError: if the backend is unknown or its package or export is missing.
    """
    if backend not in BACKENDS:
        raise UserError("unknown backend", backend, ", ".join(BACKENDS), backend, "choose one of these")
    try:
        return BACKENDS[backend](bundle)
    except UserError:
        raise
    except Exception as e:
        cause: Any = e
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            "backend cannot be built",
            f"{bundle.name}, {backend}",
            "its export and its package",
            f"{type(cause).__name__}: {cause}",
            "pip install -r requirements-dev.txt; scripts/export_bundle.py",
        ) from e
