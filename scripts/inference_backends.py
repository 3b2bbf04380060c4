"""Ways to run a bundle's network on the CPU, all called like the network itself."""

import warnings
from collections.abc import Callable

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.onnx_export import session
from dcd_ext.bundles.torchscript import load_torchscript
from dcd_ext.errors import UserError, first_cause

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


def _parser(bundle: BundleFolder, backend: str) -> ConfigParser:
    """The inference config, with the shipped overlay ``fast_cpu.json`` for OpenVINO."""
    if not backend.startswith("openvino"):
        return bundle.parser()
    parser = ConfigParser()
    parser.read_config([str(bundle.root / "configs" / f"{name}.json") for name in ("inference", "fast_cpu")])
    precision = backend.rpartition(" ")[2]
    parser.update({"bundle_root": str(bundle.root), "openvino_config#INFERENCE_PRECISION_HINT": precision})
    parser.parse()
    for position in range(len(parser["imports"])):
        parser.get_parsed_content(f"imports::{position}")
    return parser


# those without a function are built by their config
BACKENDS: dict[str, Callable[[BundleFolder], Network] | None] = {
    "eager": _eager,
    "torchscript": _torchscript,
    "torchscript optimized": _optimized,
    "onnxruntime": _onnx,
    "openvino f32": None,
    "openvino bf16": None,
}


def build(bundle: BundleFolder, backend: str) -> tuple[Network, Inferer]:
    """The network of a bundle as one of ``BACKENDS`` runs it, and its sliding window.

    Windows and weights are the same for all; the overlay keeps the map of weights instead of making it for each volume.

    Raises:
        UserError: if its package or export is missing.
    """
    try:
        make, parser = BACKENDS[backend], _parser(bundle, backend)
        inferer: Inferer = parser.get_parsed_content("inferer")
        return (make(bundle) if make else parser.get_parsed_content("network")), inferer
    except UserError:
        raise
    except Exception as e:
        cause = first_cause(e)
        raise UserError(
            "backend cannot be built",
            f"{bundle.name}, {backend}",
            "its export and its package",
            f"{type(cause).__name__}: {cause}",
            "pip install -r requirements-dev.txt; dcd export",
        ) from e
