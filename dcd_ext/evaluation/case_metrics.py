"""Metrics of one case, one class at a time, in millimetres.

The rule for empty masks (also written into ``metrics.json``): a class that is neither in the truth nor in the
prediction is excluded and counted; a class that is missed, or predicted where there is none, has Dice 0, NSD 0 and, as
its HD95, the diagonal of the image. MONAI's HD95 is NaN for a missed lesion, which then drops out of the mean and makes
the mean better; hence the rule is applied here, before MONAI is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

__all__ = ["EMPTY_RULE", "case_metrics"]

EMPTY_RULE = (
    "both empty: excluded and counted; missed or false alarm: dice 0, nsd 0, hd95_mm = diagonal of the image in mm"
)


def case_metrics(
    pred: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float],
    class_names: Sequence[str],
    nsd_tolerance_mm: float,
) -> dict[str, dict[str, Any]]:
    """Dice, HD95 and NSD of every foreground class.

    Args:
        pred: predicted label map (X, Y, Z), values 0..K.
        truth: true label map of the same shape.
        spacing: voxel size in mm.
        class_names: names of the classes 1..K.
        nsd_tolerance_mm: tolerance of the normalised surface Dice in mm.

    Returns:
        For each class name ``status`` (``scored``, ``empty``, ``missed`` or ``false_alarm``), ``dice``, ``hd95_mm``,
        ``nsd`` (None where excluded), ``volume_pred_ml`` and ``volume_true_ml``.
    """
    voxel_ml = float(np.prod(spacing)) / 1000
    diagonal = math.sqrt(sum((n * s) ** 2 for n, s in zip(truth.shape, spacing, strict=True)))
    result = {}
    for value, name in enumerate(class_names, start=1):
        p, t = pred == value, truth == value
        entry: dict[str, Any] = {
            "volume_pred_ml": float(p.sum()) * voxel_ml,
            "volume_true_ml": float(t.sum()) * voxel_ml,
        }
        if not p.any() and not t.any():
            scores: dict[str, Any] = {"status": "empty", "dice": None, "hd95_mm": None, "nsd": None}
        elif not p.any() or not t.any():
            status = "missed" if t.any() else "false_alarm"
            scores = {"status": status, "dice": 0.0, "hd95_mm": diagonal, "nsd": 0.0}
        else:
            scores = {"status": "scored", **_scores(p, t, spacing, nsd_tolerance_mm)}
        result[name] = {**scores, **entry}
    return result


def _scores(p: np.ndarray, t: np.ndarray, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    box = _bounding_box(p | t)
    # (batch, class, X, Y, Z); the background channel only satisfies MONAI's one-hot form
    pred, truth = (torch.from_numpy(np.stack([~m[box], m[box]])[None].astype(np.float32)) for m in (p, t))
    space = tuple(map(float, spacing))
    return {
        "dice": float(compute_dice(pred, truth, include_background=False)),
        "hd95_mm": float(compute_hausdorff_distance(pred, truth, percentile=95, spacing=space)),
        "nsd": float(compute_surface_dice(pred, truth, class_thresholds=[tolerance], spacing=space)),
    }


def _bounding_box(mask: np.ndarray, margin: int = 2) -> tuple[slice, ...]:
    """Slices around the mask; distances between surfaces inside do not change when the rest is cut off."""
    box = []
    for axis in range(mask.ndim):
        where = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(int(where[0]) - margin, 0), int(where[-1]) + 1 + margin))
    return tuple(box)
