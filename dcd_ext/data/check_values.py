"""Checks of voxel values: finite and varying images, masks with the whole numbers of the task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dcd_ext.data.findings import ERROR, WARNING
from dcd_ext.data.tasks import Task

__all__ = ["OLD_BRATS", "check_image_values", "check_label_values"]

# BraTS numbered the enhancing tumour 4 and left out 3, until it became 3; since 2024, 4 is the resection cavity.
OLD_BRATS = "older BraTS numbering (BraTS ≤ 2023): ET = 4"
Report = Callable[..., None]


def _non_finite(data: np.ndarray) -> int:
    """Number of NaN or infinite voxels."""
    return 0 if data.dtype.kind in "iu" else int(data.size - np.isfinite(data).sum())


def check_image_values(file: Path, data: np.ndarray, report: Report) -> None:
    """An image is finite and not constant, in each of its volumes.

    Args:
        file: named in findings.
        data: voxels, 3D or 4D.
        report: takes severity, check and the five texts of a finding.
    """
    bad = _non_finite(data)
    if bad:
        report(ERROR, "finite", "NaN or infinity in an image", file, "finite voxels", f"{bad} that are not",
               "replace them, or remove the case")  # fmt: skip
        return
    volumes = [data] if data.ndim == 3 else [data[..., channel] for channel in range(data.shape[3])]
    for channel, volume in enumerate(volumes):
        low, high = volume.min(), volume.max()
        if low == high:
            where = file if data.ndim == 3 else f"{file} volume {channel}"
            report(ERROR, "constant", "constant image", where, "varying intensities", f"{low} everywhere",
                   "fetch the file again, or remove the case")  # fmt: skip


def check_label_values(file: Path, data: np.ndarray, counts: dict[float, int], task: Task, report: Report) -> None:
    """A mask is finite, has whole numbers of the task, and is not empty.

    Args:
        file: named in findings.
        data: voxels.
        counts: voxels per finite value.
        task: the task's labels.
        report: takes severity, check and the five texts of a finding.
    """
    bad = _non_finite(data)
    if bad:
        report(ERROR, "finite", "NaN or infinity in a mask", file, "finite voxels", f"{bad} that are not",
               "replace them, or remove the case")  # fmt: skip
    fractions = [value for value in counts if abs(value - round(value)) >= 1e-3]
    wanted = ", ".join(f"{value} {name}" for value, name in task.labels.items())
    if fractions:
        report(ERROR, "integers", "label values that are not whole numbers", file, wanted, _shown(fractions),
               "resample masks with nearest neighbours, not linearly")  # fmt: skip
    present = {round(value) for value in counts if value not in fractions}
    surplus = sorted(present - set(task.labels))
    if surplus:
        report(ERROR, "labels", "unexpected label values", file, wanted, _shown(surplus), _remedy(present, task))
    if not fractions and not present - {0}:
        report(WARNING, "empty", "empty mask", file, "at least one labelled voxel", "background only",
               "check that the case has no lesion")  # fmt: skip


def _shown(values: list[float] | list[int]) -> str:
    """The first few values."""
    return ", ".join(f"{value:g}" for value in values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def _remedy(present: set[int], task: Task) -> str:
    """What to do about values outside the task."""
    if present <= {0, 255}:
        return "a 0/255 mask: divide it by 255"
    if 4 in present and 3 not in present and task.labels.get(3) == "ET":
        return f"{OLD_BRATS}; change 4 to 3"
    return "map them to the task's values, or name the right task with --task"
