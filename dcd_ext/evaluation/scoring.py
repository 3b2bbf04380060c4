"""Score one prediction against its label file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.nifti import open_image, read_label, save_nifti
from dcd_ext.errors import UserError
from dcd_ext.evaluation.case_metrics import case_metrics
from dcd_ext.inference.geometry import Grid, grid_of, require_same_grid


def prediction_path(output_dir: str, case: str) -> str:
    """Where the prediction of a case is kept."""
    return os.path.join(output_dir, "predictions", case.replace(os.sep, "_") + ".nii.gz")


def score_file(
    case: str,
    pred: np.ndarray,
    affine: np.ndarray,
    label_file: str,
    class_names: Sequence[str],
    nsd_tolerance_mm: float,
    save_as: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The result of :func:`case_metrics` for a case; its label is never resampled, and the spacing is that file's.

    ``pred`` is a label map (X, Y, Z) of unsigned integers, ``affine`` its position, 4×4, voxel to world in millimetres.
    It is also written to ``save_as``, with the label's affine. Refused if the two lie on different grids, or the label
    has values that are no class.
    """
    image = open_image(Path(label_file))
    truth, where = read_label(Path(label_file)), f"{case}, {label_file}"
    step = "run dcd check: image and label lie on different grids"
    grid = Grid(pred.shape, affine)
    require_same_grid(grid_of(image), grid, "prediction and label lie on different grids", where, step)
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high > len(class_names):
        expected, step = f"values 0 to {len(class_names)}", "run dcd check, or evaluate with the bundle of this task"
        raise UserError("label has a value that is no class", where, expected, f"{low} to {high}", step)
    if save_as is not None:
        save_nifti(save_as, pred.astype(np.uint8), image.affine)
    return case_metrics(pred, truth.astype(np.uint8), grid_of(image).spacing.tolist(), class_names, nsd_tolerance_mm)
