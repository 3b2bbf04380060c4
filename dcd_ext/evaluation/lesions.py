"""Lesions counted one by one: connected components of a mask."""

import numpy as np
from scipy import ndimage

LESION_RULE = (
    "a lesion is a connected component (26 neighbours) of one class; a true lesion is detected, and a predicted one "
    "is not false, if one voxel or more overlaps; lesion_f1 = 2 TP / (2 TP + FP + FN), TP = detected true lesions"
)
_NEIGHBOURS = np.ones((3, 3, 3), bool)


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
