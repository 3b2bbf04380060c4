"""Read volumes for training and inference, and write label maps, where MONAI's readers and writers fall short."""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelReader, NibabelWriter
from monai.transforms import LoadImage, Transform
from monai.utils import ensure_tuple

from dcd_inference.errors import UserError
from dcd_inference.geometry import Grid, grid_of, require_same_grid
from dcd_inference.values import finite, stored, whole_labels

_NIBABEL = (".nii", ".nii.gz", ".img", ".hdr", ".mgz", ".mgh")


class VolumeReader(NibabelReader):
    """MONAI's reader by nibabel, with rules for values and places; other formats are opened by MONAI's other readers.

    MONAI's own overwrites an sform by an uncoded qform, stacks channels only if their affines are equal to the last
    bit, and passes NaN and infinity on. Here the affine is nibabel's, the channels of a case may lie 0.1 mm apart, NaN
    is read as 0 and infinity refused; labels are rounded.

    Args:
        num_classes: read labels, 0 to ``num_classes - 1``; None for images.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.filenames = ("",)  # as many as there are volumes for get_data

    def verify_suffix(self, filename: Any) -> bool:
        """Every file is this reader's."""
        return True

    def read(self, data: Any, **_: Any) -> Any:
        """Names only: MONAI hides what goes wrong here behind a list of its readers."""
        return [os.fspath(name) for name in ensure_tuple(data)]

    def get_data(self, img: Sequence[str]) -> tuple[np.ndarray, dict]:
        """Array and metadata of a file, or of several that become channels."""
        scans = [_open(name) for name in img]
        for name, scan in zip(img[1:], scans[1:], strict=True):
            _require_one_place([grid_of(scans[0]), grid_of(scan)], [img[0], name])
        volumes = [nib.Nifti1Image(self._clean(s, n), s.affine) for s, n in zip(scans, img, strict=True)]
        if len(volumes) == 1:
            return super().get_data(volumes[0])
        return super().get_data(nib.concat_images(map(nib.squeeze_image, volumes), check_affines=False))

    def _clean(self, scan: Any, name: str) -> np.ndarray:
        data = stored(scan, name)
        if data.dtype.kind not in "biuf":
            raise UserError("no plain numbers", name, "one real number per voxel", data.dtype, "convert the file")
        if self.num_classes is None:
            return finite(data.astype(np.float32), name)
        return whole_labels(data, name, self.num_classes).astype(np.float32)


def _open(name: str) -> Any:
    if name.lower().endswith(_NIBABEL):
        return nib.load(name)
    image: Any = LoadImage()(name)
    return nib.Nifti1Image(image.numpy(), image.affine.numpy())


def _require_one_place(grids: Sequence[Grid], files: Sequence[str]) -> None:
    where, step = f"{files[1]} against {files[0]}", "resample it onto that grid"
    require_same_grid(grids[0], grids[1], "files of a case lie on different grids", where, step)


class SamePlaced(Transform):
    """Refuse a case whose label lies on another grid than its image; otherwise give it the image's affine.

    Differences below the tolerance would otherwise make the two differ by a voxel after resampling.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case, with ``image`` and ``label`` channels first."""
        both = [data[key] for key in ("image", "label")]
        files = [item.meta["filename_or_obj"] for item in both]
        _require_one_place([Grid(tuple(item.shape[1:]), item.affine.numpy()) for item in both], files)
        both[1].affine = both[0].affine
        return dict(data)


class VolumeWriter(NibabelWriter):
    """MONAI's writer of NIfTI, with the shape of the input's file: MONAI drops axes of length 1."""

    def set_data_array(self, data_array: Any, **_: Any) -> None:  # type: ignore[override]
        """Take a label map (1, X, Y, Z) whose metadata are those of the input's file."""
        rank, *sides = (int(n) for n in data_array.meta.get("dim", [0]))
        shape = sides[:rank]
        self.data_obj = data_array.reshape(shape if np.prod(shape) == data_array.numel() else data_array.shape[1:])
