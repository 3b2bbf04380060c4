"""Where the voxels of a DICOM series lie, and its voxels.

The App SDK's own conversion is not used: it takes the row spacing for the column spacing, does not notice a missing
slice, and gives the whole volume the number type of the first slice, which cuts off the fractions of rescaled values.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.inference.geometry import Grid

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def series_grid(slices: Sequence[Any]) -> Grid:
    """Grid of slices as ``check_series`` returns them: voxels along x (columns), y (rows), z (slices), world RAS+.

    Source: DICOM PS3.3, equation C.7.6.2.1-1.
    """
    first, last = slices[0], slices[-1]
    orientation = _numbers(first.ImageOrientationPatient)
    between_rows, between_columns = _numbers(first.PixelSpacing)
    step = (_numbers(last.ImagePositionPatient) - _numbers(first.ImagePositionPatient)) / (len(slices) - 1)
    lps = np.eye(4)
    # the first triplet points along a row, from column to column
    lps[:3, 0], lps[:3, 1] = orientation[:3] * between_columns, orientation[3:] * between_rows
    lps[:3, 2], lps[:3, 3] = step, _numbers(first.ImagePositionPatient)
    return Grid((int(first.Columns), int(first.Rows), len(slices)), _LPS_TO_RAS @ lps)


def series_voxels(slices: Sequence[Any], name: str) -> np.ndarray:
    """Voxels (X, Y, Z) of sorted slices, float32, with the modality's rescale slope and intercept applied.

    Refused if the pixels of a slice are missing, damaged or compressed in a way that nothing here can decode.
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
        expected = "pixels that pydicom can decode"
        raise UserError("pixels cannot be read", f"series {name}", expected, found, step) from error


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, float)
