import re
from copy import deepcopy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from monai.bundle import ConfigParser
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.networks import autocast_on_cpu, count_parameters, deep_supervision_weights, prepare_for_training
from tests.conftest import BUNDLES, ROLES, TASKS, read_json

# design contract, to the last unit: (r=1, r=4)
PARAMETERS = {
    "brats24": (101_945_177, 6_380_777),
    "isles22": (102_351_498, 6_405_546),
    "hippocampus": (6_478_169, 412_921),
}


def small_network(deep_supervision: bool = True) -> torch.nn.Module:
    return ResidualEncoderUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 8],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        n_blocks_per_stage=1,
        num_classes=2,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("file", ["train", "inference"])
def test_shipped_networks_have_the_contracts_parameters(task, role, file):
    config = read_json(BUNDLES / f"{task}_segmentation_{role}" / "configs" / f"{file}.json")
    with torch.device("meta"):
        network = ConfigParser(config).get_parsed_content("network_def")
    assert count_parameters(network) == PARAMETERS[task][0 if role == "teacher" else 1]


def test_deep_supervision_follows_the_mode_and_survives_copies():
    network = prepare_for_training(small_network())
    x = torch.rand(1, 1, 16, 16, 16)
    for model in (network, deepcopy(network)):
        outputs = model.train()(x)
        assert [tuple(o.shape[2:]) for o in outputs] == [(16, 16, 16), (8, 8, 8)]
        assert model.eval()(x).shape == (1, 2, 16, 16, 16)


def test_without_deep_supervision_one_tensor_comes_out():
    network = prepare_for_training(small_network(deep_supervision=False))
    assert isinstance(network.train()(torch.rand(1, 1, 8, 8, 8)), torch.Tensor)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = prepare_for_training(small_network(), seed=5).state_dict()
    torch.rand(7)
    state = torch.get_rng_state()
    network = small_network()
    after_build = torch.get_rng_state()
    second = prepare_for_training(network, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), after_build) and not torch.equal(state, after_build)
    other = prepare_for_training(small_network(), seed=6).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_nnunet_initialisation_zeroes_the_last_norm_of_each_residual_block():
    network = prepare_for_training(small_network())
    block = network.encoder.stages[0].blocks[0]
    assert torch.all(block.conv2.norm.weight == 0) and torch.all(block.conv1.norm.weight == 1)


@pytest.mark.parametrize(
    ("heads", "expected"), [(1, [1]), (2, [1, 0]), (3, [2 / 3, 1 / 3, 0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])]
)
def test_deep_supervision_weights(heads, expected):
    assert deep_supervision_weights(heads) == pytest.approx(expected)


def test_no_heads_is_an_error():
    with pytest.raises(UserError, match=re.escape("no output to supervise")):
        deep_supervision_weights(0)


@pytest.mark.parametrize(("depth", "dtype"), [(2, torch.float32), (4, torch.bfloat16)])
def test_gradients_in_bfloat16_are_those_of_float32(depth, dtype):
    """Also where oneDNN computes those of weights from memory that nobody has written: what was freed is in it."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Conv3d(8, 8, 3, padding=1) for _ in range(2))).to(memory_format=torch.channels_last_3d)
    network, seen = autocast_on_cpu(deepcopy(layers)), []
    network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    image = torch.randn(2, 8, depth, 4, 4)
    layers(image).sum().backward()
    for _ in range(20):
        freed = [torch.full((size,), 1e28) for size in (1728, 5000, 20000)]
        del freed
        network.zero_grad()
        network(image).sum().backward()
        for found, expected in zip(network.parameters(), layers.parameters(), strict=True):
            torch.testing.assert_close(
                found.grad, expected.grad, rtol=0.05, atol=0.05 * float(expected.grad.abs().max())
            )
    assert set(seen) == {dtype} and not torch.is_autocast_enabled("cpu")
