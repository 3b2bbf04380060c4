"""Score one prediction against its label file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.evaluation.case_metrics import case_metrics
from dcd_ext.io import write_atomically

__all__ = ["prediction_path", "score_file"]


def prediction_path(output_dir: str, case: str) -> str:
    """Where the prediction of a case is kept."""
    return os.path.join(output_dir, "predictions", case.replace(os.sep, "_") + ".nii.gz")


def score_file(
    case: str,
    pred: np.ndarray,
    label_file: str,
    class_names: Sequence[str],
    nsd_tolerance_mm: float,
    save_as: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of one case; the label is read from its file as it is, and the spacing is the file's.

    Args:
        case: its name, for messages.
        pred: predicted label map (X, Y, Z) on the grid of the label, unsigned integers.
        label_file: the label.
        class_names: names of the classes 1..K.
        nsd_tolerance_mm: tolerance of the normalised surface Dice in mm.
        save_as: write the prediction there too, with the label's affine.

    Returns:
        The result of :func:`dcd_ext.evaluation.case_metrics.case_metrics`.

    Raises:
        UserError: if shapes differ, or the label has values that are no class.
    """
    image: Any = nib.load(label_file)
    truth = np.asarray(image.dataobj)
    if truth.ndim == 4 and truth.shape[3] == 1:
        truth = truth[..., 0]
    if pred.shape != truth.shape:
        raise UserError(
            "prediction and label differ in shape",
            f"{case}, {label_file}",
            truth.shape,
            pred.shape,
            "run dcd check: image and label lie on different grids",
        )
    low, high = float(truth.min()), float(truth.max())
    if not (low > -0.5 and high < len(class_names) + 0.5):
        expected = f"values 0 to {len(class_names)}"
        raise UserError(
            "label has a value that is no class",
            f"{case}, {label_file}",
            expected,
            f"{low:g} to {high:g}",
            "run dcd check, or evaluate with the bundle of this task",
        )
    truth = np.rint(truth).astype(np.uint8)
    if save_as is not None:
        _save(pred, image.affine, save_as)
    spacing = [float(s) for s in nib.affines.voxel_sizes(image.affine)]
    return case_metrics(pred, truth, spacing, class_names, nsd_tolerance_mm)


def _save(pred: np.ndarray, affine: np.ndarray, path: str) -> None:
    content = nib.Nifti1Image(pred.astype(np.uint8), affine)

    def write(name: str) -> None:
        # nibabel takes the format from the name's end
        part = f"{name}.nii.gz"
        nib.save(content, part)
        os.replace(part, name)

    write_atomically(path, write)
