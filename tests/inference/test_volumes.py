"""What is no plain image is refused by the reader."""

import nibabel as nib
import numpy as np
import pytest

from dcd_ext.errors import UserError
from dcd_ext.inference.volumes import VolumeReader

KINDS = {"complex": np.complex64, "colours": [("R", "u1"), ("G", "u1"), ("B", "u1")]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_voxels_that_are_no_real_numbers(kind, num_classes, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), KINDS[kind]), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=r"no plain numbers – .*a\.nii\.gz – expected one real number per voxel"):
        VolumeReader(num_classes).get_data([str(tmp_path / "a.nii.gz")])
