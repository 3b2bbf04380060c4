"""All checks that need the files of one case: each file is read once."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.check_values import check_image_values, check_label_values
from dcd_ext.data.findings import ERROR, WARNING, Finding
from dcd_ext.data.geometry import Grid, farthest_corner_mm, grid_difference, grid_of
from dcd_ext.data.nifti import label_counts, open_image, voxels
from dcd_ext.data.tasks import Task

__all__ = ["CaseScan", "CaseSource", "CheckSettings", "scan_case"]

Report = Callable[..., None]


@dataclass(frozen=True)
class CheckSettings:
    """What to check against.

    Attributes:
        task: expected modalities and labels.
        tolerance_mm: allowed distance at the farthest corner.
        skip: names of checks to leave out.
    """

    task: Task
    tolerance_mm: float = 0.1
    skip: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CaseSource:
    """Files of one entry of the data list, as absolute or working-directory paths.

    Attributes:
        case: name of the case.
        images: image files in channel order.
        label: the mask, if any.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass
class CaseScan:
    """What one pass over a case gives.

    Attributes:
        findings: problems of this case.
        counts: voxels per label value; None without a readable label.
        contents: checksum of each image, to find copies.
        cache_bytes: memory of the case as float32 channels plus a float32 label.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[float, int] | None = None
    contents: dict[str, Path] = field(default_factory=dict)
    cache_bytes: int = 0


def scan_case(source: CaseSource, settings: CheckSettings) -> CaseScan:
    """Check one case.

    Args:
        source: its files.
        settings: what to check against.

    Returns:
        Findings and the numbers that the checks of the whole set need.
    """
    scan = CaseScan()

    def report(severity: str, check: str, *texts: object) -> None:
        if check not in settings.skip:
            scan.findings.append(Finding(severity, check, source.case, *(str(text) for text in texts)))

    expected = len(settings.task.modalities)
    # one file may hold all modalities as a 4D volume, as in some Decathlon tasks
    if len(source.images) not in (1, expected):
        names = ", ".join(settings.task.modalities)
        report(ERROR, "modality", "missing or surplus modality", source.case, f"{expected} images ({names})",
               len(source.images), "complete the entry, or prepare the data again")  # fmt: skip
    reference: tuple[Path, Grid] | None = None
    for file in (*source.images, *((source.label,) if source.label else ())):
        is_label = file == source.label
        channels = 1 if is_label else expected // max(1, len(source.images))
        opened = _read(file, report)
        if opened is None:
            continue
        image, data = opened
        if not _check_form(file, data, channels, report):
            continue
        grid = grid_of(image)
        _check_affine(file, image, grid, settings.tolerance_mm, report)
        if reference is None:
            reference = (file, grid)
        elif grid.usable and reference[1].usable:
            _check_grid(file, grid, reference, settings, report)
        scan.cache_bytes += 4 * data.size
        if is_label:
            scan.counts = label_counts(data)
            check_label_values(file, data, scan.counts, settings.task, report)
        else:
            _check_copy(file, data, scan.contents, report)
            check_image_values(file, data, report)
    return scan


def _read(file: Path, report: Report) -> tuple[Any, np.ndarray] | None:
    """Open and read a file, or report why that fails."""
    if not file.is_file():
        report(ERROR, "readable", "missing file", file, "a NIfTI file", "nothing", "restore it or prepare again")
        return None
    try:
        return open_image(file), voxels(file)
    # nibabel, gzip and zlib raise a dozen types for a broken file, and each of them means the same to the user
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        report(ERROR, "readable", "unreadable file", file, "a complete NIfTI file", reason, "fetch the file again")
        return None


def _check_form(file: Path, data: np.ndarray, channels: int, report: Report) -> bool:
    """Whether voxels are real numbers in a 3D volume (4D with ``channels`` volumes); otherwise reports."""
    if data.dtype.kind not in "iuf":
        report(ERROR, "dtype", "wrong voxel type", file, "integer or floating point", data.dtype,
               "convert the file to a scalar image")  # fmt: skip
        return False
    shape = data.shape
    if 0 in shape or not (len(shape) == 3 or (len(shape) == 4 and channels > 1 and shape[3] == channels)):
        wanted = "3 dimensions" if channels == 1 else f"3 dimensions, or 4 with {channels} volumes"
        report(ERROR, "dimensions", f"{len(shape)}D input", file, wanted, "×".join(map(str, shape)),
               "split or squeeze the file into one 3D volume per modality")  # fmt: skip
        return False
    if len(shape) == 3 and channels > 1:
        report(ERROR, "modality", "missing modality", file, f"{channels} volumes", 1, "complete the case")
    return True


def _check_affine(file: Path, image: Any, grid: Grid, tolerance_mm: float, report: Report) -> None:
    """The affine can be inverted, and programs that prefer the qform see the same place as those that prefer sform."""
    if not grid.usable:
        report(ERROR, "affine", "unusable affine", file, "finite numbers and a volume above zero",
               np.array2string(grid.affine[:3], precision=3, separator=",").replace("\n", ""),
               "repair the header, or remove the case")  # fmt: skip
        return
    header = image.header
    if not hasattr(header, "get_qform"):
        return
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    step = "write the file again with one program, or remove the qform or the sform"
    if qform is None and sform is None:
        report(WARNING, "affine", "no position in the header", file, "a qform or an sform", "neither",
               "check that left and right are right before you train")  # fmt: skip
    elif qform is not None and sform is not None:
        distance = farthest_corner_mm(qform, sform, grid.shape)
        if distance > tolerance_mm:
            report(WARNING, "affine", "qform and sform disagree", file, f"at most {tolerance_mm:g} mm",
                   f"{distance:.3g} mm", step)  # fmt: skip


def _check_grid(file: Path, grid: Grid, reference: tuple[Path, Grid], settings: CheckSettings, report: Report) -> None:
    """The file lies on the grid of the first file of its case; only the most telling difference is reported."""
    differences = grid_difference(reference[1], grid, settings.tolerance_mm)
    for check, expected, found in [d for d in differences if d[0] not in settings.skip][:1]:
        report(ERROR, check, f"{check} differs within the case", f"{file} against {reference[0].name}", expected,
               found, "resample it onto that grid (isles22: prepare_data.py does), or remove the case")  # fmt: skip


def _check_copy(file: Path, data: np.ndarray, contents: dict[str, Path], report: Report) -> None:
    """No two modalities of a case have the same voxels."""
    key = f"{data.shape}-{zlib.crc32(np.ascontiguousarray(data.T).data):08x}"
    if key in contents:
        report(ERROR, "modality", "the same image for two modalities", file, "its own voxels",
               f"a copy of {contents[key].name}", "put the right file there")  # fmt: skip
    contents.setdefault(key, file)
