"""Whether DICOM files are one evenly spaced volume, told from their headers; the same for a folder and for a study."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.errors import UserError

# how many numbers each has
_NUMBERS = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
_SIZE = ("Columns", "Rows", "PixelSpacing")
# what is read of a header, with its tag
_TAGS = {
    **dict(zip(_NUMBERS, ("0020|0037", "0020|0032", "0028|0030", "0028|0010", "0028|0011"), strict=True)),
    **{"SeriesInstanceUID": "0020|000e", "SeriesDescription": "0008|103e", "NumberOfFrames": "0028|0008"},
}
TOLERANCE_MM = 0.1  # how far a slice may lie from an even spacing


def is_dicom(file: str | os.PathLike) -> bool:
    """Whether a regular file has the mark of DICOM."""
    try:
        if not os.path.isfile(file):
            return False
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(path: Path) -> list[dict[str, Any]]:
    """Headers of a file, or of a folder's DICOM files, without the pixels; refused if of none or of several series."""
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]
    headers = [header for file in files if file.is_file() and (header := _read_header(file)) is not None]
    if not headers:
        raise UserError("no image", path, "DICOM files in the folder", "none", "correct the path")
    series = {header.get("SeriesInstanceUID"): header.get("SeriesDescription", "") for header in headers}
    if len(series) > 1:
        raise not_one_series("several series", path, series.values(), "move each series to a folder of its own")
    return headers


def not_one_series(what: str, where: object, descriptions: Iterable[object], step: str) -> UserError:
    """The error for none or several series where one is needed."""
    found = ", ".join(repr(str(description or "").strip()) for description in descriptions) or "none"
    return UserError(what, where, "one series", found, step)


def check_series(slices: Sequence[Any], name: object) -> list[Any]:
    """Slices of one series (headers or pydicom datasets), ordered along their common normal.

    Refused if they are no volume: a single one, slices without geometry, of several directions, sizes or pixel
    spacings, two at one place, or one farther than 0.1 mm from an even spacing, as beside a missing one.
    """
    if len(slices) == 1 and _numbers(slices[0].get("NumberOfFrames") or 1).max(initial=1) > 1:
        return list(slices)  # a volume in one file; its geometry is in its frames
    if len(slices) < 2:
        raise _error("no volume", name, "two or more slices", len(slices))
    for dataset in slices:
        for key, count in _NUMBERS.items():
            numbers = _numbers(dataset.get(key))
            if len(numbers) != count or not np.isfinite(numbers).all():
                raise _error("slice without geometry", name, key, dataset.get(key, "none"))
    direction, size = _numbers(slices[0].get("ImageOrientationPatient")), _size(slices[0])
    for dataset in slices:
        other = _numbers(dataset.get("ImageOrientationPatient"))
        if not np.allclose(other, direction, atol=1e-4):
            raise _error("slices are not parallel", name, direction.tolist(), other.tolist())
        if not np.allclose(size, _size(dataset), rtol=1e-5):
            raise _error("slices differ in size or pixel spacing", name, size, _size(dataset))
    normal = np.cross(direction[:3], direction[3:])
    ordered = sorted(slices, key=lambda dataset: float(normal @ _numbers(dataset.get("ImagePositionPatient"))))
    _check_spacing(np.array([_numbers(dataset.get("ImagePositionPatient")) for dataset in ordered]), name)
    return ordered


def _size(dataset: Any) -> tuple[float, ...]:
    """Columns, rows, and millimetres between rows and between columns."""
    columns, rows, *spacing = np.concatenate([_numbers(dataset.get(key)) for key in _SIZE]).tolist()
    return int(columns), int(rows), *spacing


def _check_spacing(positions: np.ndarray, name: object) -> None:
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    apart = np.sort(gaps[gaps > TOLERANCE_MM])
    usual = float(apart[(len(apart) - 1) // 2]) if len(apart) else 0.0
    if gaps.min() <= min(TOLERANCE_MM, usual / 2):
        where = f"{name}, slices {gaps.argmin() + 1} and {gaps.argmin() + 2} of {len(positions)}"
        step = "look for a file that was copied twice, or for a second volume in the series"
        raise _error("two slices at one place", where, f"{usual:.3f} mm between slices", f"{gaps.min():.3f} mm", step)
    even = positions[0] + np.arange(len(positions))[:, None] * (positions[-1] - positions[0]) / len(gaps)
    if np.linalg.norm(positions - even, axis=1).max() > TOLERANCE_MM:
        worst = int(np.abs(gaps - usual).argmax())
        where = f"{name}, between slices {worst + 1} and {worst + 2} of {len(positions)}"
        step = "look for a missing file of the series"
        raise _error("slices are not evenly spaced", where, f"{usual:.3f} mm", f"{gaps[worst]:.3f} mm", step)


def _read_header(file: Path) -> dict[str, Any] | None:
    """The header of a file, by the libraries that MONAI's readers use; None for a file that is no DICOM."""
    try:
        import itk
    except ImportError:
        return _read_with_pydicom(file)
    io = itk.GDCMImageIO.New()
    if not io.CanReadFile(str(file)):
        return None
    io.SetFileName(str(file))
    try:
        io.ReadImageInformation()
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise UserError("unreadable DICOM header", file, "one that ITK reads", why, "copy the file again") from error
    found = io.GetMetaDataDictionary()
    values = {key: str(found[tag]).strip("\0 ") for key, tag in _TAGS.items() if found.HasKey(tag)}
    return {key: text for key, text in values.items() if text}


def _read_with_pydicom(file: Path) -> dict[str, Any] | None:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    except InvalidDicomError:
        return None
    return {key: dataset[key].value for key in _TAGS if key in dataset and dataset[key].value is not None}


def _numbers(values: Any) -> np.ndarray:
    """Of a value, or of a text that separates them by backslashes; none for what are no numbers."""
    try:
        return np.atleast_1d(np.array(values.split("\\") if isinstance(values, str) else values, float))
    except (TypeError, ValueError):
        return np.empty(0)


def _error(what: str, name: object, expected: object, found: object, step: str = "choose another series") -> UserError:
    return UserError(what, f"series {name}", expected, found, step)
