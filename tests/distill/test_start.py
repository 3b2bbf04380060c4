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


class Layers(nn.Module):
    """Any layers of width ``w`` and any way through them."""

    def __init__(self, forward, w: int, **layers) -> None:
        super().__init__()
        self.way = forward
        for name, build in {"a": lambda w: nn.Conv3d(1, w, 1), "h": lambda w: nn.Conv3d(w, 2, 1), **layers}.items():
            setattr(self, name, build(w))

    def forward(self, x):
        return self.way(self, x)


def test_running_statistics_and_a_norm_of_the_image():
    build = {"first": lambda w: nn.InstanceNorm3d(1, affine=True), "n": lambda w: nn.BatchNorm3d(w)}
    teacher, student = (Layers(lambda s, x: s.h(s.n(s.a(s.first(x)))), 4, **build).eval() for _ in range(2))
    nn.init.constant_(teacher.first.weight, 3)
    teacher.n.running_mean.uniform_(1, 2)
    image = torch.rand(1, 1, 4, 4, 4)
    assert torch.equal(start_from_teacher(student, teacher)(image), teacher(image))


@pytest.mark.parametrize("way", [lambda s, x: s.h(s.a(x) * s.g(x).sigmoid()), lambda s, x: s.h(s.a(x).add(s.g(x)))])
def test_channels_that_meet_go_together(way):
    torch.manual_seed(0)
    teacher, student = (Layers(way, w, g=lambda w: nn.Conv3d(1, w, 1)) for w in (8, 4))
    start_from_teacher(student, teacher)
    kept = [next(i for i in range(8) if torch.equal(row, teacher.a.weight[i])) for row in student.a.weight]
    assert torch.equal(student.g.weight, teacher.g.weight[kept])


def test_a_layer_that_is_called_twice():
    way = lambda s, x: s.h(torch.cat([s.a(x), s.a(-x)], 1))  # noqa: E731
    teacher, student = (Layers(way, w, h=lambda w: nn.Conv3d(2 * w, 2, 1)) for w in (8, 4))
    start_from_teacher(student, teacher)
    kept = [next(i for i in range(8) if torch.equal(row, teacher.a.weight[i])) for row in student.a.weight]
    assert torch.equal(student.h.weight, teacher.h.weight[:, kept + [8 + i for i in kept]])


def test_concatenated_channels_are_chosen_by_the_layers_that_make_them():
    layers = {"b": lambda w: nn.Conv3d(1, w, 1), "c": lambda w: nn.Conv3d(1, 2 * w, 1)}
    way = lambda s, x: s.h(torch.cat([s.a(x), s.b(x)], 1) + s.c(x))  # noqa: E731
    teacher, student = (Layers(way, w, h=lambda w: nn.Conv3d(2 * w, 2, 1), **layers) for w in (8, 4))
    with torch.no_grad():
        teacher.h.weight[:, :8] *= 3
    start_from_teacher(student, teacher)  # in every order of Python's sets


@pytest.mark.parametrize(
    ("way", "layers", "said"),
    [
        (lambda s, x: s.h(s.a(x).flip(1)), {}, "flip()"),
        (lambda s, x: s.h(s.a(x) * s.g), {"g": lambda w: nn.Parameter(torch.ones(w, 1, 1, 1))}, "g, a parameter"),
        (lambda s, x: s.h(s.b(s.a(x))), {"b": lambda w: nn.Conv3d(w, w, 1, groups=2)}, "b, a convolution with groups"),
        (lambda s, x: s.h(x), {"h": lambda w: nn.Conv1d(1, w, 1)}, "h, a Conv1d"),
        (lambda s, x: s.h(s.a(x)), {"a": lambda w: nn.utils.parametrizations.weight_norm(nn.Conv3d(1, w, 1))}, "own"),
        (lambda s, x: s.h(s.a(x)), {"h": lambda w: nn.Conv3d(w, w // 2, 1)}, "output channels"),
    ],
    ids=["order", "parameter", "groups", "another layer", "weight norm", "fewer classes"],
)
def test_a_teacher_that_cannot_be_followed(way, layers, said):
    with pytest.raises(UserError) as error:
        start_from_teacher(Layers(way, 4, **layers), Layers(way, 8, **layers))
    assert said in str(error.value) and "\n" not in str(error.value)


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
