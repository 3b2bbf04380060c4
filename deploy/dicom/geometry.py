"""Where the voxels of a DICOM series lie, and its voxels.

The App SDK's own conversion is not used: it takes the row spacing for the column spacing, does not notice a missing
slice, and gives the whole volume the number type of the first slice, which cuts off the fractions of rescaled values.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcd_ext.data.geometry import Grid
from dcd_ext.errors import UserError

_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def sort_slices(slices: Sequence[Any], name: str) -> list[Any]:
    """pydicom datasets of one series, called ``name`` in an error, ordered along their common normal.

    Raises:
        UserError: if there are fewer than two slices, one has no geometry, or they are not parallel.
    """
    if len(slices) < 2:
        raise _error("no volume", name, "two or more slices", len(slices))
    missing = [key for dataset in slices for key in _GEOMETRY if key not in dataset]
    if missing:
        raise _error("slice without geometry", name, missing[0], "none")
    first = _numbers(slices[0].ImageOrientationPatient)
    for dataset in slices:
        if not np.allclose(_numbers(dataset.ImageOrientationPatient), first, atol=1e-4):
            raise _error("slices are not parallel", name, first.tolist(), list(dataset.ImageOrientationPatient))
    normal = np.cross(first[:3], first[3:])
    return sorted(slices, key=lambda dataset: float(normal @ _numbers(dataset.ImagePositionPatient)))


def series_grid(slices: Sequence[Any], name: str, tolerance_mm: float = 0.1) -> Grid:
    """Grid of sorted slices, voxels along x (columns), y (rows), z (slices), world RAS+ as in NIfTI.

    Source: DICOM PS3.3, equation C.7.6.2.1-1.

    Raises:
        UserError: if slices differ in size or spacing, or one lies farther than ``tolerance_mm`` from an even spacing.
    """
    first = slices[0]
    for dataset in slices:
        if not np.allclose(_size(first), _size(dataset), rtol=1e-5):
            raise _error("slices differ in size or pixel spacing", name, _size(first), _size(dataset))
    positions = np.array([_numbers(dataset.ImagePositionPatient) for dataset in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    even = positions[0] + np.arange(len(slices))[:, None] * step
    if np.linalg.norm(positions - even, axis=1).max() > tolerance_mm:
        gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        where = f"{name}, between slices {gaps.argmax() + 1} and {gaps.argmax() + 2} of {len(slices)}"
        expected, found = f"{np.median(gaps):.3f} mm", f"{gaps.max():.3f} mm"
        raise _error("slices are not evenly spaced", where, expected, found, "look for a missing file of the series")
    orientation = _numbers(first.ImageOrientationPatient)
    between_rows, between_columns = _numbers(first.PixelSpacing)
    lps = np.eye(4)
    # the first triplet points along a row, from column to column
    lps[:3, 0], lps[:3, 1] = orientation[:3] * between_columns, orientation[3:] * between_rows
    lps[:3, 2], lps[:3, 3] = step, positions[0]
    return Grid((int(first.Columns), int(first.Rows), len(slices)), _LPS_TO_RAS @ lps)


def series_voxels(slices: Sequence[Any], name: str) -> np.ndarray:
    """Voxels (X, Y, Z) of sorted slices, float32, with the modality's rescale slope and intercept applied.

    Raises:
        UserError: if the pixels of a slice are missing, damaged or compressed in a way that nothing here can decode.
    """
    stored = [_stored_pixels(dataset, f"{name}, slice {i} of {len(slices)}") for i, dataset in enumerate(slices, 1)]
    from pydicom.pixels import apply_rescale

    planes = [np.asarray(apply_rescale(pixels, s), np.float32) for pixels, s in zip(stored, slices, strict=True)]
    return np.stack(planes).transpose(2, 1, 0)


def _stored_pixels(dataset: Any, name: str) -> np.ndarray:
    try:
        return dataset.pixel_array
    # what pydicom's decoders raise: pixels cut short, a fragment that is none, no decoder for the transfer syntax
    except (AttributeError, OSError, RuntimeError, ValueError, struct.error) as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())  # one line, also of several decoders
        step = "copy the series again or decompress it, e.g. with gdcmconv --raw"
        raise _error("pixels cannot be read", name, "pixels that pydicom can decode", found, step) from error


def _size(dataset: Any) -> tuple[float, ...]:
    return dataset.Columns, dataset.Rows, *map(float, dataset.PixelSpacing)


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, float)


def _error(what: str, name: str, expected: object, found: object, step: str = "choose another series") -> UserError:
    return UserError(what, f"series {name}", expected, found, step)
