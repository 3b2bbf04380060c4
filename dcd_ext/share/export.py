"""Export a bundle's network in several formats, each compared with the network itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from dcd_ext.errors import UserError
from dcd_ext.share.folder import BundleFolder
from dcd_ext.share.onnx_export import ONNX_TOLERANCE, export_onnx, run_onnx
from dcd_ext.share.torchscript import export_torchscript, load_torchscript

__all__ = ["FORMATS", "export"]

TS_TOLERANCE = 1e-5
_INPUTS = ((2, 1), (3, 2))


def _run_torchscript(path: Path, image: torch.Tensor) -> torch.Tensor:
    return load_torchscript(path)(image)


FORMATS: dict[str, tuple[Callable[[BundleFolder], Path], Callable[[Path, torch.Tensor], torch.Tensor], float]] = {
    "torchscript": (export_torchscript, _run_torchscript, TS_TOLERANCE),
    "onnx": (export_onnx, run_onnx, ONNX_TOLERANCE),
}


def largest_difference(path: Path, run: Callable[[Path, torch.Tensor], torch.Tensor], bundle: BundleFolder) -> float:
    """Between an export and the network, over inputs of other shapes and batches than the traced one."""
    eager, worst = bundle.network(), 0.0
    for times, batch in _INPUTS:
        image = bundle.random_input(times, batch)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            worst = max(worst, float((run(path, image) - eager(image)).abs().max()))
    return worst


def export(root: Path, formats: Sequence[str]) -> Iterator[tuple[Path, float]]:
    """Export and compare.

    Args:
        root: a bundle with ``models/model.pt``.
        formats: keys of ``FORMATS``.

    Yields:
        The file, and its largest difference to the network.

    Raises:
        UserError: if an export fails or differs; the file is removed then.
    """
    bundle = BundleFolder(root)
    bundle.network()  # a checkpoint that does not fit is told here, in one line
    for name in formats:
        make, run, tolerance = FORMATS[name]
        path = make(bundle)
        difference = largest_difference(path, run, bundle)
        if not difference < tolerance:
            path.unlink()
            raise UserError("export differs", path, f"within {tolerance}", difference, "report it")
        yield path, difference
