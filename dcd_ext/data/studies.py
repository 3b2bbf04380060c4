"""A folder of images as MONAI Label wants it: one file per case, labels beside them in ``labels/final``."""

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dcd_ext.data.cases import image_names, read_datalist, require_entries
from dcd_ext.data.geometry import grid_of, require_same_grid
from dcd_ext.data.nifti import open_image, save_nifti, suffix, voxels
from dcd_ext.errors import UserError
from dcd_ext.inference.names import refuse_collisions
from dcd_ext.io import make_folder, write_atomically


def stack_channels(images: list[Path], output: Path) -> None:
    """Write the files of one case as one 4-D NIfTI, channels last, which MONAI reads like the list of files.

    Raises:
        UserError: if the grids differ by more than 0.1 mm anywhere, or the file cannot be written.
    """
    reference = open_image(images[0])
    for path in images[1:]:
        where, step = f"{path}, compared with {images[0].name}", "register and resample the case first"
        what = "channels do not fit on each other"
        require_same_grid(grid_of(reference), grid_of(open_image(path)), what, where, step)
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
        output: the studies folder, made if needed.

    Returns:
        Number of images and of labels.

    Raises:
        UserError: if the list cannot be read, two cases have one name, the folder has another image of a case's name,
            channels do not fit on each other, or the folder cannot be written.
    """
    content = read_datalist(datalist)
    for section in ("training", "test"):
        require_entries(content[section], f"{datalist}, {section}", ("image", "case"))
    cases = [*content["training"], *content["test"]]
    images = [[datalist.parent / name for name in image_names(case)] for case in cases]
    refuse_collisions([str(case["case"]) for case in cases], [files[0] for files in images])
    _refuse_other_studies(cases, images, output)
    final = make_folder(output / "labels" / "final")
    for case, files in zip(tqdm(cases, desc="studies", unit="case", disable=None), images, strict=True):
        if len(files) > 1:
            stack_channels(files, output / f"{case['case']}.nii.gz")
        else:
            write_atomically(_link(case, files[0], output), partial(os.symlink, _existing(files[0])))
        if "label" in case:
            label = datalist.parent / case["label"]
            copy = final / f"{case['case']}{suffix(label)}"
            # a link would let MONAI Label write into the data set
            if not copy.exists():
                write_atomically(copy, partial(shutil.copyfile, _existing(label)))
    return len(cases), sum("label" in case for case in cases)


def _link(case: Mapping[str, Any], image: Path, output: Path) -> Path:
    return output / f"{case['case']}{suffix(image)}"


def _refuse_other_studies(cases: Sequence[Mapping[str, Any]], images: Sequence[list[Path]], output: Path) -> None:
    """A label that is kept would belong to another image than the new link."""
    for case, files in zip(cases, images, strict=True):
        link = _link(case, files[0], output)
        if len(files) == 1 and link.is_symlink() and link.resolve() != files[0].resolve():
            step = "choose another --output"
            raise UserError("study of this name from elsewhere", link, files[0].resolve(), link.resolve(), step)


def _existing(file: Path) -> Path:
    if not os.path.isfile(file):  # False for a name that no file can have, too
        raise UserError("image not found", file, "a file", "none", "run dcd check on the data list")
    return file.resolve()
