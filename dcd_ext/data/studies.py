"""A folder of images as MONAI Label wants it: one file per case, labels beside them in ``labels/final``."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dcd_ext.data.cases import Case, read_case, read_datalist, require_entries
from dcd_ext.data.nifti import open_image, save_nifti, voxels
from dcd_ext.errors import UserError
from dcd_ext.inference.geometry import grid_of, require_same_grid
from dcd_ext.inference.names import refuse_collisions, split_suffix
from dcd_ext.io import make_folder, write_atomically


def stack_channels(images: Sequence[Path], output: Path) -> None:
    """Write the files of one case as one 4-D NIfTI, channels last, which MONAI reads like the list of files.

    Refused if the grids differ by more than 0.1 mm anywhere, or the file cannot be written.
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
    """Fill a studies folder from the ``datalist.json`` of a prepared data set; the numbers of images and of labels.

    A case with one channel becomes a link to its file, one with several channels a stacked copy. Labels are copied to
    ``labels/final``, where MONAI Label looks for what to train with and saves what its users draw; a label that is
    already there is kept. Refused if the list cannot be read, two cases have one name, the folder has another image of
    a case's name, channels do not fit on each other, or the folder cannot be written.
    """
    content = read_datalist(datalist)
    for section in ("training", "test"):
        require_entries(content[section], f"{datalist}, {section}", ("image", "case"))
    cases = [read_case(entry, datalist.parent) for entry in [*content["training"], *content["test"]]]
    refuse_collisions([case.case for case in cases], [case.images[0] for case in cases])
    _refuse_other_studies(cases, output)
    final = make_folder(output / "labels" / "final")
    for case in tqdm(cases, desc="studies", unit="case", disable=None):
        if len(case.images) > 1:
            stack_channels(case.images, output / f"{case.case}.nii.gz")
        else:
            write_atomically(_link(case, output), partial(os.symlink, _existing(case.images[0])))
        if case.label is not None:
            copy = final / f"{case.case}{split_suffix(case.label.name)[1]}"
            # a link would let MONAI Label write into the data set
            if not copy.exists():
                write_atomically(copy, partial(shutil.copyfile, _existing(case.label)))
    return len(cases), sum(case.label is not None for case in cases)


def _link(case: Case, output: Path) -> Path:
    return output / f"{case.case}{split_suffix(case.images[0].name)[1]}"


def _refuse_other_studies(cases: Sequence[Case], output: Path) -> None:
    """A label that is kept would belong to another image than the new link."""
    for case in cases:
        link, image = _link(case, output), case.images[0]
        if len(case.images) == 1 and link.is_symlink() and link.resolve() != image.resolve():
            step = "choose another --output"
            raise UserError("study of this name from elsewhere", link, image.resolve(), link.resolve(), step)


def _existing(file: Path) -> Path:
    if not os.path.isfile(file):  # False for a name that no file can have, too
        raise UserError("image not found", file, "a file", "none", "run dcd check on the data list")
    return file.resolve()
