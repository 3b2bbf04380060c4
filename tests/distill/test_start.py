"""A student that starts from the strongest channels of its teacher."""

from __future__ import annotations

import pytest
import torch
from monai.networks import nets
from torch import nn

from dcd_ext.distill import load_teacher, start_from_teacher
from dcd_ext.errors import UserError


class Net(nn.Module):
    """Everything whose channels are followed: norms, a residual, a concatenation, a transposed convolution."""

    def __init__(self, a: int, b: int, mid: int, classes: int = 2) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(1, a, 3, padding=1), nn.InstanceNorm3d(a, affine=True)
        self.inner, self.outer = nn.Conv3d(a, mid, 3, padding=1), nn.Conv3d(mid, a, 1)
        self.down = nn.Conv3d(a, b, 2, stride=2)
        self.up, self.head = nn.ConvTranspose3d(b, mid, 2, stride=2), nn.Conv3d(mid + a, classes, 1)

    def forward(self, x):
        skip = torch.relu(self.norm(self.stem(x)))
        skip = self.outer(torch.relu(self.inner(skip))) + skip
        return self.head(torch.cat([self.up(self.down(skip)), skip], dim=1))


@torch.no_grad()
def silence(net: Net, a: list[int], b: list[int], mid: list[int], up: list[int]) -> None:
    """Set to zero all weights that read these channels, and shrink those that make them."""
    made = [(net.stem, a), (net.outer, a), (net.down, b), (net.inner, mid)]
    for layer, channels in made:
        layer.weight[channels] *= 0.01
    net.up.weight[:, up] *= 0.01
    net.up.weight[b] = 0
    for layer, channels in ((net.inner, a), (net.down, a), (net.outer, mid)):
        layer.weight[:, channels] = 0
    net.head.weight[:, up + [net.up.out_channels + i for i in a]] = 0


def test_channels_that_nothing_reads_are_those_left_out():
    torch.manual_seed(0)
    teacher, student, image = Net(6, 8, 4), Net(4, 3, 2), torch.rand(2, 1, 6, 6, 6)
    silence(teacher, a=[0, 3], b=[1, 2, 4, 6, 7], mid=[1, 2], up=[0, 1])
    assert start_from_teacher(student, teacher) is student
    torch.testing.assert_close(student(image), teacher(image))
    assert torch.equal(student.stem.weight, teacher.stem.weight[[1, 2, 4, 5]])


def test_the_teacher_of_a_bundle(tmp_path):
    torch.manual_seed(0)
    network = Net(6, 8, 4)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    teacher = load_teacher(lambda: Net(6, 8, 4), str(tmp_path / "model.pt"), "cpu")
    student = start_from_teacher(Net(6, 8, 4), teacher)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in student.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())


def test_every_layer_of_a_bundles_network():
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    def unet(features: list[int]) -> nn.Module:
        width = {"input_channels": 2, "n_stages": 3, "features_per_stage": features, "conv_op": nn.Conv3d}
        form = {"kernel_sizes": 3, "strides": [1, 2, 2], "n_blocks_per_stage": 2, "num_classes": 3}
        kinds = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
        return ResidualEncoderUNet(**width, **form, **kinds, n_conv_per_stage_decoder=1, deep_supervision=True)

    teacher = unet([8, 16, 16])
    teacher.decoder.deep_supervision = False
    for p in teacher.parameters():
        nn.init.normal_(p)
    for features in ([8, 16, 16], [4, 8, 8], [5, 5, 5]):
        student = unet(features)
        before = {name: value.clone() for name, value in student.state_dict().items()}
        start_from_teacher(student, teacher)
        assert not [name for name, value in student.state_dict().items() if torch.equal(value, before[name])]
    assert student(torch.rand(1, 2, 8, 8, 8))[0].shape == (1, 3, 8, 8, 8)
    assert teacher.decoder.deep_supervision is False


WIDE = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2] * 2, "norm_name": "instance"}


@pytest.mark.parametrize(
    "build",
    [
        lambda w: nets.UNet(3, 1, 3, channels=(2 * w, 4 * w, 8 * w), strides=(2, 2), num_res_units=2),
        lambda w: nets.SegResNet(init_filters=8 * w, in_channels=1, out_channels=3),
        lambda w: nets.DynUNet(3, 1, 3, filters=[4 * w, 8 * w, 8 * w], res_block=True, **WIDE),
        lambda w: nets.AttentionUnet(3, 1, 3, channels=(4 * w, 8 * w, 16 * w), strides=(2, 2)),
    ],
    ids=["UNet", "SegResNet", "DynUNet", "AttentionUnet"],
)
def test_networks_of_monai(build):
    teacher, same, narrow, image = build(2).eval(), build(2).eval(), build(1).eval(), torch.rand(1, 1, 16, 16, 16)
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    start_from_teacher(same, teacher)
    assert torch.equal(same(image), teacher(image))
    start_from_teacher(narrow, teacher)
    after = {name: value for name, value in narrow.state_dict().items() if value.ndim > 1}
    assert not [name for name, value in after.items() if torch.equal(value, before[name])]
    assert narrow(image).isfinite().all()


class Reshaped(Net):
    def forward(self, x):
        return self.head(self.stem(x).reshape(x.shape[0], -1) if x.sum() > 0 else x)


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (Net(7, 8, 4), Net(6, 8, 4), "(7, 1, 3, 3, 3), found (6, 1, 3, 3, 3)"),
        (Net(6, 8, 4, classes=3), Net(6, 8, 4), "head.weight"),
        (nn.Conv3d(1, 1, 1), Net(6, 8, 4), "common layers, found none"),
        (Net(6, 8, 4), Reshaped(6, 8, 4), "Reshaped"),
    ],
    ids=["wider", "other classes", "another network", "cannot be followed"],
)
def test_refused(student, teacher, said):
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(UserError) as error:
        start_from_teacher(student, teacher)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
