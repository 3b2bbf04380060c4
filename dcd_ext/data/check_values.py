"""Checks of voxel values: finite and varying images, masks with the whole numbers of the task."""

from pathlib import Path

import numpy as np

from dcd_ext.data.findings import Findings
from dcd_ext.data.tasks import Task
from dcd_ext.inference.values import are_whole, shown

# BraTS numbered the enhancing tumour 4 and left out 3, until it became 3; since 2024, 4 is the resection cavity.
OLD_BRATS = "older BraTS numbering (BraTS ≤ 2023): ET = 4"


def check_image_values(file: Path, data: np.ndarray, findings: Findings) -> None:
    """An image (3D or 4D) is not infinite and, with its NaN read as 0, not constant, in each of its volumes."""
    if infinite := int(np.isinf(data).sum()):
        step = "replace them, or remove the case"
        findings.error("finite", "infinity in an image", file, "finite voxels", f"{infinite} that are not", step)
        return
    if missing := int(np.isnan(data).sum()):
        step = "fine for a background; otherwise replace them"
        findings.warn("finite", "NaN in an image is read as 0", file, "finite voxels", f"{missing} that are not", step)
        data = np.nan_to_num(data)
    volumes = [data] if data.ndim == 3 else np.moveaxis(data, 3, 0)
    for channel, volume in enumerate(volumes):
        low, high = volume.min(), volume.max()
        if low == high:
            where = file if data.ndim == 3 else f"{file} volume {channel}"
            step = "fetch the file again, or remove the case"
            findings.error("constant", "constant image", where, "varying intensities", f"{low} everywhere", step)


def check_label_values(file: Path, data: np.ndarray, counts: dict[float, int], task: Task, findings: Findings) -> None:
    """A mask is finite, has whole numbers of the task, and is not empty; ``counts`` are its voxels per finite value."""
    if bad := int(data.size - np.isfinite(data).sum()):
        step = "replace them, or remove the case"
        findings.error("finite", "NaN or infinity in a mask", file, "finite voxels", f"{bad} that are not", step)
    fractions = [value for value in counts if not are_whole(np.array(value))]
    wanted = ", ".join(f"{value} {name}" for value, name in task.labels.items())
    if fractions:
        step = "resample masks with nearest neighbours, not linearly"
        findings.error("integers", "label values that are not whole numbers", file, wanted, shown(fractions), step)
    present = {round(value) for value in counts if value not in fractions}
    surplus = sorted(present - set(task.labels))
    if surplus:
        findings.error("labels", "unexpected label values", file, wanted, shown(surplus), _remedy(present, task))
    if not fractions and not present - {0}:
        step = "check that the case has no lesion"
        findings.warn("empty", "empty mask", file, "at least one labelled voxel", "background only", step)


def _remedy(present: set[int], task: Task) -> str:
    """What to do about values outside the task."""
    if present <= {0, 255}:
        return "a 0/255 mask: divide it by 255"
    if 4 in present and 3 not in present and task.labels.get(3) == "ET":
        return f"{OLD_BRATS}; change 4 to 3"
    return "map them to the task's values, or name the right task with --task"
