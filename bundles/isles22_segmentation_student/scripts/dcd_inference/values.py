"""One rule for the values of images and labels, in checks, training and inference."""

import functools
import gzip
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_inference.errors import UserError

# how far a label may lie from a whole number, as after scaling or a conversion by another program
WHOLE = 1e-3
logger = logging.getLogger(__name__)
_say_once = functools.cache(logger.warning)


def finite(data: np.ndarray, file: str | os.PathLike) -> np.ndarray:
    """An image's values; NaN, as SPM and FSL write it outside a mask, becomes 0 and is logged; infinity is refused.

    A constant image is logged, too: a network finds something in it all the same.
    """
    if data.size and data.min() == data.max():
        _say_once(f"constant image – {file} – all voxels are {data.min():g}")
    if data.dtype.kind != "f" or np.isfinite(data).all():
        return data
    if infinite := int(np.isinf(data).sum()):
        found, step = f"{infinite} infinite ones", "repair the file"
        raise UserError("infinite intensities", file, "finite numbers", found, step)
    _say_once(f"NaN is read as 0 – {file} – {int(np.isnan(data).sum())} of {data.size} voxels")
    return np.nan_to_num(data)


def stored(image: Any, file: str | os.PathLike) -> np.ndarray:
    """The voxels of an image that nibabel opened from ``file``, scaled where the header says so.

    Damaged data are refused. nibabel stops before the checksum at the end of a gzip file: one changed bit would pass as
    another intensity.
    """
    try:
        if str(file).lower().endswith((".gz", ".mgz")) and nib.is_proxy(image.dataobj) and hasattr(image, "from_bytes"):
            image = type(image).from_bytes(gzip.decompress(Path(file).read_bytes()))
        return np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, gzip and zlib raise a dozen types for a broken file
        raise unreadable(file, error) from error


def unreadable(file: str | os.PathLike, error: Exception) -> UserError:
    """The error for a file that cannot be read whole."""
    reason = str(error).strip() or type(error).__name__
    return UserError("unreadable file", file, "a complete NIfTI file", reason.splitlines()[0], "fetch the file again")


def are_whole(values: np.ndarray) -> np.ndarray:
    """Which values count as whole numbers; NaN and infinity do not."""
    return np.isclose(values, np.rint(values), rtol=0, atol=WHOLE) & np.isfinite(values)


def whole_labels(data: np.ndarray, file: str | os.PathLike, num_classes: int | None = None) -> np.ndarray:
    """Whole numbers of a label: 0.9999 is 1; a value near none, or with ``num_classes`` of no class, is refused."""
    odd = ~are_whole(data) if data.dtype.kind == "f" else np.zeros(data.shape, bool)
    labels = np.rint(np.where(odd, 0, data)).astype(np.int64)
    if num_classes is not None:
        odd |= (labels < 0) | (labels >= num_classes)
    if odd.any():
        expected = "whole numbers" + ("" if num_classes is None else f" from 0 to {num_classes - 1}")
        raise UserError("unusable label values", file, expected, shown(np.unique(data[odd])), "run dcd check")
    return labels


def shown(values: Sequence[float] | np.ndarray) -> str:
    """The first of many values."""
    return ", ".join(f"{value:g}" for value in values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
