"""Export a bundle's network in several formats, each compared with the network itself."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.onnx_export import ONNX_TOLERANCE, export_onnx, run_onnx
from dcd_ext.bundles.torchscript import export_torchscript, load_torchscript
from dcd_ext.errors import UserError

TS_TOLERANCE = 1e-5
_INPUTS = ((2, 1), (3, 2))


class Format(NamedTuple):
    """How to write a format, how to run a file of it, and how far its output may be from the network's."""

    make: Callable[[BundleFolder, Path], Path]
    run: Callable[[Path, torch.Tensor], torch.Tensor]
    tolerance: float
    file: str


FORMATS = {
    "torchscript": Format(
        export_torchscript, lambda path, image: load_torchscript(path)(image), TS_TOLERANCE, "model.ts"
    ),
    "onnx": Format(export_onnx, run_onnx, ONNX_TOLERANCE, "model.onnx"),
}


def largest_difference(path: Path, run: Callable[[Path, torch.Tensor], torch.Tensor], bundle: BundleFolder) -> float:
    """Between an export and the network, over inputs of other shapes and batches than the traced one."""
    eager, differences = bundle.network(), []
    for times, batch in _INPUTS:
        image = bundle.random_input(times, batch)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            differences.append((run(path, image) - eager(image)).abs().max())
    # Python's max drops a NaN, torch's keeps it
    return float(torch.stack(differences).max())


def export(root: Path, formats: Sequence[str]) -> Iterator[tuple[Path, float]]:
    """Export a bundle with ``models/model.pt`` to keys of ``FORMATS``.

    Yields:
        The file, and its largest difference to the network.

    Raises:
        UserError: if an export fails or differs; an earlier file stays as it was.
    """
    bundle = BundleFolder(root)
    bundle.network()  # a checkpoint that does not fit is told here, in one line
    for name in formats:
        kind, models = FORMATS[name], bundle.root / "models"
        with tempfile.TemporaryDirectory(dir=models) as folder:
            # under its final name: readers of TorchScript look below the name it was written with
            made = kind.make(bundle, Path(folder, kind.file))
            difference = largest_difference(made, kind.run, bundle)
            if not difference < kind.tolerance:
                raise UserError("export differs", made.name, f"within {kind.tolerance}", difference, "report it")
            path = made.replace(models / kind.file)
        yield path, difference
