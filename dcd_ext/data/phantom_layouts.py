"""Phantoms in the ISLES-2022 layout (two oblique grids) and in the Decathlon layout (small crops, two classes)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dcd_ext.data.files import make_folder, save_nifti, write_json
from dcd_ext.data.phantom_anatomy import CSF, GREY, WHITE, draw_brain, smooth_field
from dcd_ext.data.phantom_signal import Contrast, render

__all__ = ["write_isles_case", "write_msd_case", "write_msd_index"]

# One class, the infarct: bright in DWI, dark in ADC, moderately bright in FLAIR. ADC is in 1e-3 mm²/s as published.
_FLAIR = Contrast((0, 0.2, 0.75, 0.62), (1.05,), 1100)
_DWI = Contrast((0, 0.25, 0.6, 0.55), (1.3,), 450)
_ADC = Contrast((0, 1.5, 0.45, 0.4), (0.22,), 2)
_T1 = Contrast((0, 0.3, 0.55, 0.8), (1.08, 0.96), 180)


def _oblique_affine(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> np.ndarray:
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
        grid = np.ogrid[tuple(slice(0, n) for n in brain.shape)]
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))) / radius
        label[(distance + wobble * (number == 0) < 1) & inside] = 1
    return label


def write_isles_case(
    root: Path,
    seed: int,
    index: int,
    shape: tuple[int, int, int],
    flair_spacing: tuple[float, float, float],
    labelled: bool,
) -> None:
    """Write one case in the ISLES-2022 layout: DWI, ADC and mask on a 2 mm grid, FLAIR on another, both oblique.

    Args:
        root: the data set folder.
        seed: seed of the data set.
        index: number of the case from 0.
        shape: voxels of the DWI grid.
        flair_spacing: millimetres of the FLAIR grid; its shape follows from the DWI field of view.
        labelled: write the mask too.
    """
    rng = np.random.default_rng([seed, index, 22])
    name = f"sub-strokecase{index + 1:04d}"
    brain = draw_brain(rng, shape)
    label = _infarcts(rng, brain)
    affine = _oblique_affine(rng, shape, (2.0, 2.0, 2.0))
    flair_shape = tuple(int(n * 2.0 / s) for n, s in zip(shape, flair_spacing, strict=True))
    flair_affine = _oblique_affine(rng, flair_shape, flair_spacing)  # type: ignore[arg-type]
    to_dwi = np.linalg.inv(affine) @ flair_affine
    flair = ndimage.affine_transform(
        render(rng, brain, label, _FLAIR, noise=0.03), to_dwi[:3, :3], to_dwi[:3, 3], flair_shape, order=1
    )
    flair[flair > 0] += rng.uniform(0, 20, int((flair > 0).sum())).astype(np.float32)
    stem = f"{name}_ses-0001"
    anat, dwi = (make_folder(root / name / "ses-0001" / kind) for kind in ("anat", "dwi"))
    save_nifti(anat / f"{stem}_FLAIR.nii.gz", flair, flair_affine)
    save_nifti(dwi / f"{stem}_dwi.nii.gz", render(rng, brain, label, _DWI), affine)
    save_nifti(dwi / f"{stem}_adc.nii.gz", render(rng, brain, label, _ADC), affine)
    if labelled:
        derived = make_folder(root / "derivatives" / name / "ses-0001")
        save_nifti(derived / f"{stem}_msk.nii.gz", label, affine)


def _hippocampus(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
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


def write_msd_case(root: Path, seed: int, index: int, shape: tuple[int, int, int], labelled: bool) -> None:
    """Write one hippocampus-like crop in the Decathlon layout (single channel, 1 mm, RAS).

    Args:
        root: the task folder.
        seed: seed of the data set.
        index: number of the case from 0.
        shape: voxels along x, y, z.
        labelled: into imagesTr with a label, else into imagesTs.
    """
    rng = np.random.default_rng([seed, index, 4])
    label = _hippocampus(rng, shape)
    field = smooth_field(rng, shape, 6)
    tissue = np.select([field < -1.2, field < 0.3], [CSF, GREY], WHITE).astype(np.uint8)
    image = np.clip(render(rng, tissue, label, _T1), 0, 4000)
    name = f"hippocampus_{index + 1:03d}.nii.gz"
    save_nifti(make_folder(root / ("imagesTr" if labelled else "imagesTs")) / name, image, np.eye(4))
    if labelled:
        save_nifti(make_folder(root / "labelsTr") / name, label, np.eye(4))


def write_msd_index(root: Path, cases: int, test_cases: int) -> None:
    """Write the Decathlon ``dataset.json`` of phantoms.

    Args:
        root: the task folder.
        cases: number of labelled cases.
        test_cases: number of cases without labels.
    """
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
    write_json(root / "dataset.json", content)
