"""Checks of voxel values: finite and varying images, masks with the whole numbers of the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dcd_ext.data.findings import Findings
from dcd_ext.data.tasks import Task

# BraTS numbered the enhancing tumour 4 and left out 3, until it became 3; since 2024, 4 is the resection cavity.
OLD_BRATS = "older BraTS numbering (BraTS ≤ 2023): ET = 4"


def _is_finite(file: Path, data: np.ndarray, kind: str, findings: Findings) -> bool:
    """Whether all voxels are finite; otherwise reports."""
    bad = 0 if data.dtype.kind in "iu" else int(data.size - np.isfinite(data).sum())
    if bad:
        step = "replace them, or remove the case"
        findings.error("finite", f"NaN or infinity in {kind}", file, "finite voxels", f"{bad} that are not", step)
    return not bad


def check_image_values(file: Path, data: np.ndarray, findings: Findings) -> None:
    """An image (3D or 4D) is finite and not constant, in each of its volumes."""
    if not _is_finite(file, data, "an image", findings):
        return
    volumes = [data] if data.ndim == 3 else np.moveaxis(data, 3, 0)
    for channel, volume in enumerate(volumes):
        low, high = volume.min(), volume.max()
        if low == high:
            where = file if data.ndim == 3 else f"{file} volume {channel}"
            step = "fetch the file again, or remove the case"
            findings.error("constant", "constant image", where, "varying intensities", f"{low} everywhere", step)


def check_label_values(file: Path, data: np.ndarray, counts: dict[float, int], task: Task, findings: Findings) -> None:
    """A mask is finite, has whole numbers of the task, and is not empty; ``counts`` are its voxels per finite value."""
    _is_finite(file, data, "a mask", findings)
    fractions = [value for value in counts if abs(value - round(value)) >= 1e-3]
    wanted = ", ".join(f"{value} {name}" for value, name in task.labels.items())
    if fractions:
        step = "resample masks with nearest neighbours, not linearly"
        findings.error("integers", "label values that are not whole numbers", file, wanted, _shown(fractions), step)
    present = {round(value) for value in counts if value not in fractions}
    surplus = sorted(present - set(task.labels))
    if surplus:
        findings.error("labels", "unexpected label values", file, wanted, _shown(surplus), _remedy(present, task))
    if not fractions and not present - {0}:
        step = "check that the case has no lesion"
        findings.warn("empty", "empty mask", file, "at least one labelled voxel", "background only", step)


def _shown(values: list[float] | list[int]) -> str:
    return ", ".join(f"{value:g}" for value in values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def _remedy(present: set[int], task: Task) -> str:
    """What to do about values outside the task."""
    if present <= {0, 255}:
        return "a 0/255 mask: divide it by 255"
    if 4 in present and 3 not in present and task.labels.get(3) == "ET":
        return f"{OLD_BRATS}; change 4 to 3"
    return "map them to the task's values, or name the right task with --task"
