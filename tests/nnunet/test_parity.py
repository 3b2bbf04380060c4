"""The code inside imported bundles against values that nnU-Net computed (tests/integration/nnunet/reference.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from tests.nnunet import conftest  # noqa: F401  (the bundles' code is found from here on)

pytest.importorskip("nnunet_scripts")
from nnunet_scripts import Ensemble, LabelLoss, LabelMapd, NetworkGridd, WindowInferer
from nnunet_scripts.inferer import blending_weights, window_starts
from nnunet_scripts.resampling import resample, resample_labels, resampled_shape

REFERENCE = np.load(Path(__file__).with_name("reference.npz"))
ABOUT = json.loads(str(REFERENCE["about"]))
ORDERS = {"data": {"order": 3}, "seg": {"order": 1}, "probabilities": {"order": 1}}


@pytest.mark.parametrize(("size", "patch", "starts"), ABOUT["windows"])
def test_windows_start_where_nnu_net_starts_them(size, patch, starts):
    assert window_starts(size, patch) == starts


@pytest.mark.parametrize("number", range(len(ABOUT["patches"])))
def test_blending_weights_are_nnu_net_s_to_the_last_bit(number):
    found = blending_weights(tuple(ABOUT["patches"][number]))
    np.testing.assert_array_equal(found.numpy(), REFERENCE[f"gaussian_{number}"])


@pytest.mark.parametrize("number", range(len(ABOUT["resampling"])))
def test_resampling_is_nnu_net_s_to_the_last_bit(number):
    old, new, order, kind = ABOUT["resampling"][number]
    expected = REFERENCE[f"resampled_{number}"]
    data = REFERENCE["source"].astype(kind)
    shape = resampled_shape(data.shape[1:], old, new)
    assert shape == expected.shape[1:]
    found = resample(data, shape, old, new, order)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def case_image(spacing_zyx, offset: float = 0.0) -> MetaTensor:
    """The reference image as MONAI's loader gives it: axes x, y, z."""
    affine = torch.diag(torch.tensor([*spacing_zyx[::-1], 1.0], dtype=torch.float64))
    affine[:3, 3] = offset
    return MetaTensor(torch.from_numpy(REFERENCE["image"].transpose(0, 3, 2, 1).copy()), affine=affine)


def make_grid(number: int, **options) -> NetworkGridd:
    schemes, masks, transpose, _, spacing = ABOUT["preprocessing"][number]
    values = ABOUT["intensities"]
    limits = {"lower": values["percentile_00_5"], "upper": values["percentile_99_5"]}
    normalization = [
        {"scheme": scheme, "use_mask": mask, "mean": values["mean"], "std": values["std"], **limits}
        for scheme, mask in zip(schemes, masks, strict=True)
    ]
    return NetworkGridd(options.get("keys", "image"), spacing, transpose, normalization, ORDERS)


@pytest.mark.parametrize("number", range(len(ABOUT["preprocessing"])))
def test_preprocessing_is_nnu_net_s(number):
    found = make_grid(number)({"image": case_image(ABOUT["preprocessing"][number][3])})["image"]
    expected = REFERENCE[f"preprocessed_{number}"]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("number", range(len(ABOUT["preprocessing"])))
def test_a_prediction_returns_to_where_its_voxels_came_from(number):
    """Bright voxels of a label keep their world coordinates on the network's grid and on the way back."""
    original = case_image(ABOUT["preprocessing"][number][3], offset=7.0)
    grid = make_grid(number)
    found = grid({"image": original})["image"]
    # coordinates of the network's voxels, by their affine, as channels
    index = torch.stack(torch.meshgrid(*map(torch.arange, found.shape[1:]), indexing="ij")).double()
    world = torch.einsum("ij,jxyz->ixyz", found.affine[:3, :3], index) + found.affine[:3, 3, None, None, None]
    prediction = MetaTensor(world.float(), meta=found.meta, applied_operations=found.applied_operations)
    back = grid.inverse({"image": prediction})["image"]
    assert back.shape[1:] == original.shape[1:] and torch.equal(back.affine, original.affine)
    index = torch.stack(torch.meshgrid(*map(torch.arange, back.shape[1:]), indexing="ij")).double()
    expected = torch.einsum("ij,jxyz->ixyz", original.affine[:3, :3], index) + 7
    inside = (original.as_tensor() != 0).all(0)
    away = (back.as_tensor() - expected).abs()[:, inside].amax(1)
    # resampling across thick slices takes the nearest one
    assert (away <= 0.51 * torch.tensor(ABOUT["preprocessing"][number][4]).max() + 0.01).all(), away
    assert (back.as_tensor()[:, :, :, :2] == 0).all()  # the border was cropped


def test_labels_keep_their_values_when_resampled():
    labels = np.zeros((1, 6, 9, 9), "float32")
    labels[:, :, 2:5, 2:7], labels[:, :, 5:7, 2:7] = 3, 1
    found = resample_labels(labels, (9, 14, 13), (3.0, 1.0, 1.0), (2.0, 0.65, 0.7), order=1)
    assert set(np.unique(found)) == {0, 1, 3}
    np.testing.assert_allclose((found == 3).mean(), (labels == 3).mean(), rtol=0.12)


class Position(nn.Module):
    """Answers with its input, so that blending must give the image back, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[torch.Size] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(x.shape)
        return torch.cat([x, -x], 1)


def test_windows_are_of_the_patch_and_blend_to_the_whole_image():
    # whole numbers: at a patch's corners the weights are the smallest that float16 has
    image = torch.randint(1, 9, (1, 1, 11, 4, 9), generator=torch.Generator().manual_seed(0)).float()
    network = Position()
    found = WindowInferer([6, 6, 6], sw_batch_size=1)(image, network)
    assert network.calls == [(1, 1, 6, 6, 6)] * 6 and found.dtype == torch.half
    torch.testing.assert_close(found.float(), torch.cat([image, -image], 1), atol=0.02, rtol=0)


def test_members_of_an_ensemble_predict_one_after_the_other():
    options = {"input_channels": 1, "n_stages": 2, "features_per_stage": [4, 4], "conv_op": nn.Conv3d}
    options |= {"kernel_sizes": 3, "strides": [1, 2], "n_conv_per_stage": 1, "num_classes": 2}
    options |= {"n_conv_per_stage_decoder": 1, "deep_supervision": False}
    network = Ensemble(3, "dynamic_network_architectures.architectures.unet.PlainConvUNet", **options).eval()
    image = torch.randn(1, 1, 8, 10, 8, generator=torch.Generator().manual_seed(1))
    inferer = WindowInferer([8, 8, 8])
    with torch.no_grad():
        alone = [inferer(image, member) for member in network.members]
        expected = (alone[0] + alone[1] + alone[2]) / 3
        assert torch.equal(inferer(image, network), expected)
        patch = image[..., :8, :]
        mean = torch.stack([member(patch).softmax(1) for member in network.members]).mean(0)
        torch.testing.assert_close(network(patch).softmax(1), mean)


def test_regions_paint_in_their_order():
    logits = torch.tensor([[2.0, 2.0, -1.0, 0.0], [-1.0, 1.0, 3.0, 0.0]]).reshape(2, 4, 1, 1)
    found = LabelMapd("pred", region_values=[2, 1])({"pred": logits})["pred"]
    assert found.flatten().tolist() == [2, 1, 1, 0]
    assert LabelMapd("pred")({"pred": logits})["pred"].flatten().tolist() == [0, 0, 1, 0]


def test_voxels_without_a_known_label_are_not_scored():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 3.0, 3.0]]).reshape(2, 4, 1, 1)
    label = torch.tensor([1.0, 1.0, 2.0, 0.0]).reshape(1, 4, 1, 1)
    found = LabelMapd("pred", ignore=2)({"pred": logits, "label": label})
    assert found["pred"].flatten().tolist() == [1, 0, 0, 1] and found["label"].flatten().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("regions", [None, [[1, 2], [2]]])
def test_voxels_without_a_known_label_change_neither_loss_nor_gradient(regions):
    from monai.losses import DiceCELoss

    overlapping = regions is not None
    options = {"include_background": overlapping, "softmax": not overlapping, "sigmoid": overlapping}
    loss = LabelLoss(DiceCELoss(to_onehot_y=not overlapping, **options), regions, ignore=3)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 2 if overlapping else 3, 4, 4, 4, generator=generator, requires_grad=True)
    label = torch.randint(0, 4, (1, 1, 4, 4, 4), generator=generator).float()
    value = loss(logits, label)
    value.backward()
    unknown = (label == 3).expand_as(logits)
    assert (logits.grad[unknown] == 0).all() and (logits.grad[~unknown] != 0).all()
    other = torch.where(unknown, torch.randn(logits.shape, generator=generator), logits.detach())
    assert torch.equal(loss(other, label), value)
    if overlapping:  # all known: the loss on masks made by hand
        known = label.clamp(max=2)
        masks = torch.cat([(known >= 1), (known == 2)], 1).float()
        torch.testing.assert_close(loss(logits, known), DiceCELoss(sigmoid=True)(logits, masks))
