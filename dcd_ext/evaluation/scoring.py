"""Score one prediction against its label file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.geometry import grid_of
from dcd_ext.data.nifti import open_image, save_nifti
from dcd_ext.errors import UserError
from dcd_ext.evaluation.case_metrics import case_metrics


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
    image = open_image(Path(label_file))
    truth = np.asarray(image.dataobj)
    if truth.ndim == 4 and truth.shape[3] == 1:
        truth = truth[..., 0]
    where = f"{case}, {label_file}"
    if pred.shape != truth.shape:
        step = "run dcd check: image and label lie on different grids"
        raise UserError("prediction and label differ in shape", where, truth.shape, pred.shape, step)
    low, high = float(truth.min()), float(truth.max())
    if not (low > -0.5 and high < len(class_names) + 0.5):
        expected, step = f"values 0 to {len(class_names)}", "run dcd check, or evaluate with the bundle of this task"
        raise UserError("label has a value that is no class", where, expected, f"{low:g} to {high:g}", step)
    truth = np.rint(truth).astype(np.uint8)
    if save_as is not None:
        save_nifti(save_as, pred.astype(np.uint8), image.affine)
    return case_metrics(pred, truth, grid_of(image).spacing.tolist(), class_names, nsd_tolerance_mm)
