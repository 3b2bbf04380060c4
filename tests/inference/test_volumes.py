"""What is no plain image is refused by the reader; images and labels that nearly fit are put in one place."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from dcd_ext.errors import UserError
from dcd_ext.inference.volumes import SamePlaced, VolumeReader

KINDS = {"complex": np.complex64, "colours": [("R", "u1"), ("G", "u1"), ("B", "u1")]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_voxels_that_are_no_real_numbers(kind, num_classes, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), KINDS[kind]), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=r"no plain numbers – .*a\.nii\.gz – expected one real number per voxel"):
        VolumeReader(num_classes).get_data([str(tmp_path / "a.nii.gz")])


def test_a_small_difference_of_spacing_is_named_by_what_it_does_at_the_far_end(tmp_path):
    for name, spacing in (("a", 1.0), ("b", 1.01)):
        image = nib.Nifti1Image(np.zeros((4, 5, 100), np.uint8), np.diag([1, 1, spacing, 1]))
        nib.save(image, tmp_path / f"{name}.nii")
    with pytest.raises(UserError, match=r"on different grids \(spacing\) – .* expected 1×1×1 mm, found 1×1×1\.01 mm"):
        VolumeReader().get_data([str(tmp_path / "a.nii"), str(tmp_path / "b.nii")])


def test_a_label_that_lies_within_the_tolerance_is_put_where_its_image_lies():
    affine = np.diag([2.0, 2, 3, 1])
    moved = affine + np.array([[0, 0, 0, 0.05], [0] * 4, [0] * 4, [0] * 4])
    case = {
        key: MetaTensor(torch.zeros(1, 4, 5, 6), affine=place, meta={"filename_or_obj": key})
        for key, place in (("image", affine), ("label", moved))
    }
    placed = SamePlaced()(case)
    for item in (placed["image"], placed["label"]):
        np.testing.assert_array_equal(item.affine, affine)
