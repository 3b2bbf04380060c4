"""Synthetic data sets in the published folder layouts, so that everything runs without any real data.

Layouts are those of BraTS 2024 GLI, ISLES-2022 (two oblique grids) and the Decathlon (small crops). Every case draws
from its own seeded generator: the same seed gives the same bytes whatever the number of processes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dcd_ext.data.nifti import save_nifti
from dcd_ext.data.phantom_anatomy import (
    CSF,
    GREY,
    WHITE,
    Shape,
    distance_to,
    draw_brain,
    draw_tumour,
    smooth_field,
)
from dcd_ext.data.phantom_signal import BRATS_CONTRASTS, Contrast, render
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json
from dcd_ext.parallel import map_processes

_DEFAULT_SHAPES = {"brats24": (64, 64, 48), "isles22": (48, 48, 32), "msd": (35, 50, 36)}
LAYOUTS = tuple(_DEFAULT_SHAPES)
# One class, the infarct: bright in DWI, dark in ADC, moderately bright in FLAIR. ADC is in 1e-3 mm²/s as published.
_FLAIR = Contrast((0, 0.2, 0.75, 0.62), (1.05,), 1100)
_DWI = Contrast((0, 0.25, 0.6, 0.55), (1.3,), 450)
_ADC = Contrast((0, 1.5, 0.45, 0.4), (0.22,), 2)
_T1 = Contrast((0, 0.3, 0.55, 0.8), (1.08, 0.96), 180)


@dataclass(frozen=True)
class PhantomSpec:
    """What to write."""

    root: Path  # folder that receives the cases
    layout: str = "brats24"  # one of LAYOUTS
    cases: int = 10  # labelled scans
    test_cases: int = 0  # further scans without labels
    shape: tuple[int, int, int] | None = None  # voxels along x, y, z (of the DWI for isles22); None: a small default
    seed: int = 0
    flair_spacing: tuple[float, float, float] = (0.875, 0.875, 5.0)  # in mm; ISLES-2022 has about 0.45, 0.45, 5


def write_phantoms(spec: PhantomSpec, workers: int | None = None) -> None:
    """Write a synthetic data set, in ``workers`` processes; None takes the cores this process may use.

    Refused are an unknown layout, a count below one, a shape too small to hold a tumour, and an output folder that
    cannot be written.
    """
    again = "see dcd phantoms --help"
    if spec.layout not in LAYOUTS:
        raise UserError("unknown layout", "--layout", " or ".join(LAYOUTS), spec.layout, again)
    if spec.cases < 1 or spec.test_cases < 0:
        raise UserError("no cases to write", "--cases", "at least 1", spec.cases, again)
    if spec.shape and min(spec.shape) < 24:
        raise UserError("the phantom is too small for its structures", "--shape", "24 or more", spec.shape, again)
    make_folder(spec.root)
    jobs = [(spec, index) for index in range(spec.cases + spec.test_cases)]
    if len(jobs) < 8:
        workers = 1  # starting processes takes longer than a few small cases
    map_processes(_write_case, jobs, "phantoms", workers)
    if spec.layout == "msd":
        _write_msd_index(spec.root, spec.cases, spec.test_cases)


def _write_case(job: tuple[PhantomSpec, int]) -> None:
    spec, index = job
    write = {"brats24": _write_brats_case, "isles22": _write_isles_case, "msd": _write_msd_case}[spec.layout]
    write(spec, index, spec.shape or _DEFAULT_SHAPES[spec.layout], index < spec.cases)


def brats_case_names(count: int) -> list[tuple[int, int]]:
    """Subject number and time point of each scan: every third subject comes back for a second scan.

    Example:
        >>> brats_case_names(5)
        [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]
    """
    visits = ((subject, visit) for subject in range(1, count + 1) for visit in range(2 if subject % 3 == 0 else 1))
    return list(visits)[:count]


def make_brats_case(seed: int, subject: int, visit: int, shape: Shape) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw one four-modality scan with its label map.

    Brain and tumour position come from the subject, so that a second visit (1 instead of 0) shows the same head with a
    larger tumour: a fold that splits a subject leaks for phantoms just as it does for patients. Images are int16, by
    modality (t1n, t1c, t2w, t2f), the label map is uint8.
    """
    brain = draw_brain(np.random.default_rng([seed, subject, 0]), shape)
    cavity, thin_rim, growth = subject % 2 == 0 or visit > 0, subject % 3 == 2, 1 + 0.15 * visit
    detail = np.random.default_rng([seed, subject, 2, visit])
    label = draw_tumour(np.random.default_rng([seed, subject, 1]), detail, brain, cavity, thin_rim, growth)
    images = {name: render(detail, brain, label, kind) for name, kind in BRATS_CONTRASTS.items()}
    return {name: np.round(image).astype(np.int16) for name, image in images.items()}, label


def _write_brats_case(spec: PhantomSpec, index: int, shape: Shape, labelled: bool) -> None:
    """Write one scan in the BraTS 2024 GLI layout, with the affine of the published cases (LPS, 1 mm)."""
    subject, visit = brats_case_names(index + 1)[index]
    name = f"BraTS-GLI-{subject:05d}-{visit:03d}"
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    images, label = make_brats_case(spec.seed, subject, visit, shape)
    for kind, volume in (images | {"seg": label} if labelled else images).items():
        save_nifti(spec.root / name / f"{name}-{kind}.nii.gz", volume, affine)


def _oblique_affine(rng: np.random.Generator, shape: Shape, spacing: tuple[float, float, float]) -> np.ndarray:
    """Affine of a head-first-supine scan with a tilted slice stack; its field of view is centred at the origin."""
    rotation = Rotation.from_euler("xyz", rng.uniform((-15, -3, -4), (15, 3, 4)), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _infarcts(rng: np.random.Generator, brain: np.ndarray) -> np.ndarray:
    """One to four infarcts: one territory-sized, the others a few voxels wide."""
    label = np.zeros(brain.shape, np.uint8)
    inside = ndimage.binary_erosion(brain > CSF, iterations=2)
    candidates = np.argwhere(inside)
    wobble = 0.2 * smooth_field(rng, brain.shape, 7)
    for number in range(rng.integers(1, 5)):
        centre = candidates[rng.integers(len(candidates))]
        radius = min(brain.shape) * rng.uniform(0.1, 0.18) if number == 0 else rng.uniform(1.0, 2.5)
        distance = distance_to(centre, brain.shape) / radius
        label[(distance + wobble * (number == 0) < 1) & inside] = 1
    return label


def _write_isles_case(spec: PhantomSpec, index: int, shape: Shape, labelled: bool) -> None:
    """Write one case in the ISLES-2022 layout: DWI, ADC and mask on a 2 mm grid, FLAIR on another, both oblique.

    The FLAIR's shape follows from the field of view of the DWI.
    """
    rng = np.random.default_rng([spec.seed, index, 22])
    name = f"sub-strokecase{index + 1:04d}"
    brain = draw_brain(rng, shape)
    label = _infarcts(rng, brain)
    affine = _oblique_affine(rng, shape, (2.0, 2.0, 2.0))
    x, y, z = (int(n * 2.0 / s) for n, s in zip(shape, spec.flair_spacing, strict=True))
    flair_affine = _oblique_affine(rng, (x, y, z), spec.flair_spacing)
    to_dwi = np.linalg.inv(affine) @ flair_affine
    drawn = render(rng, brain, label, _FLAIR, noise=0.03)
    flair = ndimage.affine_transform(drawn, to_dwi[:3, :3], to_dwi[:3, 3], (x, y, z), order=1)
    flair[flair > 0] += rng.uniform(0, 20, int((flair > 0).sum())).astype(np.float32)
    session, stem = spec.root / name / "ses-0001", f"{name}_ses-0001"
    save_nifti(session / "anat" / f"{stem}_FLAIR.nii.gz", flair, flair_affine)
    save_nifti(session / "dwi" / f"{stem}_dwi.nii.gz", render(rng, brain, label, _DWI), affine)
    save_nifti(session / "dwi" / f"{stem}_adc.nii.gz", render(rng, brain, label, _ADC), affine)
    if labelled:
        save_nifti(spec.root / "derivatives" / name / "ses-0001" / f"{stem}_msk.nii.gz", label, affine)


def _hippocampus(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A bent tapering tube: its front third is class 1 (Anterior), the rest class 2 (Posterior)."""
    x, y, z = np.ogrid[tuple(slice(0, 1, n * 1j) for n in shape)]
    middle_x, middle_z = rng.uniform(0.42, 0.58, 2)
    bend = rng.uniform(0.1, 0.22)
    axis_x = middle_x + bend * (y - 0.5) ** 2 * 4 - bend / 2
    axis_z = middle_z - 0.15 * (y - 0.5)
    width = (0.16 + 0.07 * (y - 0.5)) * rng.uniform(0.9, 1.15)
    distance = np.sqrt((x - axis_x) ** 2 + (z - axis_z) ** 2) / width + 0.1 * smooth_field(rng, shape, 7)
    tube = (distance < 1) & (y > 0.12) & (y < 0.88)
    border = rng.uniform(0.52, 0.6)
    return np.where(tube, np.where(y > border, 1, 2), 0).astype(np.uint8)


def _write_msd_case(spec: PhantomSpec, index: int, shape: Shape, labelled: bool) -> None:
    """Write one hippocampus-like crop in the Decathlon layout (single channel, 1 mm, RAS)."""
    rng = np.random.default_rng([spec.seed, index, 4])
    label = _hippocampus(rng, shape)
    field = smooth_field(rng, shape, 6)
    tissue = np.select([field < -1.2, field < 0.3], [CSF, GREY], WHITE).astype(np.uint8)
    image = np.clip(render(rng, tissue, label, _T1), 0, 4000)
    name = f"hippocampus_{index + 1:03d}.nii.gz"
    save_nifti(spec.root / ("imagesTr" if labelled else "imagesTs") / name, image, np.eye(4))
    if labelled:
        save_nifti(spec.root / "labelsTr" / name, label, np.eye(4))


def _write_msd_index(root: Path, cases: int, test_cases: int) -> None:
    """Write the Decathlon ``dataset.json`` of ``cases`` labelled phantoms and ``test_cases`` others."""
    names = [f"hippocampus_{number:03d}.nii.gz" for number in range(1, cases + test_cases + 1)]
    content = {
        "name": "Hippocampus",
        "description": "Synthetic hippocampus-like crops, not patients",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": cases,
        "numTest": test_cases,
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names[:cases]],
        "test": [f"./imagesTs/{n}" for n in names[cases:]],
    }
    write_json(content, root / "dataset.json")
