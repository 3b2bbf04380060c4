"""Metrics of one case, one class at a time, in millimetres.

The rule for empty masks (also written into ``metrics.json``): a class that is neither in the truth nor in the
prediction is excluded and counted; a class that is missed, or predicted where there is none, has Dice 0, NSD 0, lesion
F1 0 and, as its HD95, the diagonal of the image. MONAI's HD95 is NaN for a missed lesion, which then drops out of the
mean and makes the mean better; hence the rule is applied here, before MONAI is asked.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from scipy import ndimage


class Metric(NamedTuple):
    """How a metric is summarised and shown."""

    title: str  # with the tolerance of the NSD
    higher_is_better: bool
    digits: int
    nan_status: tuple[str, ...]  # what MONAI with its default arguments returns as NaN, and leaves out of the mean


METRICS = {
    "dice": Metric("Dice", True, 4, ("false_alarm",)),
    "hd95_mm": Metric("HD95 (mm)", False, 2, ("missed", "false_alarm")),
    "nsd": Metric("NSD at {:g} mm", True, 4, ()),
    "lesion_f1": Metric("Lesion-wise F1", True, 4, ()),
}
EMPTY_RULE = (
    "both empty: excluded and counted; missed or false alarm: dice 0, nsd 0, lesion_f1 0, "
    "hd95_mm = diagonal of the image in mm"
)
LESION_RULE = (
    "a lesion is a connected component (26 neighbours) of one class; a true lesion is detected, and a predicted one "
    "is not false, if one voxel or more overlaps; lesion_f1 = 2 TP / (2 TP + FP + FN), TP = detected true lesions"
)
_NEIGHBOURS = np.ones((3, 3, 3), bool)
_ROUNDING = 1e-5
# the erosion that finds a surface must see what lies around the mask
_MARGIN = 1


def case_metrics(
    pred: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float],
    class_names: Sequence[str],
    nsd_tolerance_mm: float,
) -> dict[str, dict[str, Any]]:
    """Scores of the classes 1..K, which ``class_names`` names.

    ``pred`` and ``truth`` are label maps (X, Y, Z), integers 0..K; ``spacing``, the size of a voxel, and the tolerance
    of the normalised surface Dice are in mm.

    Returns:
        For each class name ``status`` (``scored``, ``empty``, ``missed`` or ``false_alarm``), ``dice``, ``hd95_mm``,
        ``nsd``, ``lesion_f1`` (None where excluded), ``lesions_true``, ``lesions_pred``, ``lesions_detected``,
        ``lesions_false`` (:func:`lesion_counts`), ``volume_pred_ml`` and ``volume_true_ml``.
    """
    voxel_ml = float(np.prod(spacing)) / 1000
    diagonal = math.hypot(*(n * s for n, s in zip(truth.shape, spacing, strict=True)))
    # one pass finds the boxes of all classes
    boxes = zip(*(ndimage.find_objects(m, max_label=len(class_names)) for m in (pred, truth)), strict=True)
    result = {}
    for value, (name, pair) in enumerate(zip(class_names, boxes, strict=True), start=1):
        box = _union(pair, truth.shape)
        p, t = pred[box] == value, truth[box] == value
        result[name] = {
            **_scores(p, t, spacing, nsd_tolerance_mm, diagonal),
            "volume_pred_ml": float(p.sum()) * voxel_ml,
            "volume_true_ml": float(t.sum()) * voxel_ml,
        }
    return result


def _union(pair: Sequence[tuple[slice, ...] | None], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box around both masks plus a margin: distances between surfaces inside do not change by cutting it out."""
    boxes = [box for box in pair if box is not None]
    if not boxes:
        return tuple(slice(0, 0) for _ in shape)
    return tuple(
        slice(max(min(b[i].start for b in boxes) - _MARGIN, 0), min(max(b[i].stop for b in boxes) + _MARGIN, n))
        for i, n in enumerate(shape)
    )


def _scores(
    p: np.ndarray, t: np.ndarray, spacing: Sequence[float], tolerance: float, diagonal: float
) -> dict[str, Any]:
    counts = lesion_counts(p, t)
    if not t.any() and not p.any():
        return {"status": "empty", **dict.fromkeys(METRICS), **counts}
    if not t.any() or not p.any():
        status = "missed" if t.any() else "false_alarm"
        worst = {name: 0.0 if metric.higher_is_better else diagonal for name, metric in METRICS.items()}
        return {"status": status, **worst, **counts}
    false = counts["lesions_false"] + counts["lesions_true"] - counts["lesions_detected"]
    return {
        "status": "scored",
        "dice": 2 * float((p & t).sum()) / float(p.sum() + t.sum()),
        **_surface_scores(p, t, spacing, tolerance),
        "lesion_f1": 2 * counts["lesions_detected"] / (2 * counts["lesions_detected"] + false),
        **counts,
    }


def lesion_counts(pred: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    """Lesions of two binary masks (X, Y, Z), by :data:`LESION_RULE`.

    Returns:
        ``lesions_true``, ``lesions_pred``, ``lesions_detected`` (true ones that the prediction touches) and
        ``lesions_false`` (predicted ones that touch no true one).
    """
    (true_parts, n_true), (pred_parts, n_pred) = (ndimage.label(m, structure=_NEIGHBOURS) for m in (truth, pred))
    both = truth & pred
    return {
        "lesions_true": int(n_true),
        "lesions_pred": int(n_pred),
        "lesions_detected": len(np.unique(true_parts[both])),
        "lesions_false": int(n_pred) - len(np.unique(pred_parts[both])),
    }


def _surface_scores(p: np.ndarray, t: np.ndarray, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    """HD95 and NSD from one pair of surface distances; MONAI's two metrics would compute them twice."""
    edges_pred, edges_true = get_mask_edges(p, t, crop=False)
    there = np.asarray(get_surface_distance(edges_pred, edges_true, spacing=spacing))
    back = np.asarray(get_surface_distance(edges_true, edges_pred, spacing=spacing))
    # a distance of exactly the tolerance counts as within it, although float32 and a header's digits round it
    close = sum(int((d <= tolerance * (1 + _ROUNDING)).sum()) for d in (there, back))
    return {
        "hd95_mm": max(float(np.percentile(d.astype(np.float64), 95)) for d in (there, back)),
        "nsd": close / (len(there) + len(back)),
    }
