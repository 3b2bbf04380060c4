"""Synthetic data sets in the published folder layouts, so that everything runs without any real data.

Every case draws from its own seeded generator: the same seed gives the same bytes whatever the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcd_ext.data.files import make_folder, save_nifti
from dcd_ext.data.parallel import map_processes, relayed
from dcd_ext.data.phantom_anatomy import TumourPlan, draw_brain, draw_tumour
from dcd_ext.data.phantom_layouts import write_isles_case, write_msd_case, write_msd_index
from dcd_ext.data.phantom_signal import BRATS_CONTRASTS, render
from dcd_ext.errors import UserError

__all__ = ["DEFAULT_SHAPES", "LAYOUTS", "PhantomSpec", "brats_case_names", "make_brats_case", "write_phantoms"]

LAYOUTS = ("brats24", "isles22", "msd")
DEFAULT_SHAPES: dict[str, tuple[int, int, int]] = {
    "brats24": (64, 64, 48),
    "isles22": (48, 48, 32),
    "msd": (35, 50, 36),
}


@dataclass(frozen=True)
class PhantomSpec:
    """What to write.

    Attributes:
        root: folder that receives the cases.
        layout: one of ``LAYOUTS``.
        cases: number of labelled scans.
        test_cases: number of further scans without labels.
        shape: voxels along x, y, z (of the DWI for isles22); None takes ``DEFAULT_SHAPES``.
        seed: start of all randomness.
        flair_spacing: millimetres of the synthetic FLAIR grid; ISLES-2022 itself has about 0.45, 0.45, 5.
    """

    root: Path
    layout: str = "brats24"
    cases: int = 10
    test_cases: int = 0
    shape: tuple[int, int, int] | None = None
    seed: int = 0
    flair_spacing: tuple[float, float, float] = (0.875, 0.875, 5.0)


def brats_case_names(count: int) -> list[tuple[int, int]]:
    """Subject number and time point of each scan: every third subject comes back for a second scan.

    Args:
        count: number of scans.

    Example:
        >>> brats_case_names(5)
        [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]
    """
    scans: list[tuple[int, int]] = []
    subject = 0
    while len(scans) < count:
        subject += 1
        scans.append((subject, 0))
        if subject % 3 == 0:
            scans.append((subject, 1))
    return scans[:count]


def make_brats_case(
    seed: int, subject: int, visit: int, shape: tuple[int, int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw one four-modality scan with its label map.

    Brain and tumour position come from the subject, so that a second visit shows the same head with a larger tumour:
    a fold that splits a subject leaks for phantoms just as it does for patients.

    Args:
        seed: seed of the data set.
        subject: subject number.
        visit: 0 or 1.
        shape: voxels along x, y, z.

    Returns:
        int16 images by modality (t1n, t1c, t2w, t2f) and the uint8 label map.
    """
    brain = draw_brain(np.random.default_rng([seed, subject, 0]), shape)
    plan = TumourPlan(cavity=subject % 2 == 0 or visit > 0, thin_rim=subject % 3 == 2, growth=1 + 0.15 * visit)
    detail = np.random.default_rng([seed, subject, 2, visit])
    label = draw_tumour(np.random.default_rng([seed, subject, 1]), detail, brain, plan)
    images = {name: render(detail, brain, label, kind) for name, kind in BRATS_CONTRASTS.items()}
    return {name: np.round(image).astype(np.int16) for name, image in images.items()}, label


def _write_brats_case(spec: PhantomSpec, index: int) -> None:
    """Write scan ``index`` in the BraTS 2024 GLI layout, with the affine of the published cases (LPS, 1 mm)."""
    shape = spec.shape or DEFAULT_SHAPES["brats24"]
    subject, visit = brats_case_names(index + 1)[index]
    name = f"BraTS-GLI-{subject:05d}-{visit:03d}"
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    images, label = make_brats_case(spec.seed, subject, visit, shape)
    folder = make_folder(spec.root / name)
    for modality, image in images.items():
        save_nifti(folder / f"{name}-{modality}.nii.gz", image, affine)
    if index < spec.cases:
        save_nifti(folder / f"{name}-seg.nii.gz", label, affine)


def _write_case(job: tuple[PhantomSpec, int]) -> str:
    """Write one case of any layout; runs in other processes and therefore returns the text of a failure."""
    spec, index = job
    shape = spec.shape or DEFAULT_SHAPES[spec.layout]
    labelled = index < spec.cases
    try:
        if spec.layout == "brats24":
            _write_brats_case(spec, index)
        elif spec.layout == "isles22":
            write_isles_case(spec.root, spec.seed, index, shape, spec.flair_spacing, labelled)
        else:
            write_msd_case(spec.root, spec.seed, index, shape, labelled)
    except UserError as error:
        return str(error)
    return ""


def write_phantoms(spec: PhantomSpec, workers: int | None = None) -> None:
    """Write a synthetic data set.

    Args:
        spec: what to write.
        workers: processes; None takes the cores this process may use.

    Raises:
        UserError: for an unknown layout, a count below one, a shape too small to hold a tumour, or an output folder
            that cannot be written.
    """
    _validate(spec)
    make_folder(spec.root)
    jobs = [(spec, index) for index in range(spec.cases + spec.test_cases)]
    if len(jobs) < 8:
        workers = 1  # starting processes takes longer than a few small cases
    failures = [text for text in map_processes(_write_case, jobs, "phantoms", workers) if text]
    if failures:
        raise relayed(failures[0])
    if spec.layout == "msd":
        write_msd_index(spec.root, spec.cases, spec.test_cases)


def _validate(spec: PhantomSpec) -> None:
    """Refuse what cannot be drawn."""
    again = "see dcd phantoms --help"
    if spec.layout not in LAYOUTS:
        raise UserError("unknown layout", "--layout", " or ".join(LAYOUTS), spec.layout, again)
    if spec.cases < 1 or spec.test_cases < 0:
        raise UserError("no cases to write", "--cases", "at least 1", spec.cases, again)
    if spec.shape and min(spec.shape) < 24:
        raise UserError("the phantom is too small for its structures", "--shape", "24 or more", spec.shape, again)
