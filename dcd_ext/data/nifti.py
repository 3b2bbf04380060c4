"""Read and write NIfTI volumes: one rule for images, one for labels, the same that the configs' preprocessing has."""

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from dcd_ext.inference.values import finite, stored, unreadable, whole_labels
from dcd_ext.io import write_atomically


def open_image(path: Path) -> Any:
    """Open a volume lazily; only the header is read. Typed Any: nibabel's annotation is too narrow for its header."""
    try:
        image = nib.load(path)
        if not isinstance(image, SpatialImage):  # a surface, or CIFTI, whose name may end in .nii
            raise TypeError(f"{type(image).__name__} is no volume")
        return image
    except Exception as error:  # nibabel, gzip and zlib raise a dozen types for a broken file
        raise unreadable(path, error) from error


def voxels(path: Path) -> np.ndarray:
    """Read the voxels of a file, scaled where the header says so, without axes of length 1 after the third."""
    image = open_image(path)
    data = stored(image, path)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return data


def read_image(path: Path) -> np.ndarray:
    """Read an image; NaN, which SPM and FSL write outside of a mask, becomes 0 and is logged, infinity is refused."""
    return finite(voxels(path), path)


def read_label(path: Path) -> np.ndarray:
    """Read a label as whole numbers: 0.9999 is 1, what is not near one is refused."""
    return whole_labels(voxels(path), path)


def label_counts(data: np.ndarray) -> dict[float, int]:
    """Voxels per finite value of a mask, ascending; a value that is not a whole number keeps its fraction."""
    if data.dtype.kind in "iu" and data.size and int(data.min()) >= 0 and int(data.max()) < 2**16:
        # counting is a tenth of the time of sorting, which matters for a thousand whole heads
        counts = np.bincount(data.ravel())
        return {float(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(data[np.isfinite(data)], return_counts=True)
    return {float(value): int(number) for value, number in zip(values, numbers, strict=True)}


def save_nifti(path: str | os.PathLike, data: np.ndarray, affine: np.ndarray) -> None:
    """Save a volume (x, y, z) as ``.nii`` or ``.nii.gz``, atomically; refused where it cannot be written.

    The affine (4×4, voxel to world in millimetres, RAS+ as nibabel) becomes both qform and sform.
    """
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    write_atomically(path, lambda name: nib.save(image, name))
