"""A folder of images as MONAI Label wants it: one file per case, labels beside them in ``labels/final``."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dcd_ext.data.cases import image_names, read_datalist, require_entries
from dcd_ext.data.geometry import grid_difference, grid_of
from dcd_ext.data.nifti import open_image, save_nifti, suffix, voxels
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_atomically

_TOLERANCE_MM = 0.1


def stack_channels(images: list[Path], output: Path) -> None:
    """Write the files of one case as one 4-D NIfTI, channels last, which MONAI reads like the list of files.

    Raises:
        UserError: if the grids differ by more than 0.1 mm anywhere, or the file cannot be written.
    """
    reference = open_image(images[0])
    for path in images[1:]:
        for check, expected, found in grid_difference(grid_of(reference), grid_of(open_image(path)), _TOLERANCE_MM):
            where = f"{path}, compared with {images[0].name}"
            step = "register and resample the case first"
            raise UserError(f"channels do not fit on each other ({check})", where, expected, found, step)
    data = np.stack([voxels(path) for path in images], axis=-1)
    # 8-byte numbers would only double the file: MONAI computes in float32
    save_nifti(output, data.astype(np.float32) if data.dtype.itemsize > 4 else data, reference.affine)


def write_studies(datalist: Path, output: Path) -> tuple[int, int]:
    """Fill a studies folder from a prepared data set.

    A case with one channel becomes a link to its file, one with several channels a stacked copy. Labels are copied to
    ``labels/final``, where MONAI Label looks for what to train with and saves what its users draw; a label that is
    already there is kept.

    Args:
        datalist: ``datalist.json`` of ``dcd prepare``.
        output: the studies folder, made if needed; images of the same name are replaced.

    Returns:
        Number of images and of labels.

    Raises:
        UserError: if the list cannot be read, channels do not fit on each other, or the folder cannot be written.
    """
    content = read_datalist(datalist)
    for section in ("training", "test"):
        require_entries(content[section], f"{datalist}, {section}", ("image", "case"))
    cases = [*content["training"], *content["test"]]
    final = make_folder(output / "labels" / "final")
    for case in tqdm(cases, desc="studies", unit="case", disable=None):
        images = [datalist.parent / name for name in image_names(case)]
        if len(images) > 1:
            stack_channels(images, output / f"{case['case']}.nii.gz")
        else:
            image = _existing(images[0])
            write_atomically(output / f"{case['case']}{suffix(images[0])}", partial(os.symlink, image))
        if "label" in case:
            label = datalist.parent / case["label"]
            copy = final / f"{case['case']}{suffix(label)}"
            # a link would let MONAI Label write into the data set
            if not copy.exists():
                write_atomically(copy, partial(shutil.copyfile, _existing(label)))
    return len(cases), sum("label" in case for case in cases)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError("image not found", file, "a file", "none", "run dcd check on the data list")
    return file.resolve()
