import re

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.errors import UserError
from dcd_ext.tensors import plain_tensor, unwrap
from tests.conftest import ToyNet

PATHS = ["encoder.stages.0", "encoder.stages.1"]
X = torch.rand(1, 1, 8, 8, 8)


def has_hooks(network):
    return any(m._forward_hooks for m in network.modules())


def test_features_come_in_order_and_once():
    network = ToyNet(channels=2)
    with FeatureHooks(network, PATHS[::-1]) as hooks:
        network(X)
    assert not has_hooks(network)
    network(X)
    assert [tuple(f.shape) for f in hooks.pop()] == [(1, 4, 4, 4, 4), (1, 2, 8, 8, 8)]
    with pytest.raises(UserError, match=r"hook did not fire once per step – encoder.stages.1 of ToyNet – expected 1"):
        hooks.pop()


def test_two_forward_passes_are_an_error_and_a_new_block_begins_anew():
    network = ToyNet()
    hooks = FeatureHooks(network, PATHS)
    with hooks:
        network(X), network(X)
    with pytest.raises(UserError, match=r"expected 1 output, found 2 – name a module in 'taps' that forward"):
        hooks.pop()
    with hooks:
        network(X)
    with hooks:
        network(2 * X)
    assert torch.equal(hooks.pop()[0], network.encoder.stages[0](2 * X))


def test_unknown_path_names_the_nearest():
    expected = "no such module – ToyNet – expected a module path such as 'encoder.stages.1'"
    with pytest.raises(UserError, match=re.escape(expected)):
        FeatureHooks(ToyNet(), ["encoder.stages.7"])


def test_stop_after_last_skips_what_lies_behind():
    network, output = ToyNet(), None
    with FeatureHooks(network, PATHS, stop_after_last=True) as hooks:
        output = network(X)
    assert output is None and network.head_calls == 0 and len(hooks.pop()) == 2 and not has_hooks(network)


def test_replacing_what_the_network_goes_on_with():
    network = ToyNet()
    seen = []

    def double(i, feature):
        seen.append(i)
        return 2 * feature

    with FeatureHooks(network, PATHS, replace=double) as hooks:
        output = network(X)
    first = network.encoder.stages[0](X)
    torch.testing.assert_close(output, network.head(2 * first))
    collected = hooks.pop()
    assert seen == [0, 1] and torch.equal(collected[0], first)
    torch.testing.assert_close(collected[1], network.encoder.stages[1](2 * first))


def test_an_error_inside_leaves_no_hook_and_goes_on():
    network = ToyNet()
    with pytest.raises(RuntimeError, match="out of memory"), FeatureHooks(network, PATHS):
        raise RuntimeError("out of memory")
    assert not has_hooks(network)


def test_meta_tensors_are_stripped():
    network = ToyNet()
    with FeatureHooks(network, PATHS) as hooks:
        network(MetaTensor(X))
    assert all(type(f) is torch.Tensor for f in hooks.pop())
    assert type(plain_tensor(X)) is torch.Tensor


def test_wrappers_are_looked_through():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    network = ToyNet()
    assert unwrap(Wrapper(Wrapper(network))) is network
    with FeatureHooks(Wrapper(network), PATHS) as hooks:
        network(X)
    assert len(hooks.pop()) == 2
