"""Writing files so that a reader never sees half of one: temporary name in the same folder, then ``os.replace``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.errors import UserError

__all__ = ["atomic_path", "make_folder", "save_nifti", "write_json"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and move it there when the block ends without an error.

    The temporary name starts with a dot, so that the layout search never takes it for a case, and keeps the
    suffixes, because nibabel and ITK choose the format by them.

    Args:
        path: the final file. An existing file is replaced.

    Raises:
        UserError: when the folder cannot be written or is full.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            "cannot write the file",
            path,
            "a writable folder with free space",
            error.strerror or type(error).__name__,
            "choose another --output, or free space and start again",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents.

    Args:
        folder: the folder to create; one that exists is kept.

    Returns:
        ``folder``.

    Raises:
        UserError: when it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "cannot create the output folder",
            folder,
            "a place this user may write to",
            error.strerror or type(error).__name__,
            "choose another --output",
        ) from error
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON, atomically.

    Args:
        path: the file to write.
        content: anything ``json.dumps`` accepts.

    Raises:
        UserError: when the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_nifti(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Save a volume as NIfTI with the affine in both qform and sform, in millimetres, atomically.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        data: the voxels, x y z.
        affine: 4×4, voxel to world in millimetres (RAS+, as nibabel).

    Raises:
        UserError: when the file cannot be written.
    """
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
