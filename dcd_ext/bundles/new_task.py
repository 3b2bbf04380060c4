"""A task file for a data set of one's own: what ``dcd build`` makes its bundles from, with a reason for each choice."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from dcd_ext.bundles.planner import ANISOTROPY, Plan, plan
from dcd_ext.bundles.sources import BUNDLE_SRC, load
from dcd_ext.data.cases import Case
from dcd_ext.data.dataset import DataSet
from dcd_ext.data.nifti import open_image, voxels
from dcd_ext.errors import UserError
from dcd_ext.inference.geometry import grid_of
from dcd_ext.parallel import map_threads

_ROTATION = 0.5236
# voxels of so many cases are read to find out whether the images have a zero border
_LOOKED_AT = 10
# nnU-Net normalises inside the non-zero voxels where their box is smaller than this part of the image
_ZERO_BORDER = 0.75
_SIDES = re.compile(r"(?:^|[\W_])(?:left|right|lh|rh)(?:$|[\W_])", re.IGNORECASE)


def new_task(data: DataSet, name: str, gpu_memory: float, planned: Plan | None = None) -> dict[str, Any]:
    """The content of a task file.

    Args:
        data: the data set.
        name: of the task, the first part of its bundles' names.
        gpu_memory: of the device that trains the teacher, in GiB.
        planned: nnU-Net's own plan for these data; None makes one.

    An image that cannot be read or has another number of channels is refused.
    """
    channels, labels = data.task.modalities, [data.task.labels[v] for v in sorted(data.task.labels)]
    grids = map_threads(lambda case: _grid(case, len(channels)), data.cases, "reading headers")
    step = math.ceil(len(data.cases) / _LOOKED_AT)
    boxes = np.array(map_threads(_box, [case.images[0] for case in data.cases[::step]], "reading images"))
    part = np.median(boxes, 0)
    border = float(np.median(boxes.prod(1))) < _ZERO_BORDER
    shapes = np.array([shape for _, shape in grids]) * (part if border else 1)
    made = planned or plan([spacing for spacing, _ in grids], shapes, len(channels), len(labels), gpu_memory)
    fragments, reasons = _fragments(made, labels, border)
    tolerance = max(1.0, round(max(made.spacing), 1))
    return {
        "comments": {**made.reasons, **reasons, **_comments(tolerance)},
        "common": {
            "in_channels": len(channels),
            "num_classes": len(labels),
            "features": made.features,
            "n_blocks": made.n_blocks,
            "strides": made.strides,
            "patch_size": made.patch_size,
            "pixdim": made.spacing,
            "reduction_factor": 1,
            "min_features": 8,
        },
        "fragments": fragments,
        "train": {"max_epochs": 1000, "iterations_per_epoch": 250, "val_interval": 25, "batch_size": made.batch_size},
        "evaluate": {"class_names": labels[1:], "nsd_tolerance_mm": tolerance},
        "distillation": distillation(name),
        **_about(data, name, labels),
    }


def distillation(name: str) -> dict[str, Any]:
    """What a task of this name begins with, imported or planned; its teacher lies beside the student."""
    teacher = f"$@bundle_root + '/../{name}_segmentation_teacher/models/model.pt'"
    return {"kd_weight": 0.05, "start": 0.1, "ramp": 0.3, "teacher_ckpt": teacher}


def _grid(case: Case, channels: int) -> tuple[list[float], list[int]]:
    """Spacing in mm and shape of a case, axes in the order of RAS, to which training turns the images."""
    path = case.images[0]
    image = open_image(path)
    zooms, shape, grid = image.header.get_zooms()[:3], image.shape, grid_of(image)
    stored = shape[3] if len(shape) == 4 else len(case.images)
    if len(shape) not in (3, 4) or stored != channels:
        expected, found = f"{channels} channel(s)", f"shape {shape}"
        raise UserError(f"case {case.case}: other channels", path, expected, found, "correct it")
    if not all(0 < zoom < math.inf for zoom in zooms):
        raise UserError(f"case {case.case}: no spacing", path, "millimetres above 0", f"{zooms}", "correct the header")
    if not grid.usable:
        expected, found = "finite numbers and a volume above zero", grid.affine[:3].tolist()
        raise UserError(f"case {case.case}: unusable affine", path, expected, found, "correct the header")
    axes = _ras_axes(image)
    return [float(zooms[axis]) for axis in axes], [int(shape[axis]) for axis in axes]


def _box(path: Path) -> list[float]:
    """Part of each side, in the order of RAS, that the box around the non-zero voxels takes."""
    stored = voxels(path)
    nonzero = np.asarray(stored.any(-1) if stored.ndim == 4 else stored != 0)
    parts = [1.0, 1.0, 1.0]
    for box in ndimage.find_objects(nonzero.astype(np.uint8)):  # none in an empty image
        parts = [(side.stop - side.start) / size for side, size in zip(box, nonzero.shape, strict=True)]
    return [parts[axis] for axis in _ras_axes(open_image(path))]


def _ras_axes(image: Any) -> list[int]:
    """Axes of a nibabel image in the order of RAS."""
    return np.argsort(nib.io_orientation(image.affine)[:, 0]).tolist()


def _fragments(made: Plan, labels: Sequence[str], border: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """What the bundles' transforms and network differ in, with the reasons."""
    thin = int(np.argmin(made.patch_size))
    flat = max(made.patch_size) / made.patch_size[thin] > ANISOTROPY
    sides = any(_SIDES.search(label) for label in labels)
    fragments: dict[str, Any] = {
        "whole_volume": not border,
        "normalize_nonzero": border,
        "mirror_axes": [1, 2] if sides else [0, 1, 2],
        "rotate_range": [_ROTATION if axis == thin or not flat else 0.0 for axis in range(3)],
    }
    reasons = {
        "whole_volume": "cropped to the non-zero box, which is small" if border else "the images have no zero border",
        "normalize_nonzero": "mean and deviation of the non-zero voxels" if border else "of all voxels",
        "mirror_axes": "not left-right: labels name sides" if sides else "take out 0 if a label is one side's",
        "rotate_range": f"30 degrees about {'xyz'[thin]} only: the patch is thin" if flat else "30 degrees",
    }
    if any(size != 3 for kernel in made.kernels for size in kernel):
        network = load(BUNDLE_SRC / "base" / "fragments.json")["network_def"]
        fragments["network_def"] = {**network, "kernel_sizes": made.kernels}
        reasons["network_def"] = "no convolution across slices before the voxels of a feature map are about cubes"
    return fragments, reasons


def _comments(tolerance: float) -> dict[str, str]:
    return {
        "max_epochs": "nnU-Net's schedule: 1000 epochs of 250 batches; a tenth shows whether it works",
        "nsd_tolerance_mm": f"a boundary that is {tolerance:g} mm off counts as right: the longest side of a voxel",
        "kd_weight": "of the shipped tasks; dcd calibrate proposes one for these data",
        "metadata": "title, source, licence and references appear in the bundles' pages: complete them",
    }


def _about(data: DataSet, name: str, labels: Sequence[str]) -> dict[str, Any]:
    numbered = ", ".join(f"{value} {label}" for value, label in enumerate(labels))
    channels = data.task.modalities
    place = " in one 4D file" if len(channels) > 1 and len(data.cases[0].images) == 1 else ""
    output = "" if data.prepare.startswith("dcd check") else f" --output prepared/{name}"
    return {
        "metadata": {
            "title": name.replace("_", " "),
            "data_source": f"{data.task.name}: the source of the data",
            "data_type": "nibabel",
            "image_classes": f"{len(channels)} channel(s){place}: {', '.join(channels)}",
            "label_classes": numbered,
            "inputs": list(channels),
            "outputs": list(labels),
            "references": ["publication of the data"],
        },
        "readme": {
            "task_title": name.replace("_", " "),
            "task_name": name,
            "data": f"{data.task.name}: {', '.join(channels)}. Labels: {numbered}.",
            "data_license": f"{data.task.name}: the licence of the data.",
            "prepare": data.prepare + output,
        },
    }
