"""Put one volume on the grid of another with ITK, keeping the exact affine of the target.

ITK and not ``scipy.ndimage.affine_transform``: the latter decides ties of nearest neighbours otherwise, which changes
up to a tenth of a mask where two grids are half a voxel apart, and may lose the outer voxels of a sheared grid.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.nifti import open_image, read_image, read_label, save_nifti
from dcd_ext.inference.geometry import Grid, grid_of

with warnings.catch_warnings():
    # ITK's SWIG classes lack __module__: where that warning is an error, loading them crashes the interpreter. They are
    # loaded on first use, so each part that is used below is named here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import itk

    _PARTS = (itk.MultiThreaderBase, itk.PyBuffer, itk.ResampleImageFilter, itk.LinearInterpolateImageFunction)


def limit_itk_to_one_thread() -> None:
    """Keep ITK on one thread: cases run in parallel processes, and threads on top of them only slow each other."""
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(1)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)


def _itk_image(data: np.ndarray, grid: Grid) -> Any:
    """A float32 ITK image (LPS+, mm); its arrays are z y x in C order, which is nibabel's x y z in Fortran order."""
    image = itk.image_view_from_array(np.ascontiguousarray(data.T, dtype=np.float32))
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image.SetDirection(itk.matrix_from_array(to_lps @ grid.affine[:3, :3] / grid.spacing))
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin((to_lps @ grid.affine[:3, 3]).tolist())
    return image


def resample_to_grid(source: Path, target: Path, output: Path, is_label: bool) -> int:
    """Resample a 3D volume onto the grid of the file ``target``, save it, and count the non-zero voxels written.

    Geometry goes from nibabel to ITK as numbers instead of through ITK's own reader: that one refuses the slightly
    sheared affines that registration tools write, and may prefer the qform where nibabel and MONAI take the sform.

    A label's file has uint8 where that suffices, and nearest neighbours; an image's has float32, interpolated linearly.
    Outside the source both are 0.

    Raises:
        ValueError: when a volume is not 3D or an affine cannot be inverted.
        UserError: for values that are no image or no label, and when the output cannot be written.
    """
    image, grid = open_image(source), grid_of(open_image(target))
    data = read_label(source) if is_label else read_image(source)
    if data.ndim != 3:
        raise ValueError(f"{source} has {data.ndim} dimensions, not 3")
    if not (grid.usable and grid_of(image).usable):
        raise ValueError(f"{source} or {target} has an affine that cannot be inverted")
    moving = _itk_image(data, grid_of(image))
    kind = itk.NearestNeighborInterpolateImageFunction if is_label else itk.LinearInterpolateImageFunction
    result = itk.resample_image_filter(
        moving,
        interpolator=kind[type(moving), itk.D].New(),
        use_reference_image=True,
        reference_image=_itk_image(np.empty(grid.shape, np.float32, order="F"), grid),
        default_pixel_value=0,
    )
    array = itk.array_view_from_image(result).T
    if is_label and np.array_equal(array, array.astype(np.uint8)):
        array = array.astype(np.uint8)
    save_nifti(output, array, grid.affine)
    return int(np.count_nonzero(array))
