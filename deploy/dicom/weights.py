"""Whether a bundle's weights can be used, asked before the pipeline starts."""

from __future__ import annotations

from pathlib import Path

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.torchscript import load_torchscript
from dcd_ext.errors import UserError

__all__ = ["check_weights"]


def check_weights(bundle: Path) -> None:
    """Refuse weights that the bundle inference would fail on with a traceback. It takes the export if there is one.

    Args:
        bundle: the bundle's folder.

    Raises:
        UserError: if the weights are missing or damaged, or do not fit the network, or the config cannot be read.
    """
    folder = BundleFolder(bundle)
    path = next((file for file in (folder.weights.with_suffix(".ts"), folder.weights) if file.is_file()), None)
    if path is None:
        step = "train the bundle or download its weights"
        raise UserError("no weights", bundle / "models", "model.pt", "neither model.pt nor model.ts", step)
    try:
        load_torchscript(path)
    except Exception as error:  # torch raises RuntimeError, ValueError and others on a damaged file
        if path.suffix == ".ts":
            found, step = type(error).__name__, "download or export them again"
            raise UserError("weights cannot be read", path, "TorchScript", found, step) from error
        folder.network()
