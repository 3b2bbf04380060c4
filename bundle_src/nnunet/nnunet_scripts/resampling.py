"""Resampling as nnU-Net v2 does it: splines over the whole volume, or slice by slice where voxels are anisotropic."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage as ndi

# ratio of the longest to the shortest side of a voxel from which slices are resampled one by one
ANISOTROPIC = 3


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels per axis after resampling, so that the volume's extent stays the same up to rounding."""
    return tuple(round(s / t * n) for n, s, t in zip(shape, spacing, new_spacing, strict=True))


def thick_axis(spacing: Sequence[float], new_spacing: Sequence[float], force: bool | None = None) -> int | None:
    """The axis across which slices are resampled one by one, or None: all axes at once.

    The first of the two spacings that is anisotropic decides; two equally long sides are no single axis. ``force``
    takes the first spacing in any case (True) or never works slice by slice (False).
    """
    if force is False:
        return None
    for candidate in (spacing, new_spacing):
        longest = max(candidate)
        if force or longest / min(candidate) > ANISOTROPIC:
            axes = [axis for axis, side in enumerate(candidate) if side == longest]
            return axes[0] if len(axes) == 1 else None
    return None


def zoom(volume: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Spline interpolation to ``shape`` in float64; extents are aligned and values stay within those of the input."""
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    zoomed = ndi.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, volume.min(), volume.max())


def _resize(volume: np.ndarray, shape: Sequence[int], order: int, axis: int | None) -> np.ndarray:
    """One volume in float64; across ``axis`` the nearest slice is taken."""
    if axis is None:
        return zoom(volume, shape, order)
    in_plane = [side for number, side in enumerate(shape) if number != axis]
    slices = [zoom(piece, in_plane, order) for piece in np.moveaxis(volume, axis, 0)]
    # centres of the new slices in old ones, rounded as scipy.ndimage.map_coordinates does with order 0
    centres = len(slices) / shape[axis] * (np.arange(shape[axis]) + 0.5) - 0.5
    nearest = np.floor(centres + 0.5).astype(int).clip(0, len(slices) - 1)
    return np.stack([slices[number] for number in nearest], axis)


def resample(
    array: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int,
    force_separate_z: bool | None = None,
) -> np.ndarray:
    """Resample each channel of (C, X, Y, Z) to ``shape``; the result has the array's type."""
    axis = thick_axis(spacing, new_spacing, force_separate_z)
    return _per_channel(array, shape, lambda volume: _resize(volume.astype(float), shape, order, axis))


def resample_labels(
    array: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int,
    force_separate_z: bool | None = None,
) -> np.ndarray:
    """Like :func:`resample` for label maps: each voxel gets the label with the largest share in it."""
    axis = thick_axis(spacing, new_spacing, force_separate_z)

    def resize(volume: np.ndarray) -> np.ndarray:
        values = np.unique(volume)
        shares = [_resize((volume == value).astype(float), shape, order, axis) for value in values]
        return values[np.argmax(shares, axis=0)]

    return _per_channel(array, shape, resize)


def _per_channel(array: np.ndarray, shape: Sequence[int], resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if array.shape[1:] == tuple(shape):
        return array
    resized = np.empty((len(array), *shape), array.dtype)
    for channel, volume in enumerate(array):
        resized[channel] = resize(volume)
    return resized
