"""Whole cases, fast and complete: from image files to label maps."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from dcd_ext.predict.backends import build_pipeline


class Predictor:
    """Segment images with a bundle.

    Args:
        bundle: its folder, with trained weights; or a folder made by ``dcd export --formats standalone``.
        backend: one of ``dcd_ext.predict.backends.BACKENDS``.
        device: for the backend "eager", such as "cuda:0".
        threads: default: the cores this process may use.

    Raises:
        UserError: if the backend cannot be built, or the folder is no bundle.

    Example:
        >>> labels, affine = Predictor("bundles/hippocampus_segmentation_student")(["scan.nii.gz"])
    """

    def __init__(
        self, bundle: str | PathLike, backend: str = "auto", device: str = "cpu", threads: int | None = None
    ) -> None:
        self._pipeline = build_pipeline(Path(bundle), backend, device, threads)

    def __call__(self, files: str | PathLike | Sequence[str | PathLike]) -> tuple[np.ndarray, np.ndarray]:
        """Label map (X, Y, Z) in uint8 on the image's grid, and its affine, of one case.

        ``files`` are one per channel, in the order of the bundle's channels, or a single one with all of them. If they
        cannot be segmented, a ``PredictError`` says why in one line.
        """
        return self._pipeline([Path(file) for file in ([files] if isinstance(files, (str, PathLike)) else files)])
