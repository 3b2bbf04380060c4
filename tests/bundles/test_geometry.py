"""Inference keeps the geometry: a mask lies on the input's grid, and a marked voxel stays at its millimetre.

The shipped ``inference.json`` runs as it is, from loading to saving; only the network is replaced by a 1×1×1
convolution that marks what is bright, so that the right answer is known.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.conftest import BUNDLES, make_workflow, read_json

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")

SHAPE, MARK = (44, 38, 26), (31, 11, 8)
THRESHOLD = 2.5  # standard deviations above the mean: what the stand-in network marks
TILT = Rotation.from_euler("xyz", (12, -8, 15), degrees=True).as_matrix()
AXES = {
    "RAS": np.eye(3),
    "left-handed": np.diag([-1.0, 1, 1]),
    "oblique, anisotropic": TILT @ np.diag([0.8, 0.8, 3]),
    "oblique, anisotropic, left-handed": TILT @ np.diag([-0.7, 0.9, 2.5]),
    "oblique, anisotropic, left-handed, axes swapped": TILT @ np.array([[0, 0, -2.5], [0.9, 0, 0], [0, 0.8, 0]]),
}


def _write(folder: Path, axes: np.ndarray, channels: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Images with a bright ball around the marked voxel and zeros near the border; also the affine and the voxels."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (-37.5, 12.25, 90)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    distance = np.linalg.norm(apply_affine(affine, grid) - apply_affine(affine, MARK), axis=-1)
    image = (500 * np.exp(-((distance / 5) ** 2)) + 10).astype(np.float32)
    for axis in range(3):  # something to crop, another width on every side
        np.moveaxis(image, axis, 0)[: axis + 1] = 0
        np.moveaxis(image, axis, 0)[-2 * axis - 2 :] = 0
    files = []
    for channel in range(channels):
        files.append(str(folder / f"image_{channel}.nii.gz"))
        nib.save(nib.Nifti1Image(image * (1 + channel), affine), files[-1])
    return files, nib.load(files[0]).affine, image


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("task", ["hippocampus", "isles22"])
def test_mask_has_the_inputs_affine_and_the_mark_its_millimetre(task: str, name: str, tmp_path: Path) -> None:
    config = read_json(BUNDLES / f"{task}_segmentation_student" / "configs" / "inference.json")
    channels = config["in_channels"]
    files, affine, image = _write(tmp_path, AXES[name], channels)
    network = torch.nn.Conv3d(channels, 2, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[1, 0] = 1
        network.bias.copy_(torch.tensor([THRESHOLD, 0.0]))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    definition = {"_target_": "torch.nn.Conv3d", "in_channels": channels, "out_channels": 2, "kernel_size": 1}
    workflow = make_workflow(
        f"{task}_segmentation_student",
        "inference",
        kind="infer",
        dataset_dir=str(tmp_path),
        datalist=[files if channels > 1 else files[0]],
        output_dir=str(tmp_path / "out"),
        ckpt_path=str(tmp_path / "model.pt"),
        network_def=definition,
        patch_size=[32, 32, 32],
    )
    workflow.run()
    (path,) = (tmp_path / "out").rglob("*_seg.nii.gz")
    seg = nib.load(path)
    assert seg.shape == SHAPE
    np.testing.assert_allclose(seg.affine, affine, atol=1e-4)
    np.testing.assert_allclose(seg.get_qform(), affine, atol=1e-4)
    mask = np.asarray(seg.dataobj) == 1
    inside = image > (0 if task == "isles22" else -1)
    truth = inside & (image > image[inside].mean() + THRESHOLD * image[inside].std())
    assert mask[MARK] and 2 * (mask & truth).sum() > 0.85 * (mask.sum() + truth.sum())
    found = apply_affine(seg.affine, ndimage.center_of_mass(mask))
    assert np.linalg.norm(found - apply_affine(affine, MARK)) < 0.5
