"""All checks that need the files of one case: each file is read once."""

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.cases import Case
from dcd_ext.data.check_report import Findings
from dcd_ext.data.nifti import label_counts, open_image, voxels
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError
from dcd_ext.inference.geometry import TOLERANCE_MM, Grid, farthest_corner_mm, grid_difference, grid_of
from dcd_ext.inference.values import are_whole, shown

# BraTS numbered the enhancing tumour 4 and left out 3, until it became 3; since 2024, 4 is the resection cavity.
OLD_BRATS = "older BraTS numbering (BraTS ≤ 2023): ET = 4"


@dataclass
class CaseScan:
    """What one pass over a case gives."""

    findings: Findings
    counts: dict[float, int] | None = None  # voxels per label value; None without a readable label
    contents: dict[str, Path] = field(default_factory=dict)  # by checksum of the voxels, to find copies
    cache_bytes: int = 0  # as float32 channels plus a float32 label


def scan_case(source: Case, task: Task, skip: frozenset[str]) -> CaseScan:
    """Check one case, and gather the numbers that the checks of the whole set need."""
    scan = CaseScan(Findings(skip, source.case))
    findings, expected = scan.findings, len(task.modalities)
    # one file may hold all modalities as a 4D volume, as in some Decathlon tasks
    if len(source.images) not in (1, expected):
        wanted, step = f"{expected} images ({', '.join(task.modalities)})", "complete the entry, or prepare again"
        findings.error("modality", "missing or surplus modality", source.case, wanted, len(source.images), step)
    reference: tuple[Path, Grid] | None = None
    for file in (*source.images, *((source.label,) if source.label else ())):
        is_label = file == source.label
        channels = 1 if is_label else expected // max(1, len(source.images))
        opened = _read(file, findings)
        if opened is None or not _has_form(file, opened[1], channels, findings):
            continue
        image, data = opened
        grid = grid_of(image)
        _check_affine(file, image, grid, findings)
        if reference is None:
            reference = (file, grid)
        elif grid.usable and reference[1].usable:
            _check_grid(file, grid, reference, findings)
        scan.cache_bytes += 4 * data.size
        if is_label:
            scan.counts = label_counts(data)
            _check_label_values(file, data, scan.counts, task, findings)
        else:
            _check_copy(file, data, scan.contents, findings)
            _check_image_values(file, data, findings)
    return scan


def _read(file: Path, findings: Findings) -> tuple[Any, np.ndarray] | None:
    if not os.path.isfile(file):  # False for a name that no file can have, too
        findings.error("readable", "missing file", file, "a NIfTI file", "nothing", "restore it or prepare again")
        return None
    try:
        return open_image(file), voxels(file)
    except UserError as error:
        findings.error("readable", *error.parts)
        return None


def _has_form(file: Path, data: np.ndarray, channels: int, findings: Findings) -> bool:
    """Whether voxels are real numbers in a 3D volume (4D with ``channels`` volumes); otherwise reports."""
    if data.dtype.kind not in "iuf":
        wanted, step = "integer or floating point", "convert the file to a scalar image"
        findings.error("dtype", "wrong voxel type", file, wanted, data.dtype, step)
        return False
    shape = data.shape
    if 0 in shape or not (len(shape) == 3 or (len(shape) == 4 and channels > 1 and shape[3] == channels)):
        wanted = "3 dimensions" if channels == 1 else f"3 dimensions, or 4 with {channels} volumes"
        step = "split or squeeze the file into one 3D volume per modality"
        findings.error("dimensions", f"{len(shape)}D input", file, wanted, "×".join(map(str, shape)), step)
        return False
    if len(shape) == 3 and channels > 1:
        findings.error("modality", "missing modality", file, f"{channels} volumes", 1, "complete the case")
    return True


def _check_affine(file: Path, image: Any, grid: Grid, findings: Findings) -> None:
    """The affine can be inverted, and programs that read another part of the header see the same place."""
    if not grid.usable:
        found = np.array2string(grid.affine[:3], precision=3, separator=",").replace("\n", "")
        wanted, step = "finite numbers and a volume above zero", "repair the header, or remove the case"
        findings.error("affine", "unusable affine", file, wanted, found, step)
        return
    header = image.header
    if not hasattr(header, "get_qform"):
        return
    zooms = np.array(header.get_zooms()[:3])
    if zooms.shape == (3,) and (np.abs(zooms - grid.spacing) * grid.shape).max() > TOLERANCE_MM:
        wanted, found = (f"{'×'.join(f'{n:.4g}' for n in sizes)} mm" for sizes in (grid.spacing, zooms))
        step = "nothing, the position counts here; write the file again for programs that read pixdim"
        findings.warn("affine", "voxel sizes and position disagree", file, wanted, f"pixdim {found}", step)
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        step = "check that left and right are right before you train"
        findings.warn("affine", "no position in the header", file, "a qform or an sform", "neither", step)
    elif qform is not None and sform is not None:
        distance = farthest_corner_mm(qform, sform, grid.shape)
        if distance > TOLERANCE_MM:
            wanted, found = f"at most {TOLERANCE_MM:g} mm", f"{distance:.3g} mm"
            step = "write the file again with one program, or remove the qform or the sform"
            findings.warn("affine", "qform and sform disagree", file, wanted, found, step)


def _check_grid(file: Path, grid: Grid, reference: tuple[Path, Grid], findings: Findings) -> None:
    """The file lies on the grid of the first file of its case; only the most telling difference is reported."""
    first, first_grid = reference
    differences = grid_difference(first_grid, grid)
    for check, expected, found in [d for d in differences if d[0] not in findings.skip][:1]:
        step = "resample it onto that grid (dcd prepare isles22 does), or remove the case"
        where = f"{file} against {first.name}"
        findings.error(check, f"{check} differs within the case", where, expected, found, step)


def _check_copy(file: Path, data: np.ndarray, contents: dict[str, Path], findings: Findings) -> None:
    """No two modalities of a case have the same voxels."""
    key = f"{data.shape}-{zlib.crc32(np.ascontiguousarray(data.T).data):08x}"
    if key in contents:
        what = f"{file.name} is a copy of {contents[key].name}: the same image for two modalities"
        findings.error("modality", what, file, "", "", "put the right file there")
    contents.setdefault(key, file)


def _check_image_values(file: Path, data: np.ndarray, findings: Findings) -> None:
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


def _check_label_values(file: Path, data: np.ndarray, counts: dict[float, int], task: Task, findings: Findings) -> None:
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
    if present <= {0, 255}:
        return "a 0/255 mask: divide it by 255"
    if 4 in present and 3 not in present and task.labels.get(3) == "ET":
        return f"{OLD_BRATS}; change 4 to 3"
    return "map them to the task's values, or name the right task with --task"
