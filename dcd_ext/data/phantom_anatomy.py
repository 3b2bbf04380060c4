"""Label maps of brain-like phantoms: tissue (CSF, grey, white) and tumour classes with thin and small parts.

Shapes are drawn from smooth random fields, so that borders are irregular and a network cannot learn a template. All
sizes are fractions of the smallest axis except the thin and small parts, which are meant to be a few voxels wide.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Shape = tuple[int, int, int]

CSF, GREY, WHITE = 1, 2, 3
NETC, SNFH, ET, RC = 1, 2, 3, 4


def smooth_field(rng: np.random.Generator, shape: Sequence[int], knots: int) -> np.ndarray:
    """Draw a smooth random float32 field of zero mean and unit standard deviation.

    Random values on a coarse ``knots``³ grid are blended with Gaussian bumps along each axis; three small matrix
    products are far cheaper than filtering the full grid.
    """
    field = rng.standard_normal((knots, knots, knots))
    for axis_length in shape:
        position = np.linspace(0, knots - 1, axis_length)[:, None]
        weights = np.exp(-0.5 * ((position - np.arange(knots)) / 0.6) ** 2)
        # contracting the first axis and appending the new one cycles through x, y, z
        field = np.tensordot(field, weights / weights.sum(1, keepdims=True), axes=(0, 1))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def distance_to(centre: Sequence[float] | np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Distance of each voxel of a grid to a point, in voxels."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))


def draw_brain(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw a skull-stripped brain: an ellipsoid with folded cortex, white matter, deep nuclei and ventricles.

    The uint8 array is 0 outside, otherwise ``CSF``, ``GREY`` or ``WHITE``.
    """
    # voxel centres in [-1, 1] per axis
    x, y, z = np.ogrid[tuple(slice(-1 + 1 / n, 1 - 1 / n, n * 1j) for n in shape)]
    wobble = 0.03 * smooth_field(rng, shape, 5)
    half = rng.uniform(0.84, 0.94, 3)
    radius = np.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2) + wobble
    depth = 1 - radius
    # the zero level set of a random field is a folded sheet: a cheap stand-in for sulci and the cortex around them
    fold = np.abs(smooth_field(rng, shape, max(6, min(shape) // 6)))
    brain = np.where(depth > 0, WHITE, 0).astype(np.uint8)
    brain[(depth > 0) & ((depth < 0.12) | ((fold < 0.35) & (depth < 0.38)))] = GREY
    brain[(depth > 0) & (fold < 0.08) & (depth < 0.3)] = CSF
    for side in (-1, 1):
        nucleus = ((x - side * 0.24) / 0.12) ** 2 + ((y + 0.02) / 0.2) ** 2 + ((z + 0.12) / 0.16) ** 2
        ventricle = ((x - side * 0.1) / 0.07) ** 2 + ((y + 0.02) / 0.34) ** 2 + ((z - 0.1) / 0.14) ** 2
        brain[nucleus + 4 * wobble < 1] = GREY
        brain[ventricle + 4 * wobble < 1] = CSF
    return brain


def draw_tumour(
    place: np.random.Generator,
    detail: np.random.Generator,
    brain: np.ndarray,
    cavity: bool,
    thin_rim: bool,
    growth: float,
) -> np.ndarray:
    """Draw a tumour into a tissue map: a uint8 array of the BraTS 2024 labels 0, ``NETC``, ``SNFH``, ``ET``, ``RC``.

    ``place`` is the randomness of position and size, one per subject, so that a follow-up grows in the same place;
    ``detail`` that of the outline and the small parts, one per scan. The tumour may have a resection cavity (RC), and
    an enhancing rim of one to two voxels instead of about a third of the radius, which ``growth`` multiplies.
    """
    shape = brain.shape
    side = place.choice((-1.0, 1.0))
    centre = np.array([side * place.uniform(0.3, 0.45), place.uniform(-0.4, 0.4), place.uniform(-0.25, 0.3)])
    centre = (centre + 1) / 2 * (np.array(shape) - 1)
    radius = place.uniform(0.13, 0.19) * min(shape) * growth
    distance = distance_to(centre, shape).astype(np.float32)
    relative = distance / radius + 0.12 * smooth_field(detail, shape, 8)
    fingers = distance / radius + 0.4 * smooth_field(detail, shape, 6)
    inside = ndimage.binary_erosion(brain > 0, iterations=2)
    label = np.zeros(shape, np.uint8)
    label[(fingers < 2.1) & inside & (brain != CSF)] = SNFH
    _draw_thin(detail, label, centre, radius)
    _draw_small(detail, label, inside, centre, radius)
    rim = (1.6 / radius) if thin_rim else 0.32
    label[(relative < 1) & inside] = ET
    label[(relative < 1 - rim) & inside] = NETC
    if cavity:
        shifted = [c - 0.55 * radius * s for c, s in zip(centre, (side, 1, 0.3), strict=True)]
        hole = distance_to(shifted, shape) / (0.8 * radius)
        label[(hole + 0.1 * smooth_field(detail, shape, 7) < 1) & inside] = RC
    return label


def _draw_thin(rng: np.random.Generator, label: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """Add vessel-like tubes and a one- to two-voxel sheet of enhancing tumour inside the oedema, in place."""
    oedema = label == SNFH
    field = smooth_field(rng, label.shape, 5)
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(field))) + 1e-6
    # dividing by the slope turns the field value into a distance in voxels, so that the sheet has even thickness
    label[oedema & (np.abs(field) / slope < 0.7)] = ET
    steps = np.linspace(0, 1, 8 * int(radius) + 8)[:, None]
    for _ in range(3):
        heading, bend = rng.standard_normal((2, 3))
        heading /= np.linalg.norm(heading)
        curve = centre + radius * (2.4 * steps * heading + 0.5 * np.sin(3 * steps) * bend)
        points = np.round(curve).astype(int)
        points = points[np.all((points > 0) & (points < np.array(label.shape) - 1), axis=1)]
        tube = np.zeros(label.shape, bool)
        tube[tuple(points.T)] = True
        label[ndimage.binary_dilation(tube) & oedema] = ET


def _draw_small(
    rng: np.random.Generator, label: np.ndarray, inside: np.ndarray, centre: np.ndarray, radius: float
) -> None:
    """Add satellites two to four voxels wide around the tumour, in place: enhancing ones and spots of oedema."""
    for value, count in ((ET, 5), (SNFH, 3)):
        for _ in range(count):
            heading = rng.standard_normal(3)
            spot = centre + heading / np.linalg.norm(heading) * radius * rng.uniform(1.5, 2.8)
            label[(distance_to(spot, label.shape) <= rng.uniform(1.0, 2.0)) & inside] = value
