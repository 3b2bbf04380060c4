"""From an image as it was loaded to the grid nnU-Net's network sees, and from its output back."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from scipy.ndimage import binary_fill_holes, find_objects

from nnunet_scripts.normalization import normalize
from nnunet_scripts.resampling import resample, resample_labels, resampled_shape


class NetworkGridd(MapTransform, InvertibleTransform):
    """nnU-Net's preprocessing: order the axes, crop to the non-zero box, normalise, resample.

    nnU-Net counts a volume's axes z, y, x and then permutes them by the plan's ``transpose_forward``. What comes out of
    here has the network's axes, so that patch size, spacing, kernels and weights are those of the plan. The inverse
    resamples a prediction, puts it back into the uncropped volume (0 outside: background) and orders its axes.

    Args:
        keys: the image, and labels on the same grid.
        spacing: the plan's, in the order of the network's axes.
        transpose_forward: the plan's.
        normalization: one scheme per channel, see :func:`nnunet_scripts.normalization.normalize`.
        resampling: ``order`` and ``force_separate_z`` for ``data``, ``seg`` and ``probabilities``.
        image_key: which key is the image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float],
        transpose_forward: Sequence[int],
        normalization: list[Mapping[str, Any]],
        resampling: Mapping[str, Mapping[str, Any]],
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing, self.image_key = tuple(spacing), image_key
        self.transpose = tuple(transpose_forward)
        # which of the image's axes x, y, z is each axis of the network
        self.axes = tuple(2 - axis for axis in transpose_forward)
        self.normalization, self.resampling = normalization, resampling

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = self._network_axes(d[self.image_key])
        spacing = tuple(voxel_size(d[self.image_key])[axis] for axis in self.axes)
        nonzero = (image != 0).any(0)
        if any(scheme["use_mask"] for scheme in self.normalization):
            nonzero = binary_fill_holes(nonzero)
        box = bounding_box(nonzero)
        cropped = tuple(slice(*sides) for sides in box)
        shape = resampled_shape([end - start for start, end in box], spacing, self.spacing)
        for key in self.key_iterator(d):
            volume = self._network_axes(d[key])[(slice(None), *cropped)]
            if key == self.image_key:
                volume = normalize(volume, nonzero[cropped], self.normalization)
                volume = resample(volume, shape, spacing, self.spacing, **self.resampling["data"])
            else:
                volume = resample_labels(volume, shape, spacing, self.spacing, **self.resampling["seg"])
            d[key] = self._tracked(volume, d[key], box, spacing, nonzero.shape)
        return d

    def _network_axes(self, image: torch.Tensor) -> np.ndarray:
        """(C, X, Y, Z) with the network's axes; in memory z, y, x, on which the last bit of a mean depends."""
        stored = np.ascontiguousarray(np.asarray(image, np.float32).transpose(0, 3, 2, 1))
        return stored.transpose(0, *(axis + 1 for axis in self.transpose))

    def _tracked(
        self,
        volume: np.ndarray,
        image: torch.Tensor,
        box: list[tuple[int, int]],
        spacing: tuple[float, ...],
        uncropped: tuple[int, ...],
    ) -> torch.Tensor:
        """The volume as a tensor that knows where it lies and how to get back."""
        tensor = torch.from_numpy(np.ascontiguousarray(volume))
        if not isinstance(image, MetaTensor):
            return tensor
        scale = [(end - start) / new for (start, end), new in zip(box, volume.shape[1:], strict=True)]
        steps = np.zeros((4, 4))
        steps[3, 3] = 1
        for number, (axis, (start, _)) in enumerate(zip(self.axes, box, strict=True)):
            steps[axis, number], steps[axis, 3] = scale[number], start + scale[number] / 2 - 0.5
        affine = np.asarray(image.affine, float)
        tracked = MetaTensor(tensor, meta=image.meta, applied_operations=image.applied_operations)
        tracked.affine = torch.from_numpy(affine @ steps)
        info = {"affine": affine.tolist(), "box": box, "spacing": spacing, "uncropped": uncropped}
        self.push_transform(tracked, orig_size=tuple(image.shape[1:]), extra_info=info)
        return tracked

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            prediction: MetaTensor = d[key]
            info = self.pop_transform(prediction)[TraceKeys.EXTRA_INFO]
            volume = prediction.as_tensor().cpu().numpy()
            shape, box = [end - start for start, end in info["box"]], tuple(slice(*sides) for sides in info["box"])
            volume = resample(volume, shape, self.spacing, info["spacing"], **self.resampling["probabilities"])
            full = np.zeros((len(volume), *info["uncropped"]), np.float32)
            full[(slice(None), *box)] = volume
            full = full.transpose(0, *(1 + self.axes.index(axis) for axis in range(3)))
            meta, operations = prediction.meta, prediction.applied_operations
            d[key] = MetaTensor(torch.from_numpy(np.ascontiguousarray(full)), meta=meta, applied_operations=operations)
            d[key].affine = torch.tensor(info["affine"], dtype=torch.float64)
        return d


def voxel_size(image: torch.Tensor) -> np.ndarray:
    """Side lengths (x, y, z) in mm.

    nnU-Net's readers take what the header of a NIfTI file says, in float32. It is the length of the affine's columns up
    to rounding, on which the rounded shape may depend; where the two contradict each other, the affine is right.
    """
    sides = np.linalg.norm(np.asarray(image.affine, float)[:3, :3], axis=0)
    header = np.asarray(image.meta.get("pixdim", ()), float).ravel()[1:4]
    return header if header.shape == sides.shape and np.allclose(header, sides, rtol=1e-4) else sides


def bounding_box(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and end per axis of what is True; the whole volume if nothing is."""
    found = find_objects(mask.astype(np.uint8))
    return [(side.start, side.stop) for side in found[0]] if found else [(0, size) for size in mask.shape]
