"""Compare the grids of two volumes in units a person can judge: voxels, millimetres, axis letters."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from dcd_inference.errors import UserError

# how far two files of a case may lie apart at the farthest corner
TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume are."""

    shape: tuple[int, ...]  # voxels along x, y, z
    affine: np.ndarray  # 4×4, voxel to world in millimetres

    @property
    def spacing(self) -> np.ndarray:
        """Millimetres between voxels along each axis."""
        return nib.affines.voxel_sizes(self.affine)

    @property
    def usable(self) -> bool:
        """Whether the affine is finite and can be inverted."""
        return bool(np.isfinite(self.affine).all() and abs(np.linalg.det(self.affine[:3, :3])) > 1e-9)

    @property
    def axes(self) -> str:
        """Direction of each voxel axis, such as LPS."""
        return "".join(letter or "?" for letter in nib.aff2axcodes(self.affine))


def grid_of(image: Any) -> Grid:
    """Grid of a nibabel image."""
    return Grid(tuple(image.shape[:3]), np.asarray(image.affine, float))


def grid_difference(reference: Grid, other: Grid) -> list[tuple[str, str, str]]:
    """Ways in which a grid differs from the reference, the most telling first, as (check, expected, found).

    Checks are shape, spacing, orientation and affine; there is none when no corner lies farther from its place than
    ``TOLERANCE_MM``.
    """
    if reference.shape != other.shape:
        return [("shape", _times(reference.shape), _times(other.shape))]
    distance = farthest_corner_mm(reference.affine, other.affine, reference.shape)
    if distance <= TOLERANCE_MM:
        return []
    differences = []
    # spacing off by less than this moves the far corner by less than the tolerance
    if (np.abs(reference.spacing - other.spacing) * np.array(reference.shape)).max() > TOLERANCE_MM:
        differences.append(("spacing", _times(reference.spacing) + " mm", _times(other.spacing) + " mm"))
    if reference.axes != other.axes:
        differences.append(("orientation", reference.axes, other.axes))
    differences.append(("affine", f"at most {TOLERANCE_MM:g} mm at the farthest corner", f"{distance:.3g} mm"))
    return differences


def farthest_corner_mm(first: np.ndarray, second: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance in millimetres between the places two 4×4 affines give to the same voxel of a grid.

    The distance is a convex function of the voxel index, so that its maximum lies at a corner of the grid.
    """
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3]))), float)
    return float(np.linalg.norm(nib.affines.apply_affine(first - second, corners), axis=1).max())


def require_same_grid(reference: Grid, other: Grid, what: str, where: object, next_step: str) -> None:
    """Refuse a grid that differs from the reference, with the most telling difference."""
    for check, expected, found in grid_difference(reference, other):
        raise UserError(f"{what} ({check})", where, expected, found, next_step)


def _times(values: Iterable[float]) -> str:
    return "×".join(f"{value:.4g}" for value in values)
