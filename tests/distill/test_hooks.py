import re

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from dcd_ext.distill.hooks import FeatureTaps, StopForward
from dcd_ext.errors import UserError
from dcd_ext.tensors import plain_tensor, unwrap
from tests.conftest import ToyNet

PATHS = ["encoder.stages.0", "encoder.stages.1"]
X = torch.rand(1, 1, 8, 8, 8)


def enabled(*args, **kwargs) -> FeatureTaps:
    taps = FeatureTaps(*args, **kwargs)
    taps.enabled = True
    return taps


def test_features_come_in_order_and_once():
    network = ToyNet(channels=2)
    taps = enabled(network, PATHS[::-1])
    network(X)
    assert [tuple(f.shape) for f in taps.pop()] == [(1, 4, 4, 4, 4), (1, 2, 8, 8, 8)]
    with pytest.raises(UserError, match=r"tap did not fire once per step – encoder.stages.1 of ToyNet – expected 1"):
        taps.pop()


def test_two_forwards_before_pop_are_an_error():
    network = ToyNet()
    taps = enabled(network, PATHS)
    network(X), network(X)
    with pytest.raises(UserError, match=r"expected 1 output, found 2 – tap a module that forward"):
        taps.pop()


def test_disabled_taps_keep_nothing():
    network = ToyNet()
    taps = FeatureTaps(network, PATHS)
    network(X)
    assert not taps._features


def test_unknown_path_names_the_nearest():
    expected = "tap not found – ToyNet – expected a module path such as 'encoder.stages.1'"
    with pytest.raises(UserError, match=re.escape(expected)):
        FeatureTaps(ToyNet(), ["encoder.stages.7"])


def test_stop_after_last_skips_what_lies_behind():
    network = ToyNet()
    enabled(network, PATHS, stop_after_last=True)
    with pytest.raises(StopForward):
        network(X)
    assert network.head_calls == 0


def test_meta_tensors_are_stripped():
    network = ToyNet()
    taps = enabled(network, PATHS)
    network(MetaTensor(X))
    assert all(type(f) is torch.Tensor for f in taps.pop())
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
    taps = enabled(Wrapper(network), PATHS)
    network(X)
    assert len(taps.pop()) == 2


def test_remove_leaves_no_hook():
    network = ToyNet()
    taps = enabled(network, PATHS)
    taps.remove()
    network(X)
    assert not any(m._forward_hooks for m in network.modules()) and not taps._features
